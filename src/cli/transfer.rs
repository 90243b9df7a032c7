//! The options of `gpucnn train` that start from what was trained before.

use super::output;
use gpucnn::Result;
use gpucnn::formats::safetensors;
use gpucnn::model::{Adopted, Model};
use gpucnn::train::Weights;
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(next_help_heading = "Transfer learning")]
pub struct Transfer {
    /// Start from these weights: a run's, or those of torchvision under its names
    #[arg(long, value_name = "FILE.safetensors")]
    init: Option<PathBuf>,
    /// Of --init take what fits by name and shape; without, all must
    #[arg(long, requires = "init")]
    partial: bool,
    /// Give the last layer N outputs; it starts anew
    #[arg(long, value_name = "N")]
    replace_head: Option<usize>,
    /// Leave the layers whose names fit as they are: 'layer1', 'features.*'; with ! not those:
    /// '*,!fc'. Their batch normalisation works as at inference. May be given often
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',')]
    freeze: Vec<String>,
}

impl Transfer {
    /// The model with its new head, whose name follows, and what is frozen.
    pub fn model(&self, mut model: Model) -> Result<(Model, Option<String>)> {
        let mut head = None;
        if let Some(classes) = self.replace_head {
            let (replaced, name) = model.with_classes(classes)?;
            (model, head) = (replaced, Some(name));
        }
        if !self.freeze.is_empty() {
            model = model.freeze(&self.freeze)?;
        }
        Ok((model, head))
    }

    /// The weights to start from, and the names of those that come from a file; `own` are those
    /// that the model's file has, with its name.
    pub fn weights(
        &self,
        model: &Model,
        own: Option<(String, Weights)>,
        head: Option<&str>,
        seed: u32,
        json: bool,
    ) -> Result<(Weights, Vec<String>)> {
        let (source, mut tensors) = match (&self.init, own) {
            (Some(path), _) => (
                path.to_string_lossy().into_owned(),
                safetensors::load(path)?,
            ),
            (None, Some(own)) => own,
            (None, None) => return Ok((model.initial_weights(seed), Vec::new())),
        };
        if let Some(head) = head {
            // A head that happens to have the same shape starts anew all the same.
            tensors.retain(|name, _| name.rsplit_once('.').is_none_or(|(layer, _)| layer != head));
        }
        let adopted = model.adopt(tensors, seed, &source)?;
        if !self.partial {
            adopted.check_whole(model, &source, head)?;
        }
        tell(&adopted, &source, json);
        Ok((adopted.weights, adopted.matched))
    }
}

/// Says what of a file was taken.
fn tell(adopted: &Adopted, source: &str, json: bool) {
    if json {
        output::json(
            &json!({"event": "init", "file": source, "matched": adopted.matched,
            "missing": adopted.missing, "misshapen": adopted.misshapen, "unused": adopted.unused}),
        );
    }
    let (found, all) = (
        adopted.matched.len(),
        adopted.matched.len() + adopted.missing.len() + adopted.misshapen.len(),
    );
    eprintln!("{found} of the model's {all} tensors come from {source}");
    for (what, names) in [
        ("these start anew", &adopted.missing),
        ("so do these, of another shape", &adopted.misshapen),
        ("of the file these are left", &adopted.unused),
    ] {
        const SHOWN: usize = 8;
        if !names.is_empty() {
            let more = match names.len().saturating_sub(SHOWN) {
                0 => String::new(),
                n => format!(", and {n} more"),
            };
            let shown = names[..names.len().min(SHOWN)].join(", ");
            eprintln!("{what}: {shown}{more}");
        }
    }
}
