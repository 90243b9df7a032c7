//! Batch normalisation, forward: in training and with given statistics.

use super::slices::Slices;
use super::{BatchNorm2dGrad, BatchNormInferenceGrad, Images, WORKGROUP, expect_norm_inputs};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::Profile;
use crate::ops::activation::{Activation, ActivationGrad, FUNCTIONS, Function};
use crate::ops::fill;
use crate::ops::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
};
use crate::shader;
use crate::tensor::TensorType;

const MOMENTS: ShaderFile = shader!("batch_norm/moments.wgsl");
const COMBINE: ShaderFile = shader!("batch_norm/combine.wgsl");
const NORMALIZE: ShaderFile = shader!("batch_norm/normalize.wgsl");

pub(super) const TRAINING: Entry = Entry {
    name: "batch_norm2d",
    sample: sample_training,
};

pub(super) const INFERENCE: Entry = Entry {
    name: "batch_norm_inference",
    sample: sample_inference,
};

/// Batch normalisation as in training: each channel is brought to mean 0 and variance 1
/// over the batch, then scaled and shifted.
///
/// `x` [N, C, H, W], `gamma` `[C]` and `beta` `[C]` give
/// `y = gamma * (x - mean) / sqrt(variance + epsilon) + beta` [N, C, H, W] and the
/// batch's `mean` `[C]` and biased `variance` `[C]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm2d {
    /// Added to the variance; Keras's default is 1e-3, PyTorch's 1e-5.
    pub epsilon: f64,
    /// An activation of `y` done in the same kernel; its slope must follow from its
    /// output.
    pub activation: Option<Function>,
}

impl BatchNorm2d {
    /// The norm without an activation.
    pub fn new(epsilon: f64) -> Self {
        Self {
            epsilon,
            activation: None,
        }
    }
}

impl Op for BatchNorm2d {
    fn name(&self) -> &'static str {
        "batch_norm2d"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let images = expect_norm_inputs(self, inputs, &["gamma", "beta"])?;
        let statistic = images.per_channel();
        Ok(vec![inputs[0].clone(), statistic.clone(), statistic])
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let dy = before_activation(self.activation, builder, node, upstream[0])?;
        let (mean, variance) = (node.outputs[1], node.outputs[2]);
        let mut inputs = vec![dy, node.inputs[0], node.inputs[1], mean, variance];
        let statistics = upstream[1].is_some() || upstream[2].is_some();
        if statistics {
            inputs.push(or_zeros(builder, upstream[1], mean)?);
            inputs.push(or_zeros(builder, upstream[2], variance)?);
        }
        let grad = BatchNorm2dGrad {
            epsilon: self.epsilon,
            activation: None,
            statistics,
        };
        let gradients = builder.add(Box::new(grad), &inputs)?;
        Ok(gradients.into_iter().map(Some).collect())
    }

    fn reference(&self, io: Reference<'_>) {
        let x = io.inputs[0];
        let images = Images::of(self, x.ty()).expect("inferred");
        let count = images.count() as f64;
        let mean: Vec<f64> = images.sums(|e| x.f()[e]);
        let mean: Vec<f64> = mean.into_iter().map(|sum| sum / count).collect();
        let squares = images.sums(|e| (x.f()[e] - mean[images.channel(e)]).powi(2));
        let variance: Vec<f64> = squares.into_iter().map(|sum| sum / count).collect();
        let y = io.outputs[0].f_mut();
        for (e, y) in y.iter_mut().enumerate() {
            let c = images.channel(e);
            let scale = io.inputs[1].f()[c] / (variance[c] + self.epsilon).sqrt();
            let value = (x.f()[e] - mean[c]) * scale + io.inputs[2].f()[c];
            *y = self.activation.map_or(value, |f| f.value(value));
        }
        io.outputs[1].f_mut().copy_from_slice(&mean);
        io.outputs[2].f_mut().copy_from_slice(&variance);
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let images = Images::of(self, &context.inputs[0])?;
        let slices = Slices::new(context.profile, &images);
        let mut launch = measure(&images, &slices);
        let bindings = vec![
            ("x", Arg::Input(0)),
            ("mean", Arg::Output(1)),
            ("variance", Arg::Output(2)),
            ("gamma", Arg::Input(1)),
            ("beta", Arg::Input(2)),
            ("y", Arg::Output(0)),
        ];
        launch.dispatches.push(normalize(
            &images,
            context.profile,
            (self.epsilon, self.activation),
            bindings,
        ));
        Ok(launch)
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        // Subtract, square and add twice for the moments; subtract, scale, shift.
        8 * inputs[0].shape.len() as u64
    }

    fn fuse_epilogue(&self, next: &dyn Op) -> Option<Box<dyn Op>> {
        let activation = fusible(self.activation, next)?;
        Some(Box::new(Self {
            activation: Some(activation),
            ..*self
        }))
    }
}

/// Batch normalisation with given statistics, as in inference or a frozen layer.
///
/// `x` [N, C, H, W], `gamma`, `beta`, `running_mean` and `running_variance`, each `[C]`,
/// give `y = gamma * (x - running_mean) / sqrt(running_variance + epsilon) + beta`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormInference {
    /// Added to the variance.
    pub epsilon: f64,
    /// An activation of `y` done in the same kernel; its slope must follow from its
    /// output.
    pub activation: Option<Function>,
}

impl BatchNormInference {
    /// The norm without an activation.
    pub fn new(epsilon: f64) -> Self {
        Self {
            epsilon,
            activation: None,
        }
    }
}

impl Op for BatchNormInference {
    fn name(&self) -> &'static str {
        "batch_norm_inference"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let names = ["gamma", "beta", "running_mean", "running_variance"];
        expect_norm_inputs(self, inputs, &names)?;
        Ok(vec![inputs[0].clone()])
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let dy = before_activation(self.activation, builder, node, upstream[0])?;
        let [x, gamma, _, mean, variance] = [0, 1, 2, 3, 4].map(|i| node.inputs[i]);
        let grad = BatchNormInferenceGrad {
            epsilon: self.epsilon,
            activation: None,
        };
        let gradients = builder.add(Box::new(grad), &[dy, x, gamma, mean, variance])?;
        Ok(gradients.into_iter().map(Some).collect())
    }

    fn reference(&self, io: Reference<'_>) {
        let x = io.inputs[0];
        let images = Images::of(self, x.ty()).expect("inferred");
        let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|i| io.inputs[i].f());
        for (e, y) in io.outputs[0].f_mut().iter_mut().enumerate() {
            let c = images.channel(e);
            let scale = gamma[c] / (variance[c] + self.epsilon).sqrt();
            let value = (x.f()[e] - mean[c]) * scale + beta[c];
            *y = self.activation.map_or(value, |f| f.value(value));
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let images = Images::of(self, &context.inputs[0])?;
        let bindings = vec![
            ("x", Arg::Input(0)),
            ("gamma", Arg::Input(1)),
            ("beta", Arg::Input(2)),
            ("mean", Arg::Input(3)),
            ("variance", Arg::Input(4)),
            ("y", Arg::Output(0)),
        ];
        let norm = (self.epsilon, self.activation);
        Ok(normalize(&images, context.profile, norm, bindings).into())
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        3 * inputs[0].shape.len() as u64
    }

    fn fuse_epilogue(&self, next: &dyn Op) -> Option<Box<dyn Op>> {
        let activation = fusible(self.activation, next)?;
        Some(Box::new(Self {
            activation: Some(activation),
            ..*self
        }))
    }
}

/// The function of `next`, if it is an activation that a norm without one can take in.
fn fusible(own: Option<Function>, next: &dyn Op) -> Option<Function> {
    let Activation(function) = next.downcast()?;
    (own.is_none() && function.slope_from_output()).then_some(*function)
}

/// dL/dy before a fused activation, from dL/dy behind it.
fn before_activation(
    activation: Option<Function>,
    builder: &mut dyn Builder,
    node: NodeView<'_>,
    upstream: Option<Value>,
) -> Result<Value> {
    let y = node.outputs[0];
    match (upstream, activation) {
        (Some(dy), Some(function)) => builder.add1(Box::new(ActivationGrad(function)), &[dy, y]),
        _ => or_zeros(builder, upstream, y),
    }
}

/// The gradient that flows into `value`, zeros where none does.
fn or_zeros(builder: &mut dyn Builder, gradient: Option<Value>, value: Value) -> Result<Value> {
    if let Some(gradient) = gradient {
        return Ok(gradient);
    }
    let shape = builder.ty(value).shape.clone();
    builder.add1(Box::new(fill::Fill { shape, value: 0.0 }), &[])
}

/// The dispatches that compute outputs 1 and 2, mean and variance.
fn measure(images: &Images, slices: &Slices) -> Launch {
    let moments = slices
        .set_extents(Kernel::new(MOMENTS), images)
        .set("WORKGROUP", slices.workgroup);
    if slices.count == 1 {
        let moments = moments.set("SCALE", (1.0 / images.count() as f64) as f32);
        let bindings = vec![
            ("x", Arg::Input(0)),
            ("mean", Arg::Output(1)),
            ("squares", Arg::Output(2)),
        ];
        return Dispatch::grid(moments, bindings, slices.grid(images)).into();
    }
    let bindings = vec![
        ("x", Arg::Input(0)),
        ("mean", Arg::Scratch(0)),
        ("squares", Arg::Scratch(1)),
    ];
    let combine = slices
        .set_extents(Kernel::new(COMBINE), images)
        .set("WORKGROUP", WORKGROUP);
    let combined = vec![
        ("slice_mean", Arg::Scratch(0)),
        ("slice_squares", Arg::Scratch(1)),
        ("mean", Arg::Output(1)),
        ("variance", Arg::Output(2)),
    ];
    let groups = images.channels.div_ceil(WORKGROUP);
    Launch {
        scratch: vec![4 * (slices.count * images.channels) as u64; 2],
        dispatches: vec![
            Dispatch::grid(moments, bindings, slices.grid(images)),
            Dispatch::grid(combine, combined, [groups, 1, 1]),
        ],
    }
}

fn normalize(
    images: &Images,
    profile: &Profile,
    (epsilon, activation): (f64, Option<Function>),
    bindings: Vec<(&'static str, Arg)>,
) -> Dispatch {
    let run = images.run(profile.kind);
    let mut kernel = Kernel::new(NORMALIZE)
        .set("WORKGROUP", WORKGROUP)
        .set("ELEMENTS", images.len())
        .set("CHANNELS", images.channels)
        .set("AREA", images.area)
        .set("RUN", run)
        .set("EPSILON", epsilon);
    if let Some(function) = activation {
        kernel = kernel
            .hook("activate", FUNCTIONS, function.shader_name())
            .set("ALPHA", function.alpha());
    }
    let invocations = images.len().div_ceil(4 * run);
    Dispatch::linear(kernel, bindings, invocations.div_ceil(WORKGROUP))
}

/// None, or an activation whose slope follows from its output; and whether it is
/// smooth, so that finite differences hold everywhere.
fn draw_activation(draw: &mut Draw) -> (Option<Function>, bool) {
    let leaky = Function::LeakyRelu { slope: 0.25 };
    draw.pick(&[
        (None, true),
        (Some(Function::Tanh), true),
        (Some(Function::Sigmoid), true),
        (Some(Function::Relu), false),
        (Some(leaky), false),
    ])
}

/// How far y may be off: the mean and x - mean are each rounded to f32, an error of up
/// to half an epsilon of the largest |x|, and merging moments rounds the mean a few
/// times more; gamma / sqrt(variance + epsilon) scales it. Everything else is relative
/// to y, which is below 16 for the shapes drawn.
fn tolerance(largest: f64, scale: f64) -> Tolerance {
    let eps = f64::from(f32::EPSILON);
    Tolerance {
        absolute: eps * (4.0 * largest * scale + 64.0),
        relative: 16.0 * eps,
    }
}

fn sample_training(draw: &mut Draw) -> Sample {
    let images = Images::draw(draw);
    let many = images.count() >= 64;
    // With few elements the variance may be tiny: a large epsilon keeps y's third
    // derivative in range of finite differences.
    let epsilon = if many { 1e-3 } else { 1e-2 };
    let (activation, smooth) = draw_activation(draw);
    let op = BatchNorm2d {
        epsilon,
        activation,
    };
    // Far from zero a variance computed as E[x^2] - E[x]^2 would be noise. 64 and more
    // even values in a range of 2 have a deviation above 0.4.
    let offset = if many { draw.pick(&[0.0, 300.0]) } else { 0.0 };
    let scale = if many {
        1.5 / 0.4
    } else {
        1.5 / epsilon.sqrt()
    };
    let inputs = vec![
        (images.ty(), Fill::Uniform(offset - 1.0, offset + 1.0)),
        (images.per_channel(), Fill::Uniform(0.5, 1.5)),
        (images.per_channel(), Fill::Uniform(-1.0, 1.0)),
    ];
    let sample = Sample::new(op, inputs, tolerance(offset + 1.0, scale));
    if smooth {
        sample
    } else {
        sample.without_gradient()
    }
}

fn sample_inference(draw: &mut Draw) -> Sample {
    let images = Images::draw(draw);
    let (activation, smooth) = draw_activation(draw);
    let op = BatchNormInference {
        epsilon: 1e-3,
        activation,
    };
    let inputs = vec![
        (images.ty(), Fill::Uniform(-1.0, 1.0)),
        (images.per_channel(), Fill::Uniform(0.5, 1.5)),
        (images.per_channel(), Fill::Uniform(-1.0, 1.0)),
        (images.per_channel(), Fill::Uniform(-1.0, 1.0)),
        (images.per_channel(), Fill::Uniform(0.2, 2.0)),
    ];
    // 1.5 / sqrt(0.2) < 4.
    let sample = Sample::new(op, inputs, tolerance(1.0, 4.0));
    if smooth {
        sample
    } else {
        sample.without_gradient()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_of_the_wrong_length_is_named() {
        let x = TensorType::f32([2, 3, 4, 4]);
        let inputs = [x, TensorType::f32([3]), TensorType::f32([4])];
        let error = BatchNorm2d::new(1e-3).infer(&inputs).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("beta: expected f32[3], found f32[4]"),
            "{error}"
        );
    }

    #[test]
    fn one_activation_with_a_slope_from_its_output_is_fused() {
        let norm = BatchNorm2d::new(1e-3);
        let relu = Activation(Function::Relu);
        let fused = norm.fuse_epilogue(&relu).expect("relu can be fused");
        let fused: &BatchNorm2d = (*fused).downcast().expect("the same op");
        assert_eq!(fused.activation, Some(Function::Relu));
        assert!(fused.fuse_epilogue(&relu).is_none());
        assert!(norm.fuse_epilogue(&Activation(Function::Gelu)).is_none());
    }
}
