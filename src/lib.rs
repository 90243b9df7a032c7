//! Trains convolutional networks that classify images, and runs them, on the GPU: through
//! [`wgpu`] (Vulkan, Metal, DX12), with compute shaders of its own in WGSL.
//!
//! The program `gpucnn` is a thin user of this library; README.md tells what it does. A
//! [`Model`](model::Model) is built from layers as in Keras, or read from a TOML file;
//! [`train`](train::train) trains it on a [`Dataset`](data::Dataset) and leaves a
//! [`RunFolder`](train::RunFolder); a [`Predictor`](infer::Predictor) runs it.
//!
//! ```
//! use gpucnn::data::{Dataset, Split};
//! use gpucnn::gpu::{Gpu, OpenOptions};
//! use gpucnn::graph::GpuBackend;
//! use gpucnn::infer::Predictor;
//! use gpucnn::model::{Conv2d, Dense, Flatten, Model};
//! use gpucnn::ops::activation::Function::Relu;
//! use gpucnn::train::{Callbacks, Config, RunFolder, initial_weights, train};
//!
//! // Sixty-four images of 8 by 8: dark ones and bright ones.
//! let labels: Vec<u32> = (0..64).map(|i| i % 2).collect();
//! let images: Vec<u8> = labels.iter().flat_map(|l| [200 * *l as u8; 8 * 8]).collect();
//! let data = Dataset {
//!     name: "shades".into(),
//!     shape: [1, 8, 8],
//!     classes: vec!["dark".into(), "bright".into()],
//!     train: Split::new(images, labels),
//!     test: None,
//!     notes: vec![],
//! };
//! let model = Model::builder("small", data.shape)
//!     .add(Conv2d::new(4, 3).activation(Relu))
//!     .add(Flatten)
//!     .add(Dense::new(2))
//!     .build()?;
//!
//! let gpu = Gpu::open(OpenOptions::default())?;
//! let config = Config { batch_size: 16, ..Config::new(&model)? };
//! let start = initial_weights(&model, &data, &config)?;
//! # let folder = tempfile::tempdir().unwrap();
//! # let folder = folder.path();
//! let mut run = RunFolder::create(Some(folder), &model, &config, &data.classes)?;
//! let device = Box::new(GpuBackend::new(gpu.clone())?);
//! let mut ignore = |_event| {};
//! let callbacks = Callbacks::new(&mut ignore);
//! train(&model, &data, &config, &start, device, &mut run, callbacks)?;
//!
//! let device = Box::new(GpuBackend::new(gpu)?);
//! let mut predictor = Predictor::new(&model, &run.weights(&model)?, 1, device)?;
//! let logits = predictor.logits(&[190; 8 * 8])?;
//! assert!(logits[0][1] > logits[0][0], "bright");
//! # Ok::<(), gpucnn::Error>(())
//! ```
//!
//! # From a model to the GPU
//!
//! ```text
//! model (layers) ─► graph (ops, shapes) ─► passes ─► memory plan ─► a flat list of dispatches
//!                     ▲ gradients are further ops     └─► the same graph on the CPU reference
//! ```
//!
//! Shapes are known before the first step, so all is decided once: shaders are specialised
//! to their shapes, memory is shared by what does not live at the same time, and a step is
//! the same list of dispatches every time. The data set lies on the device as bytes, and is
//! shuffled, gathered and normalised there. Many steps go into a submission; what comes back
//! is one row of metrics a step, and the logits of each validation.
//!
//! A module uses only those of its own row or of rows below:
//!
//! | modules | hold |
//! |---|---|
//! | [`train`], [`infer`], [`explain`], [`compress`], [`report`] | the training loop, prediction and evaluation, maps of what decides, pruning, pages and profiles |
//! | [`model`], [`data`], [`formats`] | layers and model files; data sets; weight files |
//! | [`graph`] | building, differentiating, fusing, placing in memory, running |
//! | [`ops`] | every op in one place: shapes, gradient, reference, launch |
//! | [`gpu`] | devices, shaders, pipelines, submissions, profiler |
//! | [`tensor`], [`error`] | host tensors; the one error type |
//!
//! A new op or optimizer begins in [`ops`]; the property test finds it in the
//! [`registry`](ops::registry). A new layer is a small struct in `model/layers` and a line
//! in the list of [`Layer`](model::Layer)s.
//!
//! # Conventions
//!
//! Tensors are NCHW, filters OIHW, dense weights (out, in). Defaults are Keras's. Values on
//! the device are f32; the [reference](graph::CpuBackend) computes in f64. Kernels add in a
//! fixed order, so that a run on one device and driver repeats bit for bit, and random
//! numbers come from counters, so that every device draws the same.

pub mod bench;
pub mod compress;
pub mod data;
pub mod error;
pub mod explain;
pub mod formats;
pub mod gpu;
pub mod graph;
pub mod infer;
pub mod model;
pub mod ops;
pub mod report;
#[cfg(feature = "serve")]
pub mod serve;
pub mod tensor;
pub mod train;

pub use error::{Error, Result};
pub use tensor::{DType, Shape, Tensor, TensorType};

/// Compiles the Rust of README.md with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
