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
/// Elements of a sum below which the parts of quads keep too few invocations busy.
const LEAST_IN_QUADS: usize = 4096;

/// Workgroups below which a GPU is thought idle enough that splitting K pays.
const BUSY_WORKGROUPS: usize = 256;

/// Largest tiles that fill a GPU as well as smaller ones, which read more for their sums.
const BUSY_LARGE_TILES: usize = 128;

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

/// Most bytes that the parts of a convolution's weight gradient should take.
pub const MOST_PART_BYTES: usize = 32 << 20;

/// The launch of a sum, or of two, that are computed in `parts` and added up in order.
/// `results` are the elements of each and where it ends up; `dispatch` computes the parts into
/// the bindings it is given.
pub fn in_parts<const N: usize>(
    parts: usize,
    results: [(usize, Arg); N],
    dispatch: impl FnOnce([Arg; N]) -> Dispatch,
) -> Launch {
    const { assert!(N == 1 || N == 2) };
    if parts == 1 {
        return dispatch(results.map(|r| r.1)).into();
    }
    let mut launch = Launch::default();
    let scratch = results.map(|(length, _)| launch.reserve((parts * length * 4) as u64));
    launch.dispatches.push(dispatch(scratch));
    let divides = results.iter().all(|(length, _)| length.is_multiple_of(4));
    let (values, each) = match divides && results[0].0 >= LEAST_IN_QUADS {
        true => ("vec4<f32>", 4),
        false => ("f32", 1),
    };
    let lengths = results.map(|(length, _)| length / each);
    // Without a second sum its bindings are there and not touched.
    let last = N - 1;
    let more = match N {
        2 => results[last].1,
        _ => launch.reserve(16),
    };
    let reduce = Kernel::new(REDUCE)
        .alias("Values", values)
        .set("LENGTH", lengths[0])
        .set("MORE", if N == 2 { lengths[last] } else { 0 })
        .set("SPLITS", parts)
        .set("WORKGROUP", REDUCE_WORKGROUP)
        .sparse_unless(N == 2, "parts_of_more");
    let bindings = vec![
        ("parts", scratch[0]),
        ("y", results[0].1),
        ("parts_of_more", scratch[last]),
        ("more", more),
    ];
    let groups = lengths.map(|length| length.div_ceil(REDUCE_WORKGROUP));
    launch
        .dispatches
        .push(Dispatch::linear(reduce, bindings, groups.iter().sum()));
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
    /// Whether neighbours along K, not those along the other side, are neighbours in memory: of
    /// A and of B.
    pub along_k: [bool; 2],
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

    /// Tiles of one product.
    fn tiles(&self, engine: Engine) -> usize {
        match engine {
            Engine::Tiled => Tile::of(self).count(self),
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
            Engine::Tiled => Tile::of(self).kernel(operands.along_k),
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
}

/// How a workgroup of `shaders/gemm/tiled.wgsl` goes about its tile of C: along M, then
/// along N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    lanes: [usize; 2],
    /// Quads that an invocation computes.
    quads: [usize; 2],
}

impl Tile {
    const QUAD: usize = 4;
    /// Rows and columns at most; with two pairs of staged tiles, [`DEPTH`](Self::DEPTH) deep, as
    /// large as the least workgroup memory of WebGPU, 16 KiB.
    const MOST: usize = 128;
    const DEPTH: usize = 8;
    const MOST_LANES: usize = 256;

    /// The tile for a product: small matrices get small ones, so that fewer lanes idle.
    fn of(extents: &Extents) -> Self {
        let large = Self::with_quads(extents, 2);
        if large.count(extents) * extents.batch >= BUSY_LARGE_TILES {
            return large;
        }
        Self::with_quads(extents, 1)
    }

    /// The tile with at most so many quads an invocation, along M and along N.
    fn with_quads(extents: &Extents, most: usize) -> Self {
        let across = [extents.m, extents.n].map(|side| side.div_ceil(Self::QUAD));
        let quads = across.map(|quads| match quads > Self::MOST / Self::QUAD / 2 {
            true => most,
            false => 1,
        });
        let lanes = |side: usize, most: usize| {
            let needed = across[side].div_ceil(quads[side]).next_power_of_two();
            needed.min(most)
        };
        let down = lanes(0, 16);
        let widest = Self::MOST / Self::QUAD / quads[1];
        Self {
            lanes: [down, lanes(1, widest.min(Self::MOST_LANES / down))],
            quads,
        }
    }

    /// Rows and columns.
    fn sides(&self) -> [usize; 2] {
        [0, 1].map(|side| Self::QUAD * self.lanes[side] * self.quads[side])
    }

    /// How many cover C.
    fn count(&self, extents: &Extents) -> usize {
        let [rows, columns] = self.sides();
        extents.m.div_ceil(rows) * extents.n.div_ceil(columns)
    }

    /// The kernel without its operands, and the terms a step: as many as the workgroup memory
    /// holds.
    fn kernel(&self, along_k: [bool; 2]) -> (Kernel, usize) {
        let [rows, columns] = self.sides();
        let depth = match rows + columns > Self::MOST {
            true => Self::DEPTH,
            false => 2 * Self::DEPTH,
        };
        let kernel = Kernel::new(TILED)
            .set("LANES_Y", self.lanes[0])
            .set("LANES_X", self.lanes[1])
            .set("QUADS_Y", self.quads[0])
            .set("QUADS_X", self.quads[1])
            .set("A_ALONG_K", along_k[0])
            .set("B_ALONG_K", along_k[1]);
        (kernel, depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_large_where_there_are_many_and_fit_the_least_workgroup_memory() {
        let tile = |m, n| {
            let [k, batch] = [100, 1];
            Tile::of(&Extents { m, n, k, batch })
        };
        assert_eq!(tile(1500, 1500).sides(), [128, 128]);
        assert_eq!(tile(512, 512).sides(), [64, 64]);
        // A convolution of few filters over many pixels; a dense layer of ten units.
        assert_eq!(tile(32, 100_000).sides(), [32, 128]);
        assert_eq!(tile(10, 1).sides(), [16, 4]);
        for m in [1, 3, 64, 65, 128, 1000] {
            for n in [1, 5, 64, 65, 1000, 100_000] {
                let tile = tile(m, n);
                let [rows, columns] = tile.sides();
                let (_, depth) = tile.kernel([true, false]);
                assert!(2 * 4 * depth * (rows + columns) <= 16 << 10, "{tile:?}");
                assert!(tile.lanes[0] * tile.lanes[1] <= 256, "{tile:?}");
            }
        }
    }
}
