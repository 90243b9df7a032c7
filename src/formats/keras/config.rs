//! The layers of a Keras configuration, in an order in which each follows those it reads.

use serde_json::{Map, Value};
use std::collections::HashMap;

/// A layer as Keras states it.
#[derive(Clone, Debug)]
pub(super) struct KerasLayer {
    /// Keras's name, unique in the model.
    pub name: String,
    /// `Conv2D` and so on.
    pub class: String,
    pub config: Map<String, Value>,
    /// Names of the layers it reads.
    pub inputs: Vec<String>,
    /// The name of its group in the weights file.
    pub group: String,
}

/// A network of layers.
#[derive(Clone, Debug)]
pub(super) struct Network {
    /// Without a batch: [H, W, C] or as many extents as the model states.
    pub input: Vec<usize>,
    /// The layer that gives the input.
    pub input_layer: String,
    pub layers: Vec<KerasLayer>,
    /// How the model was compiled, if it was.
    pub compiled: Option<Value>,
}

/// The name of the input of a Sequential without an InputLayer.
const NO_LAYER: &str = "\0input";

impl Network {
    pub(super) fn parse(value: &Value) -> Result<Self, String> {
        let class = text(value, "class_name").unwrap_or_default();
        let config = &value["config"];
        let mut network = match class {
            "Sequential" => Self::sequential(config)?,
            "Functional" | "Model" => Self::functional(config)?,
            "" => return Err("is no Keras model: it has no class_name".into()),
            other => {
                return Err(format!(
                    "is a Keras {other}; expected a Sequential or a Functional model. A subclass \
                     of Model has its layers in code, not in the file"
                ));
            }
        };
        network.compiled = value.get("compile_config").cloned();
        Ok(network)
    }

    fn sequential(config: &Value) -> Result<Self, String> {
        // The oldest Keras has the list itself.
        let list = config.get("layers").unwrap_or(config);
        let mut layers = read_layers(list)?;
        let mut input = shape(&config["build_input_shape"]);
        let mut input_layer = NO_LAYER.to_owned();
        if layers.first().is_some_and(|l| l.class == "InputLayer") {
            let first = layers.remove(0);
            input = input_shape(&first.config);
            input_layer = first.name;
        } else if let Some(stated) = layers.first().and_then(|l| input_shape(&l.config)) {
            input = Some(stated);
        }
        let mut previous = input_layer.clone();
        for layer in &mut layers {
            layer.inputs = vec![std::mem::replace(&mut previous, layer.name.clone())];
        }
        name_groups(&mut layers);
        Ok(Self {
            input: input.ok_or_else(no_input)?,
            input_layer,
            layers,
            compiled: None,
        })
    }

    fn functional(config: &Value) -> Result<Self, String> {
        let list = &config["layers"];
        let mut layers = read_layers(list)?;
        // The archive counts them as they stand here, the ones that nothing reads included.
        name_groups(&mut layers);
        let mut shared = Vec::new();
        for (layer, value) in layers.iter_mut().zip(list.as_array().into_iter().flatten()) {
            let nodes = value["inbound_nodes"].as_array();
            match nodes.map(Vec::as_slice) {
                None | Some([]) => {}
                Some([node]) => collect_inputs(node, &mut layer.inputs),
                Some(nodes) => shared.push(format!("{} (used {} times)", layer.name, nodes.len())),
            }
        }
        if !shared.is_empty() {
            return Err(format!("has shared layers: {}", shared.join(", ")));
        }
        let input_layer = only(&config["input_layers"], "input")?;
        let output = only(&config["output_layers"], "output")?;
        let is_input = |l: &&KerasLayer| l.name == input_layer;
        let input = layers.iter().find(is_input);
        let input = input
            .and_then(|l| input_shape(&l.config))
            .ok_or_else(no_input)?;
        let layers = in_order(layers, &input_layer, &output)?;
        Ok(Self {
            input,
            input_layer,
            layers,
            compiled: None,
        })
    }
}

fn no_input() -> String {
    "states no input shape of fixed size; build the model with keras.Input((rows, columns, \
     channels)) first"
        .into()
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

fn read_layers(list: &Value) -> Result<Vec<KerasLayer>, String> {
    let list = list.as_array().ok_or("has no list of layers")?;
    let read = |value: &Value| {
        let config = value["config"].as_object().cloned().unwrap_or_default();
        let class = text(value, "class_name").ok_or("has a layer without a class_name")?;
        let name = config.get("name").or_else(|| value.get("name"));
        let name = name.and_then(Value::as_str);
        Ok(KerasLayer {
            name: name
                .ok_or_else(|| format!("has a {class} without a name"))?
                .into(),
            class: class.into(),
            config,
            inputs: Vec::new(),
            group: String::new(),
        })
    };
    list.iter().map(read).collect()
}

/// Extents without the batch, where all are fixed.
fn shape(value: &Value) -> Option<Vec<usize>> {
    let extents = value.as_array()?.get(1..)?;
    let extent = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
    extents.iter().map(extent).collect()
}

fn input_shape(config: &Map<String, Value>) -> Option<Vec<usize>> {
    let stated = config
        .get("batch_shape")
        .or_else(|| config.get("batch_input_shape"));
    shape(stated?)
}

/// The layers an inbound node names: Keras 3's tensors with a history, or Keras 2's lists that
/// begin with a name.
fn collect_inputs(node: &Value, inputs: &mut Vec<String>) {
    match node {
        Value::Object(object) => {
            let history = object.get("config").and_then(|c| c.get("keras_history"));
            match history.and_then(|h| h[0].as_str()) {
                Some(name) => inputs.push(name.to_owned()),
                None => object.values().for_each(|v| collect_inputs(v, inputs)),
            }
        }
        Value::Array(items) => match items.as_slice() {
            [Value::String(name), Value::Number(_), Value::Number(_), ..] => {
                inputs.push(name.clone());
            }
            items => items.iter().for_each(|v| collect_inputs(v, inputs)),
        },
        _ => {}
    }
}

/// The only layer of a list of inputs or outputs.
fn only(value: &Value, what: &str) -> Result<String, String> {
    let mut names = Vec::new();
    collect_inputs(value, &mut names);
    match names.as_slice() {
        [name] => Ok(name.clone()),
        names => Err(format!(
            "has {} {what}s; expected one image in, one list of classes out",
            names.len()
        )),
    }
}

/// The layers the output needs, each behind those it reads.
fn in_order(layers: Vec<KerasLayer>, input: &str, output: &str) -> Result<Vec<KerasLayer>, String> {
    let mut waiting: HashMap<String, KerasLayer> =
        layers.into_iter().map(|l| (l.name.clone(), l)).collect();
    let mut ordered = Vec::new();
    let mut done = vec![input.to_owned()];
    let mut stack = vec![output.to_owned()];
    // Those that wait for what they read.
    let mut open: Vec<String> = Vec::new();
    while let Some(name) = stack.last().cloned() {
        if done.contains(&name) {
            stack.pop();
            continue;
        }
        let layer = waiting.get(&name);
        let layer = layer.ok_or_else(|| format!("names a layer {name:?} that it does not have"))?;
        let missing: Vec<String> = layer
            .inputs
            .iter()
            .rev()
            .filter(|i| !done.contains(i))
            .cloned()
            .collect();
        if missing.is_empty() {
            done.push(name.clone());
            ordered.extend(waiting.remove(&name));
        } else if missing.iter().any(|m| open.contains(m)) {
            return Err(format!(
                "has layers that read each other, {name} among them"
            ));
        } else {
            open.push(name);
            stack.extend(missing);
        }
    }
    Ok(ordered)
}

/// Names each layer as the weights file does: its class in snake case, numbered from the
/// second on.
fn name_groups(layers: &mut [KerasLayer]) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for layer in layers {
        let name = snake_case(&layer.class);
        let count = counts.entry(name.clone()).or_default();
        layer.group = match *count {
            0 => name,
            n => format!("{name}_{n}"),
        };
        *count += 1;
    }
}

/// `LeakyReLU` as `leaky_re_lu`, by Keras's rule.
pub(super) fn snake_case(class: &str) -> String {
    let letters: Vec<char> = class.chars().collect();
    let mut name = String::new();
    for (i, c) in letters.iter().enumerate() {
        let before = i.checked_sub(1).map(|j| letters[j]);
        let starts_word = letters.get(i + 1).is_some_and(char::is_ascii_lowercase);
        let after_lower = before.is_some_and(|b| b.is_ascii_lowercase());
        if c.is_ascii_uppercase() && before.is_some() && (starts_word || after_lower) {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_groups_are_keras_s() {
        for (class, name) in [
            ("Conv2D", "conv2d"),
            ("BatchNormalization", "batch_normalization"),
            ("ZeroPadding2D", "zero_padding2d"),
            ("DepthwiseConv2D", "depthwise_conv2d"),
            ("LeakyReLU", "leaky_re_lu"),
            ("ReLU", "re_lu"),
            ("ELU", "elu"),
        ] {
            assert_eq!(snake_case(class), name);
        }
    }
}
