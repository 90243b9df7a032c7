//! `gpucnn report`

use super::{output, shared};
use gpucnn::infer::{Batches, Predictor};
use gpucnn::report::{Comparison, RunReport};
use gpucnn::train::{self, RunFolder};
use gpucnn::{Error, Result};
use std::path::{Path, PathBuf};

/// Write a run's page anew, or several runs on one page.
///
/// Training keeps a page, report.html, in the run folder. This writes it anew, with the
/// confusion matrix and the worst mistakes of the last weights. Of several runs it makes one
/// page that lays their curves over one another and lists the settings that differ.
#[derive(clap::Args)]
pub struct Args {
    /// Run folders that `gpucnn train` made
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page [default: report.html in the run folder; of several runs, in the working directory]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Of one run: take the weights of the epoch whose validation was the best, not the last ones
    #[arg(long)]
    best: bool,
    /// Of one run: auto, cpu (the reference path, slow) or part of an adapter's name
    #[arg(long, value_name = "auto|cpu|NAME", default_value = "auto")]
    device: String,
}

/// Images a step, at most.
const BATCH: usize = 256;

pub fn run(args: &Args) -> Result<()> {
    let path = match args.runs.as_slice() {
        [run] => {
            let path = args.out.clone().unwrap_or_else(|| run.join("report.html"));
            one(args, run, &path)?;
            path
        }
        _ if args.best => {
            let problem = "--best is for one run; of several, only the histories are compared";
            return Err(Error::Usage(problem.into()));
        }
        runs => {
            let path = args.out.clone().unwrap_or_else(|| "report.html".into());
            let folders = runs.iter().map(|run| RunFolder::reopen(run));
            Comparison::open(&folders.collect::<Result<Vec<_>>>()?)?.write(&path)?;
            path
        }
    };
    println!("{}", path.display());
    Ok(())
}

/// The page of one run.
fn one(args: &Args, run: &Path, path: &Path) -> Result<()> {
    let folder = RunFolder::open(run)?;
    let (model, config) = (folder.model()?, folder.config()?);
    let mut report = RunReport::open(&folder)?;
    let weights = shared::weights(&folder, &model, args.best)?;
    report.set_weights(&weights);
    let data = shared::load_data(&config.data, model.input(), None)?;
    if let Some(images) = train::validation_images(&data, &config)? {
        let backend = shared::open_device(&args.device)?;
        eprintln!("device: {}", backend.describe());
        let batches = Batches::up_to(BATCH.min(images.len()));
        let mut predictor = Predictor::with_batches(&model, &weights, None, batches, backend)?;
        let bar = output::bar("examining");
        bar.set_length(images.len() as u64);
        let examined = predictor.examine(&images, &|done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        report.examine(&examined, args.best)?;
    }
    report.write(path)
}
