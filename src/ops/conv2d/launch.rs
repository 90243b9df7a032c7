//! How convolutions run on the GPU: depthwise ones by kernels of their own, others by Winograd's
//! algorithm where that pays, on software adapters by kernels for these where one fits, else as
//! implicit GEMM over `shaders/conv2d/operands.wgsl`.

use super::plan::Plan;
use super::{
    Conv2d, Conv2dInputGrad, Conv2dWeightGrad, Geometry, Upstream, correlate, depthwise, patch,
    pointwise, winograd,
};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Launch, ShaderFile};
use crate::gpu::profile::{Profile, ProfileKind};
use crate::ops::LaunchContext;
use crate::ops::activation::FUNCTIONS;
use crate::ops::bias::BiasGrad;
use crate::ops::gemm::{Engine, Extents, Operands};
use crate::shader;

const OPERANDS: ShaderFile = shader!("conv2d/operands.wgsl");

/// Operands whose weights or gradients, on the left, lie along K.
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
        along_k: [true, false],
    }
}

/// The forward pass; inputs `x`, `w` and, where the op has one, `bias`.
pub(super) fn forward(
    op: &Conv2d,
    geometry: &Geometry,
    context: &LaunchContext<'_>,
) -> Result<Launch> {
    if let Some(plan) = Plan::forward(op, geometry)
        && let Some(launch) = as_planned(&plan, [Some(1), Some(0)], context)
    {
        return Ok(launch);
    }
    let Some(pool) = op.pool() else {
        return Ok(implicit_forward(op, geometry, context));
    };
    // One after the other, as the op is defined: an activation applied before the pool
    // could round two outputs to the same number and change the winner.
    let linear = Conv2d::new(op.window, op.groups).with_bias(op.bias);
    let y = geometry.y();
    let mut launch = Launch::default();
    let convolved = launch.reserve(y.bytes());
    launch = launch.then(
        implicit_forward(&linear, geometry, context),
        |arg| match arg {
            Arg::Output(_) => convolved,
            input => input,
        },
    );
    let pooled = context.launch(&pool, &[y], context.outputs)?;
    Ok(launch.then(pooled, |arg| match arg {
        Arg::Input(_) => convolved,
        output => output,
    }))
}

/// A plan by the kernels that take one, if one of them pays; `inputs` are the op's inputs that
/// the filters and what they go over are, if they are any.
fn as_planned(
    plan: &Plan,
    inputs: [Option<usize>; 2],
    context: &LaunchContext<'_>,
) -> Option<Launch> {
    by_special_kernels(plan, inputs, context).or_else(|| as_patches(plan, context))
}

/// The same by kernels for single channels or pixels or by Winograd's algorithm.
fn by_special_kernels(
    plan: &Plan,
    inputs: [Option<usize>; 2],
    context: &LaunchContext<'_>,
) -> Option<Launch> {
    if let Some(launch) = depthwise::launch(context.profile, plan) {
        return Some(launch);
    }
    // Transformed operands lose too much in half precision for matrix units.
    if !Engine::has_units(context, inputs)
        && let Some(launch) = winograd::launch(context.profile, plan)
    {
        return Some(launch);
    }
    match context.profile.kind {
        ProfileKind::CpuLike => pointwise::launch(context.profile, plan),
        ProfileKind::Gpu => None,
    }
}

fn as_patches(plan: &Plan, context: &LaunchContext<'_>) -> Option<Launch> {
    match context.profile.kind {
        ProfileKind::CpuLike => patch::launch(context.profile, plan),
        ProfileKind::Gpu => None,
    }
}

fn implicit_forward(op: &Conv2d, geometry: &Geometry, context: &LaunchContext<'_>) -> Launch {
    let extents = Extents {
        m: geometry.o,
        n: geometry.images * geometry.pixels(),
        k: geometry.c * geometry.window.kernel.iter().product::<usize>(),
        batch: geometry.groups,
    };
    // Without a bias the binding is never read; any input will do.
    let bias_input = if op.bias { 2 } else { 1 };
    let operands = operands(["forward_a", "forward_b", "forward_c"], 1, 0, bias_input);
    let engine = Engine::choose(context, [Some(1), Some(0)], &extents);
    extents.launch(engine, operands, |kernel| {
        let activate = op.activation.shader_name();
        geometry
            .specialise(kernel.hook("activate", FUNCTIONS, activate))
            .set("HAS_BIAS", op.bias)
            .set("ALPHA", op.activation.alpha())
    })
}

/// Inputs `dy`, or those of the pool's gradient, and `w`.
pub(super) fn input_grad(
    op: &Conv2dInputGrad,
    geometry: &Geometry,
    context: &LaunchContext<'_>,
) -> Result<Launch> {
    if let Some(launch) = input_grad_through(op, geometry, context) {
        return Ok(launch);
    }
    let inputs = [Some(op.upstream.operand()), op.upstream.dy()];
    let launch = as_planned(&Plan::input_grad(geometry), inputs, context)
        .unwrap_or_else(|| implicit_input_grad(geometry, inputs, context));
    let (before, dy) = gradient(op.upstream, geometry, context)?;
    Ok(before.then(launch, op.upstream.reading(dy)))
}

/// The same by a kernel that looks through the pool, where one pays.
pub(super) fn input_grad_through(
    op: &Conv2dInputGrad,
    geometry: &Geometry,
    context: &LaunchContext<'_>,
) -> Option<Launch> {
    let inputs = [Some(op.upstream.operand()), None];
    let plan = Plan::input_grad(geometry);
    let through = plan.through(op.upstream)?;
    match by_special_kernels(&plan, inputs, context) {
        Some(_) => None,
        None => as_patches(&through, context),
    }
}

/// What computes `dy`, unless it is an input, and where it lies.
fn gradient(
    upstream: Upstream,
    geometry: &Geometry,
    context: &LaunchContext<'_>,
) -> Result<(Launch, Arg)> {
    let mut launch = Launch::default();
    let Some(pool) = &upstream.pool else {
        return Ok((launch, Arg::Input(0)));
    };
    let ty = geometry.y();
    let dy = launch.reserve(ty.bytes());
    let pooled = &context.inputs[..upstream.operand()];
    let computed = context.launch(pool, pooled, &[ty])?;
    let launch = launch.then(computed, |arg| match arg {
        Arg::Output(_) => dy,
        input => input,
    });
    Ok((launch, dy))
}

/// Inputs `dy`, `w`; `inputs` are the op's inputs that `w` and `dy` are, if they are any.
fn implicit_input_grad(
    geometry: &Geometry,
    inputs: [Option<usize>; 2],
    context: &LaunchContext<'_>,
) -> Launch {
    let extents = Extents {
        m: geometry.c,
        n: geometry.images * geometry.image.iter().product::<usize>(),
        k: geometry.o * geometry.window.kernel.iter().product::<usize>(),
        batch: geometry.groups,
    };
    let functions = ["input_grad_a", "input_grad_b", "input_grad_c"];
    let engine = Engine::choose(context, inputs, &extents);
    extents.launch(engine, operands(functions, 1, 0, 1), |kernel| {
        geometry.specialise(kernel)
    })
}

/// The gradients of weights and bias; inputs `dy`, or those of the pool's gradient, and `x`.
pub(super) fn weight_grad(
    op: &Conv2dWeightGrad,
    geometry: &Geometry,
    context: &LaunchContext<'_>,
) -> Result<Launch> {
    if let Some(launch) = weight_grad_through(op, geometry, context) {
        return Ok(launch);
    }
    let (before, dy) = gradient(op.upstream, geometry, context)?;
    let launch = plain_weight_grad(op, geometry, context)?;
    Ok(before.then(launch, op.upstream.reading(dy)))
}

/// The same by a kernel that looks through the pool, where one pays.
pub(super) fn weight_grad_through(
    op: &Conv2dWeightGrad,
    geometry: &Geometry,
    context: &LaunchContext<'_>,
) -> Option<Launch> {
    op.upstream.pool?;
    let is_ordinary = !depthwise::is_depthwise(geometry)
        && context.profile.kind == ProfileKind::CpuLike
        && as_products(geometry, context.profile).is_none();
    match is_ordinary {
        true => correlate::weight_grad(context.profile, geometry, op),
        false => None,
    }
}

/// Inputs `dy` and `x`, whatever those of the op are.
fn plain_weight_grad(
    op: &Conv2dWeightGrad,
    geometry: &Geometry,
    context: &LaunchContext<'_>,
) -> Result<Launch> {
    let plain = op.without_pool();
    if let Some(launch) = depthwise::weight_grad(context.profile, geometry, &plain) {
        return Ok(launch);
    }
    let inputs = [op.upstream.dy(), Some(op.upstream.operand())];
    let multiplied = match Engine::has_units(context, inputs) {
        true => None,
        false => as_products(geometry, context.profile),
    };
    if context.profile.kind == ProfileKind::CpuLike
        && multiplied.is_none()
        && let Some(launch) = correlate::weight_grad(context.profile, geometry, &plain)
    {
        return Ok(launch);
    }
    let launch = multiplied.unwrap_or_else(|| implicit_weight_grad(geometry, context, inputs));
    if !op.bias {
        return Ok(launch);
    }
    let bias = context.launch(&BiasGrad, &[geometry.y()], &context.outputs[1..])?;
    Ok(launch.then(bias, |arg| match arg {
        Arg::Output(_) => Arg::Output(1),
        input => input,
    }))
}

/// A weight gradient by products of matrices, transformed or as they are, if that pays; inputs
/// `dy`, `x`.
fn as_products(geometry: &Geometry, profile: &Profile) -> Option<Launch> {
    let transformed = winograd::weight_grad(profile, geometry);
    transformed.or_else(|| match profile.kind {
        ProfileKind::CpuLike => pointwise::weight_grad(profile, geometry),
        ProfileKind::Gpu => None,
    })
}

/// Inputs `dy`, `x`; `inputs` are the op's inputs they are, if they are any.
fn implicit_weight_grad(
    geometry: &Geometry,
    context: &LaunchContext<'_>,
    inputs: [Option<usize>; 2],
) -> Launch {
    let extents = Extents {
        m: geometry.o,
        n: geometry.c * geometry.window.kernel.iter().product::<usize>(),
        k: geometry.images * geometry.pixels(),
        batch: geometry.groups,
    };
    let functions = ["weight_grad_a", "weight_grad_b", "weight_grad_c"];
    // Sums over pixels: both operands have them as neighbours.
    let operands = Operands {
        along_k: [true, true],
        ..operands(functions, 0, 1, 0)
    };
    let engine = Engine::choose(context, inputs, &extents);
    extents.launch_split(engine, operands, Arg::Output(0), |kernel, _| {
        geometry.specialise(kernel)
    })
}
