//! Random images, and a training in a folder of its own.

use gpucnn::Result;
use gpucnn::data::{Dataset, Split};
use gpucnn::graph::Backend;
use gpucnn::model::Model;
use gpucnn::ops::Draw;
use gpucnn::train::{Callbacks, Config, Event, RunFolder, Summary, Weights, train};
use tempfile::TempDir;

/// So many random images with random labels to train on and to validate on, if any.
pub fn random_data(
    seed: u64,
    shape: [usize; 3],
    classes: usize,
    [train, test]: [usize; 2],
) -> Dataset {
    let mut draw = Draw::new(seed);
    let bytes = shape.iter().product::<usize>();
    let mut split = |len: usize| {
        Split::new(
            (0..len * bytes).map(|_| draw.int(0, 255) as u8).collect(),
            (0..len).map(|_| draw.int(0, classes - 1) as u32).collect(),
        )
    };
    Dataset {
        name: "random".into(),
        shape,
        classes: (0..classes).map(|c| c.to_string()).collect(),
        train: split(train),
        test: (test > 0).then(|| split(test)),
        notes: Vec::new(),
    }
}

/// What a training said and left.
pub struct Trained {
    pub result: Result<Summary>,
    pub events: Vec<Event>,
    pub folder: RunFolder,
    _root: TempDir,
}

/// Trains from the given weights.
pub fn trained(
    model: &Model,
    weights: &Weights,
    data: &Dataset,
    config: &Config,
    backend: Box<dyn Backend>,
) -> Trained {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut folder = RunFolder::create(Some(&path), model, config, &data.classes).unwrap();
    let mut events = Vec::new();
    let mut keep = |event| events.push(event);
    let callbacks = Callbacks::new(&mut keep);
    let result = train(
        model,
        data,
        config,
        weights,
        backend,
        &mut folder,
        callbacks,
    );
    Trained {
        result,
        events,
        folder,
        _root: root,
    }
}
