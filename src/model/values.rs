//! Attribute values as model files and the builder write them.

use super::layer::Lowering;
use crate::error::Result;
use crate::ops::{Pads, Window, activation::Function};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Rows and columns: `3` for both alike, or `[3, 5]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "PairText", into = "PairText")]
pub struct Pair(pub [usize; 2]);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PairText {
    Both(usize),
    Each([usize; 2]),
}

impl From<PairText> for Pair {
    fn from(text: PairText) -> Self {
        match text {
            PairText::Both(n) => Self([n, n]),
            PairText::Each(pair) => Self(pair),
        }
    }
}

impl From<Pair> for PairText {
    fn from(Pair([a, b]): Pair) -> Self {
        if a == b {
            Self::Both(a)
        } else {
            Self::Each([a, b])
        }
    }
}

impl From<usize> for Pair {
    fn from(n: usize) -> Self {
        Self([n, n])
    }
}

impl From<[usize; 2]> for Pair {
    fn from(pair: [usize; 2]) -> Self {
        Self(pair)
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self([1, 1])
    }
}

/// Padding of a window: `"valid"` (none), `"same"` (output extent is the input's over the
/// stride, rounded up), a number for all sides, or `[top, bottom, left, right]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PadText", into = "PadText")]
pub enum Pad {
    /// None.
    #[default]
    Valid,
    /// As much as keeps `ceil(input / stride)` windows, the odd one below and right.
    Same,
    /// These rows and columns.
    Explicit(Pads),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PadText {
    Name(String),
    All(usize),
    Sides([usize; 4]),
}

impl TryFrom<PadText> for Pad {
    type Error = String;

    fn try_from(text: PadText) -> Result<Self, String> {
        match text {
            PadText::Name(name) if name == "valid" => Ok(Self::Valid),
            PadText::Name(name) if name == "same" => Ok(Self::Same),
            PadText::Name(name) => Err(format!(
                "unknown padding {name:?}; expected \"valid\", \"same\", a number or \
                 [top, bottom, left, right]"
            )),
            PadText::All(n) => Ok(Self::Explicit(Pads::uniform(n))),
            PadText::Sides([top, bottom, left, right]) => Ok(Self::Explicit(Pads {
                top,
                bottom,
                left,
                right,
            })),
        }
    }
}

impl From<Pad> for PadText {
    fn from(pad: Pad) -> Self {
        match pad {
            Pad::Valid => Self::Name("valid".into()),
            Pad::Same => Self::Name("same".into()),
            Pad::Explicit(p) => Self::Sides([p.top, p.bottom, p.left, p.right]),
        }
    }
}

impl Pad {
    /// The window with this padding over an image of `[rows, columns]`.
    pub(super) fn window(
        self,
        kernel: Pair,
        stride: Pair,
        dilation: Pair,
        image: [usize; 2],
    ) -> Window {
        let mut window = Window::new(kernel.0);
        window.stride = stride.0;
        window.dilation = dilation.0;
        window.pads = match self {
            Self::Valid => Pads::default(),
            Self::Same => Pads::same(kernel.0, stride.0, dilation.0, image),
            Self::Explicit(pads) => pads,
        };
        window
    }
}

/// Activation functions by the names model files use.
const FUNCTIONS: [(&str, Function); 15] = [
    ("linear", Function::Identity),
    ("relu", Function::Relu),
    ("leaky_relu", Function::LeakyRelu { slope: 0.3 }),
    ("elu", Function::Elu { alpha: 1.0 }),
    ("gelu", Function::Gelu),
    ("gelu_tanh", Function::GeluTanh),
    ("silu", Function::Silu),
    ("swish", Function::Silu),
    ("sigmoid", Function::Sigmoid),
    ("tanh", Function::Tanh),
    ("relu6", Function::Relu6),
    ("hard_sigmoid", Function::HardSigmoid),
    ("hard_swish", Function::HardSwish),
    ("softplus", Function::Softplus),
    ("mish", Function::Mish),
];

/// Reads `relu`, or `leaky_relu(0.1)` with the function's parameter.
pub(crate) fn parse_function(text: &str) -> Result<Function, String> {
    let (name, parameter) = match text.strip_suffix(')').and_then(|t| t.split_once('(')) {
        Some((name, parameter)) => (name, Some(parameter)),
        None => (text, None),
    };
    let known = || FUNCTIONS.map(|(n, _)| n).join(", ");
    let (_, function) = FUNCTIONS
        .iter()
        .find(|(n, _)| *n == name)
        .ok_or_else(|| format!("unknown activation {name:?}; expected one of {}", known()))?;
    let Some(parameter) = parameter else {
        return Ok(*function);
    };
    let value: f64 = parameter
        .trim()
        .parse()
        .ok()
        .filter(|v: &f64| (*v as f32).is_finite())
        .ok_or_else(|| format!("{parameter:?} is no number, in activation {text:?}"))?;
    match function {
        Function::LeakyRelu { .. } => Ok(Function::LeakyRelu { slope: value }),
        Function::Elu { .. } => Ok(Function::Elu { alpha: value }),
        _ => Err(format!(
            "activation {name} has no parameter, found {text:?}"
        )),
    }
}

fn function_text(function: Function) -> String {
    let same = |f: &Function| std::mem::discriminant(f) == std::mem::discriminant(&function);
    let name = FUNCTIONS
        .iter()
        .find(|(_, f)| same(f))
        .map_or("", |(n, _)| n);
    match function {
        Function::LeakyRelu { slope: p } | Function::Elu { alpha: p } => format!("{name}({p})"),
        _ => name.to_owned(),
    }
}

/// Serde for an activation given by name.
pub(super) mod function {
    use super::{
        Deserialize, Deserializer, Function, Serializer, de, function_text, parse_function,
    };

    pub fn serialize<S: Serializer>(function: &Function, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&function_text(*function))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Function, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_function(&text).map_err(de::Error::custom)
    }
}

/// Serde for zeros around an image: a number for all sides, or
/// `[top, bottom, left, right]`.
pub(super) mod pads {
    use super::{Deserialize, Deserializer, Pads, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "expected a number or [top, bottom, left, right]"
    )]
    enum Text {
        All(usize),
        Sides([usize; 4]),
    }

    pub fn serialize<S: Serializer>(pads: &Pads, serializer: S) -> Result<S::Ok, S::Error> {
        [pads.top, pads.bottom, pads.left, pads.right].serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pads, D::Error> {
        Ok(match Text::deserialize(deserializer)? {
            Text::All(pad) => Pads::uniform(pad),
            Text::Sides([top, bottom, left, right]) => Pads {
                top,
                bottom,
                left,
                right,
            },
        })
    }
}

/// An error that names the layer unless its attribute `what` lies in [0, 1).
pub(super) fn check_fraction(lowering: &Lowering<'_>, what: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(lowering.error(format!(
        "{what}: expected at least 0 and below 1, found {value}"
    )))
}
