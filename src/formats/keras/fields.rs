//! The attributes of a layer's configuration.

use crate::model::{Pad, Pair};
use crate::ops::Pads;
use serde_json::{Map, Value};

/// All numbers of nested lists, in order.
pub(super) fn flat_numbers(value: Option<&Value>) -> Vec<f64> {
    match value {
        Some(Value::Array(items)) => items.iter().flat_map(|v| flat_numbers(Some(v))).collect(),
        Some(value) => vec![value.as_f64().unwrap_or(f64::NAN)],
        None => Vec::new(),
    }
}

/// The attributes of a layer.
pub(super) struct Fields<'a>(pub &'a Map<String, Value>);

impl Fields<'_> {
    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    pub(super) fn number(&self, key: &str, default: f64) -> f64 {
        self.0.get(key).and_then(Value::as_f64).unwrap_or(default)
    }

    pub(super) fn count(&self, key: &str) -> Result<usize, String> {
        let value = self.0.get(key).unwrap_or(&Value::Null);
        let count = value.as_u64().filter(|n| (1..1 << 24).contains(n));
        count
            .map(|n| n as usize)
            .ok_or_else(|| format!("has {key} {value}"))
    }

    pub(super) fn count_or(&self, key: &str, default: usize) -> Result<usize, String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(_) => self.count(key),
        }
    }

    pub(super) fn pair(&self, key: &str) -> Result<Pair, String> {
        let value = self.0.get(key).unwrap_or(&Value::Null);
        let numbers = flat_numbers(Some(value));
        let whole = |v: &f64| v.fract() == 0.0 && (1.0..65536.0).contains(v);
        match numbers.as_slice() {
            [n] if whole(n) => Ok(Pair::from(*n as usize)),
            [a, b] if whole(a) && whole(b) => Ok(Pair::from([*a as usize, *b as usize])),
            _ => Err(format!("has {key} {value}")),
        }
    }

    pub(super) fn pair_or(&self, key: &str, default: usize) -> Result<Pair, String> {
        self.pair_or_else(key, Pair::from(default))
    }

    pub(super) fn pair_or_else(&self, key: &str, default: Pair) -> Result<Pair, String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(_) => self.pair(key),
        }
    }

    pub(super) fn padding(&self) -> Result<Pad, String> {
        match self.0.get("padding").and_then(Value::as_str) {
            Some("same") => Ok(Pad::Same),
            Some("valid") | None => Ok(Pad::Valid),
            Some(other) => Err(format!("has padding {other}")),
        }
    }

    /// The zeros of a ZeroPadding2D.
    pub(super) fn pads(&self) -> Result<Pads, String> {
        let value = self.0.get("padding").unwrap_or(&Value::Null);
        let numbers: Vec<usize> = flat_numbers(Some(value))
            .iter()
            .map(|v| *v as usize)
            .collect();
        let [top, bottom, left, right] = match *numbers.as_slice() {
            [n] => [n; 4],
            [h, w] => [h, h, w, w],
            [top, bottom, left, right] => [top, bottom, left, right],
            _ => return Err(format!("has padding {value}")),
        };
        Ok(Pads {
            top,
            bottom,
            left,
            right,
        })
    }
}
