//! Made-up data sets, models and runs for the tests of the binary.
#![allow(
    dead_code,
    reason = "each test binary uses its own part of this module"
)]

use assert_cmd::Command;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Rows and columns of the made-up grey images.
pub const SIDE: usize = 8;

/// A folder that goes with the value.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file, with the folders on its way.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self.text(name)
    }

    /// A data set of IDX files in the folder `name`; class `i % 10` for image `i`.
    pub fn idx(&self, name: &str, train: usize, test: usize) -> String {
        for (part, count) in [("train", train), ("t10k", test)] {
            let images = idx_images(count);
            self.write(&format!("{name}/{part}-images-idx3-ubyte"), images);
            let labels = idx_labels(&digits(count));
            self.write(&format!("{name}/{part}-labels-idx1-ubyte"), labels);
        }
        self.text(name)
    }

    /// A grey PNG of the made-up kind.
    pub fn png(&self, name: &str, class: u8) -> String {
        let image = image::GrayImage::from_raw(SIDE as u32, SIDE as u32, pixels(class)).unwrap();
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image.save(path).unwrap();
        self.text(name)
    }

    /// A model that takes the made-up images: a convolution, a pool and a dense layer.
    pub fn model(&self) -> String {
        self.write(
            "tiny.toml",
            format!(
                r#"
                name = "tiny"
                input = [1, {SIDE}, {SIDE}]
                [training]
                epochs = 2
                batch_size = 8
                learning_rate = 0.02
                [[layer]]
                type = "conv2d"
                filters = 4
                kernel = 3
                activation = "relu"
                [[layer]]
                type = "max_pool2d"
                size = 2
                [[layer]]
                type = "flatten"
                [[layer]]
                type = "dense"
                units = 10
                "#
            ),
        )
    }
}

pub fn digits(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i % 10) as u8).collect()
}

/// An image of a class: a bright row and a bright column that tell it.
fn pixels(class: u8) -> Vec<u8> {
    let (row, column) = (usize::from(class) % SIDE, usize::from(class) / SIDE + 2);
    let bright = |i: usize| i / SIDE == row || i % SIDE == column;
    let pixel = |i| if bright(i) { 255 } else { 10 };
    (0..SIDE * SIDE).map(pixel).collect()
}

fn idx(extents: &[usize], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, extents.len() as u8];
    for extent in extents {
        bytes.extend((*extent as u32).to_be_bytes());
    }
    bytes.extend(data);
    bytes
}

pub fn idx_images(count: usize) -> Vec<u8> {
    let data: Vec<u8> = digits(count).into_iter().flat_map(pixels).collect();
    idx(&[count, SIDE, SIDE], &data)
}

pub fn idx_labels(labels: &[u8]) -> Vec<u8> {
    idx(&[labels.len()], labels)
}

/// Records of CIFAR-10's binary format.
pub fn cifar(labels: &[u8]) -> Vec<u8> {
    let record = |label: &u8| [vec![*label], vec![25 * label; 3072]].concat();
    labels.iter().flat_map(record).collect()
}

/// The binary with arguments, in a folder of its own.
pub fn gpucnn(files: &Files, args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("gpucnn").unwrap();
    command.args(args).current_dir(files.path(""));
    command
}

/// The lines of JSON on standard output.
pub fn json_lines(output: &[u8]) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(output).unwrap();
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text.lines().map(parse).collect()
}

pub fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}
