//! A border of zeros around a tensor, and a part cut out of one: each the other's gradient.

use super::{
    Array, Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Pads, Reference, Sample,
    Tolerance, Value, expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::{Shape, TensorType};

const FORWARD: ShaderFile = shader!("pad/forward.wgsl");
const WORKGROUP: usize = 64;
/// Axes the kernel walks.
const AXES: usize = 4;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "pad",
        sample: sample_pad,
    },
    Entry {
        name: "slice",
        sample: sample_slice,
    },
];

/// Zeros around a tensor: `y[i, ..] = x[i - before, ..]`, 0 where that is outside of `x`.
///
/// Input: `x` f32. Output: `y`, whose extents are `before + x + after`, axis by axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pad {
    /// Zeros before the first element of each axis.
    pub before: Vec<usize>,
    /// Zeros after the last element of each axis.
    pub after: Vec<usize>,
}

impl Pad {
    /// Padding of the rows and columns of NCHW images.
    pub fn images(pads: Pads) -> Self {
        Self {
            before: vec![0, 0, pads.top, pads.left],
            after: vec![0, 0, pads.bottom, pads.right],
        }
    }

    fn cut(&self, x: &Shape, y: &Shape) -> Cut {
        let start = |before: &usize| -(*before as isize);
        Cut::new(x, y, self.before.iter().map(start).collect())
    }
}

impl Op for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_dense(self, inputs)?;
        let x = inputs[0].shape.dims();
        if self.before.len() != x.len() || self.after.len() != x.len() {
            return Err(Error::shape(
                self.name(),
                format!(
                    "expected padding of {} axes, those of {}, found before {:?}, after {:?}",
                    x.len(),
                    inputs[0],
                    self.before,
                    self.after
                ),
            ));
        }
        let sides = self.before.iter().zip(&self.after);
        let extents = x.iter().zip(sides);
        let extents = extents.map(|(x, (b, a))| x.saturating_add(*b).saturating_add(*a));
        let y = Shape::new(extents.collect::<Vec<_>>());
        let len = y.dims().iter().try_fold(1, |n: usize, d| n.checked_mul(*d));
        if len.is_none_or(|len| i32::try_from(len).is_err()) {
            let problem = format!("{} padded to {y} has over 2^31 elements", inputs[0]);
            return Err(Error::shape(self.name(), problem));
        }
        self.cut(&inputs[0].shape, &y).axes(self)?;
        Ok(vec![TensorType::f32(y)])
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
        let slice = Slice {
            starts: self.before.clone(),
            shape: builder.ty(node.inputs[0]).shape.clone(),
        };
        Ok(vec![Some(builder.add1(Box::new(slice), &[dy])?)])
    }

    fn reference(&self, io: Reference<'_>) {
        let cut = self.cut(&io.inputs[0].ty().shape, &io.outputs[0].ty().shape);
        cut.reference(io.inputs[0], &mut io.outputs[0]);
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let cut = self.cut(&context.inputs[0].shape, &context.outputs[0].shape);
        cut.launch(self)
    }

    fn flops(&self, _inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        0
    }
}

/// A part of a tensor: `y[i, ..] = x[starts + i, ..]`.
///
/// Input: `x` f32. Output: `y`, of the given shape, which must lie inside of `x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The first element along each axis.
    pub starts: Vec<usize>,
    /// How many elements along each axis.
    pub shape: Shape,
}

impl Slice {
    fn cut(&self, x: &Shape) -> Cut {
        let start = |start: &usize| *start as isize;
        Cut::new(x, &self.shape, self.starts.iter().map(start).collect())
    }
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_dense(self, inputs)?;
        let (x, y) = (inputs[0].shape.dims(), self.shape.dims());
        let parts = x.iter().zip(self.starts.iter().zip(y));
        let mut inside = parts.map(|(x, (start, y))| *y > 0 && start.saturating_add(*y) <= *x);
        if self.starts.len() != x.len() || y.len() != x.len() || !inside.all(|inside| inside) {
            return Err(Error::shape(
                self.name(),
                format!(
                    "{} from {:?} is no part of {}",
                    self.shape, self.starts, inputs[0]
                ),
            ));
        }
        self.cut(&inputs[0].shape).axes(self)?;
        Ok(vec![TensorType::f32(self.shape.clone())])
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
        let x = builder.ty(node.inputs[0]).shape.dims();
        let parts = self.starts.iter().zip(self.shape.dims());
        let after = x.iter().zip(parts).map(|(x, (start, y))| x - start - y);
        let pad = Pad {
            before: self.starts.clone(),
            after: after.collect(),
        };
        Ok(vec![Some(builder.add1(Box::new(pad), &[dy])?)])
    }

    fn reference(&self, io: Reference<'_>) {
        let cut = self.cut(&io.inputs[0].ty().shape);
        cut.reference(io.inputs[0], &mut io.outputs[0]);
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        self.cut(&context.inputs[0].shape).launch(self)
    }

    fn flops(&self, _inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        0
    }
}

fn expect_dense(op: &dyn Op, inputs: &[TensorType]) -> Result<()> {
    expect_inputs(op, inputs, 1)?;
    expect_type(
        op,
        "x",
        &TensorType::f32(inputs[0].shape.clone()),
        &inputs[0],
    )?;
    if inputs[0].shape.is_empty() {
        let problem = format!("x: expected every extent at least 1, found {}", inputs[0]);
        return Err(Error::shape(op.name(), problem));
    }
    Ok(())
}

/// One axis of x and y, and where y starts in x: before it, where padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    x: usize,
    y: usize,
    start: isize,
}

impl Axis {
    const ONE: Self = Self {
        x: 1,
        y: 1,
        start: 0,
    };

    fn is_whole(self) -> bool {
        self.x == self.y && self.start == 0
    }
}

/// What padding and slicing share: y is a window on x, with zeros outside of x.
struct Cut(Vec<Axis>);

impl Cut {
    fn new(x: &Shape, y: &Shape, starts: Vec<isize>) -> Self {
        let extents = x.dims().iter().zip(y.dims());
        let axes = extents.zip(starts);
        Self(
            axes.map(|((x, y), start)| Axis {
                x: *x,
                y: *y,
                start,
            })
            .collect(),
        )
    }

    /// The kernel's axes: an axis that is whole counts as part of the one before it.
    fn axes(&self, op: &dyn Op) -> Result<[Axis; AXES]> {
        let mut joined: Vec<Axis> = Vec::new();
        for axis in &self.0 {
            match joined.last_mut() {
                Some(outer) if axis.is_whole() => {
                    outer.x *= axis.x;
                    outer.y *= axis.y;
                    outer.start *= axis.x as isize;
                }
                _ => joined.push(*axis),
            }
        }
        let missing = AXES.checked_sub(joined.len()).ok_or_else(|| {
            let problem = format!(
                "only {AXES} axes can be changed at once, found {}",
                joined.len()
            );
            Error::shape(op.name(), problem)
        })?;
        let mut axes = [Axis::ONE; AXES];
        axes[missing..].copy_from_slice(&joined);
        Ok(axes)
    }

    fn reference(&self, x: &Array, y: &mut Array) {
        for (i, y) in y.f_mut().iter_mut().enumerate() {
            let (mut rest, mut at, mut stride, mut inside) = (i, 0, 1, true);
            for axis in self.0.iter().rev() {
                let place = (rest % axis.y) as isize + axis.start;
                inside &= (0..axis.x as isize).contains(&place);
                at += place * stride;
                rest /= axis.y;
                stride *= axis.x as isize;
            }
            *y = if inside { x.f()[at as usize] } else { 0.0 };
        }
    }

    fn launch(&self, op: &dyn Op) -> Result<Launch> {
        let mut axes = self.axes(op)?;
        let last = &mut axes[AXES - 1];
        let quads = [last.x, last.y, last.start.unsigned_abs()];
        let quads = quads.iter().all(|extent| extent.is_multiple_of(4));
        if quads {
            (last.x, last.y, last.start) = (last.x / 4, last.y / 4, last.start / 4);
        }
        let start = |axis: usize| axes[axis].start as i32;
        let len: usize = axes.iter().map(|axis| axis.y).product();
        let kernel = Kernel::new(FORWARD)
            .alias("Element", if quads { "vec4<f32>" } else { "f32" })
            .set("WORKGROUP", WORKGROUP)
            .set("LEN", len)
            .set("Y1", axes[1].y)
            .set("Y2", axes[2].y)
            .set("Y3", axes[3].y)
            .set("X0", axes[0].x)
            .set("X1", axes[1].x)
            .set("X2", axes[2].x)
            .set("X3", axes[3].x)
            .set("START0", start(0))
            .set("START1", start(1))
            .set("START2", start(2))
            .set("START3", start(3));
        let bindings = vec![("x", Arg::Input(0)), ("y", Arg::Output(0))];
        Ok(Dispatch::linear(kernel, bindings, len.div_ceil(WORKGROUP)).into())
    }
}

/// Extents of up to five axes and, for each, elements before and after: none at the fifth.
fn draw_border(draw: &mut Draw) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
    let rank = draw.int(1, 5);
    let mut extents: Vec<_> = (0..rank).map(|_| draw.int(1, 6)).collect();
    extents[rank - 1] = draw.pick(&[1, 3, 4, 8]);
    let mut side = || {
        let mut pads: Vec<_> = (0..rank).map(|_| draw.int(0, 4)).collect();
        // The last axis is often whole, or cut at whole vec4.
        pads[rank - 1] = draw.pick(&[0, 0, 4, 1]);
        pads[AXES.min(rank)..].fill(0);
        pads
    };
    let (before, after) = (side(), side());
    (extents, before, after)
}

fn sample_pad(draw: &mut Draw) -> Sample {
    let (extents, before, after) = draw_border(draw);
    let x = TensorType::f32(Shape::new(extents));
    let inputs = vec![(x, Fill::UNIT)];
    Sample::new(Pad { before, after }, inputs, Tolerance::EXACT)
}

fn sample_slice(draw: &mut Draw) -> Sample {
    let (extents, starts, after) = draw_border(draw);
    let borders = starts.iter().zip(&after);
    let whole = extents.iter().zip(borders).map(|(y, (b, a))| b + y + a);
    let x = TensorType::f32(Shape::new(whole.collect::<Vec<_>>()));
    let shape = Shape::new(extents);
    let inputs = vec![(x, Fill::UNIT)];
    Sample::new(Slice { starts, shape }, inputs, Tolerance::EXACT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_of_images_goes_around_rows_and_columns() {
        let pads = Pads {
            top: 1,
            bottom: 2,
            left: 3,
            right: 4,
        };
        let x = TensorType::f32([2, 3, 5, 5]);
        let y = Pad::images(pads).infer(&[x]).unwrap();
        assert_eq!(y, [TensorType::f32([2, 3, 8, 12])]);
    }

    #[test]
    fn a_slice_that_leaves_the_tensor_is_an_error_that_names_both() {
        let op = Slice {
            starts: vec![0, 2],
            shape: [3, 4].into(),
        };
        let error = op.infer(&[TensorType::f32([3, 5])]).unwrap_err();
        assert!(error.to_string().contains("[3, 4] from [0, 2]"), "{error}");
        assert!(error.to_string().contains("[3, 5]"), "{error}");
    }

    #[test]
    fn padding_beyond_any_device_is_an_error() {
        for far in [1 << 31, usize::MAX] {
            let op = Pad {
                before: vec![far, 1],
                after: vec![0, 1],
            };
            assert!(op.infer(&[TensorType::f32([3, 5])]).is_err());
        }
    }

    #[test]
    fn whole_axes_join_the_one_before_them() {
        let channels = Slice {
            starts: vec![0, 3, 0, 0],
            shape: [2, 4, 8, 8].into(),
        };
        let axes = channels.cut(&[2, 9, 8, 8].into()).axes(&channels).unwrap();
        let (x, y, start) = (9 * 64, 4 * 64, 3 * 64);
        let images = Axis {
            x: 2,
            y: 2,
            start: 0,
        };
        assert_eq!(axes, [Axis::ONE, Axis::ONE, images, Axis { x, y, start }]);
    }
}
