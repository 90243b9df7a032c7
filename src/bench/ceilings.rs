//! The device's own limits: how fast it multiplies, copies and takes work.

use crate::error::Result;
use crate::gpu::Gpu;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::range::Range;
use crate::gpu::readback::Readback;
use crate::gpu::sequence::Sequence;
use crate::gpu::staging::Staging;
use crate::shader;
use serde::{Deserialize, Serialize};
use std::time::Instant;

const FMA: ShaderFile = shader!("bench/fma.wgsl");
const COPY: ShaderFile = shader!("bench/copy.wgsl");
const COUNT: ShaderFile = shader!("bench/count.wgsl");

const WORKGROUP: usize = 64;
/// Seconds a dispatch of multiply-adds runs for at least: many times what starting it
/// costs, and short enough to find a moment when nothing else runs.
const LONG_ENOUGH: f64 = 0.002;
/// Measurements of a ceiling for each repeat of a kernel: the median tells what a kernel
/// usually takes, but only the best of many what the device can do.
const TRIES: usize = 8;
/// Bytes the copies move, read and written: from what stays in a cache to what does not.
const COPIES: [u64; 4] = [1 << 21, 1 << 23, 1 << 25, 1 << 27];
/// Dispatches of a submission, and submissions, that the cost of one is found from.
const MANY: usize = 200;

/// How many bytes a second a copy of a certain size moves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copy {
    /// Bytes read and written.
    pub bytes: u64,
    /// 10^9 bytes a second, reading and writing taken together.
    pub gb_per_s: f64,
}

/// What a device can do at most, as its own kernels find it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// The device in one line.
    pub device: String,
    /// What timed the kernels; the costs below are the host's clock in any case.
    pub clock: String,
    /// 10^9 floating-point operations a second in f32, a multiply-add counting two.
    pub f32_gflops: f64,
    /// The same in f16, where the device computes in it.
    pub f16_gflops: Option<f64>,
    /// Copies from the smallest to the largest.
    pub copies: Vec<Copy>,
    /// Microseconds another dispatch adds to a submission, encoding included.
    pub dispatch_us: f64,
    /// Microseconds another submission of one dispatch adds to the dispatch itself.
    pub submission_us: f64,
    /// Microseconds from submitting one dispatch to having 4 bytes of its result.
    pub readback_us: f64,
}

impl Ceilings {
    /// Measures a device; each number is the best of several times `repeats`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn measure(gpu: &Gpu, repeats: usize) -> Result<Self> {
        let repeats = TRIES * repeats;
        let f16 = gpu.device.features().contains(wgpu::Features::SHADER_F16);
        let fma = |f16| multiply_adds(gpu, f16, repeats);
        let copies = COPIES.iter().map(|bytes| copy(gpu, *bytes, repeats));
        let costs = Costs::measure(gpu, repeats)?;
        Ok(Self {
            device: gpu.describe(),
            clock: gpu.clock().to_string(),
            f32_gflops: fma(false)?,
            f16_gflops: f16.then(|| fma(true)).transpose()?,
            copies: copies.collect::<Result<_>>()?,
            dispatch_us: 1e6 * costs.dispatch,
            submission_us: 1e6 * costs.submission,
            readback_us: 1e6 * costs.readback,
        })
    }

    /// 10^9 bytes a second that moving `bytes` can reach: the fastest copy of no fewer
    /// bytes, or the largest copy's rate beyond that.
    pub fn gb_per_s(&self, bytes: u64) -> f64 {
        let large = self.copies.iter().filter(|c| c.bytes >= bytes);
        let best = large.map(|c| c.gb_per_s).max_by(f64::total_cmp);
        best.or(self.copies.last().map(|c| c.gb_per_s))
            .unwrap_or(f64::INFINITY)
    }
}

/// Shapes the multiply-adds are tried in; the best counts. Few chains leave a multiply-add
/// waiting for the one before, many do not fit the registers.
const CHAINS: [usize; 5] = [2, 3, 4, 8, 16];
const STEPS: usize = 16;
const ROUNDS: usize = 64;
/// Workgroups the copies are tried with; the best counts.
const COPY_WORKGROUPS: [usize; 2] = [64, 256];

fn fma_launch(chains: usize, f16: bool, groups: usize) -> Launch {
    let mut kernel = Kernel::new(FMA)
        .set("WORKGROUP", WORKGROUP)
        .set("CHAINS", chains)
        .set("STEPS", STEPS)
        .set("ROUNDS", ROUNDS);
    if f16 {
        kernel = kernel.alias("Scalar", "f16").enable("f16");
    }
    let mut launch = Launch::default();
    let y = launch.reserve((16 * WORKGROUP * groups) as u64);
    let dispatch = Dispatch::grid(kernel, vec![("y", y)], [groups, 1, 1]);
    launch.dispatches.push(dispatch);
    launch
}

fn copy_launch(bytes: u64, workgroup: usize) -> Launch {
    const EACH: usize = 4;
    let vec4s = (bytes / 32) as usize;
    let kernel = Kernel::new(COPY)
        .set("WORKGROUP", workgroup)
        .set("EACH", EACH)
        .set("VEC4S", vec4s);
    let mut launch = Launch::default();
    let [x, y] = [bytes / 2; 2].map(|half| launch.reserve(half));
    let groups = vec4s / (workgroup * EACH);
    let dispatch = Dispatch::linear(kernel, vec![("x", x), ("y", y)], groups);
    launch.dispatches.push(dispatch);
    launch
}

fn count_launch() -> Launch {
    let mut launch = Launch::default();
    let y = launch.reserve(4);
    let dispatch = Dispatch::grid(Kernel::new(COUNT), vec![("y", y)], [1, 1, 1]);
    launch.dispatches.push(dispatch);
    launch
}

/// Every kernel of this file, for the tests that check all shaders.
pub fn launches(f16: bool) -> Vec<Launch> {
    let fma = CHAINS.map(|chains| fma_launch(chains, f16, 1));
    let copies = COPY_WORKGROUPS.map(|workgroup| copy_launch(COPIES[0], workgroup));
    let mut launches = [&fma[..], &copies].concat();
    launches.push(count_launch());
    launches
}

/// The one dispatch of a launch that binds scratch only, with buffers of its own.
fn prepare(gpu: &Gpu, launch: &Launch) -> Result<(Sequence, Vec<wgpu::Buffer>)> {
    let buffers = launch.scratch.iter().map(|b| gpu.buffer("benchmark", *b));
    let buffers = buffers.collect::<Result<Vec<_>>>()?;
    let resolve = |arg| match arg {
        Arg::Scratch(i) => Range {
            half: false,
            buffer: buffers[i].clone(),
            offset: 0,
            bytes: launch.scratch[i],
        },
        other => unreachable!("{other:?} in a benchmark"),
    };
    let dispatch = &launch.dispatches[0];
    let mut staging = Staging::default();
    let command = gpu.prepare("benchmark", dispatch, &[], 0, &resolve, &mut staging)?;
    Ok((Sequence::new(vec![command]), buffers))
}

/// Seconds of the one dispatch, the least of `repeats`: whatever else runs only adds to it.
fn seconds(gpu: &Gpu, dispatch: &Sequence, repeats: usize) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..repeats {
        best = best.min(gpu.time(dispatch.commands(), 1)?[0]);
    }
    Ok(best)
}

fn multiply_adds(gpu: &Gpu, f16: bool, repeats: usize) -> Result<f64> {
    let mut best = 0.0f64;
    for chains in CHAINS {
        best = best.max(multiply_adds_of(gpu, chains, f16, repeats)?);
    }
    Ok(best)
}

fn multiply_adds_of(gpu: &Gpu, chains: usize, f16: bool, repeats: usize) -> Result<f64> {
    const MOST_GROUPS: usize = 1 << 15;
    let mut groups = 16;
    loop {
        let (dispatch, _buffers) = prepare(gpu, &fma_launch(chains, f16, groups))?;
        if groups < MOST_GROUPS && seconds(gpu, &dispatch, 1)? < LONG_ENOUGH {
            groups *= 2;
            continue;
        }
        let flops = 2 * 4 * chains * STEPS * ROUNDS * WORKGROUP * groups;
        return Ok(1e-9 * flops as f64 / seconds(gpu, &dispatch, repeats)?);
    }
}

fn copy(gpu: &Gpu, bytes: u64, repeats: usize) -> Result<Copy> {
    let mut gb_per_s = 0.0f64;
    for workgroup in COPY_WORKGROUPS {
        let (dispatch, _buffers) = prepare(gpu, &copy_launch(bytes, workgroup))?;
        // The first run clears the buffers and brings them into the caches.
        seconds(gpu, &dispatch, 1)?;
        let best = seconds(gpu, &dispatch, repeats)?;
        gb_per_s = gb_per_s.max(1e-9 * bytes as f64 / best);
    }
    Ok(Copy { bytes, gb_per_s })
}

/// What work costs besides computing, in seconds by the host's clock.
struct Costs {
    dispatch: f64,
    submission: f64,
    readback: f64,
}

impl Costs {
    fn measure(gpu: &Gpu, repeats: usize) -> Result<Self> {
        let (dispatch, buffers) = prepare(gpu, &count_launch())?;
        let best = |work: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
            let mut best = f64::INFINITY;
            for _ in 0..=repeats {
                let begin = Instant::now();
                work()?;
                best = best.min(begin.elapsed().as_secs_f64());
            }
            Ok(best)
        };
        let one = best(&mut || submit(gpu, &dispatch, 1, 1))?;
        let dispatches = best(&mut || submit(gpu, &dispatch, 1, MANY))?;
        let submissions = best(&mut || submit(gpu, &dispatch, MANY, 1))?;
        let mut readback = Readback::new(gpu, 4)?;
        let readback = best(&mut || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            dispatch.encode(&mut encoder, 1);
            readback.encode(&mut encoder, &buffers[0], 0);
            let submission = gpu.submit(Some(encoder.finish()))?;
            readback.request();
            readback.wait(gpu, &submission).map(drop)
        })?;
        let more = (MANY - 1) as f64;
        let dispatch = (dispatches - one).max(0.0) / more;
        Ok(Self {
            dispatch,
            submission: ((submissions - one) / more - dispatch).max(0.0),
            readback,
        })
    }
}

/// Submits `submissions` times so many dispatches, then waits.
fn submit(gpu: &Gpu, dispatch: &Sequence, submissions: usize, dispatches: usize) -> Result<()> {
    for _ in 0..submissions {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        dispatch.encode(&mut encoder, dispatches);
        gpu.submit(Some(encoder.finish()))?;
    }
    gpu.wait(None)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 100 GFLOP/s; 20 GB/s up to 2 MB, 10 GB/s beyond.
    pub(crate) fn ceilings() -> Ceilings {
        let copy = |bytes, gb_per_s| Copy { bytes, gb_per_s };
        Ceilings {
            device: "a device".into(),
            clock: "host clock".into(),
            f32_gflops: 100.0,
            f16_gflops: None,
            copies: vec![
                copy(1_000_000, 5.0),
                copy(2_000_000, 20.0),
                copy(16_000_000, 10.0),
            ],
            dispatch_us: 10.0,
            submission_us: 30.0,
            readback_us: 50.0,
        }
    }

    #[test]
    fn the_bandwidth_is_that_of_a_copy_of_no_fewer_bytes() {
        let ceilings = ceilings();
        let at = [0, 1_500_000, 2_000_000, 2_000_001, 1 << 40];
        let found = at.map(|bytes| ceilings.gb_per_s(bytes));
        assert_eq!(found, [20.0, 20.0, 20.0, 10.0, 10.0]);
    }
}
