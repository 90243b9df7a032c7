//! The product on matrix units: `shaders/gemm/matrix.wgsl`.

use super::Extents;
use crate::gpu::half::Half;
use crate::gpu::kernel::{Kernel, ShaderFile};
use crate::ops::LaunchContext;
use crate::shader;

const MATRIX: ShaderFile = shader!("gemm/matrix.wgsl");

/// Subgroups along each side of a workgroup's tile, and rows and columns of a subgroup's part
/// of it. Larger ones would not fit the least workgroup memory twice.
const WAVES: usize = 2;
const WAVE: usize = 32;

/// Most terms a step: beyond, more workgroup memory saves hardly a barrier.
const MOST_DEPTH: usize = 32;

/// Elements between the rows of a staged tile: 16 bytes.
const SKEW: usize = 8;

/// Bytes of an operand's element, and of a sum's.
const OPERAND_BYTES: usize = 2;
const SUM_BYTES: usize = 4;

/// The matrix units that suit a product's operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    /// Rows and columns of a matrix.
    size: usize,
    subgroup: usize,
    memory: usize,
}

/// How a workgroup goes about its tile of C.
struct Tile {
    /// Subgroups along M and N.
    waves: [usize; 2],
    /// Matrices a subgroup holds along M and N.
    blocks: [usize; 2],
    /// Terms a step.
    depth: usize,
}

impl Units {
    /// The units for a product of inputs of those numbers, where the device has any: only
    /// where both are kept in half precision, as nothing is to be rounded for them.
    pub fn choose(context: &LaunchContext<'_>, operands: [Option<usize>; 2]) -> Option<Self> {
        let profile = context.profile;
        let is_half = |input: &Option<usize>| {
            input.is_some_and(|i| context.halves.get(i).copied().unwrap_or(false))
        };
        if profile.half != Half::Native || !operands.iter().all(is_half) {
            return None;
        }
        Some(Self {
            size: profile.matrix? as usize,
            subgroup: profile.subgroup_size? as usize,
            memory: profile.workgroup_memory as usize,
        })
    }

    /// Whether a product fills matrices at all.
    pub fn suit(&self, extents: &Extents) -> bool {
        let Extents { m, n, k, .. } = *extents;
        [m, n, k].into_iter().all(|extent| extent >= self.size)
    }

    fn tile(&self, extents: &Extents) -> Tile {
        let sides = [extents.m, extents.n];
        let mut tile = Tile {
            waves: sides.map(|side| side.div_ceil(WAVE).min(WAVES)),
            blocks: sides.map(|side| side.div_ceil(self.size).min(WAVE / self.size)),
            depth: MOST_DEPTH,
        };
        while tile.depth > self.size && self.bytes(&tile) > self.memory {
            tile.depth /= 2;
        }
        tile
    }

    fn rows_and_columns(&self, tile: &Tile) -> [usize; 2] {
        [0, 1].map(|side| tile.waves[side] * tile.blocks[side] * self.size)
    }

    /// Workgroup memory that a tile takes.
    fn bytes(&self, tile: &Tile) -> usize {
        let [rows, columns] = self.rows_and_columns(tile);
        let staged = rows * (tile.depth + SKEW) + tile.depth * (columns + SKEW);
        let sums = tile.waves[0] * tile.waves[1] * self.size * self.size;
        2 * staged * OPERAND_BYTES + sums * SUM_BYTES
    }

    /// Tiles of one product.
    pub fn tiles(&self, extents: &Extents) -> usize {
        let [rows, columns] = self.rows_and_columns(&self.tile(extents));
        extents.m.div_ceil(rows) * extents.n.div_ceil(columns)
    }

    /// The kernel without its operands, and the terms a step.
    pub fn kernel(&self, extents: &Extents) -> (Kernel, usize) {
        let tile = self.tile(extents);
        let [a, b, c] = match self.size {
            8 => [
                "coop_mat8x8<f16, A>",
                "coop_mat8x8<f16, B>",
                "coop_mat8x8<f32, C>",
            ],
            _ => [
                "coop_mat16x16<f16, A>",
                "coop_mat16x16<f16, B>",
                "coop_mat16x16<f32, C>",
            ],
        };
        let kernel = Kernel::new(MATRIX)
            .alias("MatrixA", a)
            .alias("MatrixB", b)
            .alias("MatrixC", c)
            .set("SIZE", self.size)
            .set("SUBGROUP", self.subgroup)
            .set("WAVES_M", tile.waves[0])
            .set("WAVES_N", tile.waves[1])
            .set("BLOCKS_M", tile.blocks[0])
            .set("BLOCKS_N", tile.blocks[1])
            .set("SKEW", SKEW);
        (kernel, tile.depth)
    }
}
