//! Keras models: the text of `model.to_json()`, and `.keras` archives (a zip of `config.json`
//! and `model.weights.h5`), of Keras 2 and 3; and weights files that Keras loads.
//!
//! Keras's images are [N, H, W, C]; kernels [kH, kW, in, out]; the features behind a Flatten
//! are in the order H, W, C. All is converted at this border.

mod config;
mod export;
mod fields;
mod functions;
mod layers;
mod place;
mod stored;
mod training;
mod weights;

pub use export::arrays;

use super::hdf5;
use super::safetensors::Tensors;
use crate::error::{Error, Result};
use crate::model::Model;
use serde_json::Value;
use std::io::{Cursor, Read, Seek};
use std::path::Path;

/// A model that Keras made.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The model.
    pub model: Model,
    /// Its weights, where the file has them.
    pub weights: Option<Tensors>,
    /// What was changed on the way: a softmax that was dropped and the like.
    pub notes: Vec<String>,
}

/// Whether a path is a Keras file by its name: `.keras` or `.json`.
pub fn is_keras(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    matches!(extension.as_deref(), Some("keras" | "json"))
}

/// No model's configuration is larger.
const MAX_CONFIG: u64 = 1 << 26;

/// Reads a Keras model.
///
/// # Errors
/// If the file is damaged, or the model has layers that gpucnn lacks: all of them are listed
/// at once.
pub fn load(path: &Path) -> Result<Imported> {
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, "read", e))?;
    let size = file
        .metadata()
        .map_err(|e| Error::io(path, "read", e))?
        .len();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let archive = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("keras"));
    let mut file = std::io::BufReader::new(file);
    let read = if archive {
        from_archive(file, size, &name)
    } else {
        let mut text = String::new();
        let read = (&mut file).take(MAX_CONFIG).read_to_string(&mut text);
        read.map_err(|e| Error::io(path, "read", e))?;
        from_json(&text, &name)
    };
    read.map_err(|problem| Error::data(path, problem))
}

/// The model of a `model.to_json()` text.
///
/// # Errors
/// The problem in words.
pub fn from_json(text: &str, name: &str) -> Result<Imported, String> {
    import(text, name, None)
}

/// The model of a `.keras` archive of `size` bytes.
///
/// # Errors
/// The problem in words.
pub fn from_archive(reader: impl Read + Seek, size: u64, name: &str) -> Result<Imported, String> {
    let mut archive =
        zip::ZipArchive::new(reader).map_err(|e| format!("is no whole .keras archive: {e}"))?;
    let mut member = |name: &str, most: u64| {
        let member = archive
            .by_name(name)
            .map_err(|e| format!("has no readable {name}: {e}"))?;
        let mut bytes = Vec::new();
        member
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(|e| format!("{name} cannot be unpacked: {e}"))?;
        Ok::<_, String>(bytes)
    };
    let config = member("config.json", MAX_CONFIG)?;
    let text = String::from_utf8(config).map_err(|_| "config.json is no UTF-8")?;
    // Deflate packs no better than 1032 to 1.
    let most = size.saturating_mul(1032);
    let weights = member("model.weights.h5", most)?;
    let arrays = hdf5::read(&weights).map_err(|p| format!("model.weights.h5: {p}"))?;
    import(&text, name, Some(&arrays))
}

fn import(text: &str, name: &str, arrays: Option<&hdf5::Arrays>) -> Result<Imported, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|e| format!("is no Keras configuration: {e}"))?;
    let network = config::Network::parse(&value)?;
    let stored = arrays.map(|arrays| stored::Stored::new(arrays, &network));
    let built = layers::build(&network, name, stored.as_ref())?;
    let weights = match &stored {
        Some(stored) => Some(weights::convert(&built, stored)?),
        None => None,
    };
    Ok(Imported {
        model: built.model,
        weights,
        notes: built.notes,
    })
}

/// Unpacks an archive from bytes.
///
/// # Errors
/// The problem in words.
pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Imported, String> {
    from_archive(Cursor::new(bytes), bytes.len() as u64, name)
}
