//! Pooling over windows of an image, and over whole images.

mod average;
mod global;
mod max;

pub use average::{AvgPool2d, AvgPool2dGrad};
pub use global::{GlobalAvgPool, GlobalAvgPoolGrad};
pub(super) use max::PUT as PUT_POOLED;
pub use max::{MaxPool2d, MaxPool2dGrad, NO_WINNER};

use super::{Draw, Entry, Op, Window, expect_type};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch};
use crate::tensor::TensorType;

const WORKGROUP: usize = 64;

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[
    max::ENTRY,
    max::GRAD_ENTRY,
    average::ENTRY,
    average::GRAD_ENTRY,
    global::ENTRY,
    global::GRAD_ENTRY,
];

/// A window over the images of a batch: extents in one place.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    window: Window,
    /// N * C.
    planes: usize,
    /// Rows and columns of the image.
    image: [usize; 2],
    /// Rows and columns of windows.
    windows: [usize; 2],
}

impl Geometry {
    /// The windows over `x` of shape [N, C, H, W].
    fn over(op: &dyn Op, window: Window, x: &TensorType) -> Result<Self> {
        expect_type(op, "x", &TensorType::f32(x.shape.clone()), x)?;
        let [n, c, h, w] = x.shape.nchw(op.name())?;
        Ok(Self {
            window,
            planes: n * c,
            image: [h, w],
            windows: window.output(op.name(), [h, w])?,
        })
    }

    /// The windows over `image` that give `y` of shape [N, C, Ho, Wo].
    fn giving(op: &dyn Op, window: Window, image: [usize; 2], y: &TensorType) -> Result<Self> {
        let [n, c, ho, wo] = y.shape.nchw(op.name())?;
        let windows = window.output(op.name(), image)?;
        let expected = TensorType::f32([n, c, windows[0], windows[1]]);
        expect_type(op, "dy", &expected, y)?;
        Ok(Self {
            window,
            planes: n * c,
            image,
            windows: [ho, wo],
        })
    }

    /// Fails if a window has no tap on the image: its pool would be of nothing.
    fn expect_taps(&self, op: &dyn Op) -> Result<()> {
        for axis in 0..2 {
            let extent = self.image[axis];
            let sees = |window| {
                (0..self.window.kernel[axis])
                    .any(|tap| self.window.tap(axis, window, tap, extent).is_some())
            };
            if let Some(blind) = (0..self.windows[axis]).find(|window| !sees(*window)) {
                let line = ["row", "column"][axis];
                return Err(Error::shape(
                    op.name(),
                    format!(
                        "the windows of {line} {blind} see padding alone; {:?} is too much for an image of {} by {}",
                        self.window.pads, self.image[0], self.image[1]
                    ),
                ));
            }
        }
        Ok(())
    }

    fn image_area(&self) -> usize {
        self.image[0] * self.image[1]
    }

    fn window_area(&self) -> usize {
        self.windows[0] * self.windows[1]
    }

    /// Padding above and to the left.
    fn near(&self) -> [usize; 2] {
        [self.window.pads.top, self.window.pads.left]
    }

    /// Whether any tap of any window misses the image.
    fn is_clipped(&self) -> bool {
        let span = self.window.span();
        (0..2).any(|axis| {
            let reach = (self.windows[axis] - 1) * self.window.stride[axis] + span[axis];
            self.near()[axis] > 0 || reach > self.image[axis]
        })
    }

    /// Whether the windows lie edge to edge from the image's corner.
    fn is_tiling(&self) -> bool {
        let w = &self.window;
        w.stride == w.kernel && w.dilation == [1, 1] && !self.is_clipped()
    }

    /// Most windows that reach one row (axis 0) or column (axis 1).
    fn cover(&self, axis: usize) -> usize {
        self.window.span()[axis].div_ceil(self.window.stride[axis])
    }

    /// Sets the extents every pooling shader has.
    fn set_extents(&self, kernel: Kernel) -> Kernel {
        kernel
            .set("WORKGROUP", WORKGROUP)
            .set("H", self.image[0])
            .set("W", self.image[1])
            .set("HO", self.windows[0])
            .set("WO", self.windows[1])
    }

    fn set_strides(&self, kernel: Kernel) -> Kernel {
        kernel
            .set("STRIDE_H", self.window.stride[0])
            .set("STRIDE_W", self.window.stride[1])
            .set("PAD_TOP", self.window.pads.top)
            .set("PAD_LEFT", self.window.pads.left)
    }

    fn set_taps(&self, kernel: Kernel) -> Kernel {
        kernel
            .set("KERNEL_H", self.window.kernel[0])
            .set("KERNEL_W", self.window.kernel[1])
            .set("DILATION_H", self.window.dilation[0])
            .set("DILATION_W", self.window.dilation[1])
            .set("CLIPPED", self.is_clipped())
    }

    fn set_cover(&self, kernel: Kernel) -> Kernel {
        kernel
            .set("COVER_H", self.cover(0))
            .set("COVER_W", self.cover(1))
    }

    /// Calls `visit(plane, window, pixel)` for every tap on the image, windows and
    /// taps in row-major order; `window` and `pixel` are offsets in their planes.
    fn for_each_tap(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let [kh, kw] = self.window.kernel;
        for plane in 0..self.planes {
            for window in 0..self.window_area() {
                let (oh, ow) = (window / self.windows[1], window % self.windows[1]);
                for tap in 0..kh * kw {
                    let h = self.window.tap(0, oh, tap / kw, self.image[0]);
                    let w = self.window.tap(1, ow, tap % kw, self.image[1]);
                    if let (Some(h), Some(w)) = (h, w) {
                        visit(plane, window, h * self.image[1] + w);
                    }
                }
            }
        }
    }

    /// A random window, now and then with ceil mode or the common tiling, and
    /// images it fits.
    fn draw(draw: &mut Draw) -> Self {
        let (mut window, mut image) = Window::draw(draw);
        window.ceil = draw.coin();
        if draw.int(0, 2) == 0 {
            window = Window::new([2, 2]);
            window.stride = [2, 2];
            image = [draw.int(2, 13), draw.int(2, 17)];
        }
        Self {
            window,
            planes: draw.int(1, 3) * draw.int(1, 4),
            image,
            windows: window.output("sample", image).expect("a legal window"),
        }
    }

    fn x(&self) -> TensorType {
        TensorType::f32([1, self.planes, self.image[0], self.image[1]])
    }

    fn y(&self) -> TensorType {
        TensorType::f32([1, self.planes, self.windows[0], self.windows[1]])
    }
}

/// One invocation for four of `elements`.
fn by_fours(kernel: Kernel, bindings: Vec<(&'static str, Arg)>, elements: usize) -> Launch {
    let groups = elements.div_ceil(4).div_ceil(WORKGROUP);
    Dispatch::linear(kernel, bindings, groups).into()
}
