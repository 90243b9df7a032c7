//! `gpucnn run`

use super::shared;
use gpucnn::formats::onnx::{self, Element, File, Tensor};
use gpucnn::formats::{atomic, npy};
use gpucnn::infer::run_onnx;
use gpucnn::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Run an ONNX file on arrays.
#[derive(clap::Args)]
pub struct Args {
    /// An ONNX file
    model: PathBuf,
    /// The input: a .npy array, or a .npz archive whose arrays are called as the model's inputs
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the outputs go: a .npz archive, or for a single output a .npy array
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// auto, cpu (the reference path, slow) or part of an adapter's name
    #[arg(long, value_name = "auto|cpu|NAME", default_value = "auto")]
    device: String,
}

pub fn run(args: &Args) -> Result<()> {
    let file = onnx::load(&args.model)?;
    let inputs = read(&file, &args.input)?;
    let single = has_extension(&args.output, "npy");
    if single && file.outputs.len() != 1 {
        return Err(Error::Usage(format!(
            "{}: the model has {} outputs, which want a .npz archive",
            args.output.display(),
            file.outputs.len()
        )));
    }
    let declared = file.inputs.iter().chain(&file.outputs);
    for double in declared.filter(|d| d.double) {
        eprintln!(
            "note: {} is float64 in the model; it is computed in float32",
            double.name
        );
    }
    let mut backend = shared::open_device(&args.device)?;
    eprintln!("device: {}", backend.describe());
    let outputs = run_onnx(&file, inputs, &mut *backend)?;
    for (name, tensor) in &outputs {
        println!("{name}: {:?}{:?}", tensor.element, tensor.dims);
    }
    write(&outputs, &args.output, single)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

/// The inputs by name.
fn read(file: &File, path: &Path) -> Result<HashMap<String, Tensor>> {
    let arrays = if has_extension(path, "npz") {
        npy::load_npz(path)?
    } else {
        let [input] = file.inputs.as_slice() else {
            return Err(Error::Usage(format!(
                "{}: the model has {} inputs, which want a .npz archive",
                path.display(),
                file.inputs.len()
            )));
        };
        BTreeMap::from([(input.name.clone(), npy::load(path)?)])
    };
    let tensor = |(name, array): (String, npy::Array)| {
        let declared = file.inputs.iter().find(|i| i.name == name);
        let wanted = declared.map(|i| i.element);
        let tensor = as_tensor(&array, wanted);
        let tensor =
            tensor.map_err(|e| Error::Usage(format!("{}: {name}: {e}", path.display())))?;
        Ok((name, tensor))
    };
    arrays.into_iter().map(tensor).collect()
}

/// An array as a tensor: integers, which NumPy's reader does not tell apart, as the type
/// that is wanted.
fn as_tensor(array: &npy::Array, wanted: Option<Element>) -> Result<Tensor, String> {
    let dims = array.shape().to_vec();
    let integer = wanted
        .filter(|e| *e != Element::F32)
        .unwrap_or(match array.elements() {
            npy::Elements::U8(_) => Element::U8,
            _ => Element::I64,
        });
    let integers = |data: &mut dyn Iterator<Item = i64>| {
        let data: Vec<i64> = data.collect();
        match data.iter().find(|x| integer.wrap(**x) != **x) {
            Some(other) => Err(format!(
                "{other} is no {integer:?}, which the model expects"
            )),
            None => Ok(Tensor::integers(dims.clone(), integer, data)),
        }
    };
    Ok(match array.elements() {
        npy::Elements::F32(_) | npy::Elements::F64(_) => Tensor::floats(dims, array.to_f32()),
        npy::Elements::Int(data) => integers(&mut data.iter().copied())?,
        npy::Elements::U8(data) => integers(&mut data.iter().map(|x| i64::from(*x)))?,
        npy::Elements::Bool(data) => {
            let data = data.iter().map(|x| i64::from(*x));
            Tensor::integers(dims, Element::Bool, data.collect())
        }
    })
}

fn write(outputs: &[(String, Tensor)], path: &Path, single: bool) -> Result<()> {
    let mut bytes = Cursor::new(Vec::new());
    let fail = |e| Error::io(path, "write", e);
    if let ([(_, tensor)], true) = (outputs, single) {
        let (descr, elements) = tensor.to_numpy();
        npy::write_as(&mut bytes, &tensor.dims, descr, &elements).map_err(fail)?;
    } else {
        let arrays = outputs.iter().map(|(name, tensor)| {
            let (descr, elements) = tensor.to_numpy();
            (name.clone(), (tensor.dims.clone(), descr, elements))
        });
        npy::write_npz(&mut bytes, &arrays.collect()).map_err(fail)?;
    }
    let bytes = bytes.into_inner();
    atomic::write(path, |writer| writer.write_all(&bytes))
}
