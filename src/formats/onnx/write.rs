//! Putting ONNX messages together.

use super::proto::{
    AttributeProto, Dimension, DimensionProto, NodeProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto, attribute_type, data_type,
};
use prost::bytes::Bytes;

/// The value of an attribute.
pub(super) enum Attribute {
    Int(usize),
    Float(f64),
    Ints(Vec<usize>),
}

impl From<usize> for Attribute {
    fn from(value: usize) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Attribute {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<Vec<usize>> for Attribute {
    fn from(values: Vec<usize>) -> Self {
        Self::Ints(values)
    }
}

impl From<[usize; 2]> for Attribute {
    fn from(values: [usize; 2]) -> Self {
        Self::Ints(values.to_vec())
    }
}

/// A node of one output.
pub(super) fn node(op_type: &str, inputs: Vec<String>, output: &str) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        name: output.into(),
        input: inputs,
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

/// The node with one more attribute.
pub(super) fn with(mut node: NodeProto, name: &str, value: impl Into<Attribute>) -> NodeProto {
    let mut attribute = AttributeProto {
        name: name.into(),
        ..AttributeProto::default()
    };
    match value.into() {
        Attribute::Int(i) => {
            attribute.r#type = attribute_type::INT;
            attribute.i = Some(i as i64);
        }
        Attribute::Float(f) => {
            attribute.r#type = attribute_type::FLOAT;
            attribute.f = Some(f as f32);
        }
        Attribute::Ints(ints) => {
            attribute.r#type = attribute_type::INTS;
            attribute.ints = ints.into_iter().map(|i| i as i64).collect();
        }
    }
    node.attribute.push(attribute);
    node
}

/// A constant of floats.
pub(super) fn floats(name: &str, dims: &[usize], data: &[f32]) -> TensorProto {
    let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    tensor(name, dims, data_type::FLOAT, bytes)
}

/// A constant list of integers.
pub(super) fn integers(name: &str, data: &[i64]) -> TensorProto {
    let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    tensor(name, &[data.len()], data_type::INT64, bytes)
}

/// A constant of signed bytes.
pub(super) fn bytes(name: &str, dims: &[usize], data: Vec<i8>) -> TensorProto {
    let bytes = data.into_iter().map(|b| b as u8).collect();
    tensor(name, dims, data_type::INT8, bytes)
}

fn tensor(name: &str, dims: &[usize], data_type: i32, bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.iter().map(|d| *d as i64).collect(),
        data_type,
        raw_data: Some(Bytes::from(bytes)),
        ..TensorProto::default()
    }
}

/// A float value [batch, dims..] of any batch.
pub(super) fn batched(name: &str, dims: &[usize], doc: String) -> ValueInfoProto {
    let batch = Dimension::Param("batch".into());
    let rest = dims.iter().map(|d| Dimension::Value(*d as i64));
    let dim = |value| DimensionProto { value: Some(value) };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: data_type::FLOAT,
                shape: Some(TensorShapeProto {
                    dim: std::iter::once(batch).chain(rest).map(dim).collect(),
                }),
            }),
        }),
        doc_string: doc,
    }
}
