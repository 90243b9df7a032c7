//! Kernels for software adapters, where a subgroup's lanes are SIMD lanes: what their
//! launches share.

use crate::gpu::kernel::{Kernel, ShaderFile};
use crate::gpu::profile::Profile;
use crate::shader;

const SPREAD_4: ShaderFile = shader!("subgroup/spread4.wgsl");
const SPREAD_8: ShaderFile = shader!("subgroup/spread8.wgsl");
const SPREAD_16: ShaderFile = shader!("subgroup/spread16.wgsl");

/// Most multiply-adds in the kernel's unrolled loop body. Above it the body falls out of
/// a 32 KiB instruction cache, and compiling it takes more than half a second.
pub(super) const MOST_UNROLLED: usize = 1300;

/// The same where a longer body gains nothing, or not what its compilation takes.
pub(super) const SHORT_UNROLLED: usize = 500;

/// What a step costs, in multiply-adds of a subgroup. Measured on lavapipe.
pub(super) const LOAD_COST: usize = 60;
pub(super) const LOAD_VEC4_COST: usize = 80;
pub(super) const CARRY_COST: usize = 3;
pub(super) const STORE_COST: usize = 45;
pub(super) const STORE_VEC4_COST: usize = 70;

/// Workgroups that keep the cores of a software adapter's machine evenly busy.
pub(super) const BUSY_WORKGROUPS: usize = 32;

/// How many output channels a lane computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// Two, so that not half of the lanes idle where there are few.
    Two,
    /// Four: the most products for what is loaded and spread.
    Four,
}

impl Span {
    pub(super) const ALL: [Self; 2] = [Self::Four, Self::Two];

    /// How many.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// What loading so many weights costs.
    pub(super) fn load_cost(self) -> usize {
        match self {
            Self::Two => (LOAD_COST + LOAD_VEC4_COST) / 2,
            Self::Four => LOAD_VEC4_COST,
        }
    }

    /// Subgroups that compute so many channels.
    pub(super) fn blocks(self, channels: usize, lanes: usize) -> usize {
        channels.div_ceil(self.len() * lanes)
    }

    /// Sets `SPAN` and the alias of as many floats.
    pub(super) fn specialise(self, kernel: Kernel) -> Kernel {
        let sums = match self {
            Self::Two => "vec2<f32>",
            Self::Four => "vec4<f32>",
        };
        kernel.set("SPAN", self.len()).alias("Sums", sums)
    }

    /// Sets the alias of as many indices.
    pub(super) fn specialise_places(self, kernel: Kernel) -> Kernel {
        let places = match self {
            Self::Two => "vec2<u32>",
            Self::Four => "vec4<u32>",
        };
        kernel.alias("Places", places)
    }
}

/// Lanes that work together in such a kernel: the device's subgroup where its size is
/// one a spread is written for; else 1, each invocation for itself.
pub(super) fn lanes(profile: &Profile) -> usize {
    match profile.subgroup_size {
        Some(size @ (4 | 8 | 16)) => size as usize,
        _ => 1,
    }
}

/// Sets `LANES` and hooks the `spread` of that many lanes.
pub(super) fn specialise(kernel: Kernel, profile: &Profile) -> Kernel {
    let lanes = lanes(profile);
    let kernel = kernel.set("LANES", lanes);
    match lanes {
        4 => kernel.hook("spread", SPREAD_4, "spread_4"),
        8 => kernel.hook("spread", SPREAD_8, "spread_8"),
        16 => kernel.hook("spread", SPREAD_16, "spread_16"),
        _ => kernel,
    }
}
