//! Dynamic batching: one thread owns the device and runs what waits.

use super::metrics::Metrics;
use super::{Options, Service};
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::infer::{Batches, Predictor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The logits of an image, or why there are none.
pub(super) type Answer = std::result::Result<Vec<f32>, String>;

/// An image on its way.
struct Job {
    /// Bytes [C, H, W].
    pixels: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

/// Why an image was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// So many wait that it has no place.
    Full,
    /// The device's thread is gone.
    Stopped,
}

/// Where images wait for the device.
pub(super) struct Queue {
    jobs: SyncSender<Job>,
    metrics: Arc<Metrics>,
    healthy: Arc<AtomicBool>,
}

impl Queue {
    /// Puts an image last; the answer comes through the receiver. One that is dropped tells
    /// the device to leave the image alone.
    pub fn push(&self, pixels: Vec<u8>) -> std::result::Result<oneshot::Receiver<Answer>, Refused> {
        let (answer, receiver) = oneshot::channel();
        self.metrics.waiting.inc();
        match self.jobs.try_send(Job { pixels, answer }) {
            Ok(()) => Ok(receiver),
            Err(error) => {
                self.metrics.waiting.dec();
                Err(match error {
                    TrySendError::Full(_) => Refused::Full,
                    TrySendError::Disconnected(_) => Refused::Stopped,
                })
            }
        }
    }

    /// Whether the last batch went well.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }
}

/// The thread that owns the device.
pub(super) struct Batcher {
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
    device: String,
    max_batch: usize,
}

impl Batcher {
    /// Starts the thread and waits until the model is ready.
    pub fn start(
        service: Service,
        options: &Options,
        metrics: Arc<Metrics>,
        open: impl FnOnce() -> Result<Box<dyn Backend>> + Send + 'static,
    ) -> Result<Self> {
        let (jobs, receiver) = sync_channel(options.queue);
        let (ready, started) = sync_channel(1);
        let healthy = Arc::new(AtomicBool::new(true));
        let queue = Arc::new(Queue {
            jobs,
            metrics: metrics.clone(),
            healthy: healthy.clone(),
        });
        let (batches, max_wait) = (batches(options), options.max_wait);
        let work = move || {
            let predictor = open().and_then(|backend| {
                let (model, weights) = (&service.model, &service.weights);
                let int8 = service.int8.as_ref();
                let mut predictor =
                    Predictor::with_batches(model, weights, int8, batches, backend)?;
                // Else the first request of each number of images would wait for the driver.
                predictor.warm_up()?;
                Ok(predictor)
            });
            let predictor = match predictor {
                Ok(predictor) => predictor,
                Err(error) => return drop(ready.send(Err(error))),
            };
            drop(ready.send(Ok((predictor.device(), predictor.batch()))));
            Worker {
                predictor,
                jobs: receiver,
                max_wait,
                metrics,
                healthy,
            }
            .run();
        };
        let thread = std::thread::Builder::new()
            .name("device".into())
            .spawn(work);
        let fail = |what: String| Error::Runtime(format!("the device's thread {what}"));
        let thread = thread.map_err(|e| fail(format!("cannot start: {e}")))?;
        let (device, max_batch) = started.recv().map_err(|_| fail("ended".into()))??;
        Ok(Self {
            queue,
            thread,
            device,
            max_batch,
        })
    }

    /// Most images that go through the device at once.
    pub fn max_batch(&self) -> usize {
        self.max_batch
    }

    pub fn device(&self) -> &str {
        &self.device
    }

    pub fn queue(&self) -> Arc<Queue> {
        self.queue.clone()
    }

    /// Waits for the thread, which ends when all queues are dropped and empty.
    pub fn join(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            log::error!("the device's thread panicked");
        }
    }
}

/// Most images that go through the device at once, where nothing else is asked for.
const MAX_BATCH: usize = 32;

fn batches(options: &Options) -> Batches {
    let batches = match options.max_batch {
        Some(images) => Batches::of(images),
        None => Batches::up_to(MAX_BATCH),
    };
    batches
        .rising()
        .within(options.memory_budget)
        .set_by("--max-batch")
}

struct Worker {
    predictor: Predictor,
    jobs: Receiver<Job>,
    max_wait: Duration,
    metrics: Arc<Metrics>,
    healthy: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        while let Ok(first) = self.jobs.recv() {
            let batch = self.gather(first);
            self.metrics.waiting.dec_by(batch.len() as i64);
            let (batch, gone): (Vec<Job>, Vec<Job>) =
                batch.into_iter().partition(|job| !job.answer.is_closed());
            drop(gone);
            if !batch.is_empty() {
                self.classify(batch);
            }
        }
    }

    /// What waits after `first`, for at most [`Options::max_wait`], up to a batch.
    fn gather(&self, first: Job) -> Vec<Job> {
        let deadline = Instant::now() + self.max_wait;
        let mut batch = vec![first];
        while batch.len() < self.predictor.batch() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.jobs.recv_timeout(left) {
                Ok(job) => batch.push(job),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        batch
    }

    fn classify(&mut self, batch: Vec<Job>) {
        let pixels: Vec<u8> = batch.iter().flat_map(|j| &j.pixels).copied().collect();
        let begin = Instant::now();
        let found = self.predictor.logits(&pixels);
        self.metrics.batch(batch.len(), begin.elapsed());
        self.healthy.store(found.is_ok(), Ordering::Relaxed);
        match found {
            Ok(rows) => {
                for (job, logits) in batch.into_iter().zip(rows) {
                    // Whoever asked may have gone.
                    let _ = job.answer.send(Ok(logits));
                }
            }
            Err(error) => {
                log::error!("{error}");
                for job in batch {
                    let _ = job.answer.send(Err(error.to_string()));
                }
            }
        }
    }
}
