//! Optimizers: rules that change parameters in place from their gradients.
//!
//! A rule runs over whole arenas, so one dispatch updates a model. Formulas and defaults
//! are Keras's (`keras.optimizers`), stated with each rule.

mod rule;

pub use rule::{Optimizer, Rule};

use super::{
    Draw, Entry, Fill, LaunchContext, Op, Reference, Sample, Tolerance, expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::{DType, TensorType};

const UPDATE: ShaderFile = shader!("optimizer/update.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "optimizer",
    sample,
}];

/// One step of an optimizer. Inputs: parameters (updated), gradients, then the rule's
/// state tensors (updated), all f32 of one length. No output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update(pub Optimizer);

impl Op for Update {
    fn name(&self) -> &'static str {
        "optimizer"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2 + self.0.rule.states().len())?;
        if inputs[0].dtype != DType::F32 {
            let problem = format!("parameters: expected f32, found {}", inputs[0]);
            return Err(Error::shape(self.name(), problem));
        }
        for ty in &inputs[1..] {
            expect_type(self, "gradients and states", &inputs[0], ty)?;
        }
        Ok(vec![])
    }

    fn updates(&self) -> &'static [usize] {
        match self.0.rule.states().len() {
            0 => &[0],
            1 => &[0, 2],
            2 => &[0, 2, 3],
            _ => &[0, 2, 3, 4],
        }
    }

    fn reference(&self, io: Reference<'_>) {
        let (parameters, states) = io.updates.split_at_mut(1);
        let gradients = io.inputs[1].f();
        for (i, p) in parameters[0].f_mut().iter_mut().enumerate() {
            let mut state = [0.0; 3];
            for (value, tensor) in state.iter_mut().zip(states.iter()) {
                *value = tensor.f()[i];
            }
            *p = self.0.step(*p, gradients[i], &mut state, io.step);
            for (value, tensor) in state.iter().zip(states.iter_mut()) {
                tensor.f_mut()[i] = *value;
            }
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let vec4s = context.inputs[0].shape.len().div_ceil(4);
        let states = self.0.rule.states().len();
        let kernel = self.0.specialise(Kernel::new(UPDATE));
        let kernel = kernel
            .set("VEC4S", vec4s)
            .set("WORKGROUP", WORKGROUP)
            .set("STATES", states);
        // States the rule lacks are bound to a vec4 of scratch each and never touched.
        let state = |i: usize| {
            if i < states {
                Arg::Input(2 + i)
            } else {
                Arg::Scratch(i - states)
            }
        };
        let bindings = vec![
            ("parameters", Arg::Input(0)),
            ("gradients", Arg::Input(1)),
            ("state0", state(0)),
            ("state1", state(1)),
            ("state2", state(2)),
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
    // A dozen roundings, and a square root and a division of 2.5 ULP each.
    let sample = Sample::new(Update(optimizer), inputs, Tolerance::sum(12, 1.0));
    sample.without_gradient()
}
