//! Compute pipelines: specialised, reflected, checked, cached.

use super::device::Gpu;
use super::kernel::{Arg, Dispatch};
use super::profile::Texels;
use super::range::Range;
use super::texels::{self, Texel};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// How a shader accesses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
    /// `var<uniform>` of a struct, the step's values
    Uniform,
    /// `var<uniform>` of an array, read in a storage buffer's stead
    UniformArray,
    /// A storage texture, read in a buffer's stead.
    Texel(Texel),
}

/// One binding of a shader, by reflection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The variable's name.
    pub name: String,
    /// Its `@binding` number.
    pub index: u32,
    /// How it is accessed.
    pub access: Access,
}

impl Binding {
    /// The name under which a launch binds it.
    pub(crate) fn launch_name(&self) -> &str {
        match self.access {
            Access::Texel(_) => self.name.trim_start_matches("before_"),
            _ => &self.name,
        }
    }
}

/// A compiled kernel.
#[derive(Debug)]
pub struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    pub(crate) bindings: Vec<Binding>,
    /// Its specialised text.
    pub(super) source: Arc<str>,
}

/// Pipelines by their specialised source.
pub type PipelineCache = HashMap<Arc<str>, Rc<Pipeline>>;

/// The bindings of a parsed shader, by number.
///
/// # Errors
/// If one is outside group 0 or no buffer.
pub fn reflect(path: &str, module: &naga::Module) -> Result<Vec<Binding>> {
    let mut bindings = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        let Some(place) = &variable.binding else {
            continue;
        };
        let name = variable.name.clone().unwrap_or_default();
        let access = match variable.space {
            naga::AddressSpace::Uniform => match module.types[variable.ty].inner {
                naga::TypeInner::Array { .. } => Access::UniformArray,
                _ => Access::Uniform,
            },
            naga::AddressSpace::Storage { access }
                if access.contains(naga::StorageAccess::STORE) =>
            {
                Access::ReadWrite
            }
            naga::AddressSpace::Storage { .. } => Access::Read,
            naga::AddressSpace::Handle if let Some(texel) = texel(module, variable) => {
                Access::Texel(texel)
            }
            _ => return Err(Error::shader(path, format!("{name} is not a buffer"))),
        };
        if place.group != 0 {
            return Err(Error::shader(path, format!("{name} is not in group 0")));
        }
        bindings.push(Binding {
            name,
            index: place.binding,
            access,
        });
    }
    bindings.sort_by_key(|b| b.index);
    Ok(bindings)
}

fn texel(module: &naga::Module, variable: &naga::GlobalVariable) -> Option<Texel> {
    match module.types[variable.ty].inner {
        naga::TypeInner::Image {
            class: naga::ImageClass::Storage { format, .. },
            ..
        } => Texel::of_storage(format),
        _ => None,
    }
}

/// Pairs each binding of the shader with what the dispatch names for it.
///
/// # Errors
/// If a name is missing on either side, or an input is bound writable that
/// `updates` does not list.
pub fn match_bindings(
    dispatch: &Dispatch,
    bindings: &[Binding],
    updates: &[usize],
) -> Result<Vec<Arg>> {
    let fail = |problem: String| Error::shader(dispatch.kernel.path(), problem);
    for (name, _) in &dispatch.bindings {
        if !bindings.iter().any(|b| b.name == *name) {
            let known: Vec<_> = bindings.iter().map(|b| b.name.as_str()).collect();
            return Err(fail(format!(
                "the launch binds {name:?}, the shader has {}",
                known.join(", ")
            )));
        }
    }
    bindings
        .iter()
        .map(|binding| {
            let (_, arg) = dispatch
                .bindings
                .iter()
                .find(|(name, _)| *name == binding.launch_name())
                .ok_or_else(|| fail(format!("the launch leaves {:?} unbound", binding.name)))?;
            let fits = match (arg, binding.access) {
                (Arg::Step, access) => access == Access::Uniform,
                (_, Access::Uniform) => false,
                (_, Access::Texel(_)) => true,
                (Arg::Input(i), Access::ReadWrite) => updates.contains(i),
                _ => true,
            };
            if fits {
                Ok(*arg)
            } else {
                Err(fail(format!(
                    "{:?} is {:?} in the shader, the launch binds {arg:?} to it",
                    binding.name, binding.access
                )))
            }
        })
        .collect()
}

impl Gpu {
    /// The pipeline of a dispatch's kernel, with the bindings `halves` in half precision,
    /// compiled on first use.
    ///
    /// # Errors
    /// [`Error::Shader`] if it does not specialise, parse or validate.
    pub(crate) fn pipeline(
        &self,
        dispatch: &Dispatch,
        resolve: &dyn Fn(Arg) -> Range,
    ) -> Result<Rc<Pipeline>> {
        let range = |name: &str| {
            let bound = dispatch.bindings.iter().find(|(n, _)| *n == name);
            bound.map(|(_, arg)| dispatch.part_of(name, resolve(*arg)))
        };
        let readings = |name: &str| {
            let of = |range: Range| texels::readings(self, dispatch, name, range.bytes);
            range(name).map(of).unwrap_or_default()
        };
        let halved = |name: &str| range(name).is_some_and(|range| range.half);
        let mut source = match self.profile.texels {
            Texels::Never => dispatch.kernel.wgsl()?,
            Texels::Reused | Texels::Always => {
                dispatch.kernel.wgsl_with_texels(&readings, &halved)?
            }
        };
        let names = dispatch.bindings.iter().map(|(name, _)| *name);
        // Those that have become textures are read as halves already.
        let is_buffer = |name: &&str| source.contains(&format!("> {name}: array<"));
        let names: Vec<_> = names.filter(|n| halved(n)).filter(is_buffer).collect();
        if !names.is_empty() {
            let half = self.profile.half;
            source = half.rewrite(dispatch.kernel.path(), &source, &names)?;
        }
        let source: Arc<str> = source.into();
        if let Some(found) = self.pipelines.borrow().get(&source) {
            return Ok(found.clone());
        }
        let pipeline = Rc::new(self.compile(dispatch.kernel.path(), source.clone())?);
        self.pipelines.borrow_mut().insert(source, pipeline.clone());
        Ok(pipeline)
    }

    /// Compiles a kernel from its specialised text.
    ///
    /// # Errors
    /// [`Error::Shader`] if it does not parse or validate.
    pub(super) fn compile(&self, path: &str, source: Arc<str>) -> Result<Pipeline> {
        let module = naga::front::wgsl::parse_str(&source)
            .map_err(|e| Error::shader(path, e.emit_to_string_with_path(&source, path)))?;
        let bindings = reflect(path, &module)?;
        let device = &self.device;
        self.scoped(path, || {
            let entries: Vec<_> = bindings.iter().map(layout_entry).collect();
            let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(path),
                entries: &entries,
            });
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(path),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let module = self.module(path, module);
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(path),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Kernels write workgroup memory before they read it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            });
            Pipeline {
                pipeline,
                layout,
                bindings,
                source,
            }
        })
        .map_err(|e| Error::shader(path, e.to_string()))
    }

    fn module(&self, path: &str, module: naga::Module) -> wgpu::ShaderModule {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(path),
            source: wgpu::ShaderSource::Naga(std::borrow::Cow::Owned(module)),
        };
        if self.options.runtime_checks {
            return self.device.create_shader_module(descriptor);
        }
        // SAFETY: the shaders are this crate's own files. Every launch derives its
        // workgroup count, loop bounds and indices from the same shapes its
        // bindings are sized by, guards the last partial workgroup itself, and
        // loops only over constant extents, so no access leaves its binding and
        // every loop ends. tests/ops.rs runs each kernel with and without checks
        // on random shapes and compares the bits.
        unsafe {
            self.device
                .create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
        }
    }
}

fn layout_entry(binding: &Binding) -> wgpu::BindGroupLayoutEntry {
    let buffer = |ty| wgpu::BindingType::Buffer {
        ty,
        has_dynamic_offset: binding.access == Access::Uniform,
        min_binding_size: None,
    };
    wgpu::BindGroupLayoutEntry {
        binding: binding.index,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: match binding.access {
            Access::Uniform | Access::UniformArray => buffer(wgpu::BufferBindingType::Uniform),
            Access::Texel(texel) => wgpu::BindingType::StorageTexture {
                access: wgpu::StorageTextureAccess::ReadOnly,
                format: texel.format,
                view_dimension: wgpu::TextureViewDimension::D2,
            },
            access => buffer(wgpu::BufferBindingType::Storage {
                read_only: access == Access::Read,
            }),
        },
        count: None,
    }
}
