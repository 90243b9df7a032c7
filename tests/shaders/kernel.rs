//! What a kernel must be to run anywhere: valid, portable, and as its launch says.

use gpucnn::gpu::kernel::{Arg, Dispatch};
use gpucnn::gpu::pipeline::{Access, match_bindings, reflect};
use gpucnn::ops::Step;
use gpucnn::tensor::{DType, TensorType};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, ScalarKind, TypeInner};

/// WebGPU's default limits, which every device has.
const WORKGROUP_MEMORY: u32 = 16 << 10;
const WORKGROUP_INVOCATIONS: u32 = 256;
const WORKGROUP_SIZE: [u32; 3] = [256, 256, 64];
pub const STORAGE_BUFFERS: usize = 8;
pub const UNIFORM_BUFFERS: usize = 12;
const WORKGROUPS: u32 = 65_535;

pub type Outcome<T = ()> = Result<T, String>;

/// Parses and validates; the error shows the place in the text.
pub fn validated(
    path: &str,
    source: &str,
    capabilities: Capabilities,
) -> Outcome<(naga::Module, ModuleInfo)> {
    let module = naga::front::wgsl::parse_str(source)
        .map_err(|e| e.emit_to_string_with_path(source, path))?;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string_with_path(source, path))?;
    Ok((module, info))
}

/// Translates for Vulkan, Metal and Direct3D 12, in the lowest version of each language
/// that has what the profile needs, with runtime checks or without as the crate does.
pub fn translate(
    module: &naga::Module,
    info: &ModuleInfo,
    capabilities: Capabilities,
    checks: bool,
) -> Outcome {
    use naga::back::{hlsl, msl, spv};
    use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
    let subgroups = capabilities.contains(Capabilities::SUBGROUP);
    let is_matrix = |ty: &TypeInner| matches!(ty, TypeInner::CooperativeMatrix { .. });
    let matrices = module.types.iter().any(|(_, ty)| is_matrix(&ty.inner));
    let policy = match checks {
        true => BoundsCheckPolicy::Restrict,
        false => BoundsCheckPolicy::Unchecked,
    };
    let bounds_check_policies = BoundsCheckPolicies {
        index: policy,
        buffer: policy,
        image_load: policy,
        binding_array: policy,
    };
    let spv_options = spv::Options {
        lang_version: if subgroups { (1, 3) } else { (1, 0) },
        bounds_check_policies,
        force_loop_bounding: checks,
        emit_int_div_checks: checks,
        ..Default::default()
    };
    spv::write_vec(module, info, &spv_options, None).map_err(|e| format!("SPIR-V: {e}"))?;
    let msl_options = msl::Options {
        lang_version: match (matrices, subgroups) {
            (true, _) => (2, 3),
            (false, true) => (2, 1),
            (false, false) => (1, 2),
        },
        bounds_check_policies,
        force_loop_bounding: checks,
        emit_int_div_checks: checks,
        ..Default::default()
    };
    let (_, translated) = msl::write_string(module, info, &msl_options, &Default::default())
        .map_err(|e| format!("MSL: {e}"))?;
    for name in translated.entry_point_names {
        name.map_err(|e| format!("MSL: {e}"))?;
    }
    if matrices {
        // Not in Direct3D 12: naga does not translate them, wgpu does not offer them.
        return Ok(());
    }
    let hlsl_options = hlsl::Options {
        shader_model: if capabilities.contains(Capabilities::SHADER_FLOAT16) {
            hlsl::ShaderModel::V6_2
        } else if subgroups {
            hlsl::ShaderModel::V6_0
        } else {
            hlsl::ShaderModel::V5_1
        },
        restrict_indexing: checks,
        force_loop_bounding: checks,
        ..Default::default()
    };
    let mut text = String::new();
    let translated = hlsl::Writer::new(&mut text, &hlsl_options, &Default::default())
        .write(module, info, None)
        .map_err(|e| format!("HLSL: {e}"))?;
    for name in translated.entry_point_names {
        name.map_err(|e| format!("HLSL: {e}"))?;
    }
    Ok(())
}

/// Checks what the module itself takes: entry point, workgroup, bindings, step values.
pub fn check_module(module: &naga::Module) -> Outcome {
    let [entry] = module.entry_points.as_slice() else {
        let found = module.entry_points.len();
        return Err(format!("expected one entry point, found {found}"));
    };
    if entry.name != "main" || entry.stage != naga::ShaderStage::Compute {
        let found = format!("{:?} {:?}", entry.stage, entry.name);
        return Err(format!("expected a compute shader \"main\", found {found}"));
    }
    let size = entry.workgroup_size;
    let invocations: u32 = size.iter().product();
    let within = size.iter().zip(WORKGROUP_SIZE).all(|(s, most)| *s <= most);
    if invocations > WORKGROUP_INVOCATIONS || !within {
        return Err(format!("workgroup of {size:?} invocations"));
    }
    let globals = || module.global_variables.iter().map(|(_, v)| v);
    let bytes = |ty| module.types[ty].inner.size(module.to_ctx());
    // Limits count each variable rounded up to 16 bytes.
    let memory: u32 = globals()
        .filter(|v| v.space == AddressSpace::WorkGroup)
        .map(|v| bytes(v.ty).next_multiple_of(16))
        .sum();
    if memory > WORKGROUP_MEMORY {
        return Err(format!("{memory} bytes of workgroup memory"));
    }
    let storage = globals().filter(|v| matches!(v.space, AddressSpace::Storage { .. }));
    let storage = storage.count();
    if storage > STORAGE_BUFFERS {
        return Err(format!("{storage} storage buffers"));
    }
    for variable in globals().filter(|v| v.space == AddressSpace::Uniform) {
        check_step(&module.types[variable.ty].inner)?;
    }
    Ok(())
}

/// The one uniform is `Step`, whose members [`Step::to_bytes`] writes in this order.
fn check_step(ty: &TypeInner) -> Outcome {
    const MEMBERS: [&str; 8] = [
        "number",
        "seed",
        "first",
        "count",
        "slot",
        "learning_rate",
        "correction1",
        "correction2",
    ];
    let TypeInner::Struct { members, span } = ty else {
        return Err(format!("the uniform is no struct but {ty:?}"));
    };
    let names: Vec<_> = members.iter().filter_map(|m| m.name.as_deref()).collect();
    let offsets = members.iter().map(|m| m.offset as usize);
    if names != MEMBERS || *span as usize != Step::BYTES || !offsets.eq((0..8).map(|i| 4 * i)) {
        return Err(format!("expected Step {{ {MEMBERS:?} }}, found {names:?}"));
    }
    Ok(())
}

/// The tensors a launch's arguments stand for.
pub struct Tensors<'a> {
    pub inputs: &'a [TensorType],
    pub outputs: &'a [TensorType],
    pub scratch: &'a [u64],
}

/// Element type (`None` for scratch, which the op may use as it likes) and bytes.
type Extent = (Option<DType>, u64);

impl Tensors<'_> {
    pub fn extent(&self, arg: Arg) -> Outcome<Extent> {
        let of = |ty: &TensorType| (Some(ty.dtype), ty.bytes());
        let found = match arg {
            Arg::Input(i) => self.inputs.get(i).map(of),
            Arg::Output(i) => self.outputs.get(i).map(of),
            Arg::Scratch(i) => self.scratch.get(i).map(|bytes| (None, *bytes)),
            Arg::Step => Some((None, Step::BYTES as u64)),
        };
        found.ok_or_else(|| format!("there is no {arg:?}"))
    }
}

/// Checks the dispatch against the module: names, access, element types, sizes, counts.
pub fn check_dispatch(
    dispatch: &Dispatch,
    module: &naga::Module,
    updates: &[usize],
    tensors: &Tensors<'_>,
) -> Outcome {
    let groups = dispatch.workgroups;
    if groups.iter().any(|n| *n == 0 || *n > WORKGROUPS) {
        return Err(format!("{groups:?} workgroups"));
    }
    let bindings = reflect(dispatch.kernel.path(), module).map_err(|e| e.to_string())?;
    let args = match_bindings(dispatch, &bindings, updates).map_err(|e| e.to_string())?;
    for (binding, arg) in bindings.iter().zip(&args) {
        let shares = args.iter().filter(|other| *other == arg).count() > 1;
        if shares && binding.access == Access::ReadWrite {
            let name = &binding.name;
            return Err(format!("{name} is writable and {arg:?} is bound twice"));
        }
        let (dtype, bytes) = tensors.extent(*arg)?;
        let mut globals = module.global_variables.iter().map(|(_, v)| v);
        let variable = globals
            .find(|v| v.name.as_ref() == Some(&binding.name))
            .ok_or("reflected bindings are globals")?;
        let inner = &module.types[variable.ty].inner;
        if u64::from(inner.size(module.to_ctx())) > bytes.next_multiple_of(16).max(16) {
            return Err(format!("{} is larger than {arg:?}", binding.name));
        }
        let expected = match dtype {
            Some(DType::F32) => ScalarKind::Float,
            Some(DType::U32 | DType::U8) => ScalarKind::Uint,
            None => continue,
        };
        let found = element_kind(module, inner);
        // Floats may be bound as words by a shader that casts them back, that sets their bits
        // atomically, or that looks at the bits of their exponent.
        let cast = dtype == Some(DType::F32) && found == Some(ScalarKind::Uint);
        let by_bits = is_atomic(module, inner) || looks_at_exponents(module);
        if found != Some(expected) && !(cast && (by_bits || casts_to_float(module))) {
            let name = &binding.name;
            return Err(format!(
                "{name} holds {found:?}, {arg:?} is {expected:?} ({dtype:?})"
            ));
        }
    }
    Ok(())
}

/// The kind of number an array's elements are made of.
fn element_kind(module: &naga::Module, ty: &TypeInner) -> Option<ScalarKind> {
    match ty {
        TypeInner::Array { base, .. } => element_kind(module, &module.types[*base].inner),
        TypeInner::Atomic(scalar) => Some(scalar.kind),
        other => other.scalar_kind(),
    }
}

/// Whether the shader has a mask of a float's exponent.
fn looks_at_exponents(module: &naga::Module) -> bool {
    let mut names = module.constants.iter().map(|(_, c)| c.name.as_deref());
    names.any(|name| name == Some("EXPONENT"))
}

/// Whether an array's elements are atomic.
fn is_atomic(module: &naga::Module, ty: &TypeInner) -> bool {
    match ty {
        TypeInner::Array { base, .. } => is_atomic(module, &module.types[*base].inner),
        other => matches!(other, TypeInner::Atomic(_)),
    }
}

/// Whether the shader reinterprets words as floats.
fn casts_to_float(module: &naga::Module) -> bool {
    let entries = module.entry_points.iter().map(|e| &e.function);
    let mut functions = entries.chain(module.functions.iter().map(|(_, f)| f));
    functions.any(|f| {
        f.expressions.iter().any(|(_, e)| {
            let kind = ScalarKind::Float;
            matches!(e, naga::Expression::As { kind: k, convert: None, .. } if *k == kind)
        })
    })
}
