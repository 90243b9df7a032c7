//! Broadcasting: NumPy's rule, which is also ONNX's. Shapes are aligned at their last
//! axis; an axis that is missing or has extent 1 is repeated.

use crate::ops::Draw;
use crate::tensor::Shape;

/// Most axes of a broadcast.
pub(in crate::ops) const RANK: usize = 6;

/// The shape that both broadcast to; `None` where they do not fit.
pub(in crate::ops) fn broadcast(a: &Shape, b: &Shape) -> Option<Shape> {
    let rank = a.rank().max(b.rank());
    let extent = |shape: &Shape, axis: usize| {
        let missing = rank - shape.rank();
        axis.checked_sub(missing).map_or(1, |i| shape[i])
    };
    let dims = (0..rank).map(|axis| match (extent(a, axis), extent(b, axis)) {
        (m, n) if m == n || n == 1 => Some(m),
        (1, n) => Some(n),
        _ => None,
    });
    dims.collect::<Option<Vec<_>>>().map(Shape::new)
}

/// The strides of `shape` along the axes of `whole`, which it broadcasts to: 0 where it
/// is repeated.
pub(in crate::ops) fn strides(shape: &Shape, whole: &Shape) -> Vec<usize> {
    let missing = whole.rank() - shape.rank();
    let own = shape.dims().iter().zip(shape.strides());
    let own = own.map(|(extent, stride)| if *extent == 1 { 0 } else { stride });
    std::iter::repeat_n(0, missing).chain(own).collect()
}

/// An axis of a walk over `N` tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) struct Axis<const N: usize = 2> {
    pub extent: usize,
    pub strides: [usize; N],
}

/// The axes of `whole` with the strides of shapes that broadcast to it, outermost first:
/// none of extent 1, and neighbours joined where all tensors step through them as through
/// one.
pub(in crate::ops) fn axes<const N: usize>(whole: &Shape, shapes: [&Shape; N]) -> Vec<Axis<N>> {
    let all = shapes.map(|shape| strides(shape, whole));
    let mut axes: Vec<Axis<N>> = Vec::new();
    for (i, extent) in whole.dims().iter().copied().enumerate() {
        let strides = all.each_ref().map(|own| own[i]);
        match axes.last_mut() {
            _ if extent == 1 => {}
            Some(outer) if outer.strides == strides.map(|s| s * extent) => {
                outer.extent *= extent;
                outer.strides = strides;
            }
            _ => axes.push(Axis { extent, strides }),
        }
    }
    axes
}

/// A random shape that broadcasts to `whole`.
pub(in crate::ops) fn draw_operand(draw: &mut Draw, whole: &Shape) -> Shape {
    let missing = draw.int(0, whole.rank());
    let dims = whole.dims()[missing..].iter();
    let dims: Vec<_> = dims.map(|d| if draw.coin() { 1 } else { *d }).collect();
    Shape::new(dims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_aligned_at_the_last_axis() {
        let of = |a: &[usize], b: &[usize]| broadcast(&Shape::from(a), &Shape::from(b));
        assert_eq!(of(&[2, 3, 4], &[3, 1]), Some([2, 3, 4].into()));
        assert_eq!(of(&[5, 1], &[1, 6]), Some([5, 6].into()));
        assert_eq!(of(&[], &[7]), Some([7].into()));
        assert_eq!(of(&[2, 3], &[2]), None);
    }

    #[test]
    fn axes_are_joined_where_both_tensors_run_through() {
        // A bias: the images of a channel are one axis.
        let whole = Shape::from([8, 3, 5, 7]);
        let found = axes(&whole, [&whole, &[3, 1, 1].into()]);
        let axis = |extent, strides| Axis { extent, strides };
        let expected = [axis(8, [105, 0]), axis(3, [35, 1]), axis(35, [1, 0])];
        assert_eq!(found, expected);
        assert_eq!(axes(&whole, [&whole, &whole]), [axis(840, [1, 1])]);
    }
}
