//! The subcommands on made-up data: what they print, and what a run folder holds.

mod files;

use files::{Files, exists, gpucnn, json_lines};
use gpucnn::data::Request;
use gpucnn::formats::onnx::proto::ModelProto;
use gpucnn::formats::safetensors;
use gpucnn::model::Model;
use gpucnn::train::Config;
use prost::Message;
use serde_json::{Value, json};

/// Runs the binary, which must succeed; standard output and standard error.
fn run(files: &Files, args: &[&str]) -> [String; 2] {
    let output = gpucnn(files, args).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).unwrap());
    assert!(output.status.success(), "{args:?}: {err}");
    [out, err]
}

fn run_json(files: &Files, args: &[&str]) -> Vec<Value> {
    let [out, _] = run(files, &[args, &["--json"]].concat());
    json_lines(out.as_bytes())
}

/// Trains the tiny model on 40 made-up images, on the CPU, into the folder `run`.
fn train(files: &Files, extra: &[&str]) -> [String; 2] {
    let (model, data) = (files.model(), files.idx("data", 40, 20));
    let args = [
        "train", &model, "--data", &data, "--device", "cpu", "--out", "run",
    ];
    run(files, &[&args, extra].concat())
}

fn number(event: &Value, field: &str) -> f64 {
    let found = event[field].as_f64();
    found.unwrap_or_else(|| panic!("no number {field:?} in {event}"))
}

fn events<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|l| l["event"] == kind).collect()
}

#[test]
fn train_prints_a_line_an_epoch_and_leaves_a_run() {
    let files = Files::new();
    let [out, err] = train(&files, &[]);
    assert!(err.starts_with("device: CPU reference path"), "{err}");
    assert!(err.contains("410 parameters; 40 training and 20 validation images"));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    for (i, line) in lines[..2].iter().enumerate() {
        let start = format!("epoch {}/2: loss ", i + 1);
        assert!(line.starts_with(&start), "{line}");
        assert!(line.contains("validation loss") && line.ends_with("images/s"));
    }
    assert!(lines[2].ends_with("the model is in run"), "{out}");
    for file in [
        "model.toml",
        "weights.safetensors",
        "history.csv",
        "config.toml",
    ] {
        assert!(exists(&files.path("run").join(file)), "no {file}");
    }
    let model = Model::load(&files.model()).unwrap();
    let saved = Model::load(&files.text("run/model.toml")).unwrap();
    assert_eq!(saved, model);
    let weights = safetensors::load(&files.path("run/weights.safetensors")).unwrap();
    let names: Vec<&str> = weights.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["conv1.bias", "conv1.weight", "fc1.bias", "fc1.weight"]
    );
    assert_eq!(weights["conv1.weight"].shape().dims(), [4, 1, 3, 3]);
    assert_eq!(weights["fc1.weight"].shape().dims(), [10, 36]);
    let history = std::fs::read_to_string(files.path("run/history.csv")).unwrap();
    let header = "epoch,images,loss,accuracy,val_loss,val_accuracy,val_top5,learning_rate,seconds,\
                  images_per_s";
    assert_eq!(history.lines().next(), Some(header));
    assert_eq!(history.lines().count(), 3);
    let config = std::fs::read_to_string(files.path("run/config.toml")).unwrap();
    for line in [
        "optimizer = \"adam\"",
        "batch_size = 8",
        "learning_rate = 0.02",
    ] {
        assert!(config.contains(line), "no {line} in {config}");
    }
}

#[test]
fn train_json_has_the_documented_events() {
    let files = Files::new();
    // 40 images in batches of 16: two whole ones and a rest.
    let [out, err] = train(
        &files,
        &["--json", "--log-every", "2", "--batch-size", "16"],
    );
    assert!(err.contains("device: "));
    let lines = json_lines(out.as_bytes());
    let kinds: Vec<&str> = lines.iter().map(|l| l["event"].as_str().unwrap()).collect();
    let expected = ["start", "step", "epoch", "step", "step", "epoch", "end"];
    assert_eq!(kinds, expected);
    assert!(lines[0]["device"].as_str().unwrap().starts_with("CPU"));
    assert_eq!(number(&lines[0], "parameters"), 410.0);
    for (step, number_of) in events(&lines, "step").iter().zip([2.0, 4.0, 6.0]) {
        assert_eq!(number(step, "step"), number_of);
        assert_eq!(number(step, "epoch"), (number_of / 3.0).ceil());
        assert!(number(step, "loss") > 0.0);
        assert!(number(step, "images_per_s") > 0.0);
    }
    for (i, epoch) in events(&lines, "epoch").iter().enumerate() {
        assert_eq!(number(epoch, "epoch"), i as f64 + 1.0);
        for field in ["loss", "val_loss", "seconds", "images_per_s"] {
            assert!(number(epoch, field) > 0.0, "{field}");
        }
        for field in ["accuracy", "val_accuracy", "val_top5"] {
            assert!((0.0..=1.0).contains(&number(epoch, field)), "{field}");
        }
    }
    let end = &lines[6];
    assert_eq!(end["run"], "run");
    for field in ["seconds", "bytes_read_back", "waits"] {
        number(end, field);
    }
}

#[test]
fn train_learns_and_eval_agrees_with_its_last_validation() {
    let files = Files::new();
    let [out, _] = train(&files, &["--json", "--epochs", "20"]);
    let lines = json_lines(out.as_bytes());
    let epochs = events(&lines, "epoch");
    let last = epochs.last().unwrap();
    // Ten images, each four times: all can be told apart.
    assert_eq!(number(last, "val_accuracy"), 1.0, "{last}");
    let evaluated = run_json(&files, &["eval", "run", "--device", "cpu"]);
    assert_eq!(evaluated.len(), 1);
    let eval = &evaluated[0];
    assert_eq!(eval["event"], "eval");
    assert_eq!(number(eval, "images"), 20.0);
    assert_eq!(number(eval, "accuracy"), 1.0);
    // Weights go to f32 in between.
    let difference = number(eval, "loss") / number(last, "val_loss") - 1.0;
    assert!(difference.abs() < 1e-4, "{eval} {last}");
    let classes = eval["classes"].as_array().unwrap();
    assert_eq!(classes.len(), 10);
    assert_eq!(classes[3]["class"], "3");
    for field in ["images", "precision", "recall", "f1"] {
        number(&classes[3], field);
    }
    assert_eq!(eval["confusion"][3][3], 2);
    let [table, _] = run(&files, &["eval", "run", "--device", "cpu"]);
    assert!(
        table.contains("Precision") && table.contains("Recall"),
        "{table}"
    );
    assert!(table.contains("20 images: loss 0."), "{table}");
    assert!(table.ends_with("accuracy 100.00%\n"), "{table}");
    // An image of the same kind, once in its size and once larger.
    let image = files.png("seven.png", 7);
    let large = image::open(&image).unwrap();
    let large = large.resize_exact(32, 32, image::imageops::FilterType::Nearest);
    large.save(files.path("large.png")).unwrap();
    let predict = ["predict", "run", &image, "large.png", "--device", "cpu"];
    let [plain, _] = run(&files, &predict);
    let lines: Vec<&str> = plain.lines().collect();
    assert!(lines[0].starts_with(&format!("{image}: 7 ")), "{plain}");
    assert!(lines[1].starts_with("large.png: 7 "), "{plain}");
    let lines = run_json(&files, &[&predict[..], &["--top", "10"]].concat());
    assert_eq!(lines[1]["event"], "predict");
    assert_eq!(lines[1]["image"], "large.png");
    let top = lines[0]["top"].as_array().unwrap();
    assert_eq!(top[0]["class"], "7");
    let sum: f64 = top.iter().map(|t| number(t, "probability")).sum();
    assert!((sum - 1.0).abs() < 1e-6, "{sum}");
}

#[test]
fn the_same_seed_gives_the_same_run_and_init_goes_on_from_its_weights() {
    let files = Files::new();
    let weights = |run: &str| safetensors::load(&files.path(run).join("weights.safetensors"));
    let (model, data) = (files.model(), files.idx("data", 40, 20));
    let train = |out: &str, extra: &[&str]| {
        let args = [
            "train", &model, "--data", &data, "--device", "cpu", "--out", out,
        ];
        run_json(&files, &[&args, extra].concat())
    };
    train("a", &["--seed", "7"]);
    train("b", &["--seed", "7"]);
    train("c", &["--seed", "8"]);
    let bytes = |run: &str| std::fs::read(files.path(run).join("weights.safetensors")).unwrap();
    assert_eq!(bytes("a"), bytes("b"));
    assert_ne!(weights("a").unwrap(), weights("c").unwrap());
    let init = files.text("a/weights.safetensors");
    // Nothing moves at this rate: what comes out is what went in.
    let still = [
        "--init",
        &init,
        "--learning-rate",
        "1e-30",
        "--optimizer",
        "sgd",
    ];
    train("d", &still);
    assert_eq!(weights("a").unwrap(), weights("d").unwrap());
}

#[test]
fn part_of_the_data_is_trained_on_and_part_validates() {
    let files = Files::new();
    let [out, _] = train(&files, &["--json", "--limit", "30", "--val-split", "0.2"]);
    let start = &json_lines(out.as_bytes())[0];
    assert_eq!(number(start, "train_images"), 24.0);
    assert_eq!(number(start, "validation_images"), 6.0);
}

#[test]
fn a_folder_of_images_and_the_cifar_files_are_data_sets() {
    let files = Files::new();
    let model = files.model();
    for i in 0..16 {
        let class = ["cat", "dog"][i % 2];
        files.png(&format!("images/train/{class}/{i}.png"), (i % 2) as u8);
        files.png(&format!("images/test/{class}/{i}.png"), (i % 2) as u8);
    }
    files.write("images/train/cat/notes.txt", "");
    let args = [
        "train", &model, "--data", "images", "--device", "cpu", "--out", "run",
    ];
    let [_, err] = run(&files, &args);
    assert!(
        err.contains("16 training and 16 validation images"),
        "{err}"
    );
    assert!(
        err.contains("1 files that are no PNG or JPEG were skipped"),
        "{err}"
    );
    let [out, _] = run(&files, &["eval", "run", "--device", "cpu"]);
    assert!(out.contains("cat") && out.contains("dog"), "{out}");
    files.write(
        "cifar/data_batch_1.bin",
        files::cifar(&[0, 1, 2, 3, 4, 5, 6, 7]),
    );
    files.write("cifar/test_batch.bin", files::cifar(&[8, 9]));
    let args = ["train", "cifar10-cnn", "--data", "cifar", "--device", "cpu"];
    let more = ["--batch-size", "4", "--epochs", "1"];
    let [out, err] = run(&files, &[&args[..], &more].concat());
    assert!(err.contains("8 training and 2 validation images"), "{err}");
    assert!(
        out.ends_with("the model is in runs/cifar10-cnn-1\n"),
        "{out}"
    );
}

#[test]
fn the_gpu_trains_as_the_cpu_does() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 40, 20));
    let losses = |device: &str, out: &str| -> Vec<f64> {
        let args = [
            "train", &model, "--data", &data, "--device", device, "--out", out,
        ];
        let lines = run_json(&files, &[&args[..], &["--log-every", "1"]].concat());
        let end = lines.last().unwrap();
        // What comes back is the metrics: 64 rows of 16 bytes with a submission.
        let read_back = number(end, "bytes_read_back");
        assert!(read_back <= 1024.0 * number(end, "submissions"), "{end}");
        assert_eq!(read_back > 0.0, device != "cpu", "{end}");
        let steps = events(&lines, "step");
        steps.iter().map(|s| number(s, "loss")).collect()
    };
    let (cpu, gpu) = (losses("cpu", "a"), losses("auto", "b"));
    assert_eq!(cpu.len(), 10);
    assert_eq!(gpu.len(), 10);
    for (c, g) in cpu.iter().zip(&gpu) {
        // Sums of at most 36 terms in f32, over ten steps of Adam.
        assert!((c / g - 1.0).abs() < 1e-4, "CPU {c}, GPU {g}");
    }
}

#[test]
fn summary_lists_layers_shapes_and_parameters() {
    let files = Files::new();
    let [table, _] = run(&files, &["summary", "mnist-cnn"]);
    for text in ["conv1", "fc2", "225,034"] {
        assert!(table.contains(text), "no {text} in {table}");
    }
    let lines = run_json(&files, &["summary", "mnist-cnn"]);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["layers"][0]["name"], "conv1", "{}", lines[0]);
}

#[test]
fn a_folder_called_as_a_preset_does_not_stand_for_it() {
    let files = Files::new();
    train(&files, &[]);
    std::fs::rename(files.path("run"), files.path("mnist-cnn")).unwrap();
    for (name, parameters) in [("mnist-cnn", 225_034), ("./mnist-cnn", 410)] {
        let lines = run_json(&files, &["summary", name]);
        assert_eq!(lines[0]["parameters"], parameters, "{name}: {}", lines[0]);
    }
}

#[test]
fn devices_lists_every_adapter() {
    let files = Files::new();
    let adapters = gpucnn::gpu::adapters();
    let [out, _] = run(&files, &["devices"]);
    let lines = run_json(&files, &["devices"]);
    assert_eq!(lines.len(), adapters.len());
    for (adapter, line) in adapters.iter().zip(&lines) {
        assert!(out.contains(&adapter.info.name), "{out}");
        assert_eq!(line["name"], adapter.info.name.as_str());
        for field in ["backend", "driver", "profile"] {
            assert!(line[field].is_string(), "{field} in {line}");
        }
        number(line, "max_buffer_size");
        assert!(line["features"].is_array());
    }
}

#[test]
fn a_models_training_table_is_followed_unless_a_flag_says_otherwise() {
    let files = Files::new();
    let data = files.idx("data", 40, 20);
    let text = std::fs::read_to_string(files.model()).unwrap();
    let table = "[training]\noptimizer = \"nesterov\"\nweight_decay = 0.25\n\
                 schedule = \"step\"\nschedule_every = 3\nschedule_factor = 0.5\nwarmup = 1\n\
                 clip_norm = 2\nlabel_smoothing = 0.125\nema = 0.75\naccumulate = 2\n\
                 decay_all = true\nmin_learning_rate = 0.001";
    let model = files.write("table.toml", text.replace("[training]", table));
    let config = |run: &str, flags: &[&str]| {
        let args = ["train", &model, "--data", &data, "--device", "cpu", "--out"];
        self::run(&files, &[&args, &[run][..], flags].concat());
        let text = std::fs::read_to_string(files.path(run).join("config.toml")).unwrap();
        toml::from_str::<Config>(&text).unwrap()
    };
    let own = config("own", &[]);
    let expected = Config {
        data: data.clone(),
        epochs: 2,
        batch_size: 8,
        optimizer: "nesterov".into(),
        learning_rate: 0.02,
        weight_decay: 0.25,
        schedule: "step".into(),
        schedule_every: Some(3),
        schedule_factor: 0.5,
        min_learning_rate: 0.001,
        warmup: 1.0,
        clip_norm: Some(2.0),
        label_smoothing: 0.125,
        ema: Some(0.75),
        accumulate: 2,
        decay_all: true,
        device: "cpu".into(),
        ..Config::default()
    };
    assert_eq!(own, expected);
    let flags = [
        "--optimizer=sgd",
        "--schedule=plateau",
        "--epochs=3",
        "--clip-value=1",
        "--ema=0.5",
        "--accumulate=1",
        "--label-smoothing=0",
        "--patience=7",
        "--monitor=accuracy",
        "--class-weights=balanced",
    ];
    let given = Config {
        epochs: 3,
        optimizer: "sgd".into(),
        // The optimizer's own, and the same share of warm-up.
        learning_rate: 0.01,
        weight_decay: 0.0,
        warmup: 1.5,
        schedule: "plateau".into(),
        schedule_every: None,
        clip_norm: None,
        clip_value: Some(1.0),
        ema: Some(0.5),
        accumulate: 1,
        label_smoothing: 0.0,
        patience: Some(7),
        monitor: "accuracy".into(),
        class_weights: Some("balanced".into()),
        ..expected
    };
    assert_eq!(config("given", &flags), given);
}

#[test]
fn eval_and_predict_take_the_best_weights() {
    let files = Files::new();
    // So large a rate that the second epoch is worse than the first, by far.
    let flags = ["--learning-rate=3", "--epochs=6", "--optimizer=sgd"];
    let [out, _] = train(&files, &flags);
    let history = std::fs::read_to_string(files.path("run/history.csv")).unwrap();
    let losses = history.lines().skip(1).map(|line| line.split(',').nth(4));
    let losses: Vec<f64> = losses.map(|l| l.unwrap().parse().unwrap()).collect();
    let (best, last) = (losses.iter().copied().fold(f64::MAX, f64::min), losses[5]);
    assert!(best < last, "{losses:?}");
    let epoch = losses.iter().position(|l| *l == best).unwrap() + 1;
    assert!(
        out.contains(&format!("the best validation was that of epoch {epoch};")),
        "{out}"
    );
    let loss = |extra: &[&str]| {
        let lines = run_json(
            &files,
            &[&["eval", "run", "--device", "cpu"], extra].concat(),
        );
        number(&lines[0], "loss")
    };
    for (found, expected) in [(loss(&["--best"]), best), (loss(&[]), last)] {
        // The weights were saved as f32.
        assert!(
            (found - expected).abs() < 1e-4 * expected,
            "{found} {expected}"
        );
    }
    let image = files.png("image.png", 3);
    run(
        &files,
        &["predict", "run", &image, "--best", "--device", "cpu"],
    );
    std::fs::remove_file(files.path("run/best.safetensors")).unwrap();
    let args = ["eval", "run", "--best", "--device", "cpu"];
    let output = gpucnn(&files, &args).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("no best.safetensors"), "{errors}");
}

#[test]
fn bench_measures_compares_and_draws() {
    let files = Files::new();
    let model = files.model();
    let bench = [
        "bench",
        "--model",
        &model,
        "--batch-size",
        "4",
        "--repeats",
        "1",
    ];
    let lines = run_json(&files, &bench);
    assert_eq!(lines[0]["event"], "ceilings");
    for field in ["f32_gflops", "readback_us"] {
        assert!(number(&lines[0], field) > 0.0, "{field}");
    }
    let kernels = events(&lines, "kernel");
    assert_eq!(kernels.len(), lines.len() - 1);
    let ops: Vec<_> = kernels.iter().map(|k| k["op"].as_str().unwrap()).collect();
    for op in ["conv2d", "matmul", "conv2d_weight_grad", "optimizer"] {
        assert!(ops.contains(&op), "no {op} in {ops:?}");
    }
    for kernel in &kernels {
        assert_eq!(
            (&kernel["model"], number(kernel, "batch")),
            (&json!("tiny"), 4.0)
        );
        for field in ["us", "bytes", "gb_per_s", "percent"] {
            assert!(number(kernel, field) > 0.0, "{field}: {kernel}");
        }
        let dispatches = kernel["dispatches"].as_array().unwrap();
        let sum: f64 = dispatches.iter().map(|d| number(d, "us")).sum();
        assert!((sum - number(kernel, "us")).abs() < 1e-3, "{kernel}");
    }

    // In f16 less is moved, and an earlier run in f32 is none of it.
    let jsonl = |name, lines: &[Value]| {
        files.write(
            name,
            lines.iter().map(|l| format!("{l}\n")).collect::<String>(),
        )
    };
    let plain = jsonl("plain.jsonl", &lines);
    let more = ["--precision", "f16", "--op", "matmul", "--compare", &plain];
    let halved = run_json(&files, &[&bench[..], &more].concat());
    let whole: Vec<_> = kernels.iter().filter(|k| k["op"] == "matmul").collect();
    let halved = events(&halved, "kernel");
    assert_eq!(halved.len(), whole.len());
    for (halved, whole) in halved.iter().zip(whole) {
        assert_eq!(
            (&whole["precision"], &halved["precision"]),
            (&json!("f32"), &json!("f16"))
        );
        assert!(number(halved, "bytes") < number(whole, "bytes"), "{halved}");
        assert!(halved["us_before"].is_null(), "{halved}");
    }

    // The same again, against itself at twice the speed, in tables.
    let mut earlier = lines.clone();
    for line in &mut earlier[1..] {
        line["us"] = json!(2.0 * number(line, "us"));
    }
    let earlier = jsonl("earlier.jsonl", &earlier);
    let more = [
        "--op",
        "matmul",
        "--compare",
        &earlier,
        "--roofline",
        "roof.svg",
    ];
    let [out, err] = run(&files, &[&bench[..], &more].concat());
    assert!(out.contains("f32 multiply-adds") && out.contains("tiny, batch 4"));
    assert!(out.contains("Faster") && !out.contains("conv1"), "{out}");
    assert!(err.contains("roofline: roof.svg"), "{err}");
    let picture = std::fs::read_to_string(files.path("roof.svg")).unwrap();
    let matmuls = ops.iter().filter(|op| **op == "matmul").count();
    assert_eq!(picture.matches("<circle").count(), matmuls);
}

#[test]
fn bench_draws_speed_against_batch_and_width() {
    let files = Files::new();
    let model = files.model();
    let places = ["--batch-size", "2", "--most", "2"];
    let scaling = ["bench", "--model", &model, "--scaling", "scaling.svg"];
    let lines = run_json(&files, &[&scaling[..], &places].concat());
    let points = events(&lines, "scaling");
    assert_eq!(points.len(), lines.len());
    let places: Vec<_> = points
        .iter()
        .map(|p| (number(p, "batch"), number(p, "width")))
        .collect();
    let widths = [0.25, 0.5, 2.0, 4.0].map(|width| (2.0, width));
    assert_eq!(places[..2], [(1.0, 1.0), (2.0, 1.0)]);
    assert_eq!(places[2..], widths);
    assert!(points.iter().all(|p| number(p, "images_per_s") > 0.0));
    let wider = |pair: &[&Value]| number(pair[0], "parameters") < number(pair[1], "parameters");
    assert!(points[2..].windows(2).all(wider));
    let picture = std::fs::read_to_string(files.path("scaling.svg")).unwrap();
    // Two batches on the left, five widths on the right.
    assert_eq!(picture.matches("<circle").count(), 7);
}

#[test]
fn export_writes_the_model_in_other_formats() {
    let files = Files::new();
    train(&files, &["--epochs", "1"]);
    let [out, _] = run(&files, &["export", "run", "--format", "onnx"]);
    assert_eq!(out, "the model is in run/model.onnx\n");
    let bytes = std::fs::read(files.path("run/model.onnx")).unwrap();
    let model = ModelProto::decode(bytes.as_slice()).unwrap();
    assert_eq!(model.graph.unwrap().output[0].name, "logits");
    let args = ["export", "run", "--format", "safetensors", "--out", "w.st"];
    run(&files, &args);
    let weights = |name: &str| safetensors::load(&files.path(name)).unwrap();
    assert_eq!(weights("w.st"), weights("run/weights.safetensors"));
    let refused = gpucnn(&files, &[&args[..], &["--softmax"]].concat()).output();
    let refused = refused.unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("--softmax"), "{message}");
}

#[test]
fn normalisation_and_augmentation_stay_with_the_run() {
    let files = Files::new();
    let flags = ["--normalize", "measure", "--augment", "flip,crop=1"];
    train(&files, &[&flags[..], &["--epochs", "1"]].concat());
    let config = std::fs::read_to_string(files.path("run/config.toml")).unwrap();
    let config: Config = toml::from_str(&config).unwrap();
    assert_eq!(config.augment.as_deref(), Some("flip,crop=1"));
    let data = Request::new(&files.text("data")).load().unwrap();
    let [measured] = data.train.moments(1).unwrap()[..] else {
        panic!("the images are grey");
    };
    let model = Model::load(&files.text("run/model.toml")).unwrap();
    let found = (&model.normalization().mean, &model.normalization().std);
    let expected = (vec![measured.mean as f32], vec![measured.std as f32]);
    assert_eq!(found, (&expected.0, &expected.1));

    let [out, _] = train(&files, &[&flags[..], &["--preview", "sheet.png"]].concat());
    assert!(out.starts_with("sheet.png: "), "{out}");
    let sheet = image::open(files.path("sheet.png")).unwrap().into_luma8();
    // Eight rows of ten images, 8 times as large, and 2 pixels between them.
    assert_eq!(sheet.dimensions(), (10 * 66 + 2, 8 * 66 + 2));
    let tile =
        |column: u32| image::imageops::crop_imm(&sheet, 2 + 66 * column, 2, 64, 64).to_image();
    // Image 0 as it is stored: its first row is bright, its second is not.
    assert_eq!(
        [tile(0).get_pixel(9, 0), tile(0).get_pixel(63, 8)].map(|p| p.0[0]),
        [255, 10]
    );
    assert!((1..10).any(|column| tile(column) != tile(0)));
}

#[test]
#[cfg(feature = "dashboard")]
fn without_a_terminal_a_dashboard_is_plain_lines() {
    let files = Files::new();
    let [out, err] = train(&files, &["--dashboard"]);
    assert!(
        err.contains("no dashboard: standard output is no terminal"),
        "{err}"
    );
    assert_eq!(
        out.matches("epoch ").count(),
        3,
        "two epochs and the best: {out}"
    );
    assert!(
        !out.contains('\u{1b}') && !err.contains('\u{1b}'),
        "{out}{err}"
    );
    let mut json = gpucnn(&files, &["train", "--dashboard", "--json"]);
    assert_eq!(json.output().unwrap().status.code(), Some(2));
}
