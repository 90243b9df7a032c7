//! MNIST's IDX files (LeCun, <http://yann.lecun.com/exdb/mnist/>): a big-endian header,
//! `00 00 type rank`, one 32-bit extent a dimension, then the elements.

use super::{Dataset, Split};
use crate::error::{Error, Result};
use std::io::Read;
use std::path::{Path, PathBuf};

pub(super) const WHAT_TO_PUT: &str = "Put train-images-idx3-ubyte.gz, \
    train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz \
    (gzipped or not) into datasets/mnist; they ship with the repository";

/// The type byte of unsigned bytes.
const UNSIGNED_BYTE: u8 = 0x08;

/// No image is larger; a header that claims more is taken for damaged.
const MAX_EXTENT: usize = 1 << 16;

/// The file of a part (`train`) and kind (`images-idx3`) in a folder, under any of its usual
/// names.
fn file(dir: &Path, part: &str, kind: &str) -> Option<PathBuf> {
    let (stem, idx) = kind.rsplit_once('-')?;
    ["-", "."]
        .iter()
        .flat_map(|dash| {
            ["", ".gz"].map(|gz| dir.join(format!("{part}-{stem}{dash}{idx}-ubyte{gz}")))
        })
        .find(|p| p.is_file())
}

/// The names of a set's files, and how its labels are counted.
pub(super) struct Names<'a> {
    /// What the training files' names begin with.
    pub train: &'a str,
    /// What the test files' names begin with.
    pub test: &'a str,
    /// The label of the first class.
    pub first_label: u8,
}

/// The names that MNIST, Fashion-MNIST and KMNIST have.
pub(super) const MNIST: Names<'static> = Names {
    train: "train",
    test: "t10k",
    first_label: 0,
};

pub(super) fn is_here(dir: &Path, names: &Names<'_>) -> bool {
    file(dir, names.train, "images-idx3").is_some()
}

/// The set in a folder; its classes are numbers.
pub(super) fn load(dir: &Path, names: &Names<'_>) -> Result<Dataset> {
    let (train, shape) = split(dir, names.train, names.first_label)?;
    let test = match file(dir, names.test, "images-idx3") {
        Some(_) => {
            let (test, test_shape) = split(dir, names.test, names.first_label)?;
            if test_shape != shape {
                let problem = format!(
                    "test images are {} by {}, training images {} by {}",
                    test_shape[1], test_shape[2], shape[1], shape[2]
                );
                return Err(Error::data(dir, problem));
            }
            Some(test)
        }
        None => None,
    };
    // Ten classes as in MNIST and its kin, more where the labels say so (EMNIST).
    let labels = train
        .labels
        .iter()
        .chain(test.iter().flat_map(|t| &t.labels));
    let classes = labels.max().map_or(0, |l| *l as usize + 1).max(10);
    Ok(Dataset {
        name: String::new(),
        shape,
        classes: (0..classes).map(|c| c.to_string()).collect(),
        train,
        test,
        notes: Vec::new(),
    })
}

fn split(dir: &Path, part: &str, first_label: u8) -> Result<(Split, [usize; 3])> {
    let find = |kind: &str| {
        file(dir, part, kind).ok_or_else(|| {
            let name = format!("{part}-{kind}-ubyte");
            let problem = format!("there is no {name} or {name}.gz. {WHAT_TO_PUT}");
            Error::data(dir, problem)
        })
    };
    let image_file = find("images-idx3")?;
    let label_file = find("labels-idx1")?;
    let (extents, images) = read::<3>(&image_file)?;
    let ([count], labels) = read::<1>(&label_file)?;
    if count != extents[0] {
        return Err(Error::data(
            label_file,
            format!(
                "holds {count} labels, but {} holds {} images",
                image_file.display(),
                extents[0]
            ),
        ));
    }
    if let Some(at) = labels.iter().position(|l| *l < first_label) {
        let found = labels[at];
        let problem = format!("label {at} is {found}; this set counts from {first_label}");
        return Err(Error::data(label_file, problem));
    }
    let labels = labels.into_iter().map(|l| u32::from(l - first_label));
    let split = Split::new(images, labels.collect());
    Ok((split, [1, extents[1], extents[2]]))
}

/// Extents and elements of a file of unsigned bytes, plain or gzipped.
fn read<const RANK: usize>(path: &Path) -> Result<([usize; RANK], Vec<u8>)> {
    let raw = super::read(path)?;
    let gzipped = raw.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read> = if gzipped {
        Box::new(flate2::read::MultiGzDecoder::new(raw.as_slice()))
    } else {
        Box::new(raw.as_slice())
    };
    let fail = |problem: String| Error::data(path, problem);
    let damaged = |e: std::io::Error| {
        if e.kind() == std::io::ErrorKind::UnexpectedEof {
            fail("is truncated inside its header".into())
        } else {
            fail(format!("cannot be decompressed: {e}; fetch the file again"))
        }
    };
    let mut header = vec![0; 4 + 4 * RANK];
    reader.read_exact(&mut header).map_err(damaged)?;
    let expected = [0, 0, UNSIGNED_BYTE, RANK as u8];
    if header[..4] != expected {
        return Err(fail(format!(
            "has magic number {:02x?}, expected {expected:02x?} (unsigned bytes in {RANK} dimensions)",
            &header[..4]
        )));
    }
    let mut extents = [0; RANK];
    for (extent, bytes) in extents.iter_mut().zip(header[4..].chunks_exact(4)) {
        *extent = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    }
    if extents.contains(&0) {
        return Err(fail(format!("is empty: its header says {extents:?}")));
    }
    if extents[1..].iter().any(|e| *e > MAX_EXTENT) {
        return Err(fail(format!("has impossible extents {extents:?}")));
    }
    let length = extents
        .iter()
        .try_fold(1_usize, |a, b| a.checked_mul(*b))
        .ok_or_else(|| fail(format!("has impossible extents {extents:?}")))?;
    // One byte more than promised tells a file that is too long; the buffer grows with
    // what is really there, not with what the header claims.
    let mut data = Vec::new();
    let more = (length as u64).saturating_add(1);
    reader.take(more).read_to_end(&mut data).map_err(damaged)?;
    if data.len() != length {
        let (word, found) = if data.len() < length {
            ("truncated", data.len().to_string())
        } else {
            ("too long", format!("more than {length}"))
        };
        return Err(fail(format!(
            "is {word}: its header promises {length} bytes ({extents:?}), found {found}"
        )));
    }
    Ok((extents, data))
}
