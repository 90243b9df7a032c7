//! One layer of Keras as one or more of ours.

use super::config::KerasLayer;
use super::fields::{Fields, flat_numbers};
use super::layers::{Importer, UNKNOWN};
use crate::model::{
    Activation, Add, AvgPool2d, BatchNorm2d, Concat, Conv2d, Dense, DepthwiseConv2d, Dropout,
    Flatten, GlobalAvgPool, Layer, LayerNorm2d, MaxPool2d, Mul, Node, Reshape, ZeroPad2d,
};
use crate::ops::activation::Function;
use serde_json::Value;

impl Importer<'_> {
    /// Adds a layer under its name.
    pub(super) fn place(
        &mut self,
        keras: &KerasLayer,
        name: &str,
        inputs: &[Node],
        last: bool,
    ) -> Result<Node, String> {
        let (class, fields) = (keras.class.as_str(), Fields(&keras.config));
        let mut layer = self.weighted(class, &fields, inputs, last)?;
        if layer.is_none() {
            layer = self.plain(class, &fields, inputs)?;
        }
        if let Some(layer) = layer {
            return Ok(self.add(name, layer, inputs));
        }
        match class {
            "SeparableConv2D" => {
                let activation = self.activation(&fields, last)?;
                let depthwise = self.depthwise(&fields, inputs, false, Function::Identity)?;
                let middle = self.add(&format!("{name}.depthwise"), depthwise, inputs);
                let pointwise = Conv2d::new(fields.count("filters")?, 1)
                    .bias(fields.flag("use_bias", true))
                    .activation(activation);
                Ok(self.add(name, pointwise, &[middle]))
            }
            "GlobalAveragePooling2D" | "GlobalAvgPool2D" => {
                self.global(&fields, name, inputs, GlobalAvgPool {}.into())
            }
            "GlobalMaxPooling2D" | "GlobalMaxPool2D" => {
                let [_, h, w] = self.image_shape(&inputs[0])?;
                let pooled = self.add(&format!("{name}.pool"), MaxPool2d::new([h, w]), inputs);
                self.global(&fields, name, &[pooled], Flatten.into())
            }
            "Reshape" => self.reshape(&fields, name, inputs),
            "InputLayer" => Err("is a second input".into()),
            _ => match self.single_function(keras, last)? {
                Some(Function::Identity) => Ok(inputs[0].clone()),
                Some(function) => Ok(self.add(name, Activation::new(function), inputs)),
                None => Err(UNKNOWN.into()),
            },
        }
    }

    /// A class that is one layer of ours with weights.
    fn weighted(
        &mut self,
        class: &str,
        fields: &Fields<'_>,
        inputs: &[Node],
        last: bool,
    ) -> Result<Option<Layer>, String> {
        Ok(Some(match class {
            "Conv2D" | "Convolution2D" => {
                Conv2d::new(fields.count("filters")?, fields.pair("kernel_size")?)
                    .stride(fields.pair_or("strides", 1)?)
                    .padding(fields.padding()?)
                    .dilation(fields.pair_or("dilation_rate", 1)?)
                    .groups(fields.count_or("groups", 1)?)
                    .bias(fields.flag("use_bias", true))
                    .activation(self.activation(fields, last)?)
                    .into()
            }
            "DepthwiseConv2D" => {
                let activation = self.activation(fields, last)?;
                self.depthwise(fields, inputs, fields.flag("use_bias", true), activation)?
            }
            "Dense" => Dense::new(fields.count("units")?)
                .bias(fields.flag("use_bias", true))
                .activation(self.activation(fields, last)?)
                .into(),
            "BatchNormalization" => self.batch_norm(fields, &inputs[0])?,
            "LayerNormalization" => self.layer_norm(fields, &inputs[0])?,
            _ => return Ok(None),
        }))
    }

    /// A class that is one layer of ours without weights.
    fn plain(
        &self,
        class: &str,
        fields: &Fields<'_>,
        inputs: &[Node],
    ) -> Result<Option<Layer>, String> {
        Ok(Some(match class {
            "MaxPooling2D" | "MaxPool2D" => {
                let size = fields.pair_or("pool_size", 2)?;
                MaxPool2d::new(size)
                    .stride(fields.pair_or_else("strides", size)?)
                    .padding(fields.padding()?)
                    .into()
            }
            "AveragePooling2D" | "AvgPool2D" => {
                let size = fields.pair_or("pool_size", 2)?;
                AvgPool2d::new(size)
                    .stride(fields.pair_or_else("strides", size)?)
                    .padding(fields.padding()?)
                    .into()
            }
            "Dropout" => Dropout::new(fields.number("rate", 0.5)).into(),
            "Flatten" => Flatten.into(),
            "ZeroPadding2D" => ZeroPad2d {
                padding: fields.pads()?,
            }
            .into(),
            "Add" => Add::default().into(),
            "Multiply" => Mul {}.into(),
            "Concatenate" => {
                let rank = self.shape(&inputs[0])?.len() as i64;
                match fields.0.get("axis").and_then(Value::as_i64).unwrap_or(-1) {
                    axis if axis == -1 || axis == rank => Concat {}.into(),
                    axis => return Err(format!("joins axis {axis}; only the channels are taken")),
                }
            }
            _ => return Ok(None),
        }))
    }

    fn image_shape(&self, node: &Node) -> Result<[usize; 3], String> {
        let shape = self.shape(node)?;
        shape
            .as_slice()
            .try_into()
            .map_err(|_| format!("reads {shape:?}; expected images"))
    }

    fn depthwise(
        &self,
        fields: &Fields<'_>,
        inputs: &[Node],
        bias: bool,
        activation: Function,
    ) -> Result<Layer, String> {
        let kernel = fields.pair("kernel_size")?;
        let stride = fields.pair_or("strides", 1)?;
        let (padding, dilation) = (fields.padding()?, fields.pair_or("dilation_rate", 1)?);
        let multiplier = fields.count_or("depth_multiplier", 1)?;
        if multiplier == 1 {
            let layer = DepthwiseConv2d::new(kernel).stride(stride).padding(padding);
            return Ok(layer
                .dilation(dilation)
                .bias(bias)
                .activation(activation)
                .into());
        }
        let [channels, ..] = self.image_shape(&inputs[0])?;
        let layer = Conv2d::new(channels * multiplier, kernel).groups(channels);
        let layer = layer.stride(stride).padding(padding).dilation(dilation);
        Ok(layer.bias(bias).activation(activation).into())
    }

    /// A global pool, with its rows and columns of one kept where Keras keeps them.
    fn global(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        inputs: &[Node],
        layer: Layer,
    ) -> Result<Node, String> {
        if !fields.flag("keepdims", false) {
            return Ok(self.add(name, layer, inputs));
        }
        let [channels, ..] = self.image_shape(&inputs[0])?;
        let flat = self.add(&format!("{name}.mean"), layer, inputs);
        let shape = vec![channels, 1, 1];
        Ok(self.add(name, Reshape { shape }, &[flat]))
    }

    /// Refuses a normalisation of other axes than that of the channels.
    fn of_channels(&self, fields: &Fields<'_>, input: &Node) -> Result<(), String> {
        let rank = self.shape(input)?.len();
        let axis = match fields.0.get("axis") {
            Some(Value::Array(axes)) if axes.len() == 1 => axes[0].as_i64(),
            Some(axis) => axis.as_i64(),
            None => Some(-1),
        };
        if axis != Some(-1) && axis != Some(rank as i64) {
            return Err(format!(
                "normalises axis {axis:?}; only the channels are taken"
            ));
        }
        Ok(())
    }

    fn layer_norm(&mut self, fields: &Fields<'_>, input: &Node) -> Result<Layer, String> {
        self.of_channels(fields, input)?;
        let flags = [("scale", true), ("center", true), ("rms_scaling", false)];
        if let Some((flag, _)) = flags
            .iter()
            .find(|(f, usual)| fields.flag(f, *usual) != *usual)
        {
            return Err(format!("has another {flag} than the default"));
        }
        let epsilon = fields.number("epsilon", 1e-3);
        Ok(LayerNorm2d { epsilon }.into())
    }

    fn batch_norm(&mut self, fields: &Fields<'_>, input: &Node) -> Result<Layer, String> {
        self.of_channels(fields, input)?;
        if fields.flag("renorm", false) {
            return Err("has renorm".into());
        }
        if !fields.flag("scale", true) || !fields.flag("center", true) {
            let note = "a BatchNormalization without scale or center gets one here, which trains";
            if !self.notes.iter().any(|n| n == note) {
                self.notes.push(note.into());
            }
        }
        Ok(BatchNorm2d {
            momentum: fields.number("momentum", 0.99),
            epsilon: fields.number("epsilon", 1e-3),
        }
        .into())
    }

    /// A reshape that keeps the order of the elements in either layout.
    fn reshape(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        inputs: &[Node],
    ) -> Result<Node, String> {
        let from = self.shape(&inputs[0])?;
        let count: usize = from.iter().product();
        let mut target: Vec<i64> = flat_numbers(fields.0.get("target_shape"))
            .into_iter()
            .map(|v| v as i64)
            .collect();
        let known: i64 = target.iter().filter(|e| **e > 0).product();
        if let Some(free) = target.iter_mut().find(|e| **e == -1) {
            *free = count as i64 / known.max(1);
        }
        let one_order = |shape: &[usize]| match shape {
            [c, h, w] => *c == 1 || h * w == 1,
            _ => false,
        };
        let shape = match *target.as_slice() {
            [n] if n as usize == count => return Ok(self.add(name, Flatten, inputs)),
            [h, w, c] => [c, h, w].map(|e| e.max(0) as usize),
            _ => {
                return Err(format!(
                    "to {target:?}; expected [features] or [rows, columns, channels]"
                ));
            }
        };
        let flat = from.len() == 1 && !self.orders.contains_key(inputs[0].name());
        if one_order(&shape) && (flat || one_order(&from)) {
            let shape = shape.to_vec();
            return Ok(self.add(name, Reshape { shape }, inputs));
        }
        Err(format!(
            "from {from:?} to {target:?} mixes channels with rows and columns"
        ))
    }
}
