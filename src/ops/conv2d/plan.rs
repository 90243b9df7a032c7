//! The forward pass and the input gradient as the same sum, which several kernels compute.

use super::{Conv2d, Geometry, Upstream};
use crate::gpu::kernel::{Arg, Kernel, ShaderFile};
use crate::ops::Window;
use crate::ops::activation::{FUNCTIONS, Function};
use crate::ops::pool2d::PUT_POOLED;
use crate::shader;

/// Where a kernel puts its results without a pool.
const PUT: ShaderFile = shader!("conv2d/put.wgsl");

/// A convolution of input 0 with the filters that are input 1, and what becomes of its sums.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub geometry: Geometry,
    /// The padding above and to the left, which can be negative.
    pub pads: [i64; 2],
    /// Distance of the input's rows and columns, with zeros between; 1 for none.
    pub gap: [usize; 2],
    /// The row and the column of the input from which on it is zero.
    pub seen: [usize; 2],
    /// What the input is read from, for kernels that look through a pool.
    pub source: Upstream,
    /// Rows and columns of the input of which that has one value; 1 where there is a gap.
    pub cell: [usize; 2],
    /// The filters are another convolution's, turned round.
    pub flip: bool,
    /// Rows and columns of the pool windows that tile the output.
    pub pool: Option<[usize; 2]>,
    /// There is a bias, which is input 2.
    pub bias: bool,
    pub activation: Function,
    /// What that stops has no winner.
    pub settled: bool,
}

impl Plan {
    /// Inputs `x`, `w` and, where `bias`, `bias`. `None` where there is a pool whose windows
    /// do not lie edge to edge.
    pub fn forward(op: &Conv2d, geometry: &Geometry) -> Option<Self> {
        let pads = geometry.window.pads;
        let pool = match op.pool() {
            Some(pool) => Some(pool.tile(geometry.output)?),
            None => None,
        };
        Some(Self {
            geometry: *geometry,
            pads: [pads.top as i64, pads.left as i64],
            gap: [1, 1],
            seen: geometry.image,
            source: Upstream::default(),
            cell: [1, 1],
            flip: false,
            pool,
            bias: op.bias,
            activation: op.activation,
            settled: op.settled,
        })
    }

    /// Inputs `dy` and `w`: a convolution of `dy`, with gaps where the stride skips, with the
    /// filters turned round, from output to input channels, padded by what a window reaches
    /// beyond its own padding.
    pub fn input_grad(geometry: &Geometry) -> Self {
        let window = geometry.window;
        let complement = |axis: usize, near: usize| window.span()[axis] as i64 - 1 - near as i64;
        Self {
            geometry: Geometry {
                window: Window {
                    pads: Default::default(),
                    stride: [1, 1],
                    ..window
                },
                c: geometry.o,
                o: geometry.c,
                image: geometry.output,
                output: geometry.image,
                ..*geometry
            },
            pads: [
                complement(0, window.pads.top),
                complement(1, window.pads.left),
            ],
            gap: window.stride,
            seen: geometry.output,
            source: Upstream::default(),
            cell: [1, 1],
            flip: true,
            pool: None,
            bias: false,
            activation: Function::Identity,
            settled: false,
        }
    }

    /// The same of an input gradient whose inputs are those of `upstream` and `w`, if a kernel can
    /// look through its pool.
    pub fn through(self, upstream: Upstream) -> Option<Self> {
        let cell = upstream.tile()?;
        // What no window reaches has no gradient.
        let seen = [0, 1].map(|axis| self.geometry.image[axis] / cell[axis] * cell[axis]);
        (self.gap == [1, 1]).then_some(Self {
            source: upstream,
            seen,
            cell,
            ..self
        })
    }

    /// Rows and columns of the pool windows, of single outputs where there is no pool.
    pub fn pool_window(&self) -> [usize; 2] {
        self.pool.unwrap_or([1, 1])
    }

    /// The convolution without the outputs that no pool window reaches, and where there is no
    /// pool, without the rows below all that the input reaches.
    pub fn reached(&self) -> Geometry {
        let mut geometry = self.geometry.covered(self.pool_window());
        if self.pool.is_none() {
            let last = (self.seen[0] as i64 - 1) * self.gap[0] as i64 + self.pads[0];
            let rows = last.max(0) as usize / geometry.window.stride[0] + 1;
            geometry.output[0] = geometry.output[0].min(rows);
        }
        geometry
    }

    /// Outputs that cannot be told apart: of a pool window, or from gap to gap or cell to cell.
    pub fn unit(&self) -> [usize; 2] {
        let apart = [0, 1].map(|axis| self.gap[axis] * self.cell[axis]);
        self.pool.unwrap_or(apart)
    }

    /// Products of a tap for each that does not fall into a gap.
    pub fn gap_area(&self) -> usize {
        self.gap.iter().product()
    }

    /// Filters and channels of the filters as they are in memory.
    pub fn filters(&self) -> [usize; 2] {
        let Geometry { o, c, .. } = self.geometry;
        if self.flip { [c, o] } else { [o, c] }
    }

    /// Whether rows of results divide into aligned quads of windows, for a kernel that
    /// computes so many columns of outputs at a time.
    pub fn in_quads(&self, columns: usize) -> bool {
        let [_, pool] = self.pool_window();
        let windows = self.geometry.output[1] / pool;
        windows.is_multiple_of(4) && (columns / pool).is_multiple_of(4)
    }

    /// Sets all that a kernel needs to know of what becomes of its sums; `quads` are put at
    /// once, or single results.
    pub fn finish(&self, kernel: Kernel, quads: bool) -> Kernel {
        let (library, target) = match self.pool {
            Some(_) => (PUT_POOLED, "put_pooled"),
            None => (PUT, "put_value"),
        };
        let kernel = match quads {
            true => kernel
                .hook("put_quad", library, target)
                .alias("Values", "vec4<f32>")
                .alias("Winners", "vec4<u32>"),
            false => kernel.hook("put", library, target),
        };
        let kernel = match self.pool {
            Some(_) => kernel.set("SETTLED", self.settled),
            None => kernel,
        };
        let kernel = kernel.sparse_unless(self.bias, "bias");
        let [pool_h, pool_w] = self.pool_window();
        kernel
            .hook("activate", FUNCTIONS, self.activation.shader_name())
            .set("IN_QUADS", quads)
            .set("POOL_H", pool_h)
            .set("POOL_W", pool_w)
            .set("HAS_BIAS", self.bias)
            .set("ALPHA", self.activation.alpha())
    }

    /// The bindings of that.
    pub fn results(&self) -> Vec<(&'static str, Arg)> {
        // Without a bias the binding is never read; the filters will do.
        let bias = Arg::Input(match self.bias {
            true => 2,
            false => self.source.operand(),
        });
        let mut bindings = vec![("bias", bias), ("y", Arg::Output(0))];
        if self.pool.is_some() {
            bindings.push(("argmax", Arg::Output(1)));
        }
        bindings
    }
}
