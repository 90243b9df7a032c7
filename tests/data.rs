//! What the loaders make of well-formed data sets: every byte, every label, in order.
//! Malformed ones are in `tests/bad_input.rs`.

mod files;

use files::Files;
use flate2::{Compression, write::GzEncoder};
use gpucnn::data::{Dataset, Request};
use gpucnn::formats::npy;
use image::{DynamicImage, GrayImage, RgbImage, RgbaImage};
use std::io::Write;
use std::sync::Mutex;

fn load(name: &str, shape: Option<[usize; 3]>) -> Dataset {
    let request = Request {
        shape,
        ..Request::new(name)
    };
    request.load().unwrap()
}

/// An IDX file of unsigned bytes.
fn idx(extents: &[u32], data: &[u8]) -> Vec<u8> {
    let extents_bytes = extents.iter().flat_map(|e| e.to_be_bytes());
    let mut file = vec![0, 0, 8, extents.len() as u8];
    file.extend(extents_bytes);
    file.extend(data);
    file
}

fn gzipped(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Saves an image, with the folders on its way.
fn save(files: &Files, name: &str, image: impl Into<DynamicImage>) {
    let path = files.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.into().save(path).unwrap();
}

fn grey(width: u32, height: u32, pixels: &[u8]) -> GrayImage {
    GrayImage::from_raw(width, height, pixels.to_vec()).unwrap()
}

fn rgb(width: u32, height: u32, pixels: &[u8]) -> RgbImage {
    RgbImage::from_raw(width, height, pixels.to_vec()).unwrap()
}

#[test]
fn idx_files_plain_or_gzipped_under_either_name() {
    let train: Vec<u8> = (0..18).map(|i| i * 14).collect();
    let test: Vec<u8> = (200..206).collect();
    for (dash, suffix) in [("-", ""), ("-", ".gz"), (".", ""), (".", ".gz")] {
        let files = Files::new();
        for (name, file) in [
            ("train-images!idx3", idx(&[3, 2, 3], &train)),
            ("train-labels!idx1", idx(&[3], &[5, 0, 9])),
            ("t10k-images!idx3", idx(&[1, 2, 3], &test)),
            ("t10k-labels!idx1", idx(&[1], &[7])),
        ] {
            let name = name.replace('!', dash);
            let file = if suffix.is_empty() {
                file
            } else {
                gzipped(&file)
            };
            files.write(&format!("data/{name}-ubyte{suffix}"), file);
        }
        let name = files.text("data");
        // The shape is the files' own, whatever is asked for.
        let data = load(&name, Some([3, 9, 9]));
        assert_eq!(data.name, name);
        assert_eq!(data.shape, [1, 2, 3]);
        assert_eq!(*data.train.images.all().unwrap(), *train);
        assert_eq!(data.train.labels, [5, 0, 9]);
        let split = data.test.unwrap();
        assert_eq!(*split.images.all().unwrap(), *test);
        assert_eq!(split.labels, [7]);
        let digits: Vec<String> = (0..10).map(|c: u8| c.to_string()).collect();
        assert_eq!(data.classes, digits);
        assert!(data.notes.is_empty());
    }
}

#[test]
fn idx_labels_above_nine_make_more_classes() {
    let files = Files::new();
    files.write("data/train-images-idx3-ubyte", idx(&[2, 1, 1], &[3, 4]));
    files.write("data/train-labels-idx1-ubyte", idx(&[2], &[46, 1]));
    let data = load(&files.text("data"), None);
    assert_eq!(data.classes.len(), 47);
    assert_eq!(data.test, None);
}

#[test]
fn the_mnist_that_ships() {
    let data = load("mnist", None);
    assert_eq!(data.shape, [1, 28, 28]);
    assert_eq!(data.train.len(), 60_000);
    assert_eq!(data.train.images.size(), 784);
    assert_eq!(data.train.labels[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    let test = data.test.unwrap();
    assert_eq!(test.len(), 10_000);
    assert_eq!(test.labels[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
}

/// A record of CIFAR-10: the label, then 3072 bytes that tell which they are.
fn record(label: u8, key: usize) -> Vec<u8> {
    let mut record = vec![label];
    record.extend((0..3072).map(|i| (i * 7 + key * 31) as u8));
    record
}

#[test]
fn cifar_files_with_any_number_of_records() {
    for below in ["", "cifar-10-batches-bin/"] {
        let files = Files::new();
        let one = [record(3, 1), record(9, 2), record(6, 3)].concat();
        files.write(&format!("data/{below}data_batch_1.bin"), one);
        files.write(&format!("data/{below}data_batch_4.bin"), record(0, 4));
        files.write(&format!("data/{below}test_batch.bin"), record(1, 5));
        let data = load(&files.text("data"), None);
        assert_eq!(data.shape, [3, 32, 32]);
        assert_eq!(data.train.labels, [3, 9, 6, 0]);
        let pixels = |key: usize| record(0, key).split_off(1);
        let expected: Vec<u8> = (1..5).flat_map(pixels).collect();
        assert_eq!(*data.train.images.all().unwrap(), *expected);
        let test = data.test.unwrap();
        assert_eq!(test.labels, [1]);
        assert_eq!(*test.images.all().unwrap(), *pixels(5));
        assert_eq!(data.classes[..2], ["airplane", "automobile"]);
        assert_eq!(data.notes, ["2 of CIFAR-10's 5 training files found"]);
    }
}

#[test]
fn cifar_takes_the_names_of_its_classes_from_the_file_beside_it() {
    let files = Files::new();
    for i in 1..=5 {
        files.write(&format!("data/data_batch_{i}.bin"), record(i, 0));
    }
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let text = names.join("\n") + "\n\n";
    files.write("data/batches.meta.txt", text);
    let data = load(&files.text("data"), None);
    assert_eq!(data.classes, names);
    assert_eq!(data.train.labels, [1, 2, 3, 4, 5]);
    assert!(data.notes.is_empty());
}

#[test]
fn image_folders_with_spaces_and_chinese_names() {
    let files = Files::new();
    save(
        &files,
        "my data/train/a cat/first one.png",
        grey(2, 1, &[1, 2]),
    );
    save(&files, "my data/train/a cat/第二.png", grey(2, 1, &[3, 4]));
    save(&files, "my data/train/狗/b.PNG", grey(2, 1, &[5, 6]));
    save(&files, "my data/test/狗/图 1.png", grey(2, 1, &[7, 8]));
    files.write("my data/train/狗/notes.txt", "no image");
    files.write("my data/train/狗/.hidden.png", "no image");
    files.write("my data/train/.cache/x.png", "no image");
    let data = load(&files.text("my data"), Some([1, 1, 2]));
    assert_eq!(data.classes, ["a cat", "狗"]);
    // The classes take turns.
    assert_eq!(data.train.labels, [0, 1, 0]);
    assert_eq!(*data.train.images.all().unwrap(), [1, 2, 5, 6, 3, 4]);
    let test = data.test.unwrap();
    assert_eq!(test.labels, [1]);
    assert_eq!(*test.images.all().unwrap(), [7, 8]);
    assert_eq!(data.notes, ["1 files that are no PNG or JPEG were skipped"]);
}

#[test]
fn grey_rgb_and_rgba_images_become_planes() {
    let files = Files::new();
    let rgba = [10, 20, 30, 255, 40, 50, 60, 0];
    let rgba = RgbaImage::from_raw(2, 1, rgba.to_vec()).unwrap();
    save(&files, "data/c/1.png", rgb(2, 1, &[1, 2, 3, 4, 5, 6]));
    save(&files, "data/c/2.png", rgba);
    save(&files, "data/c/3.png", grey(2, 1, &[7, 8]));
    let name = files.text("data");
    let colour = load(&name, None);
    // As the first image: RGB of one row and two columns.
    assert_eq!(colour.shape, [3, 1, 2]);
    let planes = [1, 4, 2, 5, 3, 6, 10, 40, 20, 50, 30, 60, 7, 8, 7, 8, 7, 8];
    assert_eq!(*colour.train.images.all().unwrap(), planes);
    assert_eq!(colour.test, None);
    // Rec. 709 luma, as the image crate defines it: 0.2126 R + 0.7152 G + 0.0722 B.
    let luma = |r: f64, g: f64, b: f64| 0.2126 * r + 0.7152 * g + 0.0722 * b;
    let expected = [
        luma(1.0, 2.0, 3.0),
        luma(4.0, 5.0, 6.0),
        luma(10.0, 20.0, 30.0),
        luma(40.0, 50.0, 60.0),
        7.0,
        8.0,
    ];
    let found = load(&name, Some([1, 1, 2])).train.images;
    for (f, e) in found.all().unwrap().iter().zip(expected) {
        // Rounded or cut off.
        assert!((f64::from(*f) - e).abs() < 1.0, "{found:?}");
    }
}

#[test]
fn images_of_another_size_are_resized() {
    let files = Files::new();
    let row = [0, 0, 200, 200];
    save(&files, "data/c/1.png", grey(4, 2, &[row, row].concat()));
    // 128 is the zero of JPEG's transform: exact whatever the quality.
    save(&files, "data/c/2.JPG", grey(16, 16, &[128; 256]));
    save(&files, "data/c/3.jpeg", grey(1, 1, &[128]));
    save(&files, "data/c/4.png", grey(2, 1, &[1, 2]));
    let data = load(&files.text("data"), Some([1, 1, 2]));
    // A triangle two pixels wide to each side weighs the four columns 3 : 3 : 1 : 0.
    let expected = [29, 171, 128, 128, 128, 128, 1, 2];
    assert_eq!(*data.train.images.all().unwrap(), expected);
}

#[test]
fn progress_counts_every_image() {
    let files = Files::new();
    for i in 0..5 {
        save(&files, &format!("data/train/c/{i}.png"), grey(1, 1, &[i]));
        save(&files, &format!("data/val/c/{i}.png"), grey(1, 1, &[i]));
    }
    let name = files.text("data");
    let seen = Mutex::new(Vec::new());
    let request = Request {
        progress: &|done, total| seen.lock().unwrap().push((done, total)),
        ..Request::new(&name)
    };
    let data = request.load().unwrap();
    assert_eq!(data.test.unwrap().len(), 5);
    let mut seen = seen.into_inner().unwrap();
    seen.sort_unstable();
    let expected: Vec<_> = (1..=10).map(|i| (i, 10)).collect();
    assert_eq!(seen, expected);
}

/// The bytes of an array in a NumPy file.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

/// Writes an archive of arrays, as `numpy.savez` does.
fn npz(files: &Files, name: &str, arrays: &[(&str, Vec<u8>)]) -> String {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, bytes) in arrays {
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    files.write(name, archive.finish().unwrap().into_inner())
}

#[test]
fn emnist_is_turned_upright_and_its_letters_count_from_zero() {
    let files = Files::new();
    // One image of two columns and three rows, stored column by column.
    let stored = [1, 3, 5, 2, 4, 6];
    for (split, label) in [("letters", 26), ("balanced", 46)] {
        for half in ["train", "test"] {
            let name = format!("emnist/gzip/emnist-{split}-{half}");
            let images = gzipped(&idx(&[1, 2, 3], &stored));
            files.write(&format!("{name}-images-idx3-ubyte.gz"), images);
            let labels = gzipped(&idx(&[1], &[label]));
            files.write(&format!("{name}-labels-idx1-ubyte.gz"), labels);
        }
    }
    let data = load(&files.text("emnist/letters"), None);
    assert_eq!(data.shape, [1, 3, 2]);
    assert_eq!(*data.train.images.all().unwrap(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(data.train.labels, [25]);
    assert_eq!((data.classes.len(), data.classes[25].as_str()), (26, "z"));
    let data = load(&files.text("emnist/balanced"), None);
    assert_eq!(data.classes[data.test.unwrap().labels[0] as usize], "t");
    let both = Request::new(&files.text("emnist")).load().unwrap_err();
    assert!(both.to_string().contains("balanced, letters"), "{both}");
    let none = Request::new(&files.text("emnist/digits"))
        .load()
        .unwrap_err();
    assert!(none.to_string().contains("no split \"digits\""), "{none}");
}

#[test]
fn cifar_100_has_fine_and_coarse_labels() {
    let files = Files::new();
    let record = |coarse: u8, fine: u8| [vec![coarse], record(fine, 7)].concat();
    let train = [record(19, 99), record(0, 4)].concat();
    files.write("data/cifar-100-binary/train.bin", train);
    files.write("data/cifar-100-binary/test.bin", record(3, 50));
    let names = |count: u32| {
        (0..count)
            .map(|i| format!("name {i}\n"))
            .collect::<String>()
    };
    files.write("data/cifar-100-binary/fine_label_names.txt", names(100));
    files.write("data/cifar-100-binary/coarse_label_names.txt", names(20));
    for fine in ["data", "data/fine", "data/cifar-100-binary"] {
        let data = load(&files.text(fine), None);
        assert_eq!((data.shape, data.classes.len()), ([3, 32, 32], 100));
        assert_eq!(data.train.labels, [99, 4]);
        assert_eq!(data.train.images.size(), 3072);
        assert_eq!(data.test.unwrap().labels, [50]);
    }
    let data = load(&files.text("data/coarse"), None);
    assert_eq!(data.train.labels, [19, 0]);
    assert_eq!(
        (data.classes.len(), data.classes[19].as_str()),
        (20, "name 19")
    );
}

#[test]
fn keras_archives_with_either_order_of_the_axes() {
    let files = Files::new();
    let labels = npy("<i8", "(2,)", &[1_i64, 0].map(i64::to_le_bytes).concat());
    let hot = npy(
        "<f4",
        "(2, 2)",
        &[0.0_f32, 1.0, 1.0, 0.0].map(f32::to_le_bytes).concat(),
    );
    let column = npy("|u1", "(2, 1)", &[1, 0]);
    // Two images of one row and two columns in three colours.
    let pixels: Vec<u8> = (0..12).collect();
    let last = npy("|u1", "(2, 1, 2, 3)", &pixels);
    let first = npy("|u1", "(2, 3, 1, 2)", &pixels);
    let planar = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11];
    for (name, images, labels, expected) in [
        ("a.npz", &last, &labels, &planar[..]),
        ("b.npz", &first, &hot, &pixels[..]),
        ("c.npz", &last, &column, &planar[..]),
    ] {
        let path = npz(
            &files,
            name,
            &[("x_train", images.clone()), ("y_train", labels.clone())],
        );
        let data = load(&path, None);
        assert_eq!(data.shape, [3, 1, 2]);
        assert_eq!(*data.train.images.all().unwrap(), *expected);
        assert_eq!(data.train.labels, [1, 0]);
        assert_eq!(data.classes, ["0", "1"]);
        assert_eq!(data.test, None);
    }
    // [2, 3, 1, 3] can be read either way: as Keras does, unless the model says otherwise.
    let images = npy("|u1", "(2, 3, 1, 3)", &[0; 18]);
    let path = npz(&files, "d.npz", &[("x_train", images), ("y_train", labels)]);
    assert_eq!(load(&path, None).shape, [3, 3, 1]);
    assert_eq!(load(&path, Some([3, 1, 3])).shape, [3, 1, 3]);
}

#[test]
fn float_images_become_bytes_with_a_word_or_are_refused() {
    let files = Files::new();
    let archive = |values: [f32; 2]| {
        let images = npy("<f4", "(1, 1, 2)", &values.map(f32::to_le_bytes).concat());
        let test = images.clone();
        let arrays = [
            ("train_images", images),
            ("train_labels", npy("|u1", "(1,)", &[4])),
            ("test_images", test),
            ("test_labels", npy("|u1", "(1,)", &[0])),
        ];
        npz(&files, "data/set.npz", &arrays)
    };
    archive([0.0, 0.5]);
    let data = load(&files.text("data"), None);
    assert_eq!(
        (data.shape, &*data.train.images.all().unwrap()),
        ([1, 1, 2], &[0, 128][..])
    );
    assert_eq!(data.classes.len(), 5);
    let expected = "the images are float32 in [0, 1]; they were rounded to bytes, 1 to 255";
    assert_eq!(data.notes, [expected]);
    archive([3.0, 255.0]);
    let data = load(&files.text("data"), None);
    assert_eq!(*data.train.images.all().unwrap(), [3, 255]);
    for values in [[-1.0, 1.0], [0.0, f32::NAN], [0.5, 200.5]] {
        let path = archive(values);
        let error = Request::new(&path).load().unwrap_err().to_string();
        assert!(error.contains("float32 from"), "{values:?}: {error}");
    }
}

#[test]
fn tables_of_paths_and_labels() {
    let files = Files::new();
    for i in 0..4 {
        save(&files, &format!("data/图 片/{i}.png"), grey(1, 1, &[i]));
    }
    let bom = "\u{feff}";
    let header = format!("{bom}id,Label,Image\n1,dog,图 片/0.png\n2,\"a, cat\",./图 片/1.png\n");
    files.write("data/train.csv", header);
    files.write("data/test.csv", "label,path\ndog,图 片/2.png\n");
    let data = load(&files.text("data"), None);
    assert_eq!(data.classes, ["a, cat", "dog"]);
    assert_eq!(
        (data.shape, &*data.train.images.all().unwrap()),
        ([1, 1, 1], &[1, 0][..])
    );
    assert_eq!(data.train.labels, [0, 1]);
    assert_eq!(*data.test.unwrap().images.all().unwrap(), [2]);
    // Without a header; labels that are numbers are in their order.
    let rows = "图 片/0.png,10\n图 片/1.png,9\n";
    let data = load(&files.write("data/list.csv", rows), None);
    assert_eq!(data.classes, ["9", "10"]);
    assert_eq!(data.train.labels, [0, 1]);
    let rows = "path,class,split\n图 片/0.png,a,train\n图 片/3.png,a,val\n";
    let data = load(&files.write("data/list.csv", rows), None);
    assert_eq!(*data.test.unwrap().images.all().unwrap(), [3]);
}

#[test]
fn a_table_reads_nothing_outside_its_folder() {
    let files = Files::new();
    save(&files, "secret.png", grey(1, 1, &[1]));
    files.write("data/sub/x", "");
    let absolute = files.text("secret.png");
    for path in ["../secret.png", "sub/../../secret.png", absolute.as_str()] {
        let table = files.write("data/labels.csv", format!("ok.png,a\n{path},a\n"));
        for name in [table, files.text("data")] {
            let error = Request::new(&name).load().unwrap_err().to_string();
            assert!(
                error.contains("line 2") && error.contains("leads out"),
                "{error}"
            );
        }
    }
}

#[test]
fn names_of_classes_come_from_a_list_or_from_the_sets_name() {
    let files = Files::new();
    files.idx("my fashion-mnist", 10, 10);
    let data = load(&files.text("my fashion-mnist"), None);
    assert_eq!(data.classes[9], "Ankle boot");
    let names: String = (0..10).map(|i| format!("class {i}\n")).collect();
    files.write("my fashion-mnist/classes.txt", names);
    let data = load(&files.text("my fashion-mnist"), None);
    assert_eq!(data.classes[9], "class 9");
    files.write("my fashion-mnist/classes.txt", "one\n");
    let error = Request::new(&files.text("my fashion-mnist"))
        .load()
        .unwrap_err();
    assert!(error.to_string().contains("has 1 lines"), "{error}");
}

#[cfg(unix)]
#[test]
fn thousands_of_classes_and_links() {
    let files = Files::new();
    save(&files, "elsewhere/image.png", grey(1, 1, &[9]));
    save(&files, "elsewhere/class/1.png", grey(1, 1, &[8]));
    let count = 3000;
    for class in 0..count {
        let folder = files.path(&format!("data/类 {class:04}"));
        std::fs::create_dir_all(&folder).unwrap();
        // A link to a file is an image as any other.
        std::os::unix::fs::symlink(files.path("elsewhere/image.png"), folder.join("1.png"))
            .unwrap();
    }
    std::os::unix::fs::symlink(files.path("elsewhere/class"), files.path("data/类 link")).unwrap();
    let data = load(&files.text("data"), None);
    assert_eq!(data.classes.len(), count + 1);
    let expected: Vec<u32> = (0..=count as u32).collect();
    assert_eq!(data.train.labels, expected);
    assert_eq!(
        *data.train.images.get(count - 1..count + 1).unwrap(),
        [9, 8]
    );
}

#[test]
fn arrays_are_written_as_they_are_read() {
    let mut bytes = Vec::new();
    npy::write(&mut bytes, &[2, 1], &[0.5, -3.0]).unwrap();
    // NumPy asks for the elements to begin at a multiple of 64.
    assert_eq!(bytes.len(), 128 + 8);
    let array = npy::parse(bytes.as_slice()).unwrap();
    assert_eq!(
        (array.shape(), array.to_f32()),
        (&[2, 1][..], vec![0.5, -3.0])
    );
}
