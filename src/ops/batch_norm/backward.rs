//! Batch normalisation, backward.

use super::slices::Slices;
use super::{Images, WORKGROUP, expect_channel, hook_slope};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::ops::activation::{ActivationGrad, Function};
use crate::ops::{
    Draw, Entry, Fill, LaunchContext, Op, Reference, Sample, Tolerance, expect_inputs, expect_type,
};
use crate::shader;
use crate::tensor::TensorType;

const SUMS: ShaderFile = shader!("batch_norm/sums.wgsl");
const FINISH_BATCH: ShaderFile = shader!("batch_norm/finish_batch.wgsl");
const FINISH_FROZEN: ShaderFile = shader!("batch_norm/finish_frozen.wgsl");
const IMAGE: ShaderFile = shader!("batch_norm/backward.wgsl");

pub(super) const TRAINING: Entry = Entry {
    name: "batch_norm2d_grad",
    sample: sample_training,
};

pub(super) const INFERENCE: Entry = Entry {
    name: "batch_norm_inference_grad",
    sample: sample_inference,
};

/// The gradient of [`BatchNorm2d`](super::BatchNorm2d).
///
/// `dy` [N, C, H, W], with a fused activation its saved output, `x`, `gamma` `[C]`, and
/// the batch's `mean` and `variance` `[C]`, then with `statistics` what flows back into
/// these two, give `dx` [N, C, H, W], `dgamma` `[C]` and `dbeta` `[C]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm2dGrad {
    /// Added to the variance.
    pub epsilon: f64,
    /// The activation behind the norm, if its gradient is fused in.
    pub activation: Option<Function>,
    /// Whether gradients of mean and variance are given.
    pub statistics: bool,
}

/// The gradient of [`BatchNormInference`](super::BatchNormInference).
///
/// `dy` [N, C, H, W], with a fused activation its saved output, `x`, `gamma`, `mean`
/// and `variance`, each `[C]`, give `dx` [N, C, H, W] and `dgamma`, `dbeta`, `dmean` and
/// `dvariance`, each `[C]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormInferenceGrad {
    /// Added to the variance.
    pub epsilon: f64,
    /// The activation behind the norm, if its gradient is fused in.
    pub activation: Option<Function>,
}

/// Where the inputs of either gradient stand.
#[derive(Clone, Copy, Debug)]
struct Operands {
    activation: Option<Function>,
}

impl Operands {
    const DY: usize = 0;
    const SAVED: usize = 1;

    /// The index of x; gamma, mean and variance follow.
    fn x(self) -> usize {
        1 + usize::from(self.activation.is_some())
    }

    fn gamma(self) -> usize {
        self.x() + 1
    }

    fn mean(self) -> usize {
        self.x() + 2
    }

    fn variance(self) -> usize {
        self.x() + 3
    }

    /// The number of inputs, `more` behind the variance included.
    fn count(self, more: usize) -> usize {
        self.x() + 4 + more
    }

    fn check(self, op: &dyn Op, inputs: &[TensorType], more: usize) -> Result<Images> {
        expect_inputs(op, inputs, self.count(more))?;
        let images = Images::of(op, &inputs[self.x()])?;
        expect_type(op, "dy", &inputs[self.x()], &inputs[Self::DY])?;
        if self.activation.is_some() {
            expect_type(op, "saved", &inputs[self.x()], &inputs[Self::SAVED])?;
        }
        let names = ["gamma", "mean", "variance", "dmean", "dvariance"];
        for (i, name) in names[..3 + more].iter().enumerate() {
            expect_channel(op, name, &images, inputs, self.gamma() + i)?;
        }
        Ok(images)
    }

    fn bindings(self) -> Vec<(&'static str, Arg)> {
        // Without an activation the slope is 1 whatever `saved` holds.
        let saved = match self.activation {
            Some(_) => Self::SAVED,
            None => Self::DY,
        };
        vec![
            ("dy", Arg::Input(Self::DY)),
            ("saved", Arg::Input(saved)),
            ("x", Arg::Input(self.x())),
            ("mean", Arg::Input(self.mean())),
        ]
    }

    /// Sums over slices, then `finish` (which reads `sums` and writes `coefficients`),
    /// then the image's gradient.
    fn launch(
        self,
        op: &dyn Op,
        context: LaunchContext<'_>,
        finish: Kernel,
        mut finish_bindings: Vec<(&'static str, Arg)>,
    ) -> Result<Launch> {
        let images = Images::of(op, &context.inputs[self.x()])?;
        let slices = Slices::new(context.profile, &images);
        let sums = slices
            .set_extents(Kernel::new(SUMS), &images)
            .set("WORKGROUP", slices.workgroup);
        let mut sums_bindings = self.bindings();
        sums_bindings.push(("sums", Arg::Scratch(0)));
        let finish = finish
            .set("WORKGROUP", WORKGROUP)
            .set("CHANNELS", images.channels)
            .set("SLICES", slices.count);
        finish_bindings.extend([
            ("sums", Arg::Scratch(0)),
            ("gamma", Arg::Input(self.gamma())),
            ("variance", Arg::Input(self.variance())),
            ("dgamma", Arg::Output(1)),
            ("dbeta", Arg::Output(2)),
            ("coefficients", Arg::Scratch(1)),
        ]);
        let run = images.run(context.profile.kind);
        let image = Kernel::new(IMAGE)
            .set("WORKGROUP", WORKGROUP)
            .set("ELEMENTS", images.len())
            .set("CHANNELS", images.channels)
            .set("AREA", images.area)
            .set("RUN", run);
        let mut image_bindings = self.bindings();
        image_bindings.extend([("k", Arg::Scratch(1)), ("dx", Arg::Output(0))]);
        let invocations = images.len().div_ceil(4 * run);
        let grid = slices.grid(&images);
        let groups = [images.channels.div_ceil(WORKGROUP), 1, 1];
        let hook = |kernel| hook_slope(kernel, self.activation);
        Ok(Launch {
            scratch: vec![
                8 * (slices.count * images.channels) as u64,
                16 * images.channels as u64,
            ],
            dispatches: vec![
                Dispatch::grid(hook(sums), sums_bindings, grid),
                Dispatch::grid(finish, finish_bindings, groups),
                Dispatch::linear(hook(image), image_bindings, invocations.div_ceil(WORKGROUP)),
            ],
        })
    }

    /// What both references start from.
    fn terms(self, op: &dyn Op, epsilon: f64, inputs: &[&crate::ops::Array]) -> Terms {
        let images = Images::of(op, inputs[self.x()].ty()).expect("inferred");
        let dy = inputs[Self::DY].f();
        let g: Vec<f64> = match self.activation {
            None => dy.to_vec(),
            Some(f) => {
                let saved = inputs[Self::SAVED].f().iter();
                dy.iter().zip(saved).map(|(d, s)| d * f.slope(*s)).collect()
            }
        };
        let mean = inputs[self.mean()].f();
        let x = inputs[self.x()].f();
        let centred: Vec<f64> = (0..images.len())
            .map(|e| x[e] - mean[images.channel(e)])
            .collect();
        let variance = inputs[self.variance()].f().iter();
        Terms {
            sum: images.sums(|e| g[e]),
            product: images.sums(|e| g[e] * centred[e]),
            inverse: variance.map(|v| 1.0 / (v + epsilon).sqrt()).collect(),
            images,
            g,
            centred,
        }
    }
}

/// The quantities of the shaders' formulas.
struct Terms {
    images: Images,
    /// dL/dy before the activation.
    g: Vec<f64>,
    /// x - mean.
    centred: Vec<f64>,
    /// Sum of g, a channel.
    sum: Vec<f64>,
    /// Sum of g * (x - mean), a channel.
    product: Vec<f64>,
    /// 1 / sqrt(variance + epsilon), a channel.
    inverse: Vec<f64>,
}

impl Op for BatchNorm2dGrad {
    fn name(&self) -> &'static str {
        "batch_norm2d_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let more = if self.statistics { 2 } else { 0 };
        let images = self.operands().check(self, inputs, more)?;
        let parameter = images.per_channel();
        Ok(vec![inputs[0].clone(), parameter.clone(), parameter])
    }

    fn reference(&self, io: Reference<'_>) {
        let operands = self.operands();
        let t = operands.terms(self, self.epsilon, io.inputs);
        let gamma = io.inputs[operands.gamma()].f();
        let count = t.images.count() as f64;
        let back = |i: usize, c: usize| match self.statistics {
            true => io.inputs[operands.variance() + i].f()[c],
            false => 0.0,
        };
        for (e, dx) in io.outputs[0].f_mut().iter_mut().enumerate() {
            let c = t.images.channel(e);
            let normed = t.centred[e] * t.inverse[c];
            let shared = (t.sum[c] + normed * t.inverse[c] * t.product[c]) / count;
            *dx = gamma[c] * t.inverse[c] * (t.g[e] - shared)
                + back(1, c) / count
                + 2.0 * t.centred[e] * back(2, c) / count;
        }
        for c in 0..t.images.channels {
            io.outputs[1].f_mut()[c] = t.product[c] * t.inverse[c];
            io.outputs[2].f_mut()[c] = t.sum[c];
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let operands = self.operands();
        let images = Images::of(self, &context.inputs[operands.x()])?;
        let finish = Kernel::new(FINISH_BATCH)
            .set("COUNT", images.count() as f32)
            .set("EPSILON", self.epsilon)
            .set("STATISTICS", self.statistics);
        // Without them the shader reads neither.
        let back = |i| match self.statistics {
            true => Arg::Input(operands.variance() + i),
            false => Arg::Input(operands.variance()),
        };
        let bindings = vec![("dmean", back(1)), ("dvariance", back(2))];
        operands.launch(self, context, finish, bindings)
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        // Three for the sums, five for dx.
        8 * inputs[0].shape.len() as u64
    }

    fn fuse_prologue(&self, previous: &dyn Op) -> Option<Box<dyn Op>> {
        let activation = fusible(self.activation, previous)?;
        Some(Box::new(Self {
            activation: Some(activation),
            ..*self
        }))
    }
}

impl BatchNorm2dGrad {
    fn operands(&self) -> Operands {
        Operands {
            activation: self.activation,
        }
    }
}

impl Op for BatchNormInferenceGrad {
    fn name(&self) -> &'static str {
        "batch_norm_inference_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let images = self.operands().check(self, inputs, 0)?;
        let mut types = vec![images.per_channel(); 5];
        types[0] = inputs[0].clone();
        Ok(types)
    }

    fn reference(&self, io: Reference<'_>) {
        let operands = self.operands();
        let t = operands.terms(self, self.epsilon, io.inputs);
        let gamma = io.inputs[operands.gamma()].f();
        for (e, dx) in io.outputs[0].f_mut().iter_mut().enumerate() {
            let c = t.images.channel(e);
            *dx = gamma[c] * t.inverse[c] * t.g[e];
        }
        for (c, gamma) in gamma.iter().enumerate() {
            let (sum, product, r) = (t.sum[c], t.product[c], t.inverse[c]);
            io.outputs[1].f_mut()[c] = product * r;
            io.outputs[2].f_mut()[c] = sum;
            io.outputs[3].f_mut()[c] = -gamma * r * sum;
            io.outputs[4].f_mut()[c] = -0.5 * gamma * r.powi(3) * product;
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let finish = Kernel::new(FINISH_FROZEN).set("EPSILON", self.epsilon);
        let bindings = vec![("dmean", Arg::Output(3)), ("dvariance", Arg::Output(4))];
        self.operands().launch(self, context, finish, bindings)
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        // Three for the sums, one for dx.
        4 * inputs[0].shape.len() as u64
    }

    fn fuse_prologue(&self, previous: &dyn Op) -> Option<Box<dyn Op>> {
        let activation = fusible(self.activation, previous)?;
        Some(Box::new(Self {
            activation: Some(activation),
            ..*self
        }))
    }
}

impl BatchNormInferenceGrad {
    fn operands(&self) -> Operands {
        Operands {
            activation: self.activation,
        }
    }
}

/// The function of `previous`, if it is an activation's gradient that a norm's without
/// one can take in.
fn fusible(own: Option<Function>, previous: &dyn Op) -> Option<Function> {
    let ActivationGrad(function) = previous.downcast()?;
    own.is_none().then_some(*function)
}

/// The inputs of either gradient: `more` of one value a channel behind the variance.
fn draw_inputs(
    draw: &mut Draw,
    images: &Images,
    activation: Option<Function>,
    more: usize,
) -> Vec<(TensorType, Fill)> {
    let image = || (images.ty(), Fill::Uniform(-1.0, 1.0));
    let channel = |low, high| (images.per_channel(), Fill::Uniform(low, high));
    let offset = draw.pick(&[0.0, 30.0]);
    let mut inputs = vec![image()];
    if activation.is_some() {
        inputs.push((images.ty(), Fill::Distinct));
    }
    inputs.push((images.ty(), Fill::Uniform(offset - 1.0, offset + 1.0)));
    inputs.push(channel(0.5, 1.5));
    inputs.push(channel(offset - 0.1, offset + 0.1));
    inputs.push(channel(0.2, 2.0));
    inputs.extend(vec![channel(-1.0, 1.0); more]);
    inputs
}

/// The sums have a term of magnitude below 2 an element (g below 1.5 with the steepest
/// slope drawn, x - mean below 1.1); 1 / sqrt(variance) is below 2.3 and enters at most
/// cubed.
fn tolerance(images: &Images) -> Tolerance {
    let mut tolerance = Tolerance::sum(images.count(), 2.0);
    tolerance.absolute *= 12.0;
    tolerance.absolute += Tolerance::transcendental().absolute * images.count() as f64;
    tolerance
}

fn draw_activation(draw: &mut Draw) -> Option<Function> {
    draw.coin().then(|| Function::draw(draw))
}

fn sample_training(draw: &mut Draw) -> Sample {
    let images = Images::draw(draw);
    let op = BatchNorm2dGrad {
        epsilon: 1e-3,
        activation: draw_activation(draw),
        statistics: draw.coin(),
    };
    let more = if op.statistics { 2 } else { 0 };
    let inputs = draw_inputs(draw, &images, op.activation, more);
    Sample::new(op, inputs, tolerance(&images)).without_gradient()
}

fn sample_inference(draw: &mut Draw) -> Sample {
    let images = Images::draw(draw);
    let op = BatchNormInferenceGrad {
        epsilon: 1e-3,
        activation: draw_activation(draw),
    };
    let inputs = draw_inputs(draw, &images, op.activation, 0);
    Sample::new(op, inputs, tolerance(&images)).without_gradient()
}
