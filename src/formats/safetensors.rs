//! Weights as safetensors files (<https://github.com/huggingface/safetensors>).

use super::atomic;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Writes tensors as f32, whole or not at all, with `metadata` in the header.
///
/// The same tensors and at most one entry of metadata give the same bytes: the order of
/// several is left to chance.
///
/// # Errors
/// If the file cannot be written.
pub fn save(path: &Path, tensors: &Tensors, metadata: &BTreeMap<String, String>) -> Result<()> {
    let views = tensors
        .iter()
        .map(|(name, tensor)| {
            let dims = tensor.shape().dims().to_vec();
            let view = TensorView::new(Dtype::F32, dims, bytemuck::cast_slice(tensor.data()));
            Ok((
                name.clone(),
                view.map_err(|e| Error::data(path, e.to_string()))?,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let metadata: HashMap<_, _> = metadata.clone().into_iter().collect();
    let bytes = serialize(views, Some(metadata)).map_err(|e| Error::data(path, e.to_string()))?;
    atomic::write(path, |writer| writer.write_all(&bytes))
}

/// What PyTorch calls the counters of its batch normalisation: integers that no result here
/// depends on.
const BATCH_COUNTER: &str = "num_batches_tracked";

/// Reads all tensors as f32, converting f64, f16 and bf16. PyTorch's counters of batches,
/// `num_batches_tracked`, are left out.
///
/// # Errors
/// If the file cannot be read, is no safetensors file, or holds another element type.
pub fn load(path: &Path) -> Result<Tensors> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| {
        let problem = format!("is no whole safetensors file: {e}");
        Error::data(path, problem)
    })?;
    file.tensors()
        .into_iter()
        .filter(|(name, _)| name.rsplit('.').next() != Some(BATCH_COUNTER))
        .map(|(name, view)| {
            let data = floats(&view).ok_or_else(|| {
                let problem = format!(
                    "tensor {name} has element type {:?}; expected F32, F64, F16 or BF16",
                    view.dtype()
                );
                Error::data(path, problem)
            })?;
            let tensor = Tensor::new(Shape::from(view.shape()), data)?;
            Ok((name, tensor))
        })
        .collect()
}

fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    Some(match view.dtype() {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        _ => return None,
    })
}

fn each<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|c| convert(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_survive_a_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights.safetensors");
        let tensor =
            Tensor::new([2, 3], vec![1.0, -2.0, 0.5, f32::MIN_POSITIVE, 0.0, 9.0]).unwrap();
        let tensors = Tensors::from([("a.weight".to_owned(), tensor)]);
        save(&path, &tensors, &BTreeMap::from([("k".into(), "v".into())])).unwrap();
        assert_eq!(load(&path).unwrap(), tensors);
    }

    #[test]
    fn a_truncated_file_is_an_error_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights.safetensors");
        let tensors = Tensors::from([("a".to_owned(), Tensor::zeros([64]))]);
        save(&path, &tensors, &BTreeMap::new()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 5, 40, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains("weights.safetensors"), "{error}");
        }
    }
}
