//! Bad input, through the binary: a clear message, exit code 2, and nothing left behind.

mod files;

use files::{Files, cifar, digits, exists, gpucnn, idx_images, idx_labels};
use gpucnn::formats::safetensors;
use gpucnn::model::Model;
use std::collections::BTreeMap;

/// Runs the binary, which must refuse with exit code 2 and a message that holds every one
/// of `wanted`.
fn refused(files: &Files, args: &[&str], wanted: &[&str]) {
    let output = gpucnn(files, args).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    for text in wanted {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    assert!(!exists(&files.path("runs")), "{args:?} left a run behind");
}

/// Training of the tiny model on the CPU with `data`, which must be refused.
fn data_refused(files: &Files, data: &str, wanted: &[&str]) {
    let model = files.model();
    let args = ["train", &model, "--data", data, "--device", "cpu"];
    refused(files, &args, wanted);
}

/// A model file of the given layers over 8 by 8 grey images, which must be refused.
fn model_refused(layers: &str, wanted: &[&str]) {
    let files = Files::new();
    let text = format!("name = \"bad\"\ninput = [1, 8, 8]\n{layers}");
    let model = files.write("bad.toml", text);
    refused(&files, &["summary", &model], wanted);
}

#[test]
#[cfg(target_os = "linux")]
fn no_adapter() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 20, 10));
    for args in [vec!["devices"], vec!["train", &model, "--data", &data]] {
        let mut command = gpucnn(&files, &args);
        // The Vulkan loader finds no driver here.
        command.env("VK_DRIVER_FILES", files.path("none"));
        command.env("VK_ICD_FILENAMES", files.path("none"));
        let output = command.output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        for text in [
            "no GPU adapter found",
            "mesa-vulkan-drivers",
            "--device cpu",
        ] {
            assert!(message.contains(text), "{message}");
        }
    }
}

#[test]
fn an_unknown_device_lists_those_there_are() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 20, 10));
    let args = ["train", &model, "--data", &data, "--device", "voodoo"];
    let known = gpucnn::gpu::adapters().swap_remove(0).info.name;
    refused(&files, &args, &["unknown device \"voodoo\"", "cpu", &known]);
}

#[test]
fn unknown_names() {
    let files = Files::new();
    let args = ["train", "minst-cnn", "--device", "cpu"];
    let wanted = ["unknown model \"minst-cnn\"", "did you mean \"mnist-cnn\"?"];
    refused(&files, &args, &wanted);
    refused(
        &files,
        &["train", "--epoch", "3"],
        &["'--epoch'", "'--epochs'"],
    );
    refused(&files, &["trian"], &["'trian'", "'train'"]);
    refused(
        &files,
        &["train", "--optimizer", "adamm"],
        &["\"adamm\"", "adam, adamw"],
    );
    refused(
        &files,
        &["train", "--schedule", "cosin"],
        &["\"cosin\"", "constant, step, cosine"],
    );
    refused(
        &files,
        &["train", "--augment", "flop"],
        &["\"flop\"", "\"flip\""],
    );
    let (model, data) = (files.model(), files.idx("data", 20, 10));
    let hue = [
        "train",
        &model,
        "--data",
        &data,
        "--device",
        "cpu",
        "--augment",
        "hue=0.1",
    ];
    refused(&files, &hue, &["--augment hue", "3 channels"]);
    let weights = ["train", &model, "--data", &data, "--device", "cpu"];
    let weights = [&weights[..], &["--class-weights", "1,2"]].concat();
    refused(&files, &weights, &["--class-weights", "10 numbers", "1,2"]);
    refused(
        &files,
        &["eval", "run"],
        &["run: is no run folder", "gpucnn train"],
    );
    data_refused(
        &files,
        "nowhere",
        &["nowhere: no such folder", "train-images-idx3-ubyte"],
    );
    model_refused(
        "[[layer]]\ntype = \"conv2\"",
        &[
            "layer 1",
            "unknown type \"conv2\"",
            "did you mean \"conv2d\"?",
        ],
    );
    model_refused(
        "[[layer]]\ntype = \"dense\"\nunits = 3\nwidth = 2",
        &["layer 1: dense", "unknown field `width`", "`units`"],
    );
    model_refused(
        "[[layer]]\ntype = \"activation\"\nfunction = \"rely\"",
        &["layer 1", "unknown activation \"rely\"", "relu"],
    );
    model_refused(
        "[[layer]]\ntype = \"flatten\"\ninput = \"conv7\"",
        &["layer flatten reads \"conv7\"", "there are input"],
    );
}

#[test]
fn numbers_out_of_range() {
    let files = Files::new();
    for (flag, value) in [
        ("--epochs", "0"),
        ("--batch-size", "0"),
        ("--learning-rate", "0"),
        ("--learning-rate", "NaN"),
        ("--weight-decay=-1", ""),
        ("--val-split", "1"),
        ("--limit", "0"),
        ("--schedule-every", "0"),
        ("--schedule-factor", "0"),
        ("--min-learning-rate=-1", ""),
        ("--warmup=-1", ""),
        ("--warmup", "10"),
        ("--label-smoothing", "1"),
        ("--monitor", "luck"),
        ("--clip-norm", "0"),
        ("--ema", "1"),
        ("--accumulate", "0"),
        ("--patience", "0"),
        ("--clip-value", "inf"),
        ("--augment", "flip,crop=0.5"),
        ("--normalize", "0.5/0"),
    ] {
        let mut args = vec!["train", "--device", "cpu", flag];
        args.extend(Some(value).filter(|v| !v.is_empty()));
        let name = flag.split('=').next().unwrap();
        refused(&files, &args, &[name, "must be", "found"]);
    }
    refused(
        &files,
        &["train", "--epochs", "many"],
        &["--epochs", "many"],
    );
}

#[test]
fn shapes_that_do_not_fit() {
    model_refused(
        "[[layer]]\ntype = \"conv2d\"\nname = \"wide\"\nfilters = 2\nkernel = [3, 11]",
        &["wide", "3 by 11", "8 by 8"],
    );
    model_refused(
        "[[layer]]\ntype = \"max_pool2d\"\nsize = 9",
        &["pool1", "9 by 9", "8 by 8"],
    );
    model_refused(
        "[[layer]]\ntype = \"dense\"\nunits = 10",
        &["fc1", "[N, features]", "[1, 1, 8, 8]", "flatten"],
    );
    model_refused(
        "[[layer]]\ntype = \"reshape\"\nshape = [9, 7]",
        &["reshape1", "[1, 1, 8, 8]", "[1, 9, 7]"],
    );
    model_refused(
        "[[layer]]\ntype = \"conv2d\"\nfilters = 4\nkernel = 3\n\
         [[layer]]\ntype = \"conv2d\"\nfilters = 6\nkernel = 3\ngroups = 3",
        &["conv2", "4 input channels", "3 groups"],
    );
    model_refused(
        "[[layer]]\ntype = \"conv2d\"\nfilters = 2\nkernel = 3",
        &["[N, classes]", "conv1", "[1, 2, 6, 6]"],
    );
}

#[test]
fn data_of_another_shape_than_the_model() {
    let files = Files::new();
    let data = files.idx("data", 20, 10);
    let args = ["train", "mnist-cnn", "--data", &data, "--device", "cpu"];
    refused(&files, &args, &["mnist-cnn", "[1, 28, 28]", "[1, 8, 8]"]);
}

#[test]
fn damaged_idx_files() {
    let whole = idx_images(20);
    let images = "data/train-images-idx3-ubyte";
    let with = |bytes: &[u8], wanted: &[&str]| {
        let files = Files::new();
        let data = files.idx("data", 20, 10);
        files.write(images, bytes);
        let wanted = [&["train-images-idx3-ubyte"], wanted].concat();
        data_refused(&files, &data, &wanted);
    };
    with(&whole[..whole.len() - 1], &["truncated", "1280", "1279"]);
    with(&whole[..9], &["truncated inside its header"]);
    with(&[], &["truncated inside its header"]);
    with(&[&whole[..], &[0]].concat(), &["too long", "1280"]);
    with(
        &idx_labels(&digits(20)),
        &["magic number", "expected [00, 00, 08, 03]"],
    );
    with(&idx_images(0), &["empty", "[0, 8, 8]"]);
    let mut huge = whole.clone();
    huge[4..16].fill(0xff);
    with(&huge, &["impossible extents"]);
    let mut zipped = Vec::new();
    let mut reader = flate2::read::GzEncoder::new(&whole[..], flate2::Compression::fast());
    std::io::Read::read_to_end(&mut reader, &mut zipped).unwrap();
    with(&zipped[..zipped.len() - 12], &["truncated"]);
}

#[test]
fn idx_labels_that_do_not_match() {
    let files = Files::new();
    let data = files.idx("data", 20, 10);
    files.write("data/train-labels-idx1-ubyte", idx_labels(&digits(19)));
    let wanted = ["train-labels", "19 labels", "20 images"];
    data_refused(&files, &data, &wanted);
    std::fs::remove_file(files.path("data/train-labels-idx1-ubyte")).unwrap();
    data_refused(&files, &data, &["no train-labels-idx1-ubyte"]);
}

#[test]
fn labels_out_of_range() {
    let files = Files::new();
    let data = files.idx("data", 20, 10);
    let mut labels = digits(20);
    labels[7] = 12;
    files.write("data/train-labels-idx1-ubyte", idx_labels(&labels));
    data_refused(&files, &data, &["10 outputs", "13 classes", "0 to 12"]);
    files.write("cifar/data_batch_1.bin", cifar(&[3, 1, 10]));
    let wanted = ["data_batch_1.bin", "record 2", "label 10", "0 to 9"];
    data_refused(&files, &files.text("cifar"), &wanted);
}

#[test]
fn damaged_cifar_files() {
    let whole = cifar(&[0, 1, 2]);
    for bytes in [&whole[..whole.len() - 1], &[&whole[..], &[0]].concat(), &[]] {
        let files = Files::new();
        files.write("cifar/data_batch_1.bin", bytes);
        let found = format!("{} bytes", bytes.len());
        let wanted = ["data_batch_1.bin", "3073", &found];
        data_refused(&files, &files.text("cifar"), &wanted);
    }
    let files = Files::new();
    files.write("cifar/test_batch.bin", &whole);
    data_refused(&files, &files.text("cifar"), &["no data_batch_1.bin"]);
}

#[test]
fn a_corrupt_image_among_good_ones() {
    let files = Files::new();
    for i in 0..6 {
        files.png(&format!("data/train/{}/{i}.png", i % 2), i);
    }
    let good = std::fs::read(files.path("data/train/0/0.png")).unwrap();
    let bad = files.write("data/train/1/half.png", &good[..good.len() / 2]);
    data_refused(&files, &files.text("data"), &[&bad, "mend or remove"]);
    files.write("data/train/1/half.png", "no image at all");
    data_refused(&files, &files.text("data"), &[&bad, "mend or remove"]);
}

#[test]
fn a_test_class_that_training_lacks() {
    let files = Files::new();
    files.png("data/train/cat/0.png", 0);
    files.png("data/test/dog/0.png", 1);
    data_refused(
        &files,
        &files.text("data"),
        &["dog", "training classes (cat)"],
    );
}

#[test]
fn empty_data() {
    let files = Files::new();
    std::fs::create_dir_all(files.path("data")).unwrap();
    let data = files.text("data");
    data_refused(
        &files,
        &data,
        &["it is empty", "data_batch_1.bin", "train/<class>/"],
    );
    std::fs::create_dir_all(files.path("data/train/cat")).unwrap();
    data_refused(&files, &data, &["it holds train", "train/<class>/"]);
    data_refused(&files, &files.model(), &["is a file", "folder"]);
    let args = ["train", "cifar10-cnn", "--device", "cpu"];
    refused(
        &files,
        &args,
        &["--data DIR", "data_batch_1.bin", "train/<class>/"],
    );
}

#[test]
fn a_batch_larger_than_the_data() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 20, 10));
    let args = ["train", &model, "--data", &data, "--device", "cpu"];
    let more = |extra: &[&'static str], wanted: &[&str]| {
        refused(&files, &[&args[..], extra].concat(), wanted);
    };
    more(
        &["--batch-size", "21"],
        &["--batch-size 21", "20 training images"],
    );
    more(&["--limit", "4"], &["--batch-size 8", "4 training images"]);
    more(
        &["--val-split", "0.99"],
        &["--val-split 0.99", "20 images", "train on"],
    );
}

#[test]
fn a_batch_beyond_the_device_names_limit_and_largest_batch() {
    let files = Files::new();
    let adapter = gpucnn::gpu::adapters().swap_remove(0);
    let limit = adapter.limits.max_storage_buffer_binding_size;
    // A twentieth of what can be bound for each image: 32 images are too many.
    let filters = limit / 20 / (4 * 64);
    let model = files.write(
        "big.toml",
        format!(
            "name = \"big\"\ninput = [1, 8, 8]\n[[layer]]\ntype = \"conv2d\"\n\
             filters = {filters}\nkernel = 1\n[[layer]]\ntype = \"global_avg_pool\"\n\
             [[layer]]\ntype = \"dense\"\nunits = 10\n"
        ),
    );
    let data = files.idx("data", 40, 10);
    let args = ["train", &model, "--data", &data];
    let fitting = limit / (filters * 4 * 64);
    let wanted = [
        "conv1 (conv2d)",
        &format!("f32[32, {filters}, 8, 8]"),
        "max_storage_buffer_binding_size",
        &limit.to_string(),
        &format!("try --batch-size {fitting}\n"),
    ];
    refused(&files, &args, &wanted);
}

#[test]
fn weights_of_another_model_list_every_difference() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 20, 10));
    let mut weights = Model::load(&model).unwrap().initial_weights(0);
    let bias = weights.remove("conv1.bias").unwrap();
    weights.insert("conv9.bias".into(), bias.clone());
    weights.insert("fc1.bias".into(), bias);
    let path = files.path("other.safetensors");
    safetensors::save(&path, &weights, &BTreeMap::new()).unwrap();
    let init = files.text("other.safetensors");
    let args = [
        "train", &model, "--data", &data, "--device", "cpu", "--init", &init,
    ];
    let wanted = [
        "other.safetensors",
        "conv1.bias [4] is missing",
        "conv9.bias [4] is not in the model",
        "fc1.bias: expected [10], found [4]",
    ];
    refused(&files, &args, &wanted);
    let bytes = std::fs::read(&path).unwrap();
    files.write("other.safetensors", &bytes[..bytes.len() - 1]);
    refused(
        &files,
        &args,
        &["other.safetensors", "no whole safetensors file"],
    );
    std::fs::remove_file(path).unwrap();
    refused(&files, &args, &["other.safetensors", "cannot read"]);
}

#[test]
fn a_run_folder_with_damaged_files() {
    let files = Files::new();
    let data = files.idx("data", 20, 10);
    let model = Model::load(&files.model()).unwrap();
    std::fs::create_dir(files.path("run")).unwrap();
    model.save(&files.path("run/model.toml")).unwrap();
    let other = Model::load("mnist-cnn").unwrap().initial_weights(0);
    let path = files.path("run/weights.safetensors");
    safetensors::save(&path, &other, &BTreeMap::new()).unwrap();
    let eval = ["eval", "run", "--data", &data, "--device", "cpu"];
    refused(
        &files,
        &eval,
        &["weights.safetensors", "fc2.weight [10, 128]"],
    );
    let weights = model.initial_weights(0);
    safetensors::save(&path, &weights, &BTreeMap::new()).unwrap();
    refused(
        &files,
        &["eval", "run", "--device", "cpu"],
        &["config.toml"],
    );
    let predict = ["predict", "run", "missing.png", "--device", "cpu"];
    refused(&files, &predict, &["missing.png", "cannot read"]);
    files.write("torn.png", "\u{89}PNG");
    let predict = ["predict", "run", "torn.png", "--device", "cpu"];
    refused(&files, &predict, &["torn.png", "cannot be decoded"]);
    files.write("run/model.toml", "name = 3");
    refused(&files, &eval, &["model.toml", "name"]);
    let train = [
        "train",
        "mnist-cnn",
        "--data",
        &data,
        "--out",
        "run",
        "--device",
        "cpu",
    ];
    refused(&files, &train, &["run: holds a run already", "--out"]);
}

#[test]
fn bench_refuses_what_it_cannot_measure() {
    let files = Files::new();
    let model = files.model();
    refused(
        &files,
        &["bench", "--repeats", "0"],
        &["--repeats", "at least 1"],
    );
    refused(
        &files,
        &["bench", "--batch-size", "0"],
        &["--batch-size", "at least 1"],
    );
    refused(
        &files,
        &["bench", "--device", "cpu"],
        &["--device cpu", "no kernels"],
    );
    let other = files.write("other.jsonl", "{\"event\":\"epoch\"}\n");
    let args = ["bench", "--compare", &other];
    refused(
        &files,
        &args,
        &["other.jsonl", "line 1", "gpucnn bench --json"],
    );
    let args = ["bench", "--compare", "nowhere.jsonl"];
    refused(&files, &args, &["nowhere.jsonl"]);
    let args = [
        "bench",
        "--model",
        &model,
        "--repeats",
        "1",
        "--op",
        "attention",
    ];
    refused(&files, &args, &["\"attention\"", "matmul"]);
}
