//! What `/metrics` tells, in Prometheus's text format.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// The media type of [`Metrics::text`].
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    path: &'static str,
    status: u16,
}

pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    seconds: Histogram,
    images: Counter,
    batches: Histogram,
    device_seconds: Histogram,
    /// Images in the queue.
    pub waiting: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("gpucnn");
        // A tenth of a millisecond to 26 seconds.
        let times = || Histogram::new(exponential_buckets(1e-4, 4.0, 10));
        let metrics = Self {
            requests: Family::default(),
            seconds: times(),
            images: Counter::default(),
            batches: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            device_seconds: times(),
            waiting: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register(
            "http_requests",
            "Requests answered, by path and status",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "predict",
            "Time from a whole predict request to its answer",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        registry.register("images", "Images classified", metrics.images.clone());
        registry.register(
            "batch_images",
            "Images that went through the device together",
            metrics.batches.clone(),
        );
        registry.register_with_unit(
            "batch",
            "Time of a batch on the device",
            Unit::Seconds,
            metrics.device_seconds.clone(),
        );
        registry.register("queue_images", "Images that wait", metrics.waiting.clone());
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// Counts an answered request.
    pub fn request(&self, path: &'static str, status: u16) {
        self.requests.get_or_create(&Labels { path, status }).inc();
    }

    /// Counts an answered prediction.
    pub fn predicted(&self, time: Duration) {
        self.seconds.observe(time.as_secs_f64());
    }

    /// Counts a batch.
    pub fn batch(&self, images: usize, time: Duration) {
        self.images.inc_by(images as u64);
        self.batches.observe(images as f64);
        self.device_seconds.observe(time.as_secs_f64());
    }

    /// Images classified so far.
    pub fn images(&self) -> u64 {
        self.images.get()
    }

    /// All of it as text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
