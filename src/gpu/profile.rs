//! What a kernel needs to know of the device: a [`Profile`], not a vendor.

use super::half::Half;
use std::fmt;

/// The family of kernel variants that suits a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProfileKind {
    /// A software adapter (lavapipe, SwiftShader): subgroup lanes are SIMD lanes,
    /// every load is a gather, workgroup memory gains nothing. Few fat
    /// invocations, one subgroup a workgroup, many accumulators.
    CpuLike,
    /// A GPU: workgroup-memory tiles, vec4 loads, register tiles.
    Gpu,
}

impl fmt::Display for ProfileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CpuLike => "cpu-like",
            Self::Gpu => "gpu",
        })
    }
}

/// What kernels read through textures instead of buffers ([`texels`](super::texels)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Texels {
    /// Nothing.
    Never,
    /// What they read element by element, and vectors that several invocations read. One that
    /// a single invocation reads is loaded sooner than copied.
    Reused,
    /// Everything.
    Always,
}

/// The device as a kernel's launch sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The family of variants to choose from.
    pub kind: ProfileKind,
    /// Lanes in a subgroup, where the adapter has subgroup operations in compute
    /// shaders and states one size; `None` otherwise.
    pub subgroup_size: Option<u32>,
    /// What of what kernels only read they read through textures.
    pub texels: Texels,
    /// Bytes of workgroup memory a workgroup may use.
    pub workgroup_memory: u32,
    /// Most invocations in a workgroup.
    pub workgroup_invocations: u32,
    /// Most bytes one storage binding may span.
    pub max_binding: u64,
    /// Alignment in bytes of the start of a binding inside a buffer.
    pub binding_alignment: u64,
    /// How tensors in half precision are laid out.
    pub half: Half,
    /// Rows and columns of the cooperative matrices that its subgroups multiply, f16 with sums
    /// in f32, the same for A, B and C; `None` where there are none, or no one subgroup size.
    pub matrix: Option<u32>,
}

impl Profile {
    /// The smallest device WebGPU allows, with the given kernel family and no subgroups.
    pub fn minimal(kind: ProfileKind) -> Self {
        Self {
            kind,
            subgroup_size: None,
            texels: Texels::Never,
            workgroup_memory: 16 << 10,
            workgroup_invocations: 256,
            max_binding: 128 << 20,
            binding_alignment: 256,
            half: Half::Packed,
            matrix: None,
        }
    }
}
