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

/// Writes tensors as f16, rounded to nearest, whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn save_f16(path: &Path, tensors: &Tensors) -> Result<()> {
    let halves = |t: &Tensor| each_to(t.data(), |x| f16::from_f32(x).to_le_bytes());
    let stored = tensors.iter().map(|(name, tensor)| {
        let dims = tensor.shape().dims().to_vec();
        (name.clone(), Dtype::F16, dims, halves(tensor))
    });
    write(path, stored.collect())
}

/// The steps of a layer in eight bits: a number `q` of the layer's input stands for
/// `input · q`, one of filter `o` of its weight for `weights[o] · q`.
#[derive(Clone, Debug, PartialEq)]
pub struct Int8Scales {
    /// Of the input.
    pub input: f32,
    /// Of each filter.
    pub weights: Vec<f32>,
}

/// What follows a layer's name for its steps.
const WEIGHT_SCALE: &str = ".weight_scale";
const INPUT_SCALE: &str = ".input_scale";

/// Writes tensors, the weights of these layers as signed bytes with their steps beside them
/// (`conv1.weight`, `conv1.weight_scale`, `conv1.input_scale`), all else as f32.
///
/// # Errors
/// If the file cannot be written.
pub fn save_int8(
    path: &Path,
    tensors: &Tensors,
    scales: &BTreeMap<String, Int8Scales>,
) -> Result<()> {
    let mut stored = Vec::new();
    for (name, tensor) in tensors {
        let dims = tensor.shape().dims().to_vec();
        let layer = name.strip_suffix(".weight");
        let Some((layer, steps)) = layer.and_then(|l| scales.get_key_value(l)) else {
            let bytes = each_to(tensor.data(), f32::to_le_bytes);
            stored.push((name.clone(), Dtype::F32, dims, bytes));
            continue;
        };
        let row = tensor.data().len() / steps.weights.len().max(1);
        let rows = tensor.data().chunks_exact(row.max(1)).zip(&steps.weights);
        let quantized = |w: f32, step: f32| (w / step).round_ties_even().clamp(-127.0, 127.0);
        let bytes =
            rows.flat_map(|(row, step)| row.iter().map(|w| quantized(*w, *step) as i8 as u8));
        stored.push((name.clone(), Dtype::I8, dims, bytes.collect()));
        let weights = each_to(&steps.weights, f32::to_le_bytes);
        let count = vec![steps.weights.len()];
        stored.push((format!("{layer}{WEIGHT_SCALE}"), Dtype::F32, count, weights));
        let input = steps.input.to_le_bytes().to_vec();
        stored.push((format!("{layer}{INPUT_SCALE}"), Dtype::F32, vec![1], input));
    }
    write(path, stored)
}

fn each_to<const N: usize>(data: &[f32], convert: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
    data.iter().flat_map(|x| convert(*x)).collect()
}

fn write(path: &Path, stored: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>) -> Result<()> {
    let fail = |e: safetensors::SafeTensorError| Error::data(path, e.to_string());
    let views = stored.iter().map(|(name, dtype, dims, bytes)| {
        let view = TensorView::new(*dtype, dims.clone(), bytes).map_err(fail)?;
        Ok((name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    let bytes = serialize(views, None).map_err(fail)?;
    atomic::write(path, |writer| writer.write_all(&bytes))
}

/// The steps of the layers whose weights a file holds as signed bytes; none of other files.
///
/// # Errors
/// If the file cannot be read or steps are missing or make no sense.
pub fn load_int8(path: &Path) -> Result<BTreeMap<String, Int8Scales>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    let file = parse(path, &bytes)?;
    let mut found = BTreeMap::new();
    for (name, view) in file.tensors() {
        let Some(layer) = name.strip_suffix(".weight") else {
            continue;
        };
        if view.dtype() == Dtype::I8 {
            let input = steps(path, &file, &format!("{layer}{INPUT_SCALE}"), 1)?[0];
            let filters = view.shape().first().copied().unwrap_or(0);
            let weights = steps(path, &file, &format!("{layer}{WEIGHT_SCALE}"), filters)?;
            found.insert(layer.to_owned(), Int8Scales { input, weights });
        }
    }
    Ok(found)
}

/// `count` positive numbers of this name.
fn steps(path: &Path, file: &SafeTensors<'_>, name: &str, count: usize) -> Result<Vec<f32>> {
    let view = file.tensor(name).ok();
    let found = view.and_then(|v| floats(&v)).unwrap_or_default();
    let fine = found.len() == count && found.iter().all(|s| s.is_finite() && *s > 0.0);
    if !fine || count == 0 {
        let problem = format!("{name}: expected {count} positive numbers, found {found:?}");
        return Err(Error::data(path, problem));
    }
    Ok(found)
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).map_err(|e| {
        let problem = format!("is no whole safetensors file: {e}");
        Error::data(path, problem)
    })
}

/// Whether a tensor holds the steps of another one, in signed bytes.
fn is_steps(file: &SafeTensors<'_>, name: &str) -> bool {
    let layer = [WEIGHT_SCALE, INPUT_SCALE]
        .into_iter()
        .find_map(|s| name.strip_suffix(s));
    let weight = layer.and_then(|layer| file.tensor(&format!("{layer}.weight")).ok());
    weight.is_some_and(|w| w.dtype() == Dtype::I8)
}

/// A tensor in signed bytes as the floats they stand for.
fn dequantized(
    path: &Path,
    file: &SafeTensors<'_>,
    name: &str,
    view: &TensorView<'_>,
) -> Result<Vec<f32>> {
    let filters = view.shape().first().copied().unwrap_or(0);
    let steps = steps(path, file, &format!("{name}_scale"), filters)?;
    let row = (view.data().len() / filters).max(1);
    let rows = view.data().chunks_exact(row).zip(steps);
    Ok(rows
        .flat_map(|(row, step)| row.iter().map(move |b| f32::from(*b as i8) * step))
        .collect())
}

/// Reads all tensors as f32, converting f64, f16, bf16 and what [`save_int8`] wrote. PyTorch's
/// counters of batches, `num_batches_tracked`, are left out.
///
/// # Errors
/// If the file cannot be read, is no safetensors file, or holds another element type.
pub fn load(path: &Path) -> Result<Tensors> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    let file = parse(path, &bytes)?;
    file.tensors()
        .into_iter()
        .filter(|(name, _)| name.rsplit('.').next() != Some(BATCH_COUNTER))
        .filter(|(name, _)| !is_steps(&file, name))
        .map(|(name, view)| {
            if view.dtype() == Dtype::I8 {
                let data = dequantized(path, &file, &name, &view)?;
                return Ok((name, Tensor::new(Shape::from(view.shape()), data)?));
            }
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
    fn bytes_and_halves_read_as_what_they_stand_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights.safetensors");
        let weight = Tensor::new([2, 2], vec![1.27, -0.004, 0.5, -1.0]).unwrap();
        let bias = Tensor::new([2], vec![0.1, 3.0]).unwrap();
        let tensors = Tensors::from([("a.weight".into(), weight), ("a.bias".into(), bias)]);
        let scales = Int8Scales {
            input: 0.5,
            weights: vec![0.01, 0.25],
        };
        let scales = BTreeMap::from([("a".to_owned(), scales)]);
        save_int8(&path, &tensors, &scales).unwrap();
        assert_eq!(load_int8(&path).unwrap(), scales);
        let found = load(&path).unwrap();
        assert_eq!(found["a.bias"], tensors["a.bias"]);
        assert_eq!(found["a.weight"].data(), [127.0 * 0.01, 0.0, 0.5, -1.0]);
        assert_eq!(found.len(), 2);
        save_f16(&path, &tensors).unwrap();
        assert_eq!(load_int8(&path).unwrap(), BTreeMap::new());
        let found = load(&path).unwrap();
        for (name, tensor) in &tensors {
            for (f, e) in found[name].data().iter().zip(tensor.data()) {
                // Eleven bits of mantissa.
                assert!((f - e).abs() <= e.abs() / 2048.0, "{f} {e}");
            }
        }
    }

    #[test]
    fn steps_that_are_missing_or_wrong_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights.safetensors");
        let one = 1.0_f32.to_le_bytes().to_vec();
        let weight = ("a.weight".to_owned(), Dtype::I8, vec![2, 2], vec![1; 4]);
        let scale = ("a.weight_scale".to_owned(), Dtype::F32, vec![1], one);
        for stored in [vec![weight.clone()], vec![weight, scale]] {
            write(&path, stored).unwrap();
            for error in [load(&path).unwrap_err(), load_int8(&path).unwrap_err()] {
                let error = error.to_string();
                assert!(error.contains("_scale: expected"), "{error}");
            }
        }
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
