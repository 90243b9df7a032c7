//! An HTTP server for inference: `gpucnn serve`.
//!
//! ```text
//! requests ─► decode (tokio) ─► a bounded queue ─► one thread that owns the device
//!    ▲                                                 │ takes what waits, up to a batch
//!    └───────────────── answers ◄──────────────────────┘
//! ```
//! Images of requests that come close together go through the device in one batch. Where the
//! queue is full a request is told to come again (429), so that memory and waiting times stay
//! bounded.

mod batcher;
mod http;
pub mod input;
mod metrics;

use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::infer::Int8;
use crate::model::Model;
use crate::train::Weights;
use batcher::Batcher;
use metrics::Metrics;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// How to serve.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The address to listen at; this machine only by default.
    pub host: IpAddr,
    /// The port; 0 for any free one.
    pub port: u16,
    /// Most images that go through the device at once; without a number as many as fit, at
    /// most 32.
    pub max_batch: Option<usize>,
    /// Most of the device's memory that is taken, in MiB; without a number what is free, where
    /// the device tells.
    pub memory_budget: Option<u64>,
    /// How long the first image of a batch waits for others.
    pub max_wait: Duration,
    /// Most images that wait; further requests get 429.
    pub queue: usize,
    /// Most bytes of a request; larger ones get 413.
    pub max_body: usize,
    /// The longest that a request may take.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 8080,
            max_batch: None,
            memory_budget: None,
            max_wait: Duration::from_millis(2),
            queue: 256,
            max_body: 8 << 20,
            timeout: Duration::from_secs(30),
        }
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        let counts = [
            ("--max-batch", self.max_batch.unwrap_or(1)),
            ("--queue", self.queue),
            ("--max-body", self.max_body),
        ];
        if let Some((flag, _)) = counts.into_iter().find(|(_, n)| *n == 0) {
            return Err(Error::Usage(format!("{flag} must be at least 1, found 0")));
        }
        if self.timeout.is_zero() {
            return Err(Error::Usage("--timeout must be above 0, found 0".into()));
        }
        Ok(())
    }
}

/// What is served.
pub struct Service {
    /// The model.
    pub model: Model,
    /// Its weights.
    pub weights: Weights,
    /// What runs in eight bits of a quantised run.
    pub int8: Option<Int8>,
    /// The names of its classes.
    pub classes: Vec<String>,
}

/// A server that listens and has its model on the device.
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<http::State>,
    batcher: Batcher,
    drain: Duration,
}

impl Server {
    /// Takes the address, opens the device and compiles the model. `open` runs in the thread
    /// that will own the device.
    ///
    /// # Errors
    /// If the address cannot be had, the device cannot be opened or is too small, or an
    /// option makes no sense.
    pub fn start(
        service: Service,
        options: &Options,
        open: impl FnOnce() -> Result<Box<dyn Backend>> + Send + 'static,
    ) -> Result<Self> {
        options.check()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::Runtime(format!("the server's threads cannot start: {e}")))?;
        let asked = SocketAddr::new(options.host, options.port);
        let fail = |e| {
            Error::Usage(format!(
                "cannot listen at {asked}: {e}; choose another --port"
            ))
        };
        let listener = runtime.block_on(TcpListener::bind(asked)).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let metrics = Arc::new(Metrics::default());
        let (model, classes) = (service.model.clone(), service.classes.clone());
        let batcher = Batcher::start(service, options, metrics.clone(), open)?;
        let state = http::State {
            model,
            classes,
            device: batcher.device().to_owned(),
            max_batch: batcher.max_batch(),
            options: options.clone(),
            queue: batcher.queue(),
            metrics,
        };
        Ok(Self {
            runtime,
            listener,
            address,
            state: Arc::new(state),
            batcher,
            drain: options.timeout,
        })
    }

    /// The address it listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The device in one line.
    pub fn device(&self) -> &str {
        self.batcher.device()
    }

    /// Answers requests until `stop` resolves, then takes no more, finishes those that were
    /// begun (for as long as a request may take) and returns the images classified.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<u64> {
        let Self {
            runtime,
            listener,
            state,
            batcher,
            drain,
            ..
        } = self;
        let metrics = state.metrics.clone();
        runtime.block_on(http::run(listener, state, stop, drain))?;
        // The last senders go with the runtime; the batcher ends when the queue is empty.
        runtime.shutdown_timeout(Duration::from_secs(1));
        batcher.join();
        Ok(metrics.images())
    }
}

/// Resolves at the first Ctrl-C or SIGTERM.
pub async fn signalled() {
    let interrupt = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            log::warn!("Ctrl-C is not caught: {error}");
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(error) => {
                log::warn!("SIGTERM is not caught: {error}");
                std::future::pending::<()>().await;
            }
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
