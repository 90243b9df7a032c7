//! NumPy's archives as Keras's data sets have them: `x_train`, `y_train`, `x_test`, `y_test`;
//! or MedMNIST's `train_images`, `train_labels`, `test_images`, `test_labels`.

use super::{Dataset, Split};
use crate::error::{Error, Result};
use crate::formats::npy::{self, Array, Arrays, Elements};
use std::path::{Path, PathBuf};

/// Names of the images and labels of a half, each in turn.
const TRAIN: [[&str; 2]; 2] = [["x_train", "y_train"], ["train_images", "train_labels"]];
const TEST: [[&str; 2]; 3] = [
    ["x_test", "y_test"],
    ["test_images", "test_labels"],
    ["val_images", "val_labels"],
];

/// More classes than this are taken for a mistake in the labels.
const MAX_CLASSES: i64 = 1 << 20;

/// The archive of a folder; `None` if it has none.
pub(super) fn find(dir: &Path) -> Result<Option<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(|e| Error::io(dir, "list", e))?;
    let paths = entries.filter_map(|e| Some(e.ok()?.path()));
    let mut archives: Vec<PathBuf> = paths
        .filter(|p| p.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")) && p.is_file())
        .collect();
    archives.sort();
    match archives.as_slice() {
        [] => Ok(None),
        [_] => Ok(archives.pop()),
        [first, ..] => Err(Error::data(
            dir,
            format!(
                "holds {} .npz archives; name one, as in --data {}",
                archives.len(),
                first.display()
            ),
        )),
    }
}

pub(super) fn load(path: &Path, shape: Option<[usize; 3]>) -> Result<Dataset> {
    let fail = |problem: String| Error::data(path, problem);
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, "read", e))?;
    let names = TRAIN.iter().chain(&TEST).flatten();
    let names: Vec<&str> = names.copied().collect();
    let wanted = |name: &str| names.contains(&name);
    let mut arrays = npy::parse_npz(std::io::BufReader::new(file), wanted).map_err(fail)?;
    let mut notes = Vec::new();
    let (train, own) = half(&mut arrays, &TRAIN, shape, &mut notes)
        .map_err(fail)?
        .ok_or_else(|| {
            fail("has no x_train and y_train (nor train_images and train_labels)".into())
        })?;
    let test = half(&mut arrays, &TEST, Some(own), &mut notes).map_err(fail)?;
    if let Some((_, other)) = &test
        && *other != own
    {
        let problem = format!("its training images are {own:?}, its test images {other:?}");
        return Err(fail(problem));
    }
    let test = test.map(|(split, _)| split);
    let labels = train
        .labels
        .iter()
        .chain(test.iter().flat_map(|t| &t.labels));
    let classes = labels.max().map_or(0, |l| *l + 1);
    notes.dedup();
    Ok(Dataset {
        name: String::new(),
        shape: own,
        classes: (0..classes).map(|c| c.to_string()).collect(),
        train,
        test,
        notes,
    })
}

/// The image of a `.npy` file as planar bytes of `shape`: [H, W], [H, W, C] or [C, H, W], or a
/// batch of one such.
pub(super) fn image(path: &Path, shape: [usize; 3]) -> Result<Vec<u8>> {
    let fail = |problem: String| Error::data(path, problem);
    let array = npy::load(path)?;
    let dims = match *array.shape() {
        [1, h, w] if shape != [1, h, w] => vec![1, h, w],
        [a, b, c] => vec![1, a, b, c],
        [h, w] => vec![1, h, w],
        ref dims => dims.to_vec(),
    };
    let layout = Layout::of(&dims, Some(shape)).map_err(fail)?;
    if dims[0] != 1 || layout.shape != shape {
        let [c, h, w] = shape;
        return Err(fail(format!(
            "has shape {:?}; the model takes one image of {c} x {h} x {w}",
            array.shape()
        )));
    }
    let (bytes, _) = bytes(array.into_elements()).map_err(fail)?;
    Ok(layout.planar(bytes))
}

/// The images and labels under the first pair of names that is there.
fn half(
    arrays: &mut Arrays,
    names: &[[&str; 2]],
    wanted: Option<[usize; 3]>,
    notes: &mut Vec<String>,
) -> Result<Option<(Split, [usize; 3])>, String> {
    let Some([x, y]) = names.iter().find(|pair| arrays.contains_key(pair[0])) else {
        return Ok(None);
    };
    let images = arrays.remove(*x).ok_or_else(|| format!("has no {x}"))?;
    let labels = arrays
        .remove(*y)
        .ok_or_else(|| format!("has {x} but no {y}"))?;
    let layout = Layout::of(images.shape(), wanted).map_err(|p| format!("{x}: {p}"))?;
    let count = images.shape()[0];
    let labels = classes(&labels, count).map_err(|p| format!("{y}: {p}"))?;
    let (bytes, note) = bytes(images.into_elements()).map_err(|p| format!("{x}: {p}"))?;
    notes.extend(note.map(|n| format!("the images are {n}")));
    let images = layout.planar(bytes);
    Ok(Some((Split::new(images, labels), layout.shape)))
}

/// How the images lie.
struct Layout {
    /// [C, H, W].
    shape: [usize; 3],
    /// Whether the channels come last.
    channels_last: bool,
}

impl Layout {
    fn of(dims: &[usize], wanted: Option<[usize; 3]>) -> Result<Self, String> {
        let (shape, channels_last) = match *dims {
            [_, h, w] => ([1, h, w], false),
            [_, a, b, c] => {
                let [first, last] = [[a, b, c], [c, a, b]];
                let usual = |channels: usize| channels == 1 || channels == 3;
                // Keras's order unless the model, or the number of channels, says otherwise.
                if wanted == Some(last) || (wanted != Some(first) && usual(c)) {
                    (last, true)
                } else if wanted == Some(first) || usual(a) {
                    (first, false)
                } else {
                    return Err(format!(
                        "the shape {dims:?} has neither 1 nor 3 channels, first or last"
                    ));
                }
            }
            _ => {
                return Err(format!(
                    "has shape {dims:?}; expected [N, H, W], [N, H, W, C] or [N, C, H, W]"
                ));
            }
        };
        if dims.contains(&0) {
            return Err(format!("is empty: {dims:?}"));
        }
        Ok(Self {
            shape,
            channels_last,
        })
    }

    fn planar(&self, bytes: Vec<u8>) -> Vec<u8> {
        let [channels, rows, columns] = self.shape;
        if !self.channels_last || channels == 1 {
            return bytes;
        }
        let pixels = rows * columns;
        let mut planar = Vec::with_capacity(bytes.len());
        for image in bytes.chunks_exact(channels * pixels) {
            for channel in 0..channels {
                planar.extend(image.iter().skip(channel).step_by(channels));
            }
        }
        planar
    }
}

/// Pixels as bytes, and how they were converted.
fn bytes(elements: Elements) -> Result<(Vec<u8>, Option<String>), String> {
    let type_name = elements.type_name();
    let floats: Vec<f64> = match elements {
        Elements::U8(bytes) => return Ok((bytes, None)),
        Elements::Bool(bits) => {
            let bytes = bits.iter().map(|b| 255 * b.min(&1)).collect();
            return Ok((bytes, Some("bool; true became 255".into())));
        }
        Elements::Int(values) => {
            let bytes: Option<Vec<u8>> = values.iter().map(|v| u8::try_from(*v).ok()).collect();
            return match bytes {
                Some(bytes) => Ok((bytes, None)),
                None => Err("has integers outside 0 to 255; store pixels as uint8".into()),
            };
        }
        Elements::F32(values) => values.into_iter().map(f64::from).collect(),
        Elements::F64(values) => values,
    };
    let within = |limit: f64| floats.iter().all(|v| (0.0..=limit).contains(v));
    if within(1.0) {
        let bytes = floats.iter().map(|v| (255.0 * v).round() as u8);
        let note = format!("{type_name} in [0, 1]; they were rounded to bytes, 1 to 255");
        return Ok((bytes.collect(), Some(note)));
    }
    if within(255.0) && floats.iter().all(|v| v.fract() == 0.0) {
        return Ok((floats.iter().map(|v| *v as u8).collect(), None));
    }
    let [low, high] = [f64::min, f64::max].map(|f| floats.iter().copied().fold(f64::NAN, f));
    Err(format!(
        "has {type_name} from {low} to {high}; expected uint8, whole numbers in [0, 255] or \
         floats in [0, 1]. Store the images before any normalisation: the model file's \
         [normalization] does that"
    ))
}

/// The class of each image: whole numbers, or rows with a single 1.
fn classes(labels: &Array, count: usize) -> Result<Vec<u32>, String> {
    let shape = labels.shape();
    if shape.first() != Some(&count) {
        return Err(format!(
            "has shape {shape:?}; expected a label for each of {count} images"
        ));
    }
    let width = match shape {
        [_] | [_, 1] => 1,
        [_, width] if *width > 1 => *width,
        _ => {
            return Err(format!(
                "has shape {shape:?}; expected [N], [N, 1] or one-hot [N, classes]"
            ));
        }
    };
    let whole = |v: f64| (v.fract() == 0.0 && v.abs() < 1e9).then_some(v as i64);
    let numbers: Option<Vec<i64>> = match labels.elements() {
        Elements::Bool(v) | Elements::U8(v) => Some(v.iter().map(|x| i64::from(*x)).collect()),
        Elements::Int(v) => Some(v.clone()),
        Elements::F32(v) => v.iter().map(|x| whole(f64::from(*x))).collect(),
        Elements::F64(v) => v.iter().map(|x| whole(*x)).collect(),
    };
    let numbers = numbers.ok_or("has labels that are no whole numbers")?;
    let class = |(i, row): (usize, &[i64])| {
        if width == 1 {
            let label = row[0];
            return (0..MAX_CLASSES)
                .contains(&label)
                .then_some(label as u32)
                .ok_or_else(|| format!("label {i} is {label}; classes count from 0"));
        }
        let hot = row.iter().position(|v| *v == 1);
        hot.filter(|_| row.iter().filter(|v| **v != 0).count() == 1)
            .map(|class| class as u32)
            .ok_or_else(|| format!("row {i} is not one-hot: a single 1, all else 0"))
    };
    numbers.chunks_exact(width).enumerate().map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_an_image_whichever_way_its_channels_lie() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.npy");
        let read = |dims: &[usize], shape| {
            let values: Vec<f32> = (0..dims.iter().product())
                .map(|i: usize| i as f32)
                .collect();
            let mut file = Vec::new();
            npy::write(&mut file, dims, &values).unwrap();
            std::fs::write(&path, file).unwrap();
            image(&path, shape)
        };
        for dims in [
            &[2, 3][..],
            &[2, 3, 1],
            &[1, 2, 3],
            &[1, 1, 2, 3],
            &[1, 2, 3, 1],
        ] {
            let bytes = read(dims, [1, 2, 3]).unwrap();
            assert_eq!(bytes, [0, 1, 2, 3, 4, 5], "{dims:?}");
        }
        let planes: Vec<u8> = (0..12).collect();
        assert_eq!(read(&[3, 2, 2], [3, 2, 2]).unwrap(), planes);
        let last = read(&[2, 2, 3], [3, 2, 2]).unwrap();
        assert_eq!(last, [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
        for dims in [&[3, 2][..], &[2, 2, 3, 1], &[6], &[1, 3, 2], &[2, 3, 3]] {
            let error = read(dims, [1, 2, 3]).unwrap_err().to_string();
            assert!(error.contains("shape"), "{dims:?}: {error}");
        }
    }
}
