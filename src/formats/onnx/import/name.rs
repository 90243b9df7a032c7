//! Names of layers.

use std::collections::HashSet;

/// Names that are given out once each.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// `wanted` where it can be a layer's name and is free; else the first free number after
    /// `stem`.
    pub fn take(&mut self, wanted: Option<&str>, stem: &str) -> String {
        let fits = |name: &&str| {
            let plain = name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
            plain && name.split('.').all(|part| !part.is_empty()) && !self.0.contains(*name)
        };
        let numbered = || {
            (1..)
                .map(|n| format!("{stem}{n}"))
                .find(|n| !self.0.contains(n))
        };
        let name = match wanted.filter(fits) {
            Some(name) => name.to_owned(),
            None => numbered().unwrap_or_default(),
        };
        self.0.insert(name.clone());
        name
    }

    /// Keeps a name from being given out.
    pub fn reserve(&mut self, name: &str) {
        self.0.insert(name.to_owned());
    }
}

/// The layer that a weight of this name belongs to, as PyTorch and Keras name weights:
/// `layer1.0.conv1.weight` is of `layer1.0.conv1`.
pub(super) fn layer_of(weight: &str) -> Option<&str> {
    ["weight", "kernel", "gamma"]
        .iter()
        .find_map(|role| weight.strip_suffix(role)?.strip_suffix(['.', '/']))
}
