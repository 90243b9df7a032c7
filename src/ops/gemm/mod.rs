//! The matrix-product engine that matmul and convolution share. Not an op: an op
//! brings operands, the engine brings the tiling.

mod matrix;

use super::LaunchContext;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use matrix::Units;

const TILED: ShaderFile = shader!("gemm/tiled.wgsl");
const REDUCE: ShaderFile = shader!("gemm/reduce.wgsl");
const REDUCE_WORKGROUP: usize = 64;

/// Columns an invocation of the tiled kernel computes.
const COLS: usize = 4;

/// Workgroups below which a GPU is thought idle enough that splitting K pays.
const BUSY_WORKGROUPS: usize = 256;

/// Least terms of a split.
const LEAST_SPLIT_K: usize = 256;

/// The product `C[m, n] = sum over k of A[m, k] B[k, n]`, `batch` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
    /// Independent products.
    pub batch: usize,
}

/// The launch of sums that are computed in `parts` and added up in order. `results` are the
/// elements of each sum and where it ends up; `dispatch` computes the parts into the
/// bindings it is given.
pub fn in_parts<const N: usize>(
    parts: usize,
    results: [(usize, Arg); N],
    dispatch: impl FnOnce([Arg; N]) -> Dispatch,
) -> Launch {
    if parts == 1 {
        return dispatch(results.map(|r| r.1)).into();
    }
    let mut launch = Launch::default();
    let scratch = results.map(|(length, _)| launch.reserve((parts * length * 4) as u64));
    launch.dispatches.push(dispatch(scratch));
    for ((length, result), scratch) in results.into_iter().zip(scratch) {
        let reduce = Kernel::new(REDUCE)
            .set("LENGTH", length)
            .set("SPLITS", parts)
            .set("WORKGROUP", REDUCE_WORKGROUP);
        launch.dispatches.push(Dispatch::linear(
            reduce,
            vec![("parts", scratch), ("y", result)],
            length.div_ceil(REDUCE_WORKGROUP),
        ));
    }
    launch
}

/// The operands of a product: a library of hook functions and the bindings it names.
#[derive(Clone, Debug)]
pub struct Operands {
    /// The library.
    pub library: ShaderFile,
    /// Its functions for A, B and C.
    pub functions: [&'static str; 3],
    /// What its bindings refer to; the one named `result` is C.
    pub bindings: Vec<(&'static str, Arg)>,
    /// The binding C is written to.
    pub result: &'static str,
}

/// What computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// `shaders/gemm/tiled.wgsl`.
    Tiled,
    /// `shaders/gemm/matrix.wgsl`.
    Matrix(Units),
}

impl Engine {
    /// Whether there are matrix units for operands that are inputs of those numbers, or scratch.
    pub fn has_units(context: &LaunchContext<'_>, operands: [Option<usize>; 2]) -> bool {
        Units::choose(context, operands).is_some()
    }

    /// The engine for A and B that are inputs of those numbers, or scratch.
    pub fn choose(
        context: &LaunchContext<'_>,
        operands: [Option<usize>; 2],
        extents: &Extents,
    ) -> Self {
        match Units::choose(context, operands) {
            Some(units) if units.suit(extents) => Self::Matrix(units),
            _ => Self::Tiled,
        }
    }
}

impl Extents {
    /// Elements of A, B and C.
    pub fn steps(&self) -> [usize; 3] {
        [self.m * self.k, self.k * self.n, self.m * self.n]
    }

    /// Invocations along M and N and rows per invocation: small matrices get small
    /// tiles, so that fewer lanes idle.
    fn tile(&self) -> [usize; 3] {
        let rows = if self.m >= 64 {
            4
        } else {
            self.m.div_ceil(16).max(1)
        };
        let lanes_y = self.m.div_ceil(rows).next_power_of_two().min(16);
        let lanes_x = self
            .n
            .div_ceil(4)
            .next_power_of_two()
            .min(256 / lanes_y)
            .clamp(1, 32);
        [lanes_x, lanes_y, rows]
    }

    /// Tiles of one product.
    fn tiles(&self, engine: Engine) -> usize {
        match engine {
            Engine::Tiled => {
                let [lanes_x, lanes_y, rows] = self.tile();
                self.n.div_ceil(lanes_x * COLS) * self.m.div_ceil(lanes_y * rows)
            }
            Engine::Matrix(units) => units.tiles(self),
        }
    }

    /// Into how many parts K is best cut: enough workgroups to fill a GPU, but no part
    /// shorter than is worth its second pass.
    pub fn splits(&self, engine: Engine) -> usize {
        let wanted = BUSY_WORKGROUPS.div_ceil(self.tiles(engine) * self.batch);
        wanted.min(self.k / LEAST_SPLIT_K).max(1)
    }

    /// The launch of a product whose C is not split.
    pub fn launch(
        &self,
        engine: Engine,
        operands: Operands,
        specialise: impl FnOnce(Kernel) -> Kernel,
    ) -> Launch {
        self.product(engine, operands, 1, specialise).into()
    }

    /// The launch of a product whose K may be split: partial sums go to scratch and are
    /// added up in order. `output` is where C, dense and row-major, ends up; `specialise` is
    /// told whether there are parts.
    pub fn launch_split(
        &self,
        engine: Engine,
        mut operands: Operands,
        output: Arg,
        specialise: impl FnOnce(Kernel, bool) -> Kernel,
    ) -> Launch {
        let splits = self.splits(engine);
        let length = self.batch * self.m * self.n;
        in_parts(splits, [(length, output)], |[result]| {
            for (name, arg) in &mut operands.bindings {
                if *name == operands.result {
                    *arg = result;
                }
            }
            self.product(engine, operands, splits, |kernel| {
                specialise(kernel, splits > 1)
            })
        })
    }

    /// The dispatch of a product in `splits` parts.
    pub fn product(
        &self,
        engine: Engine,
        operands: Operands,
        splits: usize,
        specialise: impl FnOnce(Kernel) -> Kernel,
    ) -> Dispatch {
        let (kernel, depth) = match engine {
            Engine::Tiled => self.tiled(),
            Engine::Matrix(units) => units.kernel(self),
        };
        let [a, b, c] = operands.functions;
        let kernel = kernel
            .hook("load_a", operands.library, a)
            .hook("load_b", operands.library, b)
            .hook("store_c", operands.library, c)
            .set("M", self.m)
            .set("N", self.n)
            .set("K", self.k)
            .set("SPLITS", splits)
            .set("SPLIT_K", self.k.div_ceil(splits).next_multiple_of(depth))
            .set("TILE_K", depth);
        let tiles = self.tiles(engine);
        let mut dispatch = Dispatch::linear(specialise(kernel), operands.bindings, tiles);
        dispatch.workgroups[2] = u32::try_from(self.batch * splits).unwrap_or(u32::MAX);
        dispatch
    }

    /// The tiled kernel without its operands, and the terms a step.
    fn tiled(&self) -> (Kernel, usize) {
        const TILE_K: usize = 16;
        let [lanes_x, lanes_y, rows] = self.tile();
        let kernel = Kernel::new(TILED)
            .set("LANES_X", lanes_x)
            .set("LANES_Y", lanes_y)
            .set("ROWS", rows);
        (kernel, TILE_K)
    }
}
