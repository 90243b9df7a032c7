//! Softmax and its logarithm.

use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::ProfileKind;
use crate::shader;
use crate::tensor::{Shape, TensorType};

const FORWARD: ShaderFile = shader!("softmax/forward.wgsl");
const BACKWARD: ShaderFile = shader!("softmax/backward.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "softmax",
        sample: |draw| sample_forward(false, draw),
    },
    Entry {
        name: "log_softmax",
        sample: |draw| sample_forward(true, draw),
    },
    Entry {
        name: "softmax_grad",
        sample: |draw| sample_backward(false, draw),
    },
    Entry {
        name: "log_softmax_grad",
        sample: |draw| sample_backward(true, draw),
    },
];

/// `y_c = exp(x_c) / sum over k of exp(x_k)` along one axis, or the logarithm of that;
/// computed from `x` less its maximum along the axis, so that nothing overflows.
///
/// Input: `x` f32 with every extent at least 1. Output: `y`, of `x`'s type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Softmax {
    /// The axis of the classes.
    pub axis: usize,
    /// Whether to give the logarithm: log softmax.
    pub log: bool,
}

/// The gradient of [`Softmax`]: `dx` from `dy` and the forward op's output `y`, all f32
/// of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftmaxGrad(pub Softmax);

/// A tensor as rows of classes: rows, classes, and how far apart a row's classes lie.
struct Rows {
    rows: usize,
    classes: usize,
    inner: usize,
}

impl Rows {
    fn new(shape: &Shape, axis: usize) -> Self {
        let inner: usize = shape.dims()[axis + 1..].iter().product();
        Self {
            rows: shape.len() / shape[axis],
            classes: shape[axis],
            inner,
        }
    }

    /// Where class `c` of a row lies.
    fn at(&self, row: usize, c: usize) -> usize {
        (row / self.inner * self.classes + c) * self.inner + row % self.inner
    }

    fn dispatch(
        &self,
        file: ShaderFile,
        log: bool,
        bindings: Vec<(&'static str, Arg)>,
        kind: ProfileKind,
    ) -> Dispatch {
        let lanes = match kind {
            // Several lanes a row where its classes lie side by side.
            ProfileKind::Gpu if self.inner == 1 => {
                (self.classes / 8).max(1).next_power_of_two().min(WORKGROUP)
            }
            ProfileKind::Gpu | ProfileKind::CpuLike => 1,
        };
        let at_once = WORKGROUP / lanes;
        let kernel = Kernel::new(file)
            .set("LANES", lanes)
            .set("AT_ONCE", at_once)
            .set("ROWS", self.rows)
            .set("CLASSES", self.classes)
            .set("INNER", self.inner)
            .set("LOG", log);
        Dispatch::linear(kernel, bindings, self.rows.div_ceil(at_once))
    }
}

impl Softmax {
    fn check_axis(&self, op: &dyn Op, shape: &Shape) -> Result<()> {
        if self.axis < shape.rank() && !shape.is_empty() {
            return Ok(());
        }
        let problem = format!(
            "there is no axis {} in {shape}, or an extent of 0",
            self.axis
        );
        Err(Error::shape(op.name(), problem))
    }
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let ty = TensorType::f32(inputs[0].shape.clone());
        expect_type(self, "x", &ty, &inputs[0])?;
        self.check_axis(self, &ty.shape)?;
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
        let dx = builder.add1(Box::new(SoftmaxGrad(*self)), &[dy, node.outputs[0]])?;
        Ok(vec![Some(dx)])
    }

    fn reference(&self, io: Reference<'_>) {
        let (x, y) = (io.inputs[0], io.outputs[0].f_mut());
        let rows = Rows::new(&x.ty().shape, self.axis);
        for row in 0..rows.rows {
            let x = |c| x.f()[rows.at(row, c)];
            let top = (0..rows.classes).map(x).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = (0..rows.classes).map(|c| (x(c) - top).exp()).sum();
            for c in 0..rows.classes {
                y[rows.at(row, c)] = match self.log {
                    true => x(c) - top - sum.ln(),
                    false => (x(c) - top).exp() / sum,
                };
            }
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let rows = Rows::new(&context.inputs[0].shape, self.axis);
        let bindings = vec![("x", Arg::Input(0)), ("y", Arg::Output(0))];
        let kind = context.profile.kind;
        Ok(rows.dispatch(FORWARD, self.log, bindings, kind).into())
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        // Maximum, difference, exponential, sum, quotient.
        5 * inputs[0].shape.len() as u64
    }
}

impl Op for SoftmaxGrad {
    fn name(&self) -> &'static str {
        if self.0.log {
            "log_softmax_grad"
        } else {
            "softmax_grad"
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        let ty = TensorType::f32(inputs[0].shape.clone());
        expect_type(self, "dy", &ty, &inputs[0])?;
        expect_type(self, "y", &ty, &inputs[1])?;
        self.0.check_axis(self, &ty.shape)?;
        Ok(vec![ty])
    }

    fn reference(&self, io: Reference<'_>) {
        let (dy, y) = (io.inputs[0], io.inputs[1].f());
        let rows = Rows::new(&dy.ty().shape, self.0.axis);
        let (dy, dx) = (dy.f(), io.outputs[0].f_mut());
        for row in 0..rows.rows {
            let places = (0..rows.classes).map(|c| rows.at(row, c));
            if self.0.log {
                let sum: f64 = places.clone().map(|i| dy[i]).sum();
                places.for_each(|i| dx[i] = dy[i] - y[i].exp() * sum);
            } else {
                let sum: f64 = places.clone().map(|i| dy[i] * y[i]).sum();
                places.for_each(|i| dx[i] = y[i] * (dy[i] - sum));
            }
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let rows = Rows::new(&context.inputs[0].shape, self.0.axis);
        let bindings = vec![
            ("dy", Arg::Input(0)),
            ("y", Arg::Input(1)),
            ("dx", Arg::Output(0)),
        ];
        let kind = context.profile.kind;
        Ok(rows.dispatch(BACKWARD, self.0.log, bindings, kind).into())
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        4 * inputs[0].shape.len() as u64
    }
}

fn draw_case(log: bool, draw: &mut Draw) -> (Softmax, TensorType) {
    let shape = match draw.int(0, 3) {
        // More lanes a row.
        0 => Shape::from([draw.int(1, 9), draw.int(100, 700)]),
        1 => [draw.int(1, 100), draw.int(1, 20)].into(),
        2 => [draw.int(1, 50)].into(),
        _ => [1, 1, 2, 3].map(|low| draw.int(low, 8)).into(),
    };
    let axis = draw.int(0, shape.rank() - 1);
    (Softmax { axis, log }, TensorType::f32(shape))
}

fn sample_forward(log: bool, draw: &mut Draw) -> Sample {
    let (op, x) = draw_case(log, draw);
    // Too large for exp in f32, which overflows from 88.8 on, in some cases.
    let (low, high) = draw.pick(&[(-4.0, 4.0), (95.0, 103.0)]);
    let inputs = vec![(x, Fill::Uniform(low, high))];
    Sample::new(op, inputs, Tolerance::transcendental())
}

fn sample_backward(log: bool, draw: &mut Draw) -> Sample {
    let (op, ty) = draw_case(log, draw);
    let classes = ty.shape[op.axis];
    // As the forward op gives them: probabilities, or their logarithms.
    let y = match log {
        true => Fill::Uniform(-4.0, 0.0),
        false => Fill::Uniform(0.0, 2.0 / classes as f64),
    };
    let inputs = vec![(ty.clone(), Fill::UNIT), (ty, y)];
    let tolerance = Tolerance::sum(classes, 1.0).and_transcendental();
    Sample::new(SoftmaxGrad(op), inputs, tolerance).without_gradient()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_that_is_not_there_is_an_error_that_names_the_shape() {
        let op = Softmax {
            axis: 2,
            log: false,
        };
        let error = op.infer(&[TensorType::f32([3, 4])]).unwrap_err();
        assert!(error.to_string().contains("no axis 2 in [3, 4]"), "{error}");
    }
}
