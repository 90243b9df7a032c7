//! Activations, as attributes and as layers.

use super::config::KerasLayer;
use super::fields::Fields;
use super::layers::Importer;
use crate::model::parse_function;
use crate::ops::activation::Function;
use serde_json::Value;

impl Importer<'_> {
    /// The activation of a layer that has one.
    pub(super) fn activation(
        &mut self,
        fields: &Fields<'_>,
        last: bool,
    ) -> Result<Function, String> {
        self.named_function(fields.0.get("activation").unwrap_or(&Value::Null), last)
    }

    pub(super) fn named_function(&mut self, value: &Value, last: bool) -> Result<Function, String> {
        let name = match value {
            Value::Null => return Ok(Function::Identity),
            Value::String(name) => name.as_str(),
            // A function as an object, `{"class_name": "function", "config": "relu"}`.
            object => match &object["config"] {
                Value::String(name) => name.as_str(),
                config => config["name"].as_str().unwrap_or("a custom function"),
            },
        };
        match name {
            "softmax" | "log_softmax" if last => {
                self.notes
                    .push(format!("the final {name} is left out: the loss applies it"));
                Ok(Function::Identity)
            }
            "sigmoid" if last => {
                Err("ends in a sigmoid; end in softmax, with two outputs for two classes".into())
            }
            // Keras's activation has another slope than its layer.
            "leaky_relu" => Ok(Function::LeakyRelu { slope: 0.2 }),
            name => parse_function(name).map_err(|_| format!("has activation {name}")),
        }
    }

    /// The function of a layer that is nothing else; `None` for other layers.
    pub(super) fn single_function(
        &mut self,
        keras: &KerasLayer,
        last: bool,
    ) -> Result<Option<Function>, String> {
        let fields = Fields(&keras.config);
        let function = match keras.class.as_str() {
            "Activation" => self.activation(&fields, last)?,
            "Softmax" => self.named_function(&Value::from("softmax"), last)?,
            "LeakyReLU" => Function::LeakyRelu {
                slope: fields.number("negative_slope", fields.number("alpha", 0.3)),
            },
            "ELU" => Function::Elu {
                alpha: fields.number("alpha", 1.0),
            },
            "ReLU" => {
                let slope = fields.number("negative_slope", 0.0);
                let limit = fields.0.get("max_value").unwrap_or(&Value::Null);
                match (limit, slope, fields.number("threshold", 0.0)) {
                    (Value::Null, 0.0, 0.0) => Function::Relu,
                    (Value::Null, slope, 0.0) => Function::LeakyRelu { slope },
                    (limit, 0.0, 0.0) if limit.as_f64() == Some(6.0) => {
                        self.named_function(&Value::from("relu6"), last)?
                    }
                    _ => return Err("has max_value or threshold".into()),
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(function))
    }
}
