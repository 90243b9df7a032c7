//! Kernels compiled on further threads, for a driver that compiles one after the other.
//!
//! llvmpipe compiles a kernel when it is first dispatched, on the one thread that executes
//! the device's commands, and keeps the code on disk. So where a program has many kernels,
//! further devices on the same adapter dispatch no workgroups of each, the last first, and
//! the device that was to compile them all finds the code of half of them, or more. Nothing
//! is computed so, and what fails here does so again where it matters.

use super::device::{Gpu, OpenOptions};
use super::executor::STEP_STRIDE;
use super::pipeline::{Access, Binding, Pipeline};
use super::texels::UNIFORM_BYTES;
use crate::error::Result;
use std::collections::{HashSet, VecDeque};
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Kernels for each thread, at least: fewer are compiled before another device is open.
const LEAST: usize = 8;

/// Most threads beside the driver's own.
const MOST_THREADS: usize = 7;

/// Bytes of a buffer that is bound for its kind alone.
const BYTES: u64 = STEP_STRIDE;

/// What makes a kernel's machine code what it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Recipe {
    path: &'static str,
    source: Arc<str>,
    /// Which sides of the textures are powers of two: the driver's code for them differs.
    textures: Vec<[bool; 2]>,
}

/// What is bound in a resource's stead.
enum StandIn {
    Buffer(wgpu::Buffer),
    Texture(wgpu::TextureView),
}

/// What further threads compile.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    known: HashSet<Recipe>,
    /// Those of the program in the making.
    next: Vec<Recipe>,
    jobs: Arc<Mutex<Jobs>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Jobs {
    /// Programs, each compiled from its end.
    programs: VecDeque<Vec<Recipe>>,
    /// Threads that have not yet found nothing left to do.
    at_work: usize,
}

impl Jobs {
    fn take(&mut self) -> Option<Recipe> {
        while let Some(program) = self.programs.front_mut() {
            match program.pop() {
                Some(recipe) => return Some(recipe),
                None => self.programs.pop_front(),
            };
        }
        None
    }
}

fn lock(jobs: &Mutex<Jobs>) -> MutexGuard<'_, Jobs> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ahead {
    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Ahead {
    /// Waits for what is being compiled: the driver must not be taken apart under it.
    fn drop(&mut self) {
        lock(&self.jobs).programs.clear();
        self.join();
    }
}

impl Gpu {
    /// Notes a kernel that a program dispatches with such textures.
    pub(super) fn note_kernel(
        &self,
        path: &'static str,
        pipeline: &Pipeline,
        textures: &[wgpu::Texture],
    ) {
        if !compiles_late(&self.info) {
            return;
        }
        let sides =
            |texture: &wgpu::Texture| [texture.width(), texture.height()].map(u32::is_power_of_two);
        let recipe = Recipe {
            path,
            source: pipeline.source.clone(),
            textures: textures.iter().map(sides).collect(),
        };
        let mut ahead = self.ahead.borrow_mut();
        if ahead.known.insert(recipe.clone()) {
            ahead.next.push(recipe);
        }
    }

    /// Has the kernels noted since the last call compiled on further threads, if there are
    /// cores for them.
    pub(crate) fn compile_ahead(&self) {
        let mut ahead = self.ahead.borrow_mut();
        let program = std::mem::take(&mut ahead.next);
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let wanted = (cores - 1).min(MOST_THREADS).min(program.len() / LEAST);
        if wanted == 0 {
            return;
        }
        let jobs = ahead.jobs.clone();
        let mut guard = lock(&jobs);
        guard.programs.push_back(program);
        for _ in guard.at_work..wanted {
            let (adapter, options) = (self.adapter.clone(), self.options.clone());
            let jobs = jobs.clone();
            guard.at_work += 1;
            ahead
                .threads
                .push(thread::spawn(move || work(adapter, options, &jobs)));
        }
    }

    /// Waits until nothing more is compiled ahead, which takes cores from what is measured.
    pub(crate) fn wait_for_ahead(&self) {
        self.ahead.borrow_mut().join();
    }

    /// Has the driver compile a kernel.
    fn compile_only(&self, recipe: &Recipe) -> Result<()> {
        let pipeline = self.compile(recipe.path, recipe.source.clone())?;
        let group = self.scoped(recipe.path, || self.stand_ins(&pipeline, &recipe.textures))?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline.pipeline);
        let is_step = |b: &&Binding| b.access == Access::Uniform;
        let steps = pipeline.bindings.iter().filter(is_step).count();
        pass.set_bind_group(0, &group, &vec![0; steps]);
        pass.dispatch_workgroups(0, 0, 0);
        drop(pass);
        let submission = self.submit(Some(encoder.finish()))?;
        self.wait(Some(&submission))
    }

    /// The smallest resources of a pipeline's kinds.
    fn stand_ins(&self, pipeline: &Pipeline, textures: &[[bool; 2]]) -> wgpu::BindGroup {
        let mut textures = textures.iter();
        let bindings = pipeline.bindings.iter();
        let resources: Vec<_> = bindings
            .map(|binding| match binding.access {
                Access::Texel(texel) => {
                    let powers_of_two = textures.next().copied().unwrap_or_default();
                    let sides = powers_of_two.map(|is_one| if is_one { 1 } else { 3 });
                    let texture = self.staging_texture(texel, sides);
                    StandIn::Texture(texture.create_view(&Default::default()))
                }
                access => StandIn::Buffer(self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(&binding.name),
                    size: match access {
                        Access::UniformArray => UNIFORM_BYTES,
                        _ => BYTES,
                    },
                    usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM,
                    mapped_at_creation: false,
                })),
            })
            .collect();
        let entries = pipeline.bindings.iter().zip(&resources);
        let entries: Vec<_> = entries
            .map(|(binding, found)| wgpu::BindGroupEntry {
                binding: binding.index,
                resource: match found {
                    StandIn::Buffer(buffer) => buffer.as_entire_binding(),
                    StandIn::Texture(view) => wgpu::BindingResource::TextureView(view),
                },
            })
            .collect();
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("stand-ins"),
            layout: &pipeline.layout,
            entries: &entries,
        })
    }
}

/// Whether a driver compiles kernels as described above.
fn compiles_late(info: &wgpu::AdapterInfo) -> bool {
    info.driver == "llvmpipe"
}

/// What a thread does: compiles, on a device of its own, until nothing is left.
fn work(adapter: wgpu::Adapter, options: OpenOptions, jobs: &Mutex<Jobs>) {
    let gpu = Gpu::on(adapter, options);
    loop {
        let mut guard = lock(jobs);
        let recipe = guard.take();
        if recipe.is_none() {
            guard.at_work -= 1;
        }
        drop(guard);
        match (recipe, &gpu) {
            (None, _) => return,
            (Some(recipe), Ok(gpu)) => {
                if let Err(error) = gpu.compile_only(&recipe) {
                    log::debug!("{} was not compiled ahead: {error}", recipe.path);
                }
            }
            (Some(_), Err(error)) => {
                log::debug!("no device to compile ahead: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Training;
    use crate::model::Model;

    #[test]
    fn all_kernels_of_a_training_compile_on_another_device() {
        let gpu = Gpu::open(OpenOptions::default()).unwrap();
        let model = Model::load("lenet5").unwrap();
        let training = Training::new(model, 4).unwrap();
        let _session = training.session(&gpu).unwrap();
        let known = gpu.ahead.borrow().known.clone();
        assert_eq!(known.len() > LEAST, compiles_late(&gpu.info));
        let other = Gpu::on(gpu.adapter.clone(), gpu.options.clone()).unwrap();
        for recipe in &known {
            other.compile_only(recipe).unwrap();
        }
    }

    #[test]
    fn programs_are_taken_in_turn_each_from_its_end() {
        let recipe = |path| Recipe {
            path,
            source: "".into(),
            textures: Vec::new(),
        };
        let mut jobs = Jobs {
            programs: [vec![], vec![recipe("a"), recipe("b")], vec![recipe("c")]].into(),
            at_work: 1,
        };
        let order: Vec<_> = std::iter::from_fn(|| jobs.take()).map(|r| r.path).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }
}
