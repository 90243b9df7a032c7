//! Whole training steps on random images: `cargo bench`, or `cargo bench -- resnet20` for
//! some of them.
//!
//! * `step/MODEL/BATCH`: a step of every preset, from the first dispatch to the last,
//!   many steps to a submission as in training;
//! * `host/MODEL/BATCH`: the processor time the host spends on encoding and submitting a
//!   step, whatever the device does meanwhile;
//! * `host-gpu-like/MODEL/BATCH`: the same of the classic models with the kernels that GPUs
//!   run, on a software adapter, whose own read copies in textures.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gpucnn::bench::Training;
use gpucnn::gpu::{Gpu, OpenOptions, ProfileKind};
use gpucnn::model::Model;
use std::rc::Rc;
use std::time::{Duration, Instant};

const BATCH: usize = 32;
const CLASSIC: [&str; 2] = ["mnist-cnn", "cifar10-cnn"];
/// Steps of a submission when the host is measured.
const STEPS: u32 = 16;

fn trainings() -> impl Iterator<Item = (&'static str, Training)> {
    Model::presets().map(|name| {
        let model = Model::load(name).expect("presets load");
        (name, Training::new(model, BATCH).expect("presets train"))
    })
}

fn steps(criterion: &mut Criterion) {
    let gpu = Gpu::open(OpenOptions::default()).expect("an adapter");
    let mut group = criterion.benchmark_group("step");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, training) in trainings() {
        group.bench_function(BenchmarkId::new(name, BATCH), |bencher| {
            let mut session = training.session(&gpu).expect("the batch fits");
            bencher.iter_custom(|count| {
                let begin = Instant::now();
                session.submit_steps(count as usize).expect("it runs");
                session.synchronize().expect("it runs");
                begin.elapsed()
            });
        });
    }
    group.finish();
}

fn host(criterion: &mut Criterion) {
    let gpu = Gpu::open(OpenOptions::default()).expect("an adapter");
    host_of(criterion, "host", &gpu, trainings());
    if gpu.profile.kind == ProfileKind::CpuLike {
        let options = OpenOptions {
            profile: Some(ProfileKind::Gpu),
            ..OpenOptions::default()
        };
        let gpu = Gpu::open(options).expect("an adapter");
        let classic = trainings().filter(|(name, _)| CLASSIC.contains(name));
        host_of(criterion, "host-gpu-like", &gpu, classic);
    }
}

fn host_of(
    criterion: &mut Criterion,
    group: &str,
    gpu: &Rc<Gpu>,
    trainings: impl Iterator<Item = (&'static str, Training)>,
) {
    let mut group = criterion.benchmark_group(group);
    for (name, training) in trainings {
        group.bench_function(BenchmarkId::new(name, BATCH), |bencher| {
            let mut session = training.session(gpu).expect("the batch fits");
            bencher.iter_custom(|count| {
                let mut spent = Duration::ZERO;
                for _ in 0..count {
                    let begin = thread_time();
                    session.submit_steps(STEPS as usize).expect("it runs");
                    spent += thread_time() - begin;
                    session.synchronize().expect("it runs");
                }
                spent / STEPS
            });
        });
    }
    group.finish();
}

/// Processor time of this thread.
#[cfg(unix)]
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Wall time, where there is no clock for a thread.
#[cfg(not(unix))]
fn thread_time() -> Duration {
    static BEGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    BEGIN.elapsed()
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = steps, host
}
criterion_main!(benches);
