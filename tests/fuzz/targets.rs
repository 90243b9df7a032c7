//! What is done with hostile bytes, shared by the fuzzers here and by `tests/readers.rs`,
//! which replays the corpus and mutations of it. No reader may panic, take memory out of
//! proportion to what it reads, or read outside the folder it was given.

use gpucnn::data::{Dataset, Request};
use gpucnn::formats::{self, safetensors};
use gpucnn::model::Model;
use gpucnn::serve::input;
use gpucnn::train::{Checkpoint, RunFolder};
use std::cell::OnceCell;
use std::path::{Path, PathBuf};

/// A target: its name, which is that of its corpus, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("checkpoint", checkpoint),
    ("cifar", cifar),
    ("hdf5", hdf5),
    ("idx", idx),
    ("image", image),
    ("keras", keras),
    ("model", model),
    ("npy", npy),
    ("npz", npz),
    ("onnx", onnx),
    ("request", request),
    ("run", run),
    ("safetensors", weights),
    ("table", table),
];

/// The value of every pixel of the image beside the folder that readers are given.
const OUTSIDE: u8 = 77;

thread_local! {
    static ROOT: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

/// A folder that holds nothing but the given files, in one with an image beside it.
fn folder(files: &[(&str, &[u8])]) -> PathBuf {
    let root = ROOT.with(|root| {
        let root = root.get_or_init(|| {
            let root = tempfile::tempdir().expect("a temporary folder");
            let image = image::GrayImage::from_pixel(4, 4, image::Luma([OUTSIDE]));
            image
                .save(root.path().join("outside.png"))
                .expect("written");
            root
        });
        root.path().to_owned()
    });
    let folder = root.join("given");
    let _ = std::fs::remove_dir_all(&folder);
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("inside")).expect("made");
        std::fs::write(path, bytes).expect("written");
    }
    folder
}

/// Loads a data set, which need not be one; what it holds must fit together and come from
/// the folder.
fn dataset(folder: &Path, shape: Option<[usize; 3]>) {
    let name = folder.to_str().expect("made by us");
    let loaded = Request {
        shape,
        ..Request::new(name)
    }
    .load();
    let Ok(data) = loaded else { return };
    check(&data);
}

fn check(data: &Dataset) {
    let image: usize = data.shape.iter().product();
    let splits = [Some(&data.train), data.test.as_ref()];
    for split in splits.into_iter().flatten() {
        assert_eq!(split.images.len(), split.labels.len());
        assert!(split.is_empty() || split.images.size() == image);
        let classes = data.classes.len();
        assert!(split.labels.iter().all(|l| (*l as usize) < classes));
        let outside = |image: &[u8]| image.iter().all(|p| *p == OUTSIDE);
        let read_outside = image > 0 && {
            let pixels = split.images.all().expect("in memory");
            pixels.chunks(image).any(outside)
        };
        assert!(!read_outside, "an image outside the folder was read");
    }
}

/// The first byte, which chooses, and the rest.
fn choice(bytes: &[u8]) -> (u8, &[u8]) {
    bytes
        .split_first()
        .map_or((0, bytes), |(b, rest)| (*b, rest))
}

/// MNIST's files: images or labels, plain or under the name of a gzipped file.
pub fn idx(bytes: &[u8]) {
    let images: &[u8] = &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4];
    let labels: &[u8] = &[0, 0, 8, 1, 0, 0, 0, 2, 3, 1];
    let (which, rest) = choice(bytes);
    let [images, labels] = if which % 2 == 0 {
        [rest, labels]
    } else {
        [images, rest]
    };
    let gz = if which % 4 < 2 { "" } else { ".gz" };
    let names = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"].map(|n| format!("{n}{gz}"));
    dataset(&folder(&[(&names[0], images), (&names[1], labels)]), None);
}

/// A file of CIFAR-10's or CIFAR-100's records, or a list of class names.
pub fn cifar(bytes: &[u8]) {
    let (which, rest) = choice(bytes);
    let record = [1; 3073];
    let files: &[(&str, &[u8])] = match which % 3 {
        0 => &[("data_batch_1.bin", rest)],
        1 => &[("train.bin", rest), ("test.bin", rest)],
        _ => &[("data_batch_1.bin", &record), ("batches.meta.txt", rest)],
    };
    dataset(&folder(files), None);
}

/// An image by its content, under any name.
pub fn image(bytes: &[u8]) {
    let (which, rest) = choice(bytes);
    let shape = (which % 2 == 0).then_some([if which % 4 < 2 { 1 } else { 3 }, 5, 7]);
    let name = ["a/x.png", "a/x.jpg", "train/a/x.jpeg"][usize::from(which % 3)];
    dataset(&folder(&[(name, rest)]), shape);
}

/// An archive of NumPy arrays.
pub fn npz(bytes: &[u8]) {
    dataset(&folder(&[("data.npz", bytes)]), None);
}

/// A list of images, which may name what is not in the folder.
pub fn table(bytes: &[u8]) {
    let mut png = std::io::Cursor::new(Vec::new());
    let image = image::GrayImage::from_pixel(4, 4, image::Luma([9]));
    image
        .write_to(&mut png, image::ImageFormat::Png)
        .expect("encoded");
    let png = png.into_inner();
    dataset(
        &folder(&[("train.csv", bytes), ("a.png", &png), ("b/c.png", &png)]),
        None,
    );
}

/// A model file; one that is taken must be written as what it was.
pub fn model(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(model) = Model::from_toml(text, "fuzzed") else {
        return;
    };
    model.summary().expect("a model that was built");
    let written = model.to_toml().expect("a model that was read");
    let again = Model::from_toml(&written, "written").expect("it was written");
    assert_eq!(again.to_toml().expect("as before"), written);
}

/// Weights.
pub fn weights(bytes: &[u8]) {
    let folder = folder(&[("w.safetensors", bytes)]);
    if let Ok(weights) = safetensors::load(&folder.join("w.safetensors")) {
        for tensor in weights.values() {
            assert_eq!(tensor.shape().len(), tensor.data().len());
        }
    }
}

/// A checkpoint.
pub fn checkpoint(bytes: &[u8]) {
    let folder = folder(&[("c.safetensors", bytes)]);
    let _ = Checkpoint::load(&folder.join("c.safetensors"));
}

/// The other files of a run folder: settings, model or class names.
pub fn run(bytes: &[u8]) {
    const MODEL: &[u8] = b"name = 'm'\ninput = [1, 1, 1]\nlayer = [{ type = 'flatten' }]\n";
    let (which, rest) = choice(bytes);
    let files: [(&str, &[u8]); 3] = [
        ("config.toml", b""),
        ("model.toml", MODEL),
        ("classes.txt", b""),
    ];
    let mut files = files;
    files[usize::from(which % 3)].1 = rest;
    let Ok(run) = RunFolder::reopen(&folder(&files)) else {
        return;
    };
    if let Ok(config) = run.config() {
        let _ = config.check();
    }
    if let Ok(model) = run.model() {
        let names = run.classes(&model);
        assert!(names.len() >= model.classes());
    }
    let _ = run.checkpoint();
}

/// A model in ONNX; one that is taken has the weights it names.
pub fn onnx(bytes: &[u8]) {
    let Ok(file) = formats::onnx::read(bytes) else {
        return;
    };
    if let Ok(imported) = formats::onnx::import(&file, "fuzzed", None) {
        let weights = imported.model.check_weights(&imported.weights, "fuzzed");
        weights.expect("an import is whole");
    }
}

/// A Keras model, as text or as an archive.
pub fn keras(bytes: &[u8]) {
    let (which, rest) = choice(bytes);
    let imported = match which % 2 {
        0 => match std::str::from_utf8(rest) {
            Ok(text) => formats::keras::from_json(text, "fuzzed"),
            Err(_) => return,
        },
        _ => formats::keras::from_bytes(rest, "fuzzed"),
    };
    let Ok(imported) = imported else { return };
    if let Some(weights) = imported.weights {
        let fits = imported.model.check_weights(&weights, "fuzzed");
        fits.expect("an import is whole");
    }
}

/// Arrays of HDF5.
pub fn hdf5(bytes: &[u8]) {
    let Ok(arrays) = formats::hdf5::read(bytes) else {
        return;
    };
    for array in arrays.values() {
        assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
    }
}

/// One NumPy array.
pub fn npy(bytes: &[u8]) {
    if let Ok(array) = formats::npy::parse(bytes) {
        let elements: usize = array.shape().iter().product();
        assert_eq!(elements, array.elements().len());
    }
}

/// The body of a request to `gpucnn serve`: JSON, or an image.
pub fn request(bytes: &[u8]) {
    const SHAPE: [usize; 3] = [1, 2, 3];
    let (which, rest) = choice(bytes);
    let images = match which % 2 {
        0 => input::json(rest, SHAPE),
        _ => input::file("body", rest, SHAPE).map(|image| vec![image]),
    };
    for image in images.unwrap_or_default() {
        assert_eq!(image.len(), SHAPE.iter().product::<usize>());
    }
}
