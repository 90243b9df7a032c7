//! `gpucnn eval`

use super::output;
use super::shared::{self, Trained};
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use gpucnn::infer::{Batches, Evaluation, Predictor};
use gpucnn::train::RunFolder;
use gpucnn::{Error, Result};
use serde_json::json;
use std::path::PathBuf;

/// How many of the likeliest classes count for the second accuracy.
const TOP: usize = 5;

/// Images a step, where no number is given: at most.
const BATCH: usize = 256;

/// Evaluate a trained model: loss, accuracy and a table of the classes.
#[derive(clap::Args)]
pub struct Args {
    /// The run folder that `gpucnn train` made, or a .keras file
    run: PathBuf,
    /// Data set: a name (mnist) or a folder [default: the run's]
    #[arg(long, value_name = "NAME|DIR")]
    data: Option<String>,
    /// Images a step [default: as many as fit, at most 256]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Take at most this much of the device's memory, such as 4GiB or 500MB; a number alone is
    /// MiB [default: what is free, where the device tells]
    #[arg(long, value_name = "SIZE", value_parser = shared::mebibytes)]
    memory_budget: Option<u64>,
    /// Keep at most N MiB of decoded image files in the host's memory; where there are more,
    /// decode each file when it is needed [default: half of what is free]
    #[arg(long, value_name = "MIB")]
    host_budget: Option<u64>,
    /// Take the weights of the epoch whose validation was the best, not the last ones
    #[arg(long)]
    best: bool,
    /// Average the logits of each image and of its mirror image, left to right (test-time
    /// augmentation): twice the work, for models trained with flips
    #[arg(long)]
    flip: bool,
    /// auto, cpu (the reference path, slow) or part of an adapter's name
    #[arg(long, value_name = "auto|cpu|NAME", default_value = "auto")]
    device: String,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if args.batch_size == Some(0) {
        return Err(Error::Usage(
            "--batch-size must be at least 1, found 0".into(),
        ));
    }
    let Trained {
        model,
        weights,
        classes,
        data,
        int8,
    } = shared::load_trained(&args.run, args.best)?;
    let name = args.data.clone().or(data);
    let name = match name {
        // The reason why it names none.
        None if args.run.is_dir() => Some(RunFolder::open(&args.run)?.config()?.data),
        name => name,
    };
    let name = name.ok_or_else(|| {
        let run = args.run.display();
        Error::Usage(format!("{run} names no data set; give one with --data"))
    })?;
    let data = shared::load_data(&name, model.input(), args.host_budget)?;
    if data.shape != model.input() {
        return Err(Error::Usage(format!(
            "the model takes images of {:?}, the data set {name} has {:?}",
            model.input(),
            data.shape
        )));
    }
    let split = data.test.as_ref().unwrap_or(&data.train);
    if data.classes.len() > model.classes() {
        return Err(Error::Usage(format!(
            "the model has {} outputs, the data set {name} has {} classes",
            model.classes(),
            data.classes.len()
        )));
    }
    if data.test.is_none() {
        eprintln!("note: {name} has no test images; evaluating on its training images");
    }
    let batches = match args.batch_size {
        Some(images) => Batches::of(images.min(split.len())),
        None => Batches::up_to(BATCH.min(split.len())),
    };
    let batches = batches.within(args.memory_budget);
    let mut predictor = shared::predictor(&model, &weights, int8.as_ref(), batches, &args.device)?
        .mirrored(args.flip);
    eprintln!("device: {}", predictor.device());
    let bar = output::bar("evaluating");
    bar.set_length(split.len() as u64);
    let evaluation = predictor.evaluate(split, &|done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if args.json {
        print_json(&evaluation, &classes, &predictor, args.flip);
    } else {
        print_table(&evaluation, &classes);
    }
    Ok(())
}

fn print_table(evaluation: &Evaluation, classes: &[String]) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header([
        "Class",
        "Images",
        "Precision",
        "Recall",
        "F1",
        "Most taken for",
    ]);
    for (class, name) in classes.iter().enumerate() {
        let row = &evaluation.confusion[class];
        let [precision, recall, f1] = evaluation.class(class).map(percent);
        let images: usize = row.iter().sum();
        table.add_row([
            name.clone(),
            images.to_string(),
            precision,
            recall,
            f1,
            mistaken(row, class, classes),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    let mut more = String::new();
    if classes.len() > TOP {
        more += &format!(", top-{TOP} accuracy {:.2}%", 100.0 * evaluation.top_k(TOP));
    }
    if let Some(area) = evaluation.roc_auc() {
        more += &format!(", ROC-AUC of {} {area:.4}", classes[1]);
    }
    println!(
        "{} images: loss {:.4}, accuracy {:.2}%{more}",
        evaluation.samples(),
        evaluation.loss(),
        100.0 * evaluation.accuracy()
    );
}

/// The class most often predicted instead.
fn mistaken(row: &[usize], class: usize, classes: &[String]) -> String {
    let others = row
        .iter()
        .enumerate()
        .filter(|(c, n)| *c != class && **n > 0);
    let worst = others.max_by_key(|(c, n)| (**n, std::cmp::Reverse(*c)));
    worst.map_or_else(String::new, |(c, n)| format!("{} ({n})", classes[c]))
}

fn percent(fraction: f64) -> String {
    match fraction.is_nan() {
        true => "-".into(),
        false => format!("{:.2}%", 100.0 * fraction),
    }
}

fn print_json(evaluation: &Evaluation, classes: &[String], predictor: &Predictor, flip: bool) {
    let rows: Vec<_> = classes
        .iter()
        .enumerate()
        .map(|(class, name)| {
            let images: usize = evaluation.confusion[class].iter().sum();
            let [precision, recall, f1] = evaluation.class(class);
            json!({"class": name, "images": images, "precision": precision, "recall": recall, "f1": f1})
        })
        .collect();
    output::json(&json!({"event": "eval", "device": predictor.device(),
        "batch_size": predictor.batch(), "flip": flip, "images": evaluation.samples(),
        "loss": evaluation.loss(), "accuracy": evaluation.accuracy(),
        "top5_accuracy": evaluation.top_k(TOP), "roc_auc": evaluation.roc_auc(), "classes": rows,
        "confusion": evaluation.confusion}));
}
