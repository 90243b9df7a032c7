//! Checks every shader without a device, so that a driver at hand cannot hide what
//! another refuses. Each file under `shaders/` is valid WGSL as it stands. For random
//! cases of every op, on profiles from the smallest device WebGPU allows to subgroups
//! of several sizes, each kernel as specialised
//! * validates with no more than the profile's capabilities, and translates to SPIR-V,
//!   MSL and HLSL;
//! * has exactly the bindings its launch names, of the tensors' element types;
//! * stays within WebGPU's default limits;
//! * still holds where the loader turns bindings into textures.
//!
//! The same holds for every kernel of the presets' training and evaluation.

use gpucnn::bench;
use gpucnn::gpu::half::Half;
use gpucnn::gpu::kernel::{Arg, Dispatch, Launch};
use gpucnn::gpu::pipeline::{Access, match_bindings, reflect};
use gpucnn::gpu::profile::{Profile, ProfileKind};
use gpucnn::graph::Graph;
use gpucnn::model::Model;
use gpucnn::ops::{Builder, Draw, LaunchContext, Op, Step, Value, registry};
use gpucnn::tensor::{DType, TensorType};
use gpucnn::train::{Config, EVAL_BATCH, Graphs, Part};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, ScalarKind, TypeInner};
use rayon::prelude::*;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// Random cases of each op and profile.
const CASES: u64 = 64;

/// One in so many kernels is also checked in half precision: there are thousands.
const HALVED_EVERY: usize = 4;

/// `unpack2x16float` and its inverse, which WebGPU has everywhere.
const HALVES_IN_F32: Capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;

/// WebGPU's default limits, which every device has.
const WORKGROUP_MEMORY: u32 = 16 << 10;
const WORKGROUP_INVOCATIONS: u32 = 256;
const WORKGROUP_SIZE: [u32; 3] = [256, 256, 64];
const STORAGE_BUFFERS: usize = 8;
const WORKGROUPS: u32 = 65_535;

type Outcome<T = ()> = Result<T, String>;

/// The devices to launch for: each kernel family without subgroups, and with lanes as
/// SwiftShader (4), lavapipe (8 with AVX), Intel (16), NVIDIA and Apple (32) and older
/// AMD devices (64) have them; and GPUs with matrix units, as newer lavapipes (8 lanes,
/// matrices of 8) and NVIDIA (32 and 16) have them.
fn profiles() -> Vec<Profile> {
    let sizes = [None, Some(4), Some(8), Some(16), Some(32), Some(64)];
    let kinds = [ProfileKind::CpuLike, ProfileKind::Gpu];
    let with = |kind, subgroup_size| Profile {
        subgroup_size,
        ..Profile::minimal(kind)
    };
    let plain = kinds.iter();
    let plain = plain.flat_map(|kind| sizes.map(|size| with(*kind, size)));
    plain
        .chain([(8, 8), (32, 16)].map(|(lanes, size)| with_matrices(lanes, size)))
        .collect()
}

/// A GPU with units for matrices of that size, whose tensors are kept in half precision.
fn with_matrices(lanes: u32, size: u32) -> Profile {
    Profile {
        subgroup_size: Some(lanes),
        matrix: Some(size),
        half: Half::Native,
        ..Profile::minimal(ProfileKind::Gpu)
    }
}

/// Which inputs of an op are taken to be in half precision: all floats, where that makes a
/// difference to the launch.
fn halves(profile: &Profile, inputs: &[TensorType]) -> Vec<bool> {
    let is_half = |ty: &TensorType| profile.matrix.is_some() && ty.dtype == DType::F32;
    inputs.iter().map(is_half).collect()
}

/// Parses and validates; the error shows the place in the text.
fn validated(
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
fn translate(
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
fn check_module(module: &naga::Module) -> Outcome {
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
struct Tensors<'a> {
    inputs: &'a [TensorType],
    outputs: &'a [TensorType],
    scratch: &'a [u64],
}

/// Element type (`None` for scratch, which the op may use as it likes) and bytes.
type Extent = (Option<DType>, u64);

impl Tensors<'_> {
    fn extent(&self, arg: Arg) -> Outcome<Extent> {
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
fn check_dispatch(
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

/// What the launches of one op gave: the shaders used, and complaints.
#[derive(Default)]
struct Findings {
    paths: BTreeSet<&'static str>,
    sources: usize,
    problems: Vec<String>,
}

impl Findings {
    /// Launches an op and checks each kernel; `seen` holds the sources that were checked
    /// before under the same capabilities.
    fn launch(
        &mut self,
        op: &dyn Op,
        context: LaunchContext<'_>,
        seen: &mut HashSet<(u64, String)>,
    ) -> Outcome {
        if op.alias().is_some() {
            return Ok(());
        }
        let launch = op.launch(context).map_err(|e| e.to_string())?;
        let tensors = Tensors {
            inputs: context.inputs,
            outputs: context.outputs,
            scratch: &launch.scratch,
        };
        let capabilities = capabilities(context.profile);
        let (updates, paths) = (op.updates(), &mut self.paths);
        check_launch(&launch, capabilities, &tensors, updates, seen, paths)
    }
}

/// Launches random cases of the op for every profile and checks each kernel; sources
/// seen before under the same capabilities are validated and translated once.
fn check_op(entry: &gpucnn::ops::Entry) -> Findings {
    let mut findings = Findings::default();
    let mut seen = HashSet::new();
    for profile in profiles() {
        for case in 0..CASES {
            let sample = (entry.sample)(&mut Draw::new(case));
            let inputs: Vec<_> = sample.inputs.iter().map(|(ty, _)| ty.clone()).collect();
            let outputs = sample.op.infer(&inputs).expect("samples are legal");
            let context = LaunchContext {
                profile: &profile,
                inputs: &inputs,
                outputs: &outputs,
                halves: &halves(&profile, &inputs),
            };
            let checked = findings.launch(&*sample.op, context, &mut seen);
            if let Err(problem) = checked {
                let (name, op) = (entry.name, &sample.op);
                findings.problems.push(format!(
                    "{name} case {case}, {profile:?}:\n{op:?} on {inputs:?}\n{problem}"
                ));
            }
        }
    }
    findings.sources = seen.len();
    findings
}

/// What kernels for the profile may ask of a device.
fn capabilities(profile: &Profile) -> Capabilities {
    let subgroups = match profile.subgroup_size {
        Some(_) => Capabilities::SUBGROUP | Capabilities::SUBGROUP_BARRIER,
        None => Capabilities::empty(),
    };
    let matrices = match profile.matrix {
        Some(_) => Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16,
        None => Capabilities::empty(),
    };
    subgroups | matrices
}

fn check_launch(
    launch: &Launch,
    capabilities: Capabilities,
    tensors: &Tensors<'_>,
    updates: &[usize],
    seen: &mut HashSet<(u64, String)>,
    paths: &mut BTreeSet<&'static str>,
) -> Outcome {
    for dispatch in &launch.dispatches {
        let path = dispatch.kernel.path();
        paths.insert(path);
        let located = |problem: String| format!("{path}: {problem}");
        let source = dispatch.kernel.wgsl().map_err(|e| e.to_string())?;
        let fresh = seen.insert((capabilities.bits(), source.clone()));
        let module = if fresh {
            let (module, info) = validated(path, &source, capabilities)?;
            check_module(&module).map_err(located)?;
            for checks in [true, false] {
                translate(&module, &info, capabilities, checks).map_err(located)?;
            }
            for halved in [false, true] {
                check_texels(dispatch, capabilities, updates, halved).map_err(located)?;
            }
            if seen.len().is_multiple_of(HALVED_EVERY) {
                let halved = check_halved(dispatch, &source, capabilities, tensors, updates);
                halved.map_err(located)?;
            }
            module
        } else {
            naga::front::wgsl::parse_str(&source)
                .map_err(|e| e.emit_to_string_with_path(&source, path))?
        };
        check_dispatch(dispatch, &module, updates, tensors).map_err(located)?;
    }
    Ok(())
}

/// The same kernel with every binding it can read as texels read so, of f32 or of f16.
fn check_texels(
    dispatch: &Dispatch,
    capabilities: Capabilities,
    updates: &[usize],
    halved: bool,
) -> Outcome {
    let path = dispatch.kernel.path();
    let capabilities = capabilities | HALVES_IN_F32;
    let source = dispatch.kernel.wgsl_with_texels(&|_| true, &|_| halved);
    let source = source.map_err(|e| e.to_string())?;
    let (module, info) = validated(path, &source, capabilities)?;
    translate(&module, &info, capabilities, false)?;
    let bindings = reflect(path, &module).map_err(|e| e.to_string())?;
    let args = match_bindings(dispatch, &bindings, updates).map_err(|e| e.to_string())?;
    let texels = bindings.iter().zip(&args);
    let textures = texels.filter(|(b, _)| matches!(b.access, Access::Texel(_)));
    match textures.count() > STORAGE_BUFFERS {
        true => Err(format!("more than {STORAGE_BUFFERS} textures")),
        false => Ok(()),
    }
}

/// Checks the kernel with all bindings in half precision that can be.
fn check_halved(
    dispatch: &Dispatch,
    source: &str,
    capabilities: Capabilities,
    tensors: &Tensors<'_>,
    updates: &[usize],
) -> Outcome {
    let path = dispatch.kernel.path();
    for (half, feature) in [
        (Half::Native, Capabilities::SHADER_FLOAT16),
        (Half::Packed, HALVES_IN_F32),
    ] {
        let mut names = Vec::new();
        for (name, arg) in &dispatch.bindings {
            let fixed = match arg {
                Arg::Input(i) => updates.contains(i),
                Arg::Output(_) => false,
                Arg::Scratch(_) | Arg::Step => true,
            };
            let floats = tensors.extent(*arg)?.0 == Some(DType::F32);
            if !fixed && floats && half.rewrite(path, source, &[name]).is_ok() {
                names.push(*name);
            }
        }
        let text = half
            .rewrite(path, source, &names)
            .map_err(|e| e.to_string())?;
        let capabilities = capabilities | feature;
        let (module, info) = validated(path, &text, capabilities)?;
        check_module(&module)?;
        translate(&module, &info, capabilities, false)?;
    }
    Ok(())
}

/// The benchmark's own kernels, checked like those of an op, in f32 and in f16.
fn check_benchmark() -> Findings {
    let mut findings = Findings::default();
    let mut seen = HashSet::new();
    for (f16, capabilities) in [
        (false, Capabilities::empty()),
        (true, Capabilities::SHADER_FLOAT16),
    ] {
        for launch in bench::launches(f16) {
            let tensors = Tensors {
                inputs: &[],
                outputs: &[],
                scratch: &launch.scratch,
            };
            let (seen, paths) = (&mut seen, &mut findings.paths);
            let checked = check_launch(&launch, capabilities, &tensors, &[], seen, paths);
            findings.problems.extend(checked.err());
        }
    }
    findings.sources = seen.len();
    findings
}

/// Every `.wgsl` file, with its path below `shaders/`.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("shaders/ is readable");
        let paths = entries.map(|e| e.expect("shaders/ is readable").path());
        let (inner, plain): (Vec<PathBuf>, Vec<PathBuf>) = paths.partition(|p| p.is_dir());
        folders.extend(inner);
        for path in plain {
            let text = std::fs::read_to_string(&path).expect("shaders are UTF-8");
            let below = path.strip_prefix(&root).expect("walked from shaders/");
            files.push((below.to_string_lossy().replace('\\', "/"), text));
        }
    }
    files
}

#[test]
fn every_shader_file_is_valid_wgsl_by_itself() {
    let all = capabilities(&with_matrices(32, 16));
    let files = files();
    assert!(!files.is_empty());
    for (path, text) in &files {
        assert!(path.ends_with(".wgsl"), "{path}: not a shader");
        if let Err(problem) = validated(path, text, all) {
            panic!("{path}: {problem}");
        }
    }
}

/// What `gpucnn train` runs for a preset by default on MNIST, CIFAR-10 or a folder of
/// larger images: a step on a batch, one on the last, smaller batch, an evaluation step
/// and the shuffle.
fn preset_graphs(model: &Model, max_binding: u64) -> Vec<Graph> {
    let [train, test] = match model.input() {
        [1, 28, 28] => [60_000, 10_000],
        [3, 32, 32] => [50_000, 10_000],
        _ => [3_000, 500],
    };
    let defaults = model.training();
    let config = Config::new(model).expect("a preset's settings");
    let method = config.method(&[], model);
    let graphs = Graphs::new(model, method.expect("a preset's method"), max_binding);
    let part = |name, len| Part::new(name, len, model.input(), max_binding);
    let (train, test) = (part("train", train), part("test", test));
    let (batch, rest) = (defaults.batch_size, train.len % defaults.batch_size);
    let mut all = vec![
        graphs.training(&train, batch),
        graphs.evaluation(&test, EVAL_BATCH),
        train.shuffle(),
    ];
    if rest > 0 {
        all.push(graphs.training(&train, rest));
    }
    all.into_iter()
        .map(|graph| graph.expect("a preset's shapes fit"))
        .collect()
}

/// Checks every kernel of a preset on a profile.
fn check_preset(preset: &str, profile: &Profile) {
    let model = Model::load(preset).expect("a preset");
    let mut findings = Findings::default();
    let mut seen = HashSet::new();
    for graph in preset_graphs(&model, profile.max_binding) {
        for node in graph.nodes() {
            let types = |values: &[Value]| -> Vec<TensorType> {
                values.iter().map(|v| graph.ty(*v).clone()).collect()
            };
            let (inputs, outputs) = (types(&node.inputs), types(&node.outputs));
            let context = LaunchContext {
                profile,
                inputs: &inputs,
                outputs: &outputs,
                halves: &halves(profile, &inputs),
            };
            if let Err(problem) = findings.launch(&*node.op, context, &mut seen) {
                panic!("{preset}, {}, {profile:?}: {problem}", node.label());
            }
        }
    }
    // Convolutions, pools, dense layers, their gradients, loss, metrics and optimizer.
    assert!(seen.len() > 10, "{preset}: {} kernels", seen.len());
}

#[test]
fn every_kernel_of_the_presets_is_portable() {
    let profiles = [
        (ProfileKind::CpuLike, Some(4)),
        (ProfileKind::CpuLike, Some(8)),
        (ProfileKind::Gpu, None),
        (ProfileKind::Gpu, Some(32)),
    ];
    let plain = profiles.map(|(kind, subgroup_size)| Profile {
        subgroup_size,
        ..Profile::minimal(kind)
    });
    let profiles: Vec<_> = plain.into_iter().chain([with_matrices(32, 16)]).collect();
    profiles.par_iter().for_each(|profile| {
        for preset in Model::presets() {
            check_preset(preset, profile);
        }
    });
}

#[test]
fn every_specialised_kernel_is_portable() {
    let entries = registry();
    let mut findings: Vec<_> = entries.par_iter().map(check_op).collect();
    findings.push(check_benchmark());
    let problems: Vec<_> = findings.iter().flat_map(|f| &f.problems).collect();
    let shown: Vec<_> = problems.iter().take(3).map(|p| p.as_str()).collect();
    assert!(
        problems.is_empty(),
        "{} launches at fault, among them\n{}",
        problems.len(),
        shown.join("\n\n")
    );
    let sources: usize = findings.iter().map(|f| f.sources).sum();
    println!(
        "{sources} specialised kernels of {} ops and the benchmark",
        entries.len()
    );

    let used: BTreeSet<_> = findings.iter().flat_map(|f| &f.paths).copied().collect();
    for (path, text) in files() {
        // The executor's own kernels are no op's.
        if path.starts_with("executor/") {
            let (module, info) = validated(&path, &text, Capabilities::empty()).unwrap();
            translate(&module, &info, Capabilities::empty(), false).unwrap();
            continue;
        }
        let kernel = text.contains("@compute");
        let launched = used.contains(path.as_str());
        assert!(launched || !kernel, "{path}: no launch uses it");
    }
}
