//! Random legal cases of an op, for the property tests.

use super::{Op, Step};
use crate::tensor::TensorType;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A source of random choices with the few draws that case generators need.
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// An integer from `low` to `high`, both included.
    pub fn int(&mut self, low: usize, high: usize) -> usize {
        self.0.random_range(low..=high)
    }

    /// A float from `low` (included) to `high`.
    pub fn float(&mut self, low: f64, high: f64) -> f64 {
        self.0.random_range(low..high)
    }

    /// True or false.
    pub fn coin(&mut self) -> bool {
        self.0.random()
    }

    /// One of the choices.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.int(0, choices.len() - 1)].clone()
    }

    /// A random order of 0..len.
    pub fn order(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for i in (1..len).rev() {
            order.swap(i, self.int(0, i));
        }
        order
    }
}

/// How an input of a case is filled.
#[derive(Clone, Debug, PartialEq)]
pub enum Fill {
    /// Floats spread evenly over the range.
    Uniform(f64, f64),
    /// Floats in [-1, 1], all different, none nearer to another or to zero than
    /// a finite-difference step: for ops with kinks or ties.
    Distinct,
    /// Floats from this many evenly spaced values in [-1, 1], so that equal ones are common.
    Levels(usize),
    /// Floats in [-1, 1], but so many of them infinite or NaN.
    Spoilt(usize),
    /// Indices below the bound.
    Below(u32),
    /// These indices.
    Indices(Vec<u32>),
    /// Any bytes.
    Bytes,
}

impl Fill {
    /// Floats spread evenly over [-1, 1].
    pub const UNIT: Self = Self::Uniform(-1.0, 1.0);
}

/// How far a GPU result may be from the float64 reference:
/// `|gpu - reference| <= absolute + relative * |reference|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Absolute part.
    pub absolute: f64,
    /// Relative part.
    pub relative: f64,
}

impl Tolerance {
    /// Bits for bits.
    pub const EXACT: Self = Self {
        absolute: 0.0,
        relative: 0.0,
    };

    /// For a sum of `terms` products of magnitude at most `magnitude`, added in
    /// f32 in any order: each of the additions rounds a partial sum of at most
    /// `terms * magnitude` by half an epsilon; roundings are independent, so their
    /// sum grows as the root of their number. Four deviations are allowed.
    pub fn sum(terms: usize, magnitude: f64) -> Self {
        let terms = terms.max(1) as f64;
        let eps = f64::from(f32::EPSILON);
        Self {
            absolute: 4.0 * eps * terms.sqrt() * terms.sqrt() * magnitude,
            relative: 4.0 * eps,
        }
    }

    /// For elementwise functions built from WGSL's `exp`, `log` and division.
    /// Vulkan asks of `exp(x)` 3 + 2|x| ULP and of division 2.5; with |x| up to
    /// about 8 and a handful of operations that is below 64 epsilon.
    pub fn transcendental() -> Self {
        let eps = f64::from(f32::EPSILON);
        Self {
            absolute: 64.0 * eps,
            relative: 64.0 * eps,
        }
    }

    /// This bound widened by [`transcendental`](Self::transcendental)'s: for a function
    /// of a sum. The functions here have slopes of at most about 1.1.
    #[must_use]
    pub fn and_transcendental(self) -> Self {
        let function = Self::transcendental();
        Self {
            absolute: 1.2 * self.absolute + function.absolute,
            relative: 1.2 * self.relative + function.relative,
        }
    }

    /// Whether `found` is near enough to `expected`.
    pub fn holds(&self, expected: f64, found: f64) -> bool {
        expected == found
            || (found - expected).abs() <= self.absolute + self.relative * expected.abs()
    }
}

/// One random legal case of an op.
#[derive(Debug)]
pub struct Sample {
    /// The op, attributes drawn.
    pub op: Box<dyn Op>,
    /// Types and fillings of the inputs.
    pub inputs: Vec<(TensorType, Fill)>,
    /// How near the GPU must come to the reference.
    pub tolerance: Tolerance,
    /// Whether to check [`Op::gradient`] against finite differences.
    pub differentiable: bool,
    /// Outputs, from the first, that may reach a loss; those after them are saved for
    /// the gradient.
    pub loss_outputs: usize,
    /// Inputs whose gradient is checked; `None` for every float input.
    pub wrt: Option<Vec<usize>>,
    /// What the op's last output, of indices, chooses from: the op over the same inputs whose
    /// output holds in each plane the elements that the indices of that plane name. Where two
    /// of them are nearer than the tolerance, either may be chosen; `None` where none may.
    pub chosen_from: Option<Box<dyn Op>>,
    /// The step's values.
    pub step: Step,
}

impl Sample {
    /// A case with a gradient to check and default step values.
    pub fn new(op: impl Op, inputs: Vec<(TensorType, Fill)>, tolerance: Tolerance) -> Self {
        Self {
            op: Box::new(op),
            inputs,
            tolerance,
            differentiable: true,
            loss_outputs: usize::MAX,
            wrt: None,
            chosen_from: None,
            step: Step {
                number: 3,
                seed: 42,
                first: 0,
                count: u32::MAX,
                slot: 0,
                learning_rate: 0.1,
                correction1: 0.271,
                correction2: 0.002_997,
            },
        }
    }

    /// The same case with [indices](Self::chosen_from) into the output of `op`.
    #[must_use]
    pub fn choosing(mut self, op: impl Op) -> Self {
        self.chosen_from = Some(Box::new(op));
        self
    }

    /// The same case without a gradient to check.
    #[must_use]
    pub fn without_gradient(mut self) -> Self {
        self.differentiable = false;
        self
    }

    /// The same case with the gradient of its first `outputs` outputs to check, with
    /// respect to the inputs `wrt`.
    #[must_use]
    pub fn gradient_of(mut self, outputs: usize, wrt: &[usize]) -> Self {
        self.loss_outputs = outputs;
        self.wrt = Some(wrt.to_vec());
        self
    }
}
