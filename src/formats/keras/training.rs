//! How a Keras model was compiled, as training defaults.

use super::config::{Network, text};
use crate::model::TrainingDefaults;
use serde_json::Value;

/// The optimizer and its rate, where the model was compiled with one that gpucnn has.
pub(super) fn defaults(network: &Network) -> TrainingDefaults {
    let mut defaults = TrainingDefaults::default();
    let optimizer = network.compiled.as_ref().and_then(|c| c.get("optimizer"));
    let Some(optimizer) = optimizer else {
        return defaults;
    };
    let (name, config) = match optimizer {
        Value::String(name) => (name.as_str(), &Value::Null),
        object => (
            text(object, "class_name").unwrap_or_default(),
            &object["config"],
        ),
    };
    let momentum = config["momentum"].as_f64().unwrap_or(0.0);
    let ours = match name.to_lowercase().as_str() {
        "adam" => "adam",
        "adamw" => "adamw",
        "rmsprop" => "rmsprop",
        "adagrad" => "adagrad",
        "lion" => "lion",
        // Those with momentum have 0.9 of it.
        "sgd" if momentum == 0.0 => "sgd",
        "sgd" if momentum == 0.9 && config["nesterov"] == true => "nesterov",
        "sgd" if momentum == 0.9 => "momentum",
        _ => return defaults,
    };
    defaults.optimizer = ours.into();
    let rate = config["learning_rate"].as_f64();
    defaults.learning_rate = rate.filter(|r| *r > 0.0 && r.is_finite());
    if ours == "adamw" {
        defaults.weight_decay = config["weight_decay"].as_f64().filter(|d| *d >= 0.0);
    }
    defaults
}
