//! [`Array`]: a tensor as the reference path holds it.

use crate::tensor::{DType, TensorType};
use std::sync::Arc;

/// A tensor on the reference path: f32 tensors are held in float64, so that the
/// reference's own rounding is far below anything it is compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    ty: TensorType,
    data: Data,
}

#[derive(Clone, Debug, PartialEq)]
enum Data {
    Float(Vec<f64>),
    Index(Vec<u32>),
    Bytes(Arc<[u8]>),
}

impl Array {
    /// Zeros of a type.
    pub fn zeros(ty: TensorType) -> Self {
        let len = ty.shape.len();
        let data = match ty.dtype {
            DType::F32 => Data::Float(vec![0.0; len]),
            DType::U32 => Data::Index(vec![0; len]),
            DType::U8 => Data::Bytes(vec![0; len].into()),
        };
        Self { ty, data }
    }

    /// Floats, row-major.
    ///
    /// # Panics
    /// If the number of elements is not the shape's.
    pub fn float(ty: TensorType, data: Vec<f64>) -> Self {
        assert_eq!((ty.shape.len(), ty.dtype), (data.len(), DType::F32));
        Self {
            ty,
            data: Data::Float(data),
        }
    }

    /// Indices, row-major.
    ///
    /// # Panics
    /// If the number of elements is not the shape's.
    pub fn index(ty: TensorType, data: Vec<u32>) -> Self {
        assert_eq!((ty.shape.len(), ty.dtype), (data.len(), DType::U32));
        Self {
            ty,
            data: Data::Index(data),
        }
    }

    /// Bytes, row-major.
    ///
    /// # Panics
    /// If the number of elements is not the shape's.
    pub fn bytes(ty: TensorType, data: Arc<[u8]>) -> Self {
        assert_eq!((ty.shape.len(), ty.dtype), (data.len(), DType::U8));
        Self {
            ty,
            data: Data::Bytes(data),
        }
    }

    /// Shape and element type.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        self.ty.shape.dims()
    }

    /// The floats.
    ///
    /// # Panics
    /// If the element type is another; [`Op::infer`](super::Op::infer) has
    /// checked it before a reference runs. So for the accessors below.
    pub fn f(&self) -> &[f64] {
        match &self.data {
            Data::Float(v) => v,
            _ => panic!("expected f32, found {}", self.ty),
        }
    }

    /// The floats, to change.
    pub fn f_mut(&mut self) -> &mut [f64] {
        match &mut self.data {
            Data::Float(v) => v,
            _ => panic!("expected f32, found {}", self.ty),
        }
    }

    /// The indices.
    pub fn u(&self) -> &[u32] {
        match &self.data {
            Data::Index(v) => v,
            _ => panic!("expected u32, found {}", self.ty),
        }
    }

    /// The indices, to change.
    pub fn u_mut(&mut self) -> &mut [u32] {
        match &mut self.data {
            Data::Index(v) => v,
            _ => panic!("expected u32, found {}", self.ty),
        }
    }

    /// The bytes.
    pub fn b(&self) -> &[u8] {
        match &self.data {
            Data::Bytes(v) => v,
            _ => panic!("expected u8, found {}", self.ty),
        }
    }

    /// The same elements under another shape.
    ///
    /// # Panics
    /// If the number of elements differs.
    pub fn reshaped(&self, ty: TensorType) -> Self {
        assert_eq!(ty.shape.len(), self.ty.shape.len());
        Self {
            ty,
            data: self.data.clone(),
        }
    }

    /// The elements from `offset` on, as type `ty`.
    ///
    /// # Panics
    /// If they do not lie inside, or `ty` has another element type.
    pub fn slice(&self, offset: usize, ty: TensorType) -> Self {
        let range = offset..offset + ty.shape.len();
        match ty.dtype {
            DType::F32 => Self::float(ty, self.f()[range].to_vec()),
            DType::U32 => Self::index(ty, self.u()[range].to_vec()),
            DType::U8 => Self::bytes(ty, self.b()[range].into()),
        }
    }

    /// Overwrites the elements from `offset` on.
    ///
    /// # Panics
    /// If they do not lie inside, or the element types differ.
    pub fn copy_from(&mut self, offset: usize, source: &Self) {
        let range = offset..offset + source.ty.shape.len();
        match &mut self.data {
            Data::Float(v) => v[range].copy_from_slice(source.f()),
            Data::Index(v) => v[range].copy_from_slice(source.u()),
            Data::Bytes(v) => {
                let mut bytes = v.to_vec();
                bytes[range].copy_from_slice(source.b());
                *v = bytes.into();
            }
        }
    }

    /// The elements as the GPU stores them: f32 or u32 little-endian, bytes
    /// padded to whole words.
    pub fn to_gpu_bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::Float(v) => v.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
            Data::Index(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::Bytes(v) => {
                let mut bytes = v.to_vec();
                bytes.resize(bytes.len().next_multiple_of(4), 0);
                bytes
            }
        }
    }

    /// The inverse of [`to_gpu_bytes`](Self::to_gpu_bytes).
    ///
    /// # Panics
    /// If there are fewer bytes than the type takes.
    pub fn from_gpu_bytes(ty: TensorType, bytes: &[u8]) -> Self {
        let words = || {
            bytes
                .chunks_exact(4)
                .take(ty.shape.len())
                .map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))
        };
        match ty.dtype {
            DType::F32 => {
                let data = words().map(|w| f64::from(f32::from_bits(w))).collect();
                Self::float(ty, data)
            }
            DType::U32 => {
                let data = words().collect();
                Self::index(ty, data)
            }
            DType::U8 => {
                let data = bytes[..ty.shape.len()].into();
                Self::bytes(ty, data)
            }
        }
    }
}
