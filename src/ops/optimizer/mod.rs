//! Optimizers: rules that change parameters in place from their gradients.
//!
//! A rule runs over whole arenas, so one dispatch updates a model. Formulas and defaults
//! are Keras's (`keras.optimizers`), stated with each rule.

mod norm;
mod rule;
mod running;

pub use norm::SquaredNorm;
pub use rule::{Optimizer, Rule};
pub use running::Running;

use super::{
    Draw, Entry, Fill, LaunchContext, Op, Reference, Sample, Tolerance, expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::{DType, TensorType};

const UPDATE: ShaderFile = shader!("optimizer/update.wgsl");
const WORKGROUP: usize = 64;

/// Elements of a block: what an arena says of its parameters, it says of as many at once.
/// `BLOCK` in the shaders.
pub const BLOCK: usize = 64;

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "optimizer",
        sample,
    },
    Entry {
        name: "squared_norm",
        sample: norm::sample,
    },
    Entry {
        name: "running",
        sample: running::sample,
    },
];

/// What keeps gradients from being too large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// No element is larger than this in magnitude.
    Value(f64),
    /// The gradient of all parameters together, `g * c / max(norm, c)`, has at most this norm
    /// (Pascanu et al. 2013).
    Norm(f64),
}

/// One step of an optimizer.
///
/// Inputs: parameters (updated), gradients, then the rule's state tensors (updated), all f32
/// of one length. With [`groups_from`](Self::groups_from) then the weight decay of each
/// [`BLOCK`] of the whole arena and what its learning rate is multiplied by, f32
/// `[blocks, 2]`; with [`Clip::Norm`] last the
/// [squared norm](SquaredNorm) of the unscaled gradient, a scalar. No output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// The rule, and the weight decay of all parameters unless each block has its own.
    pub optimizer: Optimizer,
    /// The block that the parameters begin with, where each has its own weight decay and
    /// learning rate.
    pub groups_from: Option<usize>,
    /// How gradients are clipped, before weight decay.
    pub clip: Option<Clip>,
    /// What gradients are multiplied by first.
    pub scale: f64,
}

impl Update {
    /// A step with one weight decay for all parameters, on the gradients as they are.
    pub fn new(optimizer: Optimizer) -> Self {
        Self {
            optimizer,
            groups_from: None,
            clip: None,
            scale: 1.0,
        }
    }

    fn states(&self) -> usize {
        self.optimizer.rule.states().len()
    }

    fn clips_norm(&self) -> bool {
        matches!(self.clip, Some(Clip::Norm(_)))
    }

    /// The gradient that the rule sees, before weight decay.
    fn clipped(&self, gradient: f64, squared_norm: Option<f64>) -> f64 {
        let gradient = self.scale * gradient;
        match (self.clip, squared_norm) {
            (Some(Clip::Value(most)), _) => gradient.clamp(-most, most),
            (Some(Clip::Norm(most)), Some(square)) => {
                gradient * most / (self.scale * square.sqrt()).max(most)
            }
            _ => gradient,
        }
    }
}

impl Op for Update {
    fn name(&self) -> &'static str {
        "optimizer"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let common = 2 + self.states();
        let extra = usize::from(self.groups_from.is_some()) + usize::from(self.clips_norm());
        expect_inputs(self, inputs, common + extra)?;
        if inputs[0].dtype != DType::F32 {
            let problem = format!("parameters: expected f32, found {}", inputs[0]);
            return Err(Error::shape(self.name(), problem));
        }
        for ty in &inputs[1..common] {
            expect_type(self, "gradients and states", &inputs[0], ty)?;
        }
        if let Some(first) = self.groups_from {
            let (found, least) = (
                &inputs[common],
                first + inputs[0].shape.len().div_ceil(BLOCK),
            );
            if found.dtype != DType::F32 || found.shape.len() < 2 * least {
                let problem = format!("groups: expected f32[{least}, 2] or more, found {found}");
                return Err(Error::shape(self.name(), problem));
            }
        }
        if self.clips_norm() {
            let scalar = TensorType::f32([]);
            expect_type(self, "squared norm", &scalar, &inputs[inputs.len() - 1])?;
        }
        Ok(vec![])
    }

    fn updates(&self) -> &'static [usize] {
        match self.states() {
            0 => &[0],
            1 => &[0, 2],
            2 => &[0, 2, 3],
            _ => &[0, 2, 3, 4],
        }
    }

    fn reference(&self, io: Reference<'_>) {
        let (parameters, states) = io.updates.split_at_mut(1);
        let gradients = io.inputs[1].f();
        let squared_norm = self
            .clips_norm()
            .then(|| io.inputs[io.inputs.len() - 1].f()[0]);
        for (i, p) in parameters[0].f_mut().iter_mut().enumerate() {
            let mut state = [0.0; 3];
            for (value, tensor) in state.iter_mut().zip(states.iter()) {
                *value = tensor.f()[i];
            }
            let (mut optimizer, mut step) = (self.optimizer, *io.step);
            if let Some(first) = self.groups_from {
                let group = &io.inputs[2 + self.states()].f()[2 * (first + i / BLOCK)..];
                optimizer = optimizer.with_weight_decay(group[0]);
                step.learning_rate *= group[1];
            }
            let gradient = self.clipped(gradients[i], squared_norm);
            *p = optimizer.step(*p, gradient, &mut state, &step);
            for (value, tensor) in state.iter().zip(states.iter_mut()) {
                tensor.f_mut()[i] = *value;
            }
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let vec4s = context.inputs[0].shape.len().div_ceil(4);
        let states = self.states();
        let [norm, value] = match self.clip {
            Some(Clip::Norm(most)) => [most, 0.0],
            Some(Clip::Value(most)) => [0.0, most],
            None => [0.0; 2],
        };
        let kernel = self.optimizer.specialise(Kernel::new(UPDATE));
        let kernel = kernel
            .read_once("parameters")
            .sparse_unless(self.groups_from.is_some(), "groups")
            .sparse_unless(self.clips_norm(), "norm")
            .set("VEC4S", vec4s)
            .set("WORKGROUP", WORKGROUP)
            .set("STATES", states)
            .set("GROUPED", self.groups_from.is_some())
            .set("FIRST_BLOCK", self.groups_from.unwrap_or(0))
            .set("SCALE", self.scale)
            .set("CLIP_NORM", norm)
            .set("CLIP_VALUE", value);
        let names = ["state0", "state1", "state2"].into_iter().enumerate();
        let kernel = names.fold(kernel, |kernel, (i, name)| match i < states {
            true => kernel.read_once(name),
            false => kernel.sparse(name),
        });
        // States the rule lacks are bound to a vec4 of scratch each and never touched;
        // the gradients stand in for what else is not there, unread.
        let state = |i: usize| {
            if i < states {
                Arg::Input(2 + i)
            } else {
                Arg::Scratch(i - states)
            }
        };
        let groups = self.groups_from.map_or(1, |_| 2 + states);
        let norm = if self.clips_norm() {
            context.inputs.len() - 1
        } else {
            1
        };
        let bindings = vec![
            ("parameters", Arg::Input(0)),
            ("gradients", Arg::Input(1)),
            ("state0", state(0)),
            ("state1", state(1)),
            ("state2", state(2)),
            ("groups", Arg::Input(groups)),
            ("norm", Arg::Input(norm)),
            ("step", Arg::Step),
        ];
        Ok(Launch {
            scratch: vec![16; 3 - states],
            dispatches: vec![Dispatch::linear(
                kernel,
                bindings,
                vec4s.div_ceil(WORKGROUP),
            )],
        })
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        // About ten a parameter, whatever the rule.
        10 * inputs[0].shape.len() as u64
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let mut optimizer = draw.pick(&[
        Optimizer::sgd(),
        Optimizer::momentum(0.9),
        Optimizer::nesterov(0.9),
        Optimizer::adam(),
        Optimizer::adamw(),
        Optimizer::rmsprop(),
        Optimizer::adagrad(),
        Optimizer::lion(),
    ]);
    if let Rule::RmsProp {
        centered, momentum, ..
    } = &mut optimizer.rule
    {
        *centered = draw.coin();
        *momentum = draw.pick(&[0.0, 0.5]);
    }
    if draw.coin() {
        optimizer = optimizer.with_weight_decay(0.01);
    }
    let ty = TensorType::f32([draw.int(1, 400)]);
    let mut inputs = vec![(ty.clone(), Fill::UNIT), (ty.clone(), Fill::UNIT)];
    for (i, _) in optimizer.rule.states().iter().enumerate() {
        // Second moments are positive, and above the square of any mean gradient.
        let second_moment = match optimizer.rule {
            Rule::Adam { .. } => i == 1,
            Rule::RmsProp { .. } | Rule::Adagrad { .. } => i == 0,
            _ => false,
        };
        let fill = if second_moment {
            Fill::Uniform(1.5, 2.0)
        } else {
            Fill::UNIT
        };
        inputs.push((ty.clone(), fill));
    }
    let len = ty.shape.len();
    let groups_from = draw.coin().then(|| draw.int(0, 2));
    if let Some(first) = groups_from {
        let groups = TensorType::f32([first + len.div_ceil(BLOCK) + draw.int(0, 2), 2]);
        inputs.push((groups, Fill::Uniform(0.0, 0.1)));
    }
    let clip = draw.pick(&[None, Some(Clip::Value(0.3)), Some(Clip::Norm(0.5))]);
    if let Some(Clip::Norm(_)) = clip {
        // Norms on both sides of the limit.
        inputs.push((TensorType::f32([]), Fill::Uniform(0.01, 4.0)));
    }
    let op = Update {
        optimizer,
        groups_from,
        clip,
        scale: draw.pick(&[1.0, 0.5]),
    };
    // A dozen roundings, and two square roots and two divisions of 2.5 ULP each.
    Sample::new(op, inputs, Tolerance::sum(24, 1.0)).without_gradient()
}
