//! Reads ONNX backend node tests: only the messages and fields they need
//! (<https://github.com/onnx/onnx/blob/v1.19.1/onnx/onnx.proto>).

use gpucnn::ops::Array;
use gpucnn::tensor::{DType, TensorType};
use prost::Message;
use std::path::Path;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, tag = "2")]
    f: f32,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(bytes = "vec", tag = "4")]
    s: Vec<u8>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

/// `TensorProto.DataType`.
const FLOAT: i32 = 1;
const INT64: i32 = 7;
const BOOL: i32 = 9;

/// The elements of a tensor.
pub enum Data {
    Float(Vec<f64>),
    Int(Vec<i64>),
}

/// A tensor of a case.
pub struct Tensor {
    pub dims: Vec<usize>,
    pub data: Data,
}

impl Tensor {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let proto = TensorProto::decode(bytes.as_slice()).unwrap();
        let raw = proto.raw_data.as_slice();
        let data = match proto.data_type {
            FLOAT => {
                let (words, _) = raw.as_chunks();
                Data::Float(
                    words
                        .iter()
                        .map(|w| f32::from_le_bytes(*w).into())
                        .collect(),
                )
            }
            INT64 => {
                let (words, _) = raw.as_chunks();
                Data::Int(words.iter().map(|w| i64::from_le_bytes(*w)).collect())
            }
            BOOL => Data::Int(raw.iter().map(|b| (*b).into()).collect()),
            other => panic!("{}: element type {other}", path.display()),
        };
        Self {
            dims: proto.dims.iter().map(|d| *d as usize).collect(),
            data,
        }
    }

    /// The type of the state that holds it. Integers are labels.
    pub fn ty(&self) -> TensorType {
        let dtype = match self.data {
            Data::Float(_) => DType::F32,
            Data::Int(_) => DType::U32,
        };
        TensorType {
            shape: self.dims.as_slice().into(),
            dtype,
        }
    }

    /// The tensor, times a factor where it is of floats. Negative labels wrap around, as
    /// our ops expect them.
    pub fn array(&self, factor: f64) -> Array {
        match &self.data {
            Data::Float(data) => Array::float(self.ty(), data.iter().map(|x| x * factor).collect()),
            Data::Int(data) => Array::index(self.ty(), data.iter().map(|i| *i as u32).collect()),
        }
    }

    /// The one float it holds.
    pub fn float(&self) -> f64 {
        match &self.data {
            Data::Float(data) if data.len() == 1 => data[0],
            _ => panic!("expected one float"),
        }
    }

    /// The one integer it holds.
    pub fn int(&self) -> i64 {
        match &self.data {
            Data::Int(data) if data.len() == 1 => data[0],
            _ => panic!("expected one integer"),
        }
    }
}

/// A model of one operator, with inputs and expected outputs.
pub struct Case {
    pub name: String,
    pub operator: String,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
    attributes: Vec<AttributeProto>,
}

impl Case {
    /// Reads the test in a folder.
    pub fn read(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join("model.onnx")).unwrap();
        let model = ModelProto::decode(bytes.as_slice()).unwrap();
        let mut nodes = model.graph.unwrap().node;
        assert_eq!(nodes.len(), 1, "{}", folder.display());
        let node = nodes.swap_remove(0);
        let tensors = |kind: &str| {
            let path = |i| folder.join(format!("test_data_set_0/{kind}_{i}.pb"));
            let paths = (0..).map(path).take_while(|p| p.exists());
            paths.map(|p| Tensor::read(&p)).collect()
        };
        Self {
            name: folder.file_name().unwrap().to_string_lossy().into(),
            operator: node.op_type,
            inputs: tensors("input"),
            outputs: tensors("output"),
            attributes: node.attribute,
        }
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attributes.iter().find(|a| a.name == name)
    }

    /// A float attribute.
    pub fn float(&self, name: &str, default: f64) -> f64 {
        self.attribute(name).map_or(default, |a| a.f.into())
    }

    /// An integer attribute, where it is stated.
    pub fn stated(&self, name: &str) -> Option<i64> {
        self.attribute(name).map(|a| a.i)
    }

    /// An integer attribute.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.stated(name).unwrap_or(default)
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name).map(|a| a.ints.clone())
    }

    /// A text attribute.
    pub fn text(&self, name: &str, default: &str) -> String {
        let found = self.attribute(name).map(|a| a.s.clone());
        found.map_or(default.into(), |s| String::from_utf8(s).unwrap())
    }
}
