//! The matrix-product engine that matmul and convolution share. Not an op: an op
//! brings operands, the engine brings the tiling.

use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;

const TILED: ShaderFile = shader!("gemm/tiled.wgsl");
const REDUCE: ShaderFile = shader!("gemm/reduce.wgsl");
const REDUCE_WORKGROUP: usize = 64;

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

impl Extents {
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
    fn tiles(&self) -> usize {
        let [lanes_x, lanes_y, rows] = self.tile();
        self.n.div_ceil(lanes_x * 4) * self.m.div_ceil(lanes_y * rows)
    }

    /// Into how many parts K is best cut: enough workgroups to fill a GPU, but no part
    /// shorter than is worth its second pass.
    pub fn splits(&self) -> usize {
        let wanted = BUSY_WORKGROUPS.div_ceil(self.tiles() * self.batch);
        wanted.min(self.k / LEAST_SPLIT_K).max(1)
    }

    /// The launch of a product whose C is not split.
    pub fn launch(&self, operands: Operands, specialise: impl FnOnce(Kernel) -> Kernel) -> Launch {
        self.product(operands, 1, specialise).into()
    }

    /// The launch of a product whose K may be split: partial sums go to scratch and are
    /// added up in order. `output` is where C, dense and row-major, ends up.
    pub fn launch_split(
        &self,
        mut operands: Operands,
        output: Arg,
        specialise: impl FnOnce(Kernel) -> Kernel,
    ) -> Launch {
        let splits = self.splits();
        let length = self.batch * self.m * self.n;
        in_parts(splits, [(length, output)], |[result]| {
            for (name, arg) in &mut operands.bindings {
                if *name == operands.result {
                    *arg = result;
                }
            }
            self.product(operands, splits, specialise)
        })
    }

    fn product(
        &self,
        operands: Operands,
        splits: usize,
        specialise: impl FnOnce(Kernel) -> Kernel,
    ) -> Dispatch {
        const TILE_K: usize = 16;
        let [lanes_x, lanes_y, rows] = self.tile();
        let split_k = self.k.div_ceil(splits).next_multiple_of(TILE_K);
        let [a, b, c] = operands.functions;
        let kernel = Kernel::new(TILED)
            .hook("load_a", operands.library, a)
            .hook("load_b", operands.library, b)
            .hook("store_c", operands.library, c)
            .set("M", self.m)
            .set("N", self.n)
            .set("K", self.k)
            .set("SPLITS", splits)
            .set("SPLIT_K", split_k)
            .set("LANES_X", lanes_x)
            .set("LANES_Y", lanes_y)
            .set("ROWS", rows)
            .set("TILE_K", TILE_K);
        let mut dispatch = Dispatch::linear(specialise(kernel), operands.bindings, self.tiles());
        dispatch.workgroups[2] = u32::try_from(self.batch * splits).unwrap_or(u32::MAX);
        dispatch
    }
}
