//! NumPy's arrays: `.npy` files and `.npz` archives
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
//!
//! Files are parsed here because the header is one short line; archives are zip files.

use crate::error::{Error, Result};
use half::f16;
use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
use std::path::Path;

/// Arrays by name.
pub type Arrays = BTreeMap<String, Array>;

/// An array as NumPy stores it, in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    elements: Elements,
}

/// The elements of an [`Array`].
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// `bool`: 0 or 1.
    Bool(Vec<u8>),
    /// `uint8`.
    U8(Vec<u8>),
    /// Every other integer type.
    Int(Vec<i64>),
    /// `float16` and `float32`.
    F32(Vec<f32>),
    /// `float64`.
    F64(Vec<f64>),
}

impl Elements {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Bool(v) | Self::U8(v) => v.len(),
            Self::Int(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// NumPy's name of the type; integers other than bytes are read as one.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::U8(_) => "uint8",
            Self::Int(_) => "int64",
            Self::F32(_) => "float32",
            Self::F64(_) => "float64",
        }
    }

    /// The elements in C order, if they are stored in Fortran order under `shape`.
    fn in_c_order(self, shape: &[usize]) -> Self {
        fn permuted<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
            let mut strides = vec![1; shape.len()];
            for axis in 1..shape.len() {
                strides[axis] = strides[axis - 1] * shape[axis - 1];
            }
            let place = |mut i: usize| {
                let mut at = 0;
                for axis in (0..shape.len()).rev() {
                    at += i % shape[axis] * strides[axis];
                    i /= shape[axis];
                }
                at
            };
            (0..values.len()).map(|i| values[place(i)]).collect()
        }
        match self {
            Self::Bool(v) => Self::Bool(permuted(&v, shape)),
            Self::U8(v) => Self::U8(permuted(&v, shape)),
            Self::Int(v) => Self::Int(permuted(&v, shape)),
            Self::F32(v) => Self::F32(permuted(&v, shape)),
            Self::F64(v) => Self::F64(permuted(&v, shape)),
        }
    }
}

impl Array {
    /// An array of a shape.
    ///
    /// # Errors
    /// If the shape has another number of elements.
    pub fn new(shape: impl Into<Vec<usize>>, elements: Elements) -> Result<Self> {
        let shape = shape.into();
        if product(&shape) != Some(elements.len()) {
            let problem = format!("{} elements do not fill {shape:?}", elements.len());
            return Err(Error::shape("array", problem));
        }
        Ok(Self { shape, elements })
    }

    /// Extent of each dimension; none for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, the last dimension fastest.
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    /// The elements, without a copy.
    pub fn into_elements(self) -> Elements {
        self.elements
    }

    /// The elements as f32, rounded where they do not fit.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.elements {
            Elements::Bool(v) | Elements::U8(v) => v.iter().map(|x| f32::from(*x)).collect(),
            Elements::Int(v) => v.iter().map(|x| *x as f32).collect(),
            Elements::F32(v) => v.clone(),
            Elements::F64(v) => v.iter().map(|x| *x as f32).collect(),
        }
    }
}

/// Reads a `.npy` file.
///
/// # Errors
/// If it cannot be read, is damaged, or holds elements that are no numbers.
pub fn load(path: &Path) -> Result<Array> {
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, "read", e))?;
    parse(std::io::BufReader::new(file)).map_err(|problem| Error::data(path, problem))
}

/// Reads all arrays of a `.npz` archive.
///
/// # Errors
/// As [`load`], naming the array.
pub fn load_npz(path: &Path) -> Result<Arrays> {
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, "read", e))?;
    parse_npz(std::io::BufReader::new(file), |_| true).map_err(|p| Error::data(path, p))
}

/// The arrays of an archive whose names are `wanted`, or what is wrong with it.
///
/// # Errors
/// The problem in words.
pub fn parse_npz(
    reader: impl Read + Seek,
    wanted: impl Fn(&str) -> bool,
) -> Result<Arrays, String> {
    let mut archive =
        zip::ZipArchive::new(reader).map_err(|e| format!("is no whole .npz archive: {e}"))?;
    let mut arrays = Arrays::new();
    for index in 0..archive.len() {
        let member = archive
            .by_index(index)
            .map_err(|e| format!("is no whole .npz archive: {e}"))?;
        let name = member.name().map_err(|e| e.to_string())?.into_owned();
        let Some(name) = name.strip_suffix(".npy").filter(|n| wanted(n)) else {
            continue;
        };
        let array = parse(member).map_err(|problem| format!("{name}: {problem}"))?;
        arrays.insert(name.to_owned(), array);
    }
    Ok(arrays)
}

/// Writes a `.npz` archive, compressed; `numpy.load` reads it. Each array has a shape, its
/// elements' type as NumPy writes it, such as `<f4`, and their bytes.
///
/// # Errors
/// The system's, or the archive's.
pub fn write_npz(
    writer: impl Write + Seek,
    arrays: &BTreeMap<String, (Vec<usize>, &str, Vec<u8>)>,
) -> std::io::Result<()> {
    let mut archive = zip::ZipWriter::new(writer);
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .large_file(true);
    for (name, (shape, descr, bytes)) in arrays {
        archive.start_file(format!("{name}.npy"), options)?;
        write_as(&mut archive, shape, descr, bytes)?;
    }
    archive.finish()?;
    Ok(())
}

/// Writes a `.npy` file of f32.
///
/// # Errors
/// The writer's.
pub fn write(writer: &mut dyn Write, shape: &[usize], data: &[f32]) -> std::io::Result<()> {
    let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    write_as(writer, shape, "<f4", &bytes)
}

/// Writes a `.npy` file of elements of NumPy's type `descr`, such as `<i8`, by their bytes.
///
/// # Errors
/// The writer's.
pub fn write_as(
    writer: &mut dyn Write,
    shape: &[usize],
    descr: &str,
    bytes: &[u8],
) -> std::io::Result<()> {
    let extents: String = shape.iter().map(|e| format!("{e}, ")).collect();
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({extents}), }}");
    // Magic, version and length take 10 bytes; the whole ends in a newline at a multiple of 64.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', padded - 1 - header.len()));
    header.push('\n');
    writer.write_all(MAGIC)?;
    let (version, length) = match u16::try_from(header.len()) {
        Ok(length) => ([1, 0], length.to_le_bytes()),
        Err(_) => return Err(std::io::Error::other("an array has too many dimensions")),
    };
    writer.write_all(&version)?;
    writer.write_all(&length)?;
    writer.write_all(header.as_bytes())?;
    writer.write_all(bytes)
}

const MAGIC: &[u8] = b"\x93NUMPY";

/// No header of an array of numbers is longer.
const MAX_HEADER: usize = 1 << 16;

/// Reads an array, or tells what is wrong with it. Memory grows with what is really there.
///
/// # Errors
/// The problem in words.
pub fn parse(mut reader: impl Read) -> Result<Array, String> {
    let mut start = [0; 8];
    exactly(&mut reader, &mut start)?;
    if !start.starts_with(MAGIC) {
        return Err("is no NumPy array: it does not begin with \\x93NUMPY".into());
    }
    let length = match start[6] {
        1 => {
            let mut bytes = [0; 2];
            exactly(&mut reader, &mut bytes)?;
            usize::from(u16::from_le_bytes(bytes))
        }
        2 | 3 => {
            let mut bytes = [0; 4];
            exactly(&mut reader, &mut bytes)?;
            u32::from_le_bytes(bytes) as usize
        }
        other => return Err(format!("is of NumPy's format {other}; expected 1 to 3")),
    };
    if length > MAX_HEADER {
        return Err(format!(
            "has a header of {length} bytes; expected at most {MAX_HEADER}"
        ));
    }
    let mut header = vec![0; length];
    exactly(&mut reader, &mut header)?;
    let header = Header::parse(&String::from_utf8_lossy(&header))?;
    let size = header.kind.size();
    let count = product(&header.shape)
        .filter(|n| n.checked_mul(size).is_some())
        .ok_or_else(|| format!("has impossible extents {:?}", header.shape))?;
    let mut bytes = Vec::new();
    let more = (count * size) as u64 + 1;
    reader
        .take(more)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() != count * size {
        let word = if bytes.len() < count * size {
            "truncated"
        } else {
            "too long"
        };
        return Err(format!(
            "is {word}: its header promises {} elements of {size} bytes ({:?})",
            count, header.shape
        ));
    }
    let mut elements = header.kind.read(bytes, header.big_endian);
    if header.fortran && header.shape.len() > 1 {
        elements = elements.in_c_order(&header.shape);
    }
    let shape = header.shape;
    Ok(Array { shape, elements })
}

fn exactly(reader: &mut impl Read, bytes: &mut [u8]) -> Result<(), String> {
    reader.read_exact(bytes).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => "is truncated inside its header".into(),
        _ => format!("cannot be read: {e}"),
    })
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |a, b| a.checked_mul(*b))
}

/// A type of elements.
#[derive(Clone, Copy)]
enum Kind {
    Bool,
    Unsigned(usize),
    Signed(usize),
    Float(usize),
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::Unsigned(size) | Self::Signed(size) | Self::Float(size) => size,
        }
    }

    fn read(self, mut bytes: Vec<u8>, big_endian: bool) -> Elements {
        if big_endian {
            bytes
                .chunks_exact_mut(self.size())
                .for_each(<[u8]>::reverse);
        }
        match self {
            Self::Bool => Elements::Bool(bytes),
            Self::Unsigned(1) => Elements::U8(bytes),
            Self::Unsigned(2) => Elements::Int(each(&bytes, |b| u16::from_le_bytes(b).into())),
            Self::Unsigned(4) => Elements::Int(each(&bytes, |b| u32::from_le_bytes(b).into())),
            // What does not fit is no label and no pixel: it stays out of every legal range.
            Self::Unsigned(_) => Elements::Int(each(&bytes, |b| {
                i64::try_from(u64::from_le_bytes(b)).unwrap_or(i64::MAX)
            })),
            Self::Signed(1) => Elements::Int(each(&bytes, |b| i8::from_le_bytes(b).into())),
            Self::Signed(2) => Elements::Int(each(&bytes, |b| i16::from_le_bytes(b).into())),
            Self::Signed(4) => Elements::Int(each(&bytes, |b| i32::from_le_bytes(b).into())),
            Self::Signed(_) => Elements::Int(each(&bytes, i64::from_le_bytes)),
            Self::Float(2) => Elements::F32(each(&bytes, |b| f16::from_le_bytes(b).to_f32())),
            Self::Float(4) => Elements::F32(each(&bytes, f32::from_le_bytes)),
            Self::Float(_) => Elements::F64(each(&bytes, f64::from_le_bytes)),
        }
    }
}

fn each<T, const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|c| convert(*c)).collect()
}

/// What stands before the elements: a Python dictionary of three entries.
struct Header {
    kind: Kind,
    big_endian: bool,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Result<Self, String> {
        let entry = |key: &str| {
            let quoted = [format!("'{key}':"), format!("\"{key}\":")];
            let start = quoted.iter().find_map(|q| Some(text.find(q)? + q.len()));
            start
                .map(|s| text[s..].trim_start())
                .ok_or_else(|| format!("has a header without {key}: {}", text.trim_end()))
        };
        let descr = entry("descr")?;
        let quote = |c: char| c == '\'' || c == '"';
        let name = descr
            .strip_prefix(quote)
            .and_then(|rest| rest.split(quote).next())
            .ok_or("holds records, not numbers")?;
        let (big_endian, kind) = kind(name).ok_or_else(|| {
            format!("holds elements of type {name:?}; expected integers, floats or bool")
        })?;
        let order = entry("fortran_order")?;
        let fortran = match (order.starts_with("True"), order.starts_with("False")) {
            (true, _) => true,
            (_, true) => false,
            _ => return Err("has a header whose fortran_order is neither True nor False".into()),
        };
        let inside = entry("shape")?
            .strip_prefix('(')
            .and_then(|rest| rest.split_once(')'))
            .ok_or("has a header whose shape is no tuple")?
            .0;
        let extents = inside.split(',').map(str::trim).filter(|e| !e.is_empty());
        let shape = extents
            .map(|e| e.trim_end_matches('L').parse().ok())
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(|| format!("has a header with the shape ({inside})"))?;
        Ok(Self {
            kind,
            big_endian,
            fortran,
            shape,
        })
    }
}

/// Byte order and type of a name such as `<f4`.
fn kind(name: &str) -> Option<(bool, Kind)> {
    let big_endian = name.starts_with('>');
    let kind = match name.trim_start_matches(['<', '>', '|', '=']) {
        "b1" => Kind::Bool,
        "u1" => Kind::Unsigned(1),
        "u2" => Kind::Unsigned(2),
        "u4" => Kind::Unsigned(4),
        "u8" => Kind::Unsigned(8),
        "i1" => Kind::Signed(1),
        "i2" => Kind::Signed(2),
        "i4" => Kind::Signed(4),
        "i8" => Kind::Signed(8),
        "f2" => Kind::Float(2),
        "f4" => Kind::Float(4),
        "f8" => Kind::Float(8),
        _ => return None,
    };
    Some((big_endian, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as NumPy 1.x and 2.x write it.
    fn file(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let text =
            format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let length = (text.len() as u16).to_le_bytes();
        [MAGIC, &[1, 0], &length, text.as_bytes(), data].concat()
    }

    #[test]
    fn every_type_in_either_byte_order() {
        let read = |descr: &str, data: &[u8]| {
            let bytes = file(descr, "False", "(1,)", data);
            parse(bytes.as_slice()).unwrap().into_elements()
        };
        assert_eq!(read("|b1", &[1]), Elements::Bool(vec![1]));
        assert_eq!(read("|u1", &[200]), Elements::U8(vec![200]));
        assert_eq!(read("|i1", &[255]), Elements::Int(vec![-1]));
        assert_eq!(read("<i2", &[254, 255]), Elements::Int(vec![-2]));
        assert_eq!(read(">u2", &[1, 2]), Elements::Int(vec![258]));
        assert_eq!(read("<i8", &7_i64.to_le_bytes()), Elements::Int(vec![7]));
        assert_eq!(read(">i4", &9_i32.to_be_bytes()), Elements::Int(vec![9]));
        assert_eq!(read("<u8", &[255; 8]), Elements::Int(vec![i64::MAX]));
        assert_eq!(read("<f2", &[0, 0x3c]), Elements::F32(vec![1.0]));
        assert_eq!(
            read("<f4", &0.5_f32.to_le_bytes()),
            Elements::F32(vec![0.5])
        );
        assert_eq!(
            read(">f8", &0.25_f64.to_be_bytes()),
            Elements::F64(vec![0.25])
        );
    }

    #[test]
    fn fortran_order_becomes_c_order() {
        // [[0, 1, 2], [3, 4, 5]], column by column.
        let bytes = file("|u1", "True", "(2, 3)", &[0, 3, 1, 4, 2, 5]);
        let array = parse(bytes.as_slice()).unwrap();
        assert_eq!(array.shape(), [2, 3]);
        assert_eq!(*array.elements(), Elements::U8((0..6).collect()));
    }

    #[test]
    fn an_archive_survives_a_round_trip() {
        let floats = [1.0f32, -2.0, 3.5, 0.0].map(f32::to_le_bytes).concat();
        // No float has this one.
        let large = (1i64 << 53) + 1;
        let made = BTreeMap::from([
            ("matrix".to_owned(), (vec![2, 2], "<f4", floats)),
            (
                "scalar".to_owned(),
                (vec![], "<i8", large.to_le_bytes().to_vec()),
            ),
        ]);
        let mut bytes = std::io::Cursor::new(Vec::new());
        write_npz(&mut bytes, &made).unwrap();
        let read = parse_npz(&mut bytes, |_| true).unwrap();
        let [matrix, scalar] = [&read["matrix"], &read["scalar"]];
        assert_eq!(matrix.shape(), [2, 2]);
        assert_eq!(matrix.to_f32(), [1.0, -2.0, 3.5, 0.0]);
        assert!(scalar.shape().is_empty());
        assert_eq!(*scalar.elements(), Elements::Int(vec![large]));
    }

    #[test]
    fn damage_is_told_and_reserves_no_memory() {
        let good = file("|u1", "False", "(4,)", &[1, 2, 3, 4]);
        for length in 0..good.len() {
            let problem = parse(&good[..length]).unwrap_err();
            assert!(problem.contains("truncated"), "{problem}");
        }
        let cases = [
            (file("|u1", "False", "(3,)", &[1, 2, 3, 4]), "too long"),
            (
                file("|u1", "False", "(1152921504606846976,)", &[1]),
                "truncated",
            ),
            (
                file("<f8", "False", "(4611686018427387904, 9)", &[1]),
                "impossible",
            ),
            (file("|O", "False", "(1,)", &[1]), "type"),
            (file("<U3", "False", "(1,)", &[1]), "type"),
            (file("|u1", "Maybe", "(1,)", &[1]), "fortran_order"),
            (file("|u1", "False", "(-1,)", &[1]), "shape"),
            (b"PK\x03\x04 no array".to_vec(), "NUMPY"),
        ];
        for (bytes, word) in cases {
            let problem = parse(bytes.as_slice()).unwrap_err();
            assert!(problem.contains(word), "{word}: {problem}");
        }
    }
}
