//! Reading ONNX files.

use super::proto::Dimension;
use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, data_type,
};
use super::tensor::{Element, Tensor};
use crate::error::{Error, Result};
use prost::Message;
use prost::bytes::Bytes;
use std::collections::HashMap;
use std::path::{Component, Path};

/// Versions of ONNX's operators that are read.
pub const OPSETS: std::ops::RangeInclusive<i64> = 7..=26;

/// Operators that compute in older versions what they do today.
const UNCHANGED: &[&str] = &[
    "Conv",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "LeakyRelu",
    "MaxPool",
    "Not",
    "Relu",
    "Shape",
    "Sigmoid",
    "Size",
    "Tanh",
    "Transpose",
];

/// An input or output of a graph as the file declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub element: Element,
    /// Whether the file has floats of 64 bits, which are computed in 32.
    pub double: bool,
    /// Its extents, `None` where one is open; no list where even their number is.
    pub dims: Option<Vec<Option<usize>>>,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The node's name, or one made of its operator and place.
    pub name: String,
    /// The operator.
    pub operator: String,
    /// Whose operator it is; empty for ONNX's own.
    pub domain: String,
    /// Names of what it reads; empty where one is left out.
    pub inputs: Vec<String>,
    /// Names of what it computes; empty where one is left out.
    pub outputs: Vec<String>,
    attributes: Vec<(String, Attribute)>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Attribute {
    Float(f32),
    Int(i64),
    Text(String),
    Tensor(Tensor),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    /// A graph, or another kind no operator here has.
    Other,
}

impl Node {
    /// The attribute of a name.
    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        let found = self.attributes.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value)
    }

    /// Node and operator, for messages.
    pub fn label(&self) -> String {
        match self.domain.as_str() {
            "" => format!("{} ({})", self.name, self.operator),
            domain => format!("{} ({domain}.{})", self.name, self.operator),
        }
    }
}

/// The content of an ONNX file.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// The graph's name.
    pub name: String,
    /// Version of ONNX's own operators.
    pub opset: i64,
    /// What the graph is given, constants left out.
    pub inputs: Vec<Declared>,
    /// What it computes.
    pub outputs: Vec<Declared>,
    /// Constants by name.
    pub constants: HashMap<String, Tensor>,
    /// The nodes, each after those it reads.
    pub nodes: Vec<Node>,
    /// What the file tells of itself.
    pub metadata: HashMap<String, String>,
}

/// Reads the bytes of an ONNX file whose constants lie in it.
///
/// # Errors
/// What is wrong, without a path. No bytes make it panic, or allocate more than some tens of
/// bytes for each of them.
pub fn read(bytes: &[u8]) -> Result<File, String> {
    read_with(bytes, &|location| {
        Err(format!(
            "lies in another file, {location:?}, which only a path leads to"
        ))
    })
}

/// Reads an ONNX file, with constants that lie in other files of its folder.
///
/// # Errors
/// If it cannot be read, or what is wrong in it.
pub fn load(path: &Path) -> Result<File> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    read_with(&bytes, &|location| beside(folder, location))
        .map_err(|problem| Error::data(path, problem))
}

/// The bytes of a file of the model's folder.
fn beside(folder: &Path, location: &str) -> Result<Bytes, String> {
    let plain = |c| matches!(c, Component::Normal(_) | Component::CurDir);
    if location.is_empty() || !Path::new(location).components().all(plain) {
        return Err(format!(
            "lies in {location:?}; expected a file in the model's own folder"
        ));
    }
    let fail = |e: std::io::Error| format!("lies in {location:?}: {e}");
    let canonical = |path: &Path| path.canonicalize().map_err(fail);
    // A link could lead out of the folder.
    let root = canonical(if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    })?;
    let path = canonical(&root.join(location))?;
    if !path.starts_with(&root) {
        return Err(format!(
            "lies in {location:?}, which leads out of the model's folder"
        ));
    }
    std::fs::read(path).map(Bytes::from).map_err(fail)
}

type External<'a> = &'a dyn Fn(&str) -> Result<Bytes, String>;

fn read_with(bytes: &[u8], external: External<'_>) -> Result<File, String> {
    let model = ModelProto::decode(bytes);
    let model = model.map_err(|e| format!("is no whole ONNX file: {e}"))?;
    let graph = model.graph.ok_or("is no ONNX file: it holds no graph")?;
    let own = |domain: &str| matches!(domain, "" | "ai.onnx");
    let opsets = model.opset_import.iter().filter(|o| own(&o.domain));
    // Without any statement it is version 1.
    let opset = opsets.map(|o| o.version).max().unwrap_or(1);
    // Its nodes may be of other sets alone.
    let nodes = graph.node.iter().filter(|n| own(&n.domain));
    let changed = |n: &&NodeProto| opset > *OPSETS.end() || !UNCHANGED.contains(&&*n.op_type);
    if let (Some(node), false) = (nodes.into_iter().find(changed), OPSETS.contains(&opset)) {
        return Err(format!(
            "uses version {opset} of ONNX's operators, with {}; expected {} to {}",
            node.op_type,
            OPSETS.start(),
            OPSETS.end()
        ));
    }
    if !graph.sparse_initializer.is_empty() {
        return Err("holds sparse constants; expected dense ones".into());
    }
    let metadata = model.metadata_props.into_iter();
    let metadata = metadata.map(|p| (p.key, p.value)).collect();
    read_graph(graph, opset, metadata, external)
}

fn read_graph(
    graph: GraphProto,
    opset: i64,
    metadata: HashMap<String, String>,
    external: External<'_>,
) -> Result<File, String> {
    let mut files = HashMap::new();
    let mut constants = HashMap::new();
    for proto in &graph.initializer {
        let tensor = read_tensor(proto, external, &mut files)?;
        constants.insert(proto.name.clone(), tensor);
    }
    // Old files list their constants among the inputs.
    let given = graph.input.iter();
    let given = given.filter(|i| !constants.contains_key(&i.name));
    let inputs = given.map(declared).collect::<Result<_, _>>()?;
    let outputs = graph
        .output
        .iter()
        .map(declared)
        .collect::<Result<_, _>>()?;
    let nodes = graph.node.into_iter().enumerate();
    let nodes = nodes.map(|(place, node)| read_node(node, place, external, &mut files));
    Ok(File {
        name: graph.name,
        opset,
        inputs,
        outputs,
        nodes: nodes.collect::<Result<_, _>>()?,
        constants,
        metadata,
    })
}

fn declared(info: &ValueInfoProto) -> Result<Declared, String> {
    let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| format!("{}: expected a tensor", info.name))?;
    let element = Element::of(tensor.elem_type);
    let element = element.ok_or_else(|| {
        format!(
            "{}: has element type {}; expected floats, integers or truth values",
            info.name, tensor.elem_type
        )
    })?;
    let dims = tensor.shape.as_ref().map(|shape| {
        let dims = shape.dim.iter().map(|d| match d.value {
            Some(Dimension::Value(n)) => usize::try_from(n).ok(),
            _ => None,
        });
        dims.collect()
    });
    Ok(Declared {
        name: info.name.clone(),
        element,
        double: tensor.elem_type == data_type::DOUBLE,
        dims,
    })
}

fn read_node(
    node: NodeProto,
    place: usize,
    external: External<'_>,
    files: &mut HashMap<String, Bytes>,
) -> Result<Node, String> {
    let name = match node.name.as_str() {
        "" => format!("{}_{place}", node.op_type),
        name => name.to_owned(),
    };
    let mut attributes = Vec::with_capacity(node.attribute.len());
    for attribute in node.attribute {
        let value = read_attribute(&attribute, external, files);
        let value = value.map_err(|e| format!("{name} ({}): {e}", node.op_type))?;
        attributes.push((attribute.name, value));
    }
    let domain = match node.domain.as_str() {
        "ai.onnx" => String::new(),
        _ => node.domain,
    };
    Ok(Node {
        name,
        operator: node.op_type,
        domain,
        inputs: node.input,
        outputs: node.output,
        attributes,
    })
}

/// The value that is set; files of before 2019 may not say which it is.
fn read_attribute(
    proto: &AttributeProto,
    external: External<'_>,
    files: &mut HashMap<String, Bytes>,
) -> Result<Attribute, String> {
    const FLOAT: i32 = 1;
    const INT: i32 = 2;
    const STRING: i32 = 3;
    const FLOATS: i32 = 6;
    const INTS: i32 = 7;
    Ok(if let Some(tensor) = &proto.t {
        Attribute::Tensor(read_tensor(tensor, external, files)?)
    } else if let Some(f) = proto.f {
        Attribute::Float(f)
    } else if let Some(i) = proto.i {
        Attribute::Int(i)
    } else if let Some(s) = &proto.s {
        Attribute::Text(String::from_utf8_lossy(s).into_owned())
    } else if !proto.floats.is_empty() {
        Attribute::Floats(proto.floats.clone())
    } else if !proto.ints.is_empty() {
        Attribute::Ints(proto.ints.clone())
    } else {
        // A value that is its type's default may be left out.
        match proto.r#type {
            FLOAT => Attribute::Float(0.0),
            INT => Attribute::Int(0),
            STRING => Attribute::Text(String::new()),
            FLOATS => Attribute::Floats(Vec::new()),
            INTS => Attribute::Ints(Vec::new()),
            _ => Attribute::Other,
        }
    })
}

/// Reads a tensor; `files` keeps what other files hold.
fn read_tensor(
    proto: &TensorProto,
    external: External<'_>,
    files: &mut HashMap<String, Bytes>,
) -> Result<Tensor, String> {
    const EXTERNAL: i32 = 1;
    let place = |problem| format!("constant {:?} {problem}", proto.name);
    if proto.data_location != EXTERNAL {
        return Tensor::read(proto, None).map_err(place);
    }
    let entry = |key: &str| {
        let found = proto.external_data.iter().find(|e| e.key == key);
        found.map(|e| e.value.as_str())
    };
    let location = entry("location").unwrap_or_default();
    if !files.contains_key(location) {
        let bytes = external(location).map_err(place)?;
        files.insert(location.to_owned(), bytes);
    }
    let whole = &files[location];
    let number = |key: &str, default: usize| match entry(key) {
        None => Some(default),
        Some(text) => text.parse().ok(),
    };
    let offset = number("offset", 0);
    let rest = offset.and_then(|offset| whole.get(offset..));
    let part = rest.and_then(|rest| rest.get(..number("length", rest.len())?));
    let part = part.ok_or_else(|| {
        place(format!(
            "has offset {:?} and length {:?} in {location:?}, which has {} bytes",
            entry("offset"),
            entry("length"),
            whole.len()
        ))
    })?;
    Tensor::read(proto, Some(part)).map_err(place)
}

/// Reads a tensor that stands in a file of its own, such as the data of ONNX's tests.
///
/// # Errors
/// What is wrong with it.
pub fn read_tensor_file(bytes: &[u8]) -> Result<Tensor, String> {
    let proto = TensorProto::decode(bytes);
    let proto = proto.map_err(|e| format!("is no whole tensor: {e}"))?;
    Tensor::read(&proto, None)
}
