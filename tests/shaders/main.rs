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

mod kernel;

use gpucnn::bench;
use gpucnn::gpu::half::Half;
use gpucnn::gpu::kernel::{Arg, Dispatch, Launch};
use gpucnn::gpu::pipeline::{Access, match_bindings, reflect};
use gpucnn::gpu::profile::{Profile, ProfileKind};
use gpucnn::gpu::texels::Readings;
use gpucnn::graph::Graph;
use gpucnn::model::Model;
use gpucnn::ops::{Builder, Draw, LaunchContext, Op, Value, registry};
use gpucnn::tensor::{DType, TensorType};
use gpucnn::train::{Config, EVAL_BATCH, Graphs, Part};
use kernel::{
    Outcome, STORAGE_BUFFERS, Tensors, UNIFORM_BUFFERS, check_dispatch, check_module, translate,
    validated,
};
use naga::valid::Capabilities;
use rayon::prelude::*;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// Random cases of each op and profile.
const CASES: u64 = 64;

/// One in so many kernels is also checked in half precision: there are thousands.
const HALVED_EVERY: usize = 4;

/// `unpack2x16float` and its inverse, which WebGPU has everywhere.
const HALVES_IN_F32: Capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;

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
            for (readings, halved) in [(TEXTURES, false), (TEXTURES, true), (UNIFORMS, false)] {
                let read = check_readings(dispatch, capabilities, updates, readings, halved);
                read.map_err(located)?;
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

const TEXTURES: Readings = Readings {
    texture: true,
    vectors: true,
    uniform: None,
};
/// As large as any.
const UNIFORMS: Readings = Readings {
    texture: false,
    vectors: false,
    uniform: Some(4096),
};

/// The same kernel with every binding that can be read so, of f32 or of f16.
fn check_readings(
    dispatch: &Dispatch,
    capabilities: Capabilities,
    updates: &[usize],
    readings: Readings,
    halved: bool,
) -> Outcome {
    let path = dispatch.kernel.path();
    let capabilities = capabilities | HALVES_IN_F32;
    let source = dispatch.kernel.wgsl_with_texels(&|_| readings, &|_| halved);
    let source = source.map_err(|e| e.to_string())?;
    let (module, info) = validated(path, &source, capabilities)?;
    translate(&module, &info, capabilities, false)?;
    let bindings = reflect(path, &module).map_err(|e| e.to_string())?;
    match_bindings(dispatch, &bindings, updates).map_err(|e| e.to_string())?;
    let (mut textures, mut uniforms) = (0, 0);
    for binding in &bindings {
        match binding.access {
            Access::Texel(_) => textures += 1,
            Access::Uniform | Access::UniformArray => uniforms += 1,
            Access::Read | Access::ReadWrite => {}
        }
    }
    match (textures, uniforms) {
        (..=STORAGE_BUFFERS, ..=UNIFORM_BUFFERS) => Ok(()),
        _ => Err(format!("{textures} textures, {uniforms} uniforms")),
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
        let graph = graph.adapted(profile).expect("a preset fits the profile");
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
