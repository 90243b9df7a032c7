//! Image files that are decoded as they are needed: the same bytes, bits and numbers as images
//! in memory.

mod files;
mod support;

use files::{Files, gpucnn};
use gpucnn::data::{Dataset, Info, Request, contact_sheet};
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Backend, GpuBackend};
use gpucnn::infer::Predictor;
use gpucnn::model::{Conv2d, Dense, Flatten, Model};
use gpucnn::ops::activation::Function::Relu;
use gpucnn::train::{self, Callbacks, Config, Event, RunFolder, Weights};
use gpucnn::{Error, Result};
use image::RgbImage;
use support::training::trained;

const SHAPE: [usize; 3] = [3, 9, 8];

/// Pictures of two classes, of sizes of their own: 17 and 13 to train on, 290 to test on.
fn pictures(files: &Files) -> String {
    for (class, count) in [
        ("train/a", 17),
        ("train/b", 13),
        ("test/a", 150),
        ("test/b", 140),
    ] {
        for i in 0..count {
            picture(files, &format!("data/{class}/{i}.png"), i);
        }
    }
    files.text("data")
}

fn picture(files: &Files, name: &str, i: u32) {
    let path = files.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let size = [8 + i % 3, 9 + i % 2];
    let salt = name.len() as u32 * 7 + i * 13;
    let pixel = |x, y| {
        [x * 29 + salt, y * 17 + salt, x * y + salt]
            .map(|v| v as u8)
            .into()
    };
    RgbImage::from_fn(size[0], size[1], pixel)
        .save(path)
        .unwrap();
}

fn load(name: &str, host_budget: u64) -> Result<Dataset> {
    let request = Request {
        shape: Some(SHAPE),
        host_budget: Some(host_budget),
        ..Request::new(name)
    };
    request.load()
}

fn model() -> Model {
    let model = Model::builder("small", SHAPE);
    let model = model.add(Conv2d::new(4, 3).activation(Relu));
    model.add(Flatten).add(Dense::new(2)).build().unwrap()
}

fn config(data_budget: Option<u64>) -> Config {
    Config {
        data: "pictures".into(),
        epochs: 3,
        batch_size: 4,
        data_budget,
        ..Config::default()
    }
}

fn device() -> Box<dyn Backend> {
    let gpu = support::open(ProfileKind::CpuLike, true);
    Box::new(GpuBackend::new(gpu).unwrap())
}

#[test]
fn they_are_the_same_images() {
    let files = Files::new();
    let name = pictures(&files);
    let bytes = SHAPE.iter().product::<usize>() as u64;
    let [resident, streamed] = [320 * bytes, 320 * bytes - 1].map(|b| load(&name, b).unwrap());
    assert!(resident.notes.is_empty() && !resident.train.images.are_in_files());
    let [note] = &streamed.notes[..] else {
        panic!("one line says why: {:?}", streamed.notes);
    };
    assert!(
        note.starts_with("320 images are decoded from their files") && !note.contains('\n'),
        "{note}"
    );
    let splits = |data: &Dataset| {
        let [first, last] = data.train.cut(0.3).unwrap();
        let test = data.test.clone().unwrap();
        let odd = data.train.gather(&[29, 0, 3, 3]).unwrap();
        [first.first(11), first, last, data.train.clone(), test, odd]
    };
    for (resident, streamed) in splits(&resident).iter().zip(&splits(&streamed)) {
        assert_eq!(resident.labels, streamed.labels);
        assert_eq!(
            resident.images.all().unwrap(),
            streamed.images.all().unwrap()
        );
    }
    assert!(streamed.test.as_ref().unwrap().images.are_in_files());
    assert_eq!(Info::of(&resident).unwrap(), Info::of(&streamed).unwrap());
    let sheet = |data: &Dataset| {
        let path = files.path("sheet.png");
        contact_sheet(data, &path).unwrap();
        std::fs::read(path).unwrap()
    };
    assert_eq!(sheet(&resident), sheet(&streamed));
}

#[test]
fn they_train_and_evaluate_to_the_same_bits() {
    let files = Files::new();
    let name = pictures(&files);
    let model = model();
    let mut results = Vec::new();
    // All on the device, or a few batches at a time.
    for (host, device_too) in [
        (u64::MAX, None),
        (0, None),
        (u64::MAX, Some(0)),
        (0, Some(0)),
    ] {
        let data = load(&name, host).unwrap();
        let config = Config {
            normalize: Some("measure".into()),
            ..config(device_too)
        };
        let model = train::normalized(model.clone(), &data, &config).unwrap();
        let run = trained(&model, &model.initial_weights(0), &data, &config, device());
        run.result.unwrap();
        let streamed = run.events.iter().any(|event| {
            matches!(event, Event::Start { streamed, .. } if *streamed == [device_too.is_some(); 2])
        });
        assert!(streamed, "{:?}", &run.events[..2]);
        let weights = run.folder.weights(&model).unwrap();
        let history = run.folder.history().iter();
        let losses: Vec<_> = history.map(|row| (row.loss, row.val_loss)).collect();
        let mut predictor = Predictor::new(&model, &weights, 5, device()).unwrap();
        let test = data.test.as_ref().unwrap();
        let evaluation = predictor.evaluate(test, &|_| {}).unwrap();
        results.push((weights, losses, evaluation));
    }
    assert!(results.iter().all(|found| *found == results[0]));
}

#[test]
fn one_that_breaks_while_training_is_named_and_the_run_goes_on_when_mended() {
    let files = Files::new();
    let name = pictures(&files);
    let (model, data, config) = (model(), load(&name, 0).unwrap(), config(Some(0)));
    let weights = model.initial_weights(0);
    let mut folder =
        RunFolder::create(Some(&files.path("run")), &model, &config, &data.classes).unwrap();
    let broken = files.path("data/train/b/12.png");
    let whole = std::fs::read(&broken).unwrap();
    let mut break_it = |event| {
        if matches!(event, Event::Epoch(row) if row.epoch == 1) {
            std::fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
        }
    };
    let callbacks = Callbacks::new(&mut break_it);
    let error = train::train(
        &model,
        &data,
        &config,
        &weights,
        device(),
        &mut folder,
        callbacks,
    );
    let error = error.unwrap_err();
    assert!(
        matches!(&error, Error::Data { path, .. } if *path == broken),
        "{error}"
    );
    let message = error.to_string();
    for part in [
        "cannot be decoded",
        "the last checkpoint is",
        "gpucnn train --resume",
    ] {
        assert!(message.contains(part), "{message}");
    }

    std::fs::write(&broken, &whole).unwrap();
    let (checkpoint, _) = folder.checkpoint().unwrap();
    assert_eq!(checkpoint.position.epoch, 2);
    let mut ignore = |_| {};
    let callbacks = Callbacks::new(&mut ignore);
    train::resume(
        &model,
        &data,
        &config,
        &checkpoint,
        device(),
        &mut folder,
        callbacks,
    )
    .unwrap();
    let resumed = folder.weights(&model).unwrap();
    let never_broken: Weights = {
        let run = trained(&model, &weights, &data, &config, device());
        run.folder.weights(&model).unwrap()
    };
    assert_eq!(resumed, never_broken);
}

#[test]
fn what_is_no_image_is_found_before_training() {
    let files = Files::new();
    let name = pictures(&files);
    let bad = files.path("data/test/a/1.png");
    let whole = std::fs::read(&bad).unwrap();
    for content in [&b""[..], b"text", &whole[..20]] {
        std::fs::write(&bad, content).unwrap();
        let error = load(&name, 0).unwrap_err();
        assert!(
            matches!(&error, Error::Data { path, .. } if *path == bad),
            "{error}"
        );
    }
    std::fs::write(&bad, whole).unwrap();
    let request = Request {
        shape: Some([2, 9, 8]),
        host_budget: Some(0),
        ..Request::new(&name)
    };
    let error = request.load().unwrap_err().to_string();
    assert!(error.contains("the model wants 2"), "{error}");
}

#[test]
fn the_program_streams_them_where_it_is_told_to() {
    let files = Files::new();
    let model = files.model();
    for class in 0..10 {
        for i in 0..2 {
            files.png(&format!("data/train/{class}/{i}.png"), class);
        }
    }
    let told = "note: 20 images are decoded from their files each time they are needed: as 1 x 8 x \
                8 they are 1 MiB, more than the --host-budget of 0 MiB\n";
    let says = |args: &[&str]| {
        let output = gpucnn(&files, &[args, &["--host-budget", "0"]].concat())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && text.contains(told),
            "{args:?}: {text}"
        );
    };
    says(&[
        "train", &model, "--data", "data", "--device", "cpu", "--epochs", "1", "--out", "run",
    ]);
    says(&["eval", "run", "--device", "cpu"]);
    says(&["data", "info", "data"]);
}
