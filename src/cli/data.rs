//! `gpucnn data`

use super::output;
use clap::Subcommand;
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use gpucnn::Result;
#[cfg(feature = "fetch")]
use gpucnn::data::fetch::Fetch;
use gpucnn::data::{Info, contact_sheet};
#[cfg(feature = "fetch")]
use serde_json::json;
use std::path::PathBuf;

/// Fetch data sets and look at them.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Info(InfoArgs),
    #[cfg(feature = "fetch")]
    Fetch(FetchArgs),
}

/// Show what a data set holds: images, classes, mean and deviation of the channels.
#[derive(clap::Args)]
struct InfoArgs {
    /// Data set: a name (mnist), a folder, or a .npz or .csv file
    data: String,
    /// Write a picture with a row of images for each class
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Keep at most N MiB of decoded image files in memory; where there are more, decode each
    /// file when it is needed [default: half of what the host has free]
    #[arg(long, value_name = "MIB")]
    host_budget: Option<u64>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Download a data set from its home, checked and unpacked: mnist, fashion-mnist, kmnist,
/// emnist, cifar10 or cifar100. A download that was cut goes on where it stopped.
#[cfg(feature = "fetch")]
#[derive(clap::Args)]
struct FetchArgs {
    /// The data set
    name: String,
    /// The folder that data sets go to [default: $GPUCNN_DATASETS, else datasets]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Another server that has the same files
    #[arg(long, value_name = "BASE")]
    url: Option<String>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Info(args) => info(args),
        #[cfg(feature = "fetch")]
        Command::Fetch(args) => fetch(args),
    }
}

fn info(args: &InfoArgs) -> Result<()> {
    let data = super::shared::load_stored(&args.data, args.host_budget)?;
    let info = Info::of(&data)?;
    if let Some(path) = &args.sheet {
        contact_sheet(&data, path)?;
        eprintln!("the sheet is in {}", path.display());
    }
    if args.json {
        output::json(&info);
    } else {
        print(&info);
    }
    Ok(())
}

fn print(info: &Info) {
    let [channels, rows, columns] = info.shape;
    println!(
        "{}: {} training and {} test images of {channels} x {rows} x {columns}, {} classes, {:.1} MiB",
        info.name,
        info.train,
        info.test,
        info.classes.len(),
        info.bytes as f64 / f64::from(1 << 20)
    );
    let list = |values: &[f64]| {
        let text: Vec<String> = values.iter().map(|v| format!("{v:.4}")).collect();
        text.join(", ")
    };
    println!("mean = [{}]", list(&info.mean));
    println!("std = [{}]", list(&info.std));
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header(["Class", "Training", "Test", ""]);
    let most = info
        .classes
        .iter()
        .map(|c| c.train)
        .max()
        .unwrap_or(0)
        .max(1);
    for class in &info.classes {
        let bar = "█".repeat((class.train * 30).div_ceil(most));
        let [train, test] = [class.train, class.test].map(|n| n.to_string());
        table.add_row([class.class.clone(), train, test, bar]);
    }
    for column in table.column_iter_mut().skip(1).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

#[cfg(feature = "fetch")]
fn fetch(args: &FetchArgs) -> Result<()> {
    let default = || std::env::var_os("GPUCNN_DATASETS").map_or("datasets".into(), PathBuf::from);
    let datasets = args.dir.clone().unwrap_or_else(default);
    if let Some(url) = args.url.as_deref()
        && !["http://", "https://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
    {
        let problem =
            format!("--url: expected an address that begins with https://, found {url:?}");
        return Err(gpucnn::Error::Usage(problem));
    }
    let bar = output::bytes_bar();
    let folder = Fetch {
        name: &args.name,
        datasets: &datasets,
        url: args.url.as_deref(),
        progress: &|name, have, total| {
            bar.set_prefix(name.to_owned());
            bar.set_length(total);
            bar.set_position(have);
        },
    }
    .run();
    bar.finish_and_clear();
    let folder = folder?;
    if args.json {
        output::json(&json!({"event": "fetch", "name": args.name, "folder": folder}));
    } else {
        println!("the data set is in {}", folder.display());
    }
    Ok(())
}
