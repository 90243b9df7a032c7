//! A device that fails: what is said, and how a training goes on.

mod support;

use gpucnn::data::{Dataset, Split};
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::gpu::{Gpu, OpenOptions};
use gpucnn::graph::{Backend, CpuBackend, GpuBackend, Graph};
use gpucnn::model::{BatchNorm2d, Conv2d, Dense, Dropout, Flatten, Model};
use gpucnn::ops::matmul::MatMul;
use gpucnn::ops::{Builder, Draw, Step};
use gpucnn::tensor::TensorType;
use gpucnn::train::{
    Callbacks, Config, Event, Retry, RunFolder, Start, Summary, Weights, train_with_retries,
};
use gpucnn::{Error, Result};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Forty grey images of 6 by 6.
fn data() -> Dataset {
    let mut draw = Draw::new(3);
    let images: Vec<u8> = (0..40 * 36).map(|_| draw.int(0, 255) as u8).collect();
    Dataset {
        name: "random".into(),
        shape: [1, 6, 6],
        classes: (0..4).map(|c| c.to_string()).collect(),
        train: Split::new(images, (0..40).map(|i| i % 4).collect()),
        test: None,
        notes: vec![],
    }
}

fn model() -> Model {
    Model::builder("small", [1, 6, 6])
        .add(Conv2d::new(3, 3))
        .add(BatchNorm2d::default())
        .add(Flatten)
        .add(Dropout::new(0.2))
        .add(Dense::new(4))
        .build()
        .unwrap()
}

/// Three epochs of ten steps, with a checkpoint after every submission.
fn config() -> Config {
    Config {
        data: "random".into(),
        epochs: 3,
        batch_size: 4,
        log_every: 1,
        checkpoint_minutes: 1e-9,
        ..Config::default()
    }
}

/// What a training with retries said and left.
struct Outcome {
    result: Result<Summary>,
    warnings: Vec<String>,
    opened: usize,
    weights: Option<Weights>,
    run: String,
}

/// Trains, and destroys the device at each of the steps `deaths`, once.
fn train(deaths: &[u32], attempts: usize) -> Outcome {
    let (model, data, config) = (model(), data(), config());
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut folder = RunFolder::create(Some(&path), &model, &config, &data.classes).unwrap();
    let (mut deaths, mut warnings, mut opened) = (deaths.to_vec(), vec![], 0);
    let device = std::cell::RefCell::new(None::<Rc<Gpu>>);
    let mut watch = |event| match event {
        Event::Step { step, .. } if deaths.contains(&step) => {
            deaths.retain(|d| *d != step);
            device.borrow().as_ref().unwrap().destroy();
        }
        Event::Warning(text) => warnings.push(text),
        _ => {}
    };
    let mut open = || {
        opened += 1;
        let gpu = support::open(ProfileKind::CpuLike, false);
        *device.borrow_mut() = Some(gpu.clone());
        Ok(Box::new(GpuBackend::new(gpu)?) as Box<dyn Backend>)
    };
    let weights = model.initial_weights(config.seed);
    let result = train_with_retries(
        &model,
        &data,
        &config,
        Start::Weights(&weights),
        &mut open,
        &mut folder,
        Callbacks::new(&mut watch),
        Retry {
            attempts,
            pause: Duration::ZERO,
        },
    );
    let left = result.is_ok().then(|| folder.weights(&model).unwrap());
    Outcome {
        result,
        warnings,
        opened,
        weights: left,
        run: path.display().to_string(),
    }
}

#[test]
fn a_lost_device_is_opened_again_and_ends_in_the_same_bits() {
    let alone = train(&[], 0);
    assert_eq!((alone.opened, alone.warnings.len()), (1, 0));
    let retried = train(&[3, 14, 15, 30], 1);
    retried.result.unwrap();
    assert_eq!(retried.weights, alone.weights);
    assert!((3..=5).contains(&retried.opened), "{}", retried.opened);
    assert_eq!(retried.warnings.len(), retried.opened - 1);
    for warning in &retried.warnings {
        for text in [
            "device failure: the device was destroyed",
            "the last checkpoint is",
            "opening the device again in 0 s, attempt 1 of 1",
        ] {
            assert!(warning.contains(text), "no {text:?} in: {warning}");
        }
    }
}

#[test]
fn without_retries_the_error_names_the_last_checkpoint() {
    let outcome = train(&[12], 0);
    let error = outcome.result.unwrap_err();
    assert!(matches!(error, Error::Fault(_)), "{error:?}");
    assert_eq!(error.exit_code(), 1);
    let message = error.to_string();
    let checkpoint = format!("the last checkpoint is {}/checkpoints/step-", outcome.run);
    let remedy = format!("`gpucnn train --resume {}`", outcome.run);
    for text in ["the device was destroyed", &checkpoint, &remedy] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    assert_eq!(outcome.opened, 1);
}

/// A device that fails at once, every time.
#[test]
fn attempts_are_bounded() {
    let (model, data, config) = (model(), data(), config());
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut folder = RunFolder::create(Some(&path), &model, &config, &data.classes).unwrap();
    let (mut warnings, mut opened) = (Vec::new(), 0);
    let mut keep = |event| {
        if let Event::Warning(text) = event {
            warnings.push(text);
        }
    };
    let mut open = || {
        opened += 1;
        // The second time the driver has not recovered yet.
        if opened == 2 {
            return Err(Error::Device("no adapter".into()));
        }
        let gpu = support::open(ProfileKind::CpuLike, false);
        let backend = GpuBackend::new(gpu.clone())?;
        gpu.destroy();
        Ok(Box::new(backend) as Box<dyn Backend>)
    };
    let weights = model.initial_weights(0);
    let result = train_with_retries(
        &model,
        &data,
        &config,
        Start::Weights(&weights),
        &mut open,
        &mut folder,
        Callbacks::new(&mut keep),
        Retry {
            attempts: 3,
            pause: Duration::ZERO,
        },
    );
    let message = result.unwrap_err().to_string();
    assert!(message.contains("the device was destroyed"), "{message}");
    assert_eq!((opened, warnings.len()), (4, 3), "{warnings:?}");
}

/// Sixty matrix products, which no device does in a millisecond.
fn slow_work(backend: &mut dyn Backend) -> Result<()> {
    let ty = TensorType::f32([512, 512]);
    let mut graph = Graph::new();
    let values = ["a", "b", "c"].map(|name| {
        backend.create(name, &ty).unwrap();
        graph.state(name, ty.clone())
    });
    let product = graph.add1(Box::new(MatMul::default()), &values[..2])?;
    graph.store(product, values[2])?;
    let program = backend.compile(graph)?;
    backend.run(program, &[Step::default(); 60])?;
    backend.read("c").map(drop)
}

#[test]
fn work_that_does_not_end_is_an_error_not_a_wait() {
    let options = OpenOptions {
        name: std::env::var("GPUCNN_TEST_DEVICE").ok(),
        patience: Some(Duration::from_millis(1)),
        ..OpenOptions::default()
    };
    let mut backend = GpuBackend::new(Gpu::open(options).unwrap()).unwrap();
    let error = slow_work(&mut backend).unwrap_err();
    assert!(matches!(error, Error::Fault(_)), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("within 0.001 s; it hangs"), "{message}");
    // From then on the device is of no use, and says so.
    let again = backend.synchronize().unwrap_err();
    assert_eq!(again.to_string(), message);
}

#[test]
fn a_buffer_beyond_the_device_is_refused_by_name() {
    let gpu = support::open(ProfileKind::CpuLike, false);
    let adapter = gpucnn::gpu::adapters().swap_remove(0);
    let mut backend = GpuBackend::new(gpu).unwrap();
    let most = adapter.limits.max_buffer_size as usize;
    let error = backend.create("giant", &TensorType::f32([most / 4 + 4]));
    let message = error.unwrap_err().to_string();
    for text in ["giant needs", "max_buffer_size", &most.to_string()] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
}

/// What a training on the reference path said and left, with `meddle` done as each epoch ends.
struct Disturbed {
    result: Result<Summary>,
    warnings: Vec<String>,
    folder: RunFolder,
}

fn disturbed(path: &Path, epochs: usize, mut meddle: impl FnMut(usize)) -> Disturbed {
    let (model, data) = (model(), data());
    let config = Config {
        epochs,
        checkpoint_minutes: 0.0,
        ..config()
    };
    let mut folder = RunFolder::create(Some(path), &model, &config, &data.classes).unwrap();
    let mut warnings = Vec::new();
    let mut watch = |event| match event {
        Event::Epoch(row) => meddle(row.epoch),
        Event::Warning(text) => warnings.push(text),
        _ => {}
    };
    let weights = model.initial_weights(config.seed);
    let result = gpucnn::train::train(
        &model,
        &data,
        &config,
        &weights,
        Box::new(CpuBackend::new()),
        &mut folder,
        Callbacks::new(&mut watch),
    );
    Disturbed {
        result,
        warnings,
        folder,
    }
}

/// A whole run, with nothing unfinished beside its files.
fn assert_whole(run: &Disturbed, alone: &Disturbed) {
    let (model, path) = (model(), run.folder.path());
    let weights = |run: &Disturbed| run.folder.weights(&model).unwrap();
    assert_eq!(weights(run), weights(alone));
    let reopened = RunFolder::reopen(path).unwrap();
    assert_eq!(reopened.model().unwrap(), model);
    assert_eq!(
        reopened.saved_history().unwrap().len(),
        alone.folder.history().len()
    );
    let (latest, damaged) = reopened.checkpoint().unwrap();
    assert_eq!(damaged.len(), 0);
    assert_eq!(
        latest.position.steps,
        10 * alone.folder.history().len() as u32
    );
    let folders = [path.to_owned(), path.join("checkpoints")];
    let entries = folders.iter().flat_map(|f| std::fs::read_dir(f).unwrap());
    for name in entries.map(|e| e.unwrap().file_name().into_string().unwrap()) {
        assert!(!name.starts_with('.'), "{name} is left over");
    }
}

#[test]
fn a_run_folder_that_is_deleted_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let alone = disturbed(&root.path().join("alone"), 3, |_| {});
    assert_eq!(alone.warnings, [""; 0]);
    let path = root.path().join("run");
    let run = disturbed(&path, 3, |epoch| {
        if epoch == 1 {
            std::fs::remove_dir_all(&path).unwrap();
        }
    });
    run.result.as_ref().unwrap();
    let [warning] = &run.warnings[..] else {
        panic!("{:?}", run.warnings);
    };
    assert!(
        warning.contains("were gone; they are written again"),
        "{warning}"
    );
    assert_whole(&run, &alone);
}

#[test]
fn a_disk_that_goes_and_comes_back_is_tried_again_each_time() {
    let root = tempfile::tempdir().unwrap();
    let alone = disturbed(&root.path().join("alone"), 4, |_| {});
    let (path, away) = (root.path().join("run"), root.path().join("away"));
    // Where the folder was there is a file: nothing can be written below it.
    let gone = || {
        std::fs::rename(&path, &away).unwrap();
        std::fs::write(&path, "").unwrap();
    };
    let back = || {
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&away, &path).unwrap();
    };
    let run = disturbed(&path, 4, |epoch| match epoch {
        1 => gone(),
        3 => back(),
        _ => {}
    });
    run.result.as_ref().unwrap();
    // Weights, page and checkpoint of two epochs.
    assert_eq!(run.warnings.len(), 6, "{:?}", run.warnings);
    for (what, next) in [
        ("weights.safetensors", "the next epoch"),
        ("checkpoints", "the next checkpoint"),
    ] {
        let of = run.warnings.iter().filter(|w| w.contains(what));
        let of: Vec<_> = of
            .filter(|w| w.contains(&format!("{next} tries again")))
            .collect();
        assert_eq!(of.len(), 2, "{what}: {:?}", run.warnings);
    }
    assert_whole(&run, &alone);

    // Gone for good, the last weights are an error.
    let (path, away) = (root.path().join("lost"), root.path().join("lost away"));
    let lost = disturbed(&path, 3, |epoch| {
        if epoch == 1 {
            std::fs::rename(&path, &away).unwrap();
            std::fs::write(&path, "").unwrap();
        }
    });
    let error = lost.result.unwrap_err().to_string();
    assert!(
        error.contains("lost/weights.safetensors: cannot write"),
        "{error}"
    );
    // What was written before is whole.
    let kept = RunFolder::open(&away).unwrap();
    assert_eq!(kept.saved_history().unwrap().len(), 1);
    kept.weights(&model()).unwrap();
}

/// Whether a command succeeds.
#[cfg(target_os = "linux")]
fn done(program: &str, args: &[&str]) -> bool {
    let output = std::process::Command::new(program).args(args).output();
    output.is_ok_and(|o| o.status.success())
}

/// A disk of so few KiB, mounted for a test.
#[cfg(target_os = "linux")]
struct SmallDisk(String);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount(path: &Path, kib: usize) -> Option<Self> {
        let (path, size) = (path.display().to_string(), format!("size={kib}k"));
        done("mount", &["-t", "tmpfs", "-o", &size, "gpucnn-test", &path]).then_some(Self(path))
    }

    fn remount(&self, option: &str) {
        assert!(done(
            "mount",
            &["-o", &format!("remount,{option}"), &self.0]
        ));
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        done("umount", &["-l", &self.0]);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_fills_up_or_turns_read_only_is_tried_again() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let alone = disturbed(&root.path().join("alone"), 4, |_| {});
    let place = root.path().join("disk");
    std::fs::create_dir(&place).unwrap();
    let path = place.join("run");
    let writable = |mode: u32| {
        for folder in [path.clone(), path.join("checkpoints")] {
            std::fs::set_permissions(folder, PermissionsExt::from_mode(mode)).unwrap();
        }
    };
    let disk = SmallDisk::mount(&place, 4096);
    let run = match &disk {
        Some(disk) => disturbed(&path, 4, |epoch| match epoch {
            1 => disk.remount("ro"),
            2 => {
                disk.remount("rw");
                // What is left is not enough for a file.
                let mut filler = std::fs::File::create(place.join("filler")).unwrap();
                while std::io::Write::write_all(&mut filler, &[1; 4096]).is_ok() {}
            }
            3 => std::fs::remove_file(place.join("filler")).unwrap(),
            _ => {}
        }),
        // Who may not mount is no superuser, whom permissions stop.
        None => disturbed(&path, 4, |epoch| match epoch {
            1 => writable(0o555),
            3 => writable(0o755),
            _ => {}
        }),
    };
    run.result.as_ref().unwrap();
    assert_eq!(run.warnings.len(), 6, "{:?}", run.warnings);
    let reasons = match disk {
        Some(_) => ["Read-only file system", "No space left on device"],
        None => ["Permission denied"; 2],
    };
    for reason in reasons {
        let told = run.warnings.iter().filter(|w| w.contains(reason)).count();
        assert!(told >= 3, "{told} of {reason}: {:?}", run.warnings);
    }
    assert_whole(&run, &alone);
}
