//! Sliding-window geometry, shared by convolution and pooling.

use super::Draw;
use crate::error::{Error, Result};

/// Rows and columns of padding around an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pads {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Pads {
    /// The same padding on all four sides.
    pub fn uniform(pad: usize) -> Self {
        Self {
            top: pad,
            bottom: pad,
            left: pad,
            right: pad,
        }
    }

    /// ` padded to ..`, where there is any padding.
    fn described(&self, [h, w]: [usize; 2]) -> String {
        if *self == Self::default() {
            return String::new();
        }
        let (rows, columns) = (h + self.top + self.bottom, w + self.left + self.right);
        format!(" padded to {rows} by {columns}")
    }

    /// The padding for which an `h` by `w` image gives `ceil(h / stride)` by
    /// `ceil(w / stride)` windows; an odd row or column goes below or to the
    /// right, as in Keras and ONNX's SAME_UPPER.
    pub fn same(
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
        image: [usize; 2],
    ) -> Self {
        let total = |axis: usize| {
            let span = dilation[axis] * (kernel[axis].max(1) - 1) + 1;
            let windows = image[axis].div_ceil(stride[axis].max(1));
            (windows.saturating_sub(1) * stride[axis] + span).saturating_sub(image[axis])
        };
        let (vertical, horizontal) = (total(0), total(1));
        Self {
            top: vertical / 2,
            bottom: vertical - vertical / 2,
            left: horizontal / 2,
            right: horizontal - horizontal / 2,
        }
    }
}

/// A window that slides over an image: `[rows, columns]` throughout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Extent of the window in taps.
    pub kernel: [usize; 2],
    /// Step between windows.
    pub stride: [usize; 2],
    /// Step between taps.
    pub dilation: [usize; 2],
    /// Padding around the image.
    pub pads: Pads,
    /// Whether a window may hang over the far edge (ONNX's and PyTorch's ceil
    /// mode). Such a window starts inside the image or its near padding.
    pub ceil: bool,
}

impl Window {
    /// A window with stride 1, dilation 1 and no padding.
    pub fn new(kernel: [usize; 2]) -> Self {
        Self {
            kernel,
            stride: [1, 1],
            dilation: [1, 1],
            pads: Pads::default(),
            ceil: false,
        }
    }

    /// Rows and columns an undilated window of the same reach would have.
    pub fn span(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.dilation[axis] * (self.kernel[axis] - 1) + 1)
    }

    /// Number of windows over an image of `[rows, columns]`.
    ///
    /// # Errors
    /// If an extent is zero or the window does not fit; the message names `place`.
    pub fn output(&self, place: &str, image: [usize; 2]) -> Result<[usize; 2]> {
        let zero = |v: [usize; 2]| v.contains(&0);
        if zero(self.kernel) || zero(self.stride) || zero(self.dilation) {
            return Err(Error::shape(
                place,
                format!(
                    "kernel {:?}, stride {:?} and dilation {:?} must all be at least 1",
                    self.kernel, self.stride, self.dilation
                ),
            ));
        }
        let near = [self.pads.top, self.pads.left];
        let far = [self.pads.bottom, self.pads.right];
        let span = self.span();
        let mut windows = [0; 2];
        for axis in 0..2 {
            let padded = image[axis] + near[axis] + far[axis];
            if image[axis] == 0 || padded < span[axis] {
                return Err(Error::shape(
                    place,
                    format!(
                        "a window of {} by {} does not fit an image of {} by {}{}",
                        span[0],
                        span[1],
                        image[0],
                        image[1],
                        self.pads.described(image)
                    ),
                ));
            }
            let slack = padded - span[axis];
            windows[axis] = slack / self.stride[axis] + 1;
            let overhangs = self.ceil && !slack.is_multiple_of(self.stride[axis]);
            if overhangs && windows[axis] * self.stride[axis] < image[axis] + near[axis] {
                windows[axis] += 1;
            }
        }
        Ok(windows)
    }

    /// The image row or column that a tap of a window falls on, `None` in the padding.
    /// `axis` is 0 for rows, 1 for columns; `extent` is the image's along it.
    pub fn tap(&self, axis: usize, window: usize, tap: usize, extent: usize) -> Option<usize> {
        let near = [self.pads.top, self.pads.left][axis];
        (window * self.stride[axis] + tap * self.dilation[axis])
            .checked_sub(near)
            .filter(|at| *at < extent)
    }

    /// A random window and an image it fits, for property tests.
    pub fn draw(draw: &mut Draw) -> (Self, [usize; 2]) {
        let mut pair = |low, high| [draw.int(low, high), draw.int(low, high)];
        let (kernel, stride, dilation) = (pair(1, 4), pair(1, 3), pair(1, 2));
        let (before, after) = (pair(0, 2), pair(0, 2));
        let mut window = Self {
            kernel,
            stride,
            dilation,
            pads: Pads::default(),
            ceil: false,
        };
        let span = window.span();
        // Padding below the span, so that no window sees padding alone.
        let pad = |p: usize, axis: usize| p.min(span[axis] - 1).min(kernel[axis] / 2);
        window.pads = Pads {
            top: pad(before[0], 0),
            bottom: pad(after[0], 0),
            left: pad(before[1], 1),
            right: pad(after[1], 1),
        };
        let image = [draw.int(span[0], 13), draw.int(span[1], 17)];
        (window, image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_gives_ceil_of_the_image_over_the_stride() {
        for image in 1..20 {
            for kernel in 1..6 {
                for stride in 1..4 {
                    for dilation in 1..3 {
                        let (k, s, d) = ([kernel; 2], [stride; 2], [dilation; 2]);
                        let mut window = Window::new(k);
                        window.stride = s;
                        window.dilation = d;
                        window.pads = Pads::same(k, s, d, [image; 2]);
                        let out = window.output("test", [image; 2]).unwrap();
                        assert_eq!(out, [image.div_ceil(stride); 2]);
                    }
                }
            }
        }
    }

    #[test]
    fn a_window_larger_than_the_image_is_an_error_that_names_both() {
        let error = Window::new([5, 5]).output("conv1", [4, 9]).unwrap_err();
        assert!(error.to_string().contains("5 by 5"), "{error}");
        assert!(error.to_string().contains("4 by 9"), "{error}");
    }
}
