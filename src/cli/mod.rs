//! The command line: parses, calls the library, prints. No logic.

/// As the standard library's, but a reader that has gone away is no error: that of
/// `gpucnn summary vgg11-bn | head`, or a terminal that is closed while a training goes on.
macro_rules! println {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// The same for standard error.
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod bench;
mod compare;
mod data;
mod devices;
mod eval;
mod explain;
mod export;
mod import;
mod interrupt;
mod live;
mod output;
mod plan;
mod predict;
mod prune;
mod quantize;
mod recipe;
mod report;
mod run;
#[cfg(feature = "serve")]
mod serve;
mod shared;
mod summary;
mod train;
mod transfer;

use clap::{Parser, Subcommand};
use gpucnn::Result;
use std::process::ExitCode;

/// Train, evaluate and deploy convolutional networks on any GPU.
#[derive(Parser)]
#[command(
    name = "gpucnn",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(Box<train::Args>),
    Data(data::Args),
    Eval(eval::Args),
    Predict(predict::Args),
    Explain(explain::Args),
    Export(export::Args),
    Prune(prune::Args),
    Quantize(quantize::Args),
    Report(report::Args),
    Import(import::Args),
    Run(run::Args),
    Devices(devices::Args),
    Bench(bench::Args),
    Summary(summary::Args),
    Plan(plan::Args),
    #[cfg(feature = "serve")]
    Serve(serve::Args),
}

/// Runs the program; errors go to standard error, with exit code 2 where the user can
/// mend them.
pub fn run() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::new().filter("GPUCNN_LOG")).init();
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Train(args) => return train::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Summary(args) => summary::run(&args),
        Command::Plan(args) => plan::run(&args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args),
    }?;
    Ok(ExitCode::SUCCESS)
}
