//! Operators that make one number of many: sums, means, maxima and the like over axes.

use super::call::Call;
use super::linear::mean_over;
use super::{Item, Lowering, Write};
use crate::error::Result;
use crate::formats::onnx::tensor::{Element, Tensor};
use crate::ops::binary::{Binary, BinaryOp, Fold, FoldTo, SumTo};
use crate::ops::select::Select;
use crate::ops::unary::{Unary, UnaryOp};
use crate::ops::{Array, Value};
use crate::tensor::{Shape, TensorType};

pub(super) const OPERATORS: &[(&str, Write)] = &[
    ("ArgMax", |l, c| arg(l, c, Fold::Max)),
    ("ArgMin", |l, c| arg(l, c, Fold::Min)),
    ("ReduceL1", |l, c| reduce(l, c, Reduction::L1)),
    ("ReduceL2", |l, c| reduce(l, c, Reduction::L2)),
    ("ReduceLogSum", |l, c| reduce(l, c, Reduction::LogSum)),
    ("ReduceLogSumExp", |l, c| reduce(l, c, Reduction::LogSumExp)),
    ("ReduceMax", |l, c| reduce(l, c, Reduction::Fold(Fold::Max))),
    ("ReduceMean", |l, c| reduce(l, c, Reduction::Mean)),
    ("ReduceMin", |l, c| reduce(l, c, Reduction::Fold(Fold::Min))),
    ("ReduceProd", |l, c| {
        reduce(l, c, Reduction::Fold(Fold::Product))
    }),
    ("ReduceSum", |l, c| reduce(l, c, Reduction::Sum)),
    ("ReduceSumSquare", |l, c| reduce(l, c, Reduction::SumSquare)),
];

/// What becomes of the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reduction {
    Fold(Fold),
    L1,
    L2,
    LogSum,
    LogSumExp,
    Mean,
    Sum,
    SumSquare,
}

impl Reduction {
    /// The result where there are no numbers.
    fn of_nothing(self) -> f32 {
        match self {
            Self::Fold(Fold::Product) => 1.0,
            Self::Fold(Fold::Max) | Self::LogSum | Self::LogSumExp => f32::NEG_INFINITY,
            Self::Fold(Fold::Min) => f32::INFINITY,
            Self::Mean => f32::NAN,
            Self::L1 | Self::L2 | Self::Sum | Self::SumSquare => 0.0,
        }
    }
}

/// The axes that a reduction goes over; `None` where it does nothing.
pub(super) fn reduced_axes(call: &Call<'_>, rank: usize) -> Result<Option<Vec<usize>>> {
    let stated = call.attribute_or_input("axes", 1)?.unwrap_or_default();
    Ok(match stated.as_slice() {
        [] if call.flag("noop_with_empty_axes")? => None,
        [] => Some((0..rank).collect()),
        stated => Some(call.axes(stated, rank)?),
    })
}

/// The extents of the result: with the axes as 1, and as the node asks for.
fn targets(call: &Call<'_>, dims: &[usize], axes: &[usize]) -> Result<[Vec<usize>; 2]> {
    let mut kept = dims.to_vec();
    axes.iter().for_each(|a| kept[*a] = 1);
    let rest = (0..dims.len()).filter(|a| !axes.contains(a));
    let asked = match call.int("keepdims", 1)? {
        0 => rest.map(|a| dims[a]).collect(),
        _ => kept.clone(),
    };
    Ok([kept, asked])
}

fn reduce(lowering: &mut Lowering, call: &Call<'_>, reduction: Reduction) -> Result<Vec<Item>> {
    let dims = lowering.dims(call.input(0)?);
    let Some(axes) = reduced_axes(call, dims.len())? else {
        return each(lowering, call, reduction);
    };
    let [kept, asked] = targets(call, &dims, &axes)?;
    if dims.contains(&0) {
        let data = vec![reduction.of_nothing(); asked.iter().product()];
        let tensor = Tensor::floats(asked, data);
        return Ok(vec![Item::on_host(&call.node.outputs[0], tensor)]);
    }
    let (x, element) = match reduction {
        // Of truth values too.
        Reduction::Fold(Fold::Max | Fold::Min) => call.number(lowering, 0)?,
        _ => (call.float(lowering, 0)?, Element::F32),
    };
    let shape = Shape::new(kept);
    let y = reduced(lowering, call, x, reduction, &axes, shape)?;
    let y = lowering.reshaped(call, y, &asked)?;
    Ok(vec![Item::Device(y, element)])
}

/// Where there is no axis to go over, each number by itself.
fn each(lowering: &mut Lowering, call: &Call<'_>, reduction: Reduction) -> Result<Vec<Item>> {
    let (x, element) = call.number(lowering, 0)?;
    let y = match reduction {
        Reduction::L1 | Reduction::L2 => lowering.op(call, Unary(UnaryOp::Abs), &[x])?,
        Reduction::LogSum => lowering.op(call, Unary(UnaryOp::Log), &[x])?,
        Reduction::SumSquare => lowering.binary(call, BinaryOp::Mul, x, x)?,
        _ => x,
    };
    Ok(vec![Item::Device(y, element)])
}

fn reduced(
    lowering: &mut Lowering,
    call: &Call<'_>,
    x: Value,
    reduction: Reduction,
    axes: &[usize],
    shape: Shape,
) -> Result<Value> {
    let sum = SumTo {
        shape: shape.clone(),
    };
    match reduction {
        Reduction::Fold(fold) => lowering.op(call, FoldTo { fold, shape }, &[x]),
        Reduction::Mean => mean_over(lowering, call, x, axes),
        Reduction::Sum => lowering.op(call, sum, &[x]),
        Reduction::L1 => {
            let x = lowering.op(call, Unary(UnaryOp::Abs), &[x])?;
            lowering.op(call, sum, &[x])
        }
        Reduction::SumSquare | Reduction::L2 => {
            let square = lowering.binary(call, BinaryOp::Mul, x, x)?;
            let y = lowering.op(call, sum, &[square])?;
            match reduction {
                Reduction::L2 => lowering.op(call, Unary(UnaryOp::Sqrt), &[y]),
                _ => Ok(y),
            }
        }
        Reduction::LogSum => {
            let y = lowering.op(call, sum, &[x])?;
            lowering.op(call, Unary(UnaryOp::Log), &[y])
        }
        Reduction::LogSumExp => {
            // Less the largest, so that nothing overflows.
            let fold = Fold::Max;
            let largest = lowering.op(call, FoldTo { fold, shape }, &[x])?;
            // Infinite ones less themselves would be NaN.
            let most = f64::from(f32::MAX);
            let largest = lowering.with_number(call, BinaryOp::Max, largest, -most)?;
            let largest = lowering.with_number(call, BinaryOp::Min, largest, most)?;
            let x = lowering.binary(call, BinaryOp::Sub, x, largest)?;
            let x = lowering.op(call, Unary(UnaryOp::Exp), &[x])?;
            let y = lowering.op(call, sum, &[x])?;
            let y = lowering.op(call, Unary(UnaryOp::Log), &[y])?;
            lowering.binary(call, BinaryOp::Add, y, largest)
        }
    }
}

/// Places along an axis up to this are exact as f32.
const MOST_PLACES: usize = 1 << 24;

/// The place of the first, or last, extreme along an axis: of all places where nothing is
/// beyond, the smallest or the largest.
fn arg(lowering: &mut Lowering, call: &Call<'_>, fold: Fold) -> Result<Vec<Item>> {
    let (x, _) = call.number(lowering, 0)?;
    let dims = lowering.shape(x).dims().to_vec();
    let axis = call.axis(call.int("axis", 0)?, dims.len())?;
    let extent = dims[axis];
    if extent > MOST_PLACES {
        return Err(call.error(format!("axis {axis} of {dims:?} has over 2^24 places")));
    }
    let [kept, asked] = targets(call, &dims, &[axis])?;
    let shape = Shape::new(kept);
    let extreme = FoldTo {
        fold,
        shape: shape.clone(),
    };
    let extreme = lowering.op(call, extreme, &[x])?;
    let pair = match fold {
        Fold::Max => [x, extreme],
        _ => [extreme, x],
    };
    let other = lowering.op(call, Binary(BinaryOp::Less), &pair)?;
    let mut along = vec![1; dims.len()];
    along[axis] = extent;
    let places = Array::float(
        TensorType::f32(Shape::new(along)),
        (0..extent).map(|i| i as f64).collect(),
    );
    let places = lowering.constant(&format!("{}/places", call.node.name), places);
    let (fold, beyond) = match call.flag("select_last_index")? {
        true => (Fold::Max, -1.0),
        false => (Fold::Min, extent as f64),
    };
    let beyond = lowering.number(call, beyond);
    let candidates = lowering.op(call, Select, &[other, beyond, places])?;
    let y = lowering.op(call, FoldTo { fold, shape }, &[candidates])?;
    let y = lowering.reshaped(call, y, &asked)?;
    Ok(vec![Item::Device(y, Element::I64)])
}
