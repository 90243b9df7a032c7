//! How convolutions run on the GPU: on software adapters by kernels of their own where
//! one fits, else as implicit GEMM over `shaders/conv2d/operands.wgsl`.

use super::{Geometry, correlate, patch};
use crate::gpu::kernel::{Arg, Kernel, Launch, ShaderFile};
use crate::gpu::profile::{Profile, ProfileKind};
use crate::ops::activation::{FUNCTIONS, Function};
use crate::ops::gemm::{Extents, Operands};
use crate::shader;

const OPERANDS: ShaderFile = shader!("conv2d/operands.wgsl");

pub(super) fn specialise(geometry: &Geometry, kernel: Kernel) -> Kernel {
    let Geometry {
        window,
        image: [h, w],
        output: [oh, ow],
        ..
    } = *geometry;
    kernel
        .set("IMAGES", geometry.images)
        .set("GROUPS", geometry.groups)
        .set("C", geometry.c)
        .set("H", h)
        .set("W", w)
        .set("O", geometry.o)
        .set("OH", oh)
        .set("OW", ow)
        .set("KH", window.kernel[0])
        .set("KW", window.kernel[1])
        .set("STRIDE_Y", window.stride[0])
        .set("STRIDE_X", window.stride[1])
        .set("DILATION_Y", window.dilation[0])
        .set("DILATION_X", window.dilation[1])
        .set("PAD_TOP", window.pads.top)
        .set("PAD_LEFT", window.pads.left)
}

fn operands(functions: [&'static str; 3], left: usize, right: usize, bias: usize) -> Operands {
    Operands {
        library: OPERANDS,
        functions,
        bindings: vec![
            ("left", Arg::Input(left)),
            ("right", Arg::Input(right)),
            ("bias", Arg::Input(bias)),
            ("result", Arg::Output(0)),
        ],
        result: "result",
    }
}

/// Inputs `x`, `w` and, where `bias`, `bias`.
pub(super) fn forward(
    profile: &Profile,
    geometry: &Geometry,
    bias: bool,
    activation: Function,
) -> Launch {
    if profile.kind == ProfileKind::CpuLike
        && let Some(launch) = patch::forward(profile, geometry, bias, activation)
    {
        return launch;
    }
    let extents = Extents {
        m: geometry.o,
        n: geometry.images * geometry.output.iter().product::<usize>(),
        k: geometry.c * geometry.window.kernel.iter().product::<usize>(),
        batch: geometry.groups,
    };
    // Without a bias the binding is never read; any input will do.
    let bias_input = if bias { 2 } else { 1 };
    let operands = operands(["forward_a", "forward_b", "forward_c"], 1, 0, bias_input);
    extents.launch(operands, |kernel| {
        specialise(
            geometry,
            kernel.hook("activate", FUNCTIONS, activation.shader_name()),
        )
        .set("HAS_BIAS", bias)
        .set("ALPHA", activation.alpha())
    })
}

/// Inputs `dy`, `w`.
pub(super) fn input_grad(profile: &Profile, geometry: &Geometry) -> Launch {
    if profile.kind == ProfileKind::CpuLike
        && let Some(launch) = patch::input_grad(profile, geometry)
    {
        return launch;
    }
    let extents = Extents {
        m: geometry.c,
        n: geometry.images * geometry.image.iter().product::<usize>(),
        k: geometry.o * geometry.window.kernel.iter().product::<usize>(),
        batch: geometry.groups,
    };
    let functions = ["input_grad_a", "input_grad_b", "input_grad_c"];
    extents.launch(operands(functions, 1, 0, 1), |kernel| {
        specialise(geometry, kernel)
    })
}

/// Inputs `dy`, `x`.
pub(super) fn weight_grad(profile: &Profile, geometry: &Geometry) -> Launch {
    if profile.kind == ProfileKind::CpuLike
        && let Some(launch) = correlate::weight_grad(profile, geometry)
    {
        return launch;
    }
    let extents = Extents {
        m: geometry.o,
        n: geometry.c * geometry.window.kernel.iter().product::<usize>(),
        k: geometry.images * geometry.output.iter().product::<usize>(),
        batch: geometry.groups,
    };
    let functions = ["weight_grad_a", "weight_grad_b", "weight_grad_c"];
    let operands = operands(functions, 0, 1, 0);
    extents.launch_split(operands, Arg::Output(0), |kernel| {
        specialise(geometry, kernel)
    })
}
