//! Tensors of ONNX files on the host.

use super::proto::{TensorProto, data_type};
use super::small::Small;
use half::{bf16, f16};

/// An element type. All floats are computed, and so held, in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit float; also read from floats of 4, 8, 16 and 64 bits.
    F32,
    /// 4-bit unsigned integer.
    U4,
    /// 4-bit signed integer.
    I4,
    /// 8-bit unsigned integer.
    U8,
    /// 8-bit signed integer.
    I8,
    /// 16-bit unsigned integer.
    U16,
    /// 16-bit signed integer.
    I16,
    /// 32-bit unsigned integer.
    U32,
    /// 32-bit signed integer.
    I32,
    /// 64-bit unsigned integer.
    U64,
    /// 64-bit signed integer.
    I64,
    /// A truth value.
    Bool,
}

impl Element {
    /// The element type of a number in a file; `None` for those that are not read.
    pub fn of(data_type: i32) -> Option<Self> {
        Some(match data_type {
            data_type::FLOAT | data_type::FLOAT16 | data_type::BFLOAT16 | data_type::DOUBLE => {
                Self::F32
            }
            small if Small::of(small).is_some() => Self::F32,
            data_type::UINT4 => Self::U4,
            data_type::INT4 => Self::I4,
            data_type::UINT8 => Self::U8,
            data_type::INT8 => Self::I8,
            data_type::UINT16 => Self::U16,
            data_type::INT16 => Self::I16,
            data_type::UINT32 => Self::U32,
            data_type::INT32 => Self::I32,
            data_type::UINT64 => Self::U64,
            data_type::INT64 => Self::I64,
            data_type::BOOL => Self::Bool,
            _ => return None,
        })
    }

    /// An integer as this type holds it: its low bits.
    pub fn wrap(self, x: i64) -> i64 {
        match self {
            Self::U4 => x & 15,
            Self::I4 => ((x & 15) ^ 8) - 8,
            Self::U8 => i64::from(x as u8),
            Self::I8 => i64::from(x as i8),
            Self::U16 => i64::from(x as u16),
            Self::I16 => i64::from(x as i16),
            Self::U32 => i64::from(x as u32),
            Self::I32 => i64::from(x as i32),
            Self::Bool => i64::from(x != 0),
            Self::F32 | Self::U64 | Self::I64 => x,
        }
    }

    /// The smallest and the largest value of a small integer type.
    pub fn range(self) -> Option<[i64; 2]> {
        Some(match self {
            Self::U4 => [0, 15],
            Self::I4 => [-8, 7],
            Self::U8 => [0, u8::MAX.into()],
            Self::I8 => [i8::MIN.into(), i8::MAX.into()],
            Self::U16 => [0, u16::MAX.into()],
            Self::I16 => [i16::MIN.into(), i16::MAX.into()],
            Self::U32 => [0, u32::MAX.into()],
            Self::I32 => [i32::MIN.into(), i32::MAX.into()],
            _ => return None,
        })
    }
}

/// Elements, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Floats.
    Float(Vec<f32>),
    /// Integers of any kind; those of 64 unsigned bits as the same bits, signed.
    Int(Vec<i64>),
}

/// A tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Extent of each dimension.
    pub dims: Vec<usize>,
    /// Element type.
    pub element: Element,
    /// The elements, as many as the extents make.
    pub data: Data,
}

/// The product of extents; `None` beyond 2^31, which no tensor here may reach.
pub fn count(dims: &[usize]) -> Option<usize> {
    let product = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    product.filter(|n| *n <= 1 << 31)
}

impl Tensor {
    /// Floats.
    pub fn floats(dims: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        let dims = dims.into();
        debug_assert_eq!(count(&dims), Some(data.len()));
        Self {
            dims,
            element: Element::F32,
            data: Data::Float(data),
        }
    }

    /// Integers of a type, which they are wrapped to.
    pub fn integers(dims: impl Into<Vec<usize>>, element: Element, data: Vec<i64>) -> Self {
        let dims = dims.into();
        debug_assert_eq!(count(&dims), Some(data.len()));
        let data = data.into_iter().map(|x| element.wrap(x)).collect();
        Self {
            dims,
            element,
            data: Data::Int(data),
        }
    }

    /// A list of 64-bit integers.
    pub fn list(data: Vec<i64>) -> Self {
        Self::integers([data.len()], Element::I64, data)
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Float(data) => data.len(),
            Data::Int(data) => data.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The floats, or integers as floats.
    pub fn to_floats(&self) -> Vec<f32> {
        match &self.data {
            Data::Float(data) => data.clone(),
            Data::Int(data) => data.iter().map(|x| *x as f32).collect(),
        }
    }

    /// The elements as NumPy stores them: the name of their type and their bytes.
    pub fn to_numpy(&self) -> (&'static str, Vec<u8>) {
        let (descr, size) = match self.element {
            Element::F32 => ("<f4", 4),
            // NumPy has none of 4 bits.
            Element::U4 | Element::U8 => ("|u1", 1),
            Element::I4 | Element::I8 => ("|i1", 1),
            Element::U16 => ("<u2", 2),
            Element::I16 => ("<i2", 2),
            Element::U32 => ("<u4", 4),
            Element::I32 => ("<i4", 4),
            Element::U64 => ("<u8", 8),
            Element::I64 => ("<i8", 8),
            Element::Bool => ("|b1", 1),
        };
        let bytes = match &self.data {
            Data::Float(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            // The low bytes of what is wrapped to the type.
            Data::Int(data) => data
                .iter()
                .flat_map(|x| x.to_le_bytes().into_iter().take(size))
                .collect(),
        };
        (descr, bytes)
    }

    /// The integers, if it holds any.
    pub fn as_integers(&self) -> Option<&[i64]> {
        match &self.data {
            Data::Int(data) => Some(data),
            Data::Float(_) => None,
        }
    }

    /// The elements at these places, under another shape.
    pub fn gather(&self, dims: Vec<usize>, places: &[usize]) -> Self {
        let data = match &self.data {
            Data::Float(data) => Data::Float(places.iter().map(|i| data[*i]).collect()),
            Data::Int(data) => Data::Int(places.iter().map(|i| data[*i]).collect()),
        };
        Self {
            dims,
            element: self.element,
            data,
        }
    }

    /// The same elements under another shape of as many.
    pub fn reshaped(&self, dims: Vec<usize>) -> Self {
        debug_assert_eq!(count(&dims), Some(self.len()));
        Self {
            dims,
            ..self.clone()
        }
    }

    /// Reads a tensor whose elements lie in `raw`, if given, else in the message.
    ///
    /// # Errors
    /// What is wrong with it. Nothing is allocated beyond what the elements that are there
    /// take.
    pub fn read(proto: &TensorProto, raw: Option<&[u8]>) -> Result<Self, String> {
        let dims = proto.dims.iter().map(|d| usize::try_from(*d).ok());
        let dims = dims.collect::<Option<Vec<_>>>();
        let (Some(dims), Some(element)) = (dims, Element::of(proto.data_type)) else {
            return Err(format!(
                "has element type {} and extents {:?}; expected floats, integers or truth \
                 values, and extents of at least 0",
                proto.data_type, proto.dims
            ));
        };
        let mut data = match raw.or(proto.raw_data.as_deref()) {
            Some(raw) => from_bytes(raw, proto.data_type),
            None => from_lists(proto, element),
        };
        if is_packed(proto.data_type) && count(&dims).is_some_and(|n| n % 2 == 1) {
            // The last half byte is none.
            match &mut data {
                Data::Float(data) => data.truncate(data.len().saturating_sub(1)),
                Data::Int(data) => data.truncate(data.len().saturating_sub(1)),
            }
        }
        let tensor = Self {
            dims,
            element,
            data,
        };
        if count(&tensor.dims) != Some(tensor.len()) {
            let problem = format!("has extents {:?} but {} elements", proto.dims, tensor.len());
            return Err(problem);
        }
        Ok(tensor)
    }
}

/// Whether two elements share a byte.
fn is_packed(data_type: i32) -> bool {
    matches!(
        data_type,
        data_type::UINT4 | data_type::INT4 | data_type::FLOAT4E2M1
    )
}

/// Elements of 4 or 8 bits; of two in a byte the low half is the first.
fn from_small(raw: &[u8], data_type: i32) -> Data {
    let codes: Vec<u8> = match is_packed(data_type) {
        true => raw.iter().flat_map(|b| [b & 15, b >> 4]).collect(),
        false => raw.to_vec(),
    };
    match (Small::of(data_type), Element::of(data_type)) {
        (Some(small), _) => Data::Float(codes.iter().map(|c| small.decode(*c)).collect()),
        (None, element) => {
            let wrap = |c: &u8| element.map_or(0, |e| e.wrap(i64::from(*c)));
            Data::Int(codes.iter().map(wrap).collect())
        }
    }
}

/// Little-endian elements; a rest that makes no element shows in their number.
fn from_bytes(raw: &[u8], data_type: i32) -> Data {
    fn each<const N: usize, T>(raw: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
        let (chunks, _) = raw.as_chunks::<N>();
        chunks.iter().map(|c| convert(*c)).collect()
    }
    match data_type {
        data_type::FLOAT => Data::Float(each(raw, f32::from_le_bytes)),
        data_type::DOUBLE => Data::Float(each(raw, |b| f64::from_le_bytes(b) as f32)),
        data_type::FLOAT16 => Data::Float(each(raw, |b| f16::from_le_bytes(b).to_f32())),
        data_type::BFLOAT16 => Data::Float(each(raw, |b| bf16::from_le_bytes(b).to_f32())),
        data_type::INT8 => Data::Int(each(raw, |b| i8::from_le_bytes(b).into())),
        data_type::UINT16 => Data::Int(each(raw, |b| u16::from_le_bytes(b).into())),
        data_type::INT16 => Data::Int(each(raw, |b| i16::from_le_bytes(b).into())),
        data_type::UINT32 => Data::Int(each(raw, |b| u32::from_le_bytes(b).into())),
        data_type::INT32 => Data::Int(each(raw, |b| i32::from_le_bytes(b).into())),
        data_type::UINT64 | data_type::INT64 => Data::Int(each(raw, i64::from_le_bytes)),
        small if Small::of(small).is_some() || is_packed(small) => from_small(raw, small),
        // UINT8 and BOOL.
        _ => Data::Int(raw.iter().map(|b| i64::from(*b)).collect()),
    }
}

fn from_lists(proto: &TensorProto, element: Element) -> Data {
    let small = proto.int32_data.iter();
    match proto.data_type {
        data_type::FLOAT => Data::Float(proto.float_data.clone()),
        data_type::DOUBLE => Data::Float(proto.double_data.iter().map(|x| *x as f32).collect()),
        data_type::FLOAT16 => {
            let bits = small.map(|x| f16::from_bits(*x as u16).to_f32());
            Data::Float(bits.collect())
        }
        data_type::BFLOAT16 => {
            let bits = small.map(|x| bf16::from_bits(*x as u16).to_f32());
            Data::Float(bits.collect())
        }
        data_type if Small::of(data_type).is_some() || is_packed(data_type) => {
            let bytes: Vec<u8> = small.map(|x| *x as u8).collect();
            from_small(&bytes, data_type)
        }
        data_type::INT64 => Data::Int(proto.int64_data.clone()),
        data_type::UINT32 | data_type::UINT64 => {
            Data::Int(proto.uint64_data.iter().map(|x| *x as i64).collect())
        }
        _ => Data::Int(small.map(|x| element.wrap(i64::from(*x))).collect()),
    }
}
