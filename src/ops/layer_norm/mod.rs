//! Layer normalisation over the channels (Ba et al. 2016), each place of an image by itself.

mod backward;

pub use backward::LayerNorm2dGrad;

use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    channel_extents, expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::{Shape, TensorType};

const FORWARD: ShaderFile = shader!("layer_norm/forward.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "layer_norm2d",
        sample,
    },
    Entry {
        name: "layer_norm2d_grad",
        sample: backward::sample,
    },
];

/// Each place of each image is brought to mean 0 and variance 1 over its channels, which are
/// then scaled and shifted: `LayerNorm2d` of ConvNeXt (Liu et al. 2022), or Keras's
/// `LayerNormalization` over the channels.
///
/// `x` f32 `[N, C, ..]`, `gamma` `[C]` and `beta` `[C]` give
/// `y = gamma * (x - mean) / sqrt(variance + epsilon) + beta` of `x`'s type, and each place's
/// `mean` and `1 / sqrt(variance + epsilon)`, `[N, ..]`, for the gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNorm2d {
    /// Added to the variance; Keras's default is 1e-3, PyTorch's 1e-5.
    pub epsilon: f64,
}

/// The extents of `[N, C, ..]` and the type of what there is one of a place.
#[derive(Clone, Debug)]
struct Places {
    samples: usize,
    channels: usize,
    inner: usize,
    statistic: TensorType,
}

impl Places {
    fn of(op: &dyn Op, x: &TensorType) -> Result<Self> {
        let [samples, channels, inner] = channel_extents(op, "x", x)?;
        let dims = x.shape.dims();
        let statistic = [&dims[..1], &dims[2..]].concat();
        Ok(Self {
            samples,
            channels,
            inner,
            statistic: TensorType::f32(Shape::from(&statistic[..])),
        })
    }

    fn count(&self) -> usize {
        self.samples * self.inner
    }

    fn per_channel(&self) -> TensorType {
        TensorType::f32([self.channels])
    }

    /// The place and the channel of an element.
    fn at(&self, element: usize) -> (usize, usize) {
        let (channel, i) = (element / self.inner, element % self.inner);
        let (n, c) = (channel / self.channels, channel % self.channels);
        (n * self.inner + i, c)
    }

    /// A kernel of an invocation a place, on vec4 where four are side by side, and its
    /// workgroups.
    fn specialise(&self, kernel: Kernel) -> (Kernel, usize) {
        let width = if self.inner.is_multiple_of(4) { 4 } else { 1 };
        let element = if width == 4 { "vec4<f32>" } else { "f32" };
        let kernel = kernel
            .alias("Element", element)
            .set("WORKGROUP", WORKGROUP)
            .set("SAMPLES", self.samples)
            .set("CHANNELS", self.channels)
            .set("INNER", self.inner / width)
            .set("COUNT", self.channels as f64);
        (kernel, (self.count() / width).div_ceil(WORKGROUP))
    }

    fn draw(draw: &mut Draw) -> (TensorType, Self) {
        let n = draw.int(1, 5);
        let c = draw.pick(&[1, 3, 24, 70]);
        let ty = match draw.int(0, 2) {
            0 => TensorType::f32([n, c]),
            1 => TensorType::f32([n, c, draw.int(1, 9), draw.int(1, 9)]),
            // Enough for several slices.
            _ => TensorType::f32([n, draw.int(1, 3), 24, draw.int(20, 30)]),
        };
        let places = Self::of(&LayerNorm2d { epsilon: 0.0 }, &ty).expect("no extent is 0");
        (ty, places)
    }
}

impl Op for LayerNorm2d {
    fn name(&self) -> &'static str {
        "layer_norm2d"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 3)?;
        let places = Places::of(self, &inputs[0])?;
        expect_type(self, "gamma", &places.per_channel(), &inputs[1])?;
        expect_type(self, "beta", &places.per_channel(), &inputs[2])?;
        Ok(vec![
            inputs[0].clone(),
            places.statistic.clone(),
            places.statistic,
        ])
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        if upstream[1].is_some() || upstream[2].is_some() {
            let problem = "its statistics cannot be differentiated, only its output 0";
            return Err(Error::shape(self.name(), problem));
        }
        let Some(dy) = upstream[0] else {
            return Ok(vec![None; 3]);
        };
        let [x, gamma] = [node.inputs[0], node.inputs[1]];
        let inputs = [dy, x, gamma, node.outputs[1], node.outputs[2]];
        let gradients = builder.add(Box::new(LayerNorm2dGrad), &inputs)?;
        Ok(gradients.into_iter().map(Some).collect())
    }

    fn reference(&self, io: Reference<'_>) {
        let places = Places::of(self, io.inputs[0].ty()).expect("inferred");
        let [x, gamma, beta] = [0, 1, 2].map(|i| io.inputs[i].f());
        let count = places.channels as f64;
        let mut sums = vec![[0.0; 2]; places.count()];
        for (e, x) in x.iter().enumerate() {
            sums[places.at(e).0][0] += x / count;
        }
        for (e, x) in x.iter().enumerate() {
            let [mean, variance] = &mut sums[places.at(e).0];
            *variance += (x - *mean).powi(2) / count;
        }
        for (p, [mean, variance]) in sums.iter().enumerate() {
            io.outputs[1].f_mut()[p] = *mean;
            io.outputs[2].f_mut()[p] = 1.0 / (variance + self.epsilon).sqrt();
        }
        for (e, x) in x.iter().enumerate() {
            let (p, c) = places.at(e);
            let (mean, inverse) = (io.outputs[1].f()[p], io.outputs[2].f()[p]);
            io.outputs[0].f_mut()[e] = gamma[c] * (x - mean) * inverse + beta[c];
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let places = Places::of(self, &context.inputs[0])?;
        let (kernel, groups) = places.specialise(Kernel::new(FORWARD));
        let bindings = vec![
            ("x", Arg::Input(0)),
            ("gamma", Arg::Input(1)),
            ("beta", Arg::Input(2)),
            ("y", Arg::Output(0)),
            ("mean", Arg::Output(1)),
            ("inverse", Arg::Output(2)),
        ];
        let kernel = kernel.set("EPSILON", self.epsilon);
        Ok(Dispatch::linear(kernel, bindings, groups).into())
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        // One for the mean, three for the variance, four for y.
        8 * inputs[0].shape.len() as u64
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let op = LayerNorm2d {
        // So large that 1 / sqrt(variance + epsilon) is at most 5.
        epsilon: draw.pick(&[0.04, 0.5]),
    };
    let (x, places) = Places::draw(draw);
    let channel = |low, high| (places.per_channel(), Fill::Uniform(low, high));
    let inputs = vec![(x, Fill::UNIT), channel(0.5, 1.5), channel(-1.0, 1.0)];
    // Sums over the channels divided by their number, times at most 1.5 * 5; the variance
    // enters 1 / sqrt with a slope of at most 5^3 / 2.
    let mut tolerance = Tolerance::sum(places.channels, 1.0);
    tolerance.absolute *= 80.0 / places.channels as f64;
    tolerance.absolute += Tolerance::transcendental().absolute;
    tolerance.relative = Tolerance::transcendental().relative;
    Sample::new(op, inputs, tolerance).gradient_of(1, &[0, 1, 2])
}
