//! Kernels for software adapters, where a subgroup's lanes are SIMD lanes: what their
//! launches share.

use crate::gpu::kernel::{Kernel, ShaderFile};
use crate::gpu::profile::Profile;
use crate::shader;

const SPREAD_4: ShaderFile = shader!("subgroup/spread4.wgsl");
const SPREAD_8: ShaderFile = shader!("subgroup/spread8.wgsl");
const SPREAD_16: ShaderFile = shader!("subgroup/spread16.wgsl");

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
