//! Elementwise activation functions.

mod function;

pub use function::Function;

use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    expect_inputs, expect_type,
};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::TensorType;

/// The library of activation functions, for kernels that apply one themselves.
pub const FUNCTIONS: ShaderFile = shader!("activation/functions.wgsl");

const FORWARD: ShaderFile = shader!("activation/forward.wgsl");
const BACKWARD: ShaderFile = shader!("activation/backward.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "activation",
        sample: sample_forward,
    },
    Entry {
        name: "activation_grad",
        sample: sample_backward,
    },
];

/// `y = f(x)`, any shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activation(pub Function);

impl Op for Activation {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let ty = TensorType::f32(inputs[0].shape.clone());
        expect_type(self, "x", &ty, &inputs[0])?;
        Ok(vec![ty])
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let Some(dy) = upstream[0] else {
            return Ok(vec![None]);
        };
        let saved = if self.0.slope_from_output() {
            node.outputs[0]
        } else {
            node.inputs[0]
        };
        let dx = builder.add1(Box::new(ActivationGrad(self.0)), &[dy, saved])?;
        Ok(vec![Some(dx)])
    }

    fn reference(&self, io: Reference<'_>) {
        for (y, x) in io.outputs[0].f_mut().iter_mut().zip(io.inputs[0].f()) {
            *y = self.0.value(*x);
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let kernel = Kernel::new(FORWARD).hook("activate", FUNCTIONS, self.0.shader_name());
        Ok(elementwise(
            kernel,
            self.0,
            &context.inputs[0],
            vec![("x", Arg::Input(0)), ("y", Arg::Output(0))],
        ))
    }
}

/// `dx = dy * f'(x)`, from `dy` and the saved tensor: the output of the forward
/// op where [`Function::slope_from_output`], else its input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationGrad(pub Function);

impl Op for ActivationGrad {
    fn name(&self) -> &'static str {
        "activation_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        let ty = TensorType::f32(inputs[0].shape.clone());
        expect_type(self, "dy", &ty, &inputs[0])?;
        expect_type(self, "saved", &ty, &inputs[1])?;
        Ok(vec![ty])
    }

    fn reference(&self, io: Reference<'_>) {
        let (dy, saved) = (io.inputs[0].f(), io.inputs[1].f());
        for (i, dx) in io.outputs[0].f_mut().iter_mut().enumerate() {
            *dx = dy[i] * self.0.slope(saved[i]);
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let kernel = Kernel::new(BACKWARD).hook("slope", FUNCTIONS, self.0.shader_slope_name());
        Ok(elementwise(
            kernel,
            self.0,
            &context.inputs[0],
            vec![
                ("dy", Arg::Input(0)),
                ("saved", Arg::Input(1)),
                ("dx", Arg::Output(0)),
            ],
        ))
    }
}

fn elementwise(
    kernel: Kernel,
    function: Function,
    ty: &TensorType,
    bindings: Vec<(&'static str, Arg)>,
) -> Launch {
    let vec4s = ty.shape.len().div_ceil(4);
    let kernel = kernel
        .set("VEC4S", vec4s)
        .set("WORKGROUP", WORKGROUP)
        .set("ALPHA", function.alpha());
    Dispatch::linear(kernel, bindings, vec4s.div_ceil(WORKGROUP)).into()
}

fn sample_forward(draw: &mut Draw) -> Sample {
    let x = TensorType::f32([draw.int(1, 5), draw.int(1, 7), draw.int(1, 9)]);
    let op = Activation(Function::draw(draw));
    let tolerance = Tolerance::transcendental();
    if draw.coin() {
        // Where the functions end too; their kinks are in the way of finite differences.
        let inputs = vec![(x, Fill::Uniform(-8.0, 8.0))];
        return Sample::new(op, inputs, tolerance).without_gradient();
    }
    Sample::new(op, vec![(x, Fill::Distinct)], tolerance)
}

fn sample_backward(draw: &mut Draw) -> Sample {
    let ty = TensorType::f32([draw.int(1, 300)]);
    let saved = draw.pick(&[Fill::Distinct, Fill::Uniform(-8.0, 8.0)]);
    Sample::new(
        ActivationGrad(Function::draw(draw)),
        vec![(ty.clone(), Fill::UNIT), (ty, saved)],
        Tolerance::transcendental(),
    )
    .without_gradient()
}
