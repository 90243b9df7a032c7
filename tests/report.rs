//! `report.html`: what it holds, that it needs nothing else, and that a browser takes it
//! without a complaint.

mod files;

use files::{Files, gpucnn, json_lines};
use std::path::Path;
use std::process::Command;

/// Trains the tiny model on made-up images, into the folder `out`.
fn train(files: &Files, out: &str, extra: &[&str]) {
    let (model, data) = (files.model(), files.idx("data", 40, 20));
    let args = [
        "train", &model, "--data", &data, "--device", "cpu", "--out", out,
    ];
    run(files, &[&args, extra].concat());
}

fn run(files: &Files, args: &[&str]) -> String {
    let output = gpucnn(files, args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The true class, the predicted one and the numbers in the cells of the confusion matrix.
fn cells(page: &str) -> Vec<&str> {
    let (_, matrix) = page.split_once("class=\"matrix\"").unwrap();
    let (matrix, _) = matrix.split_once("</figure>").unwrap();
    let titles = matrix.split("<title>").skip(1);
    titles
        .map(|t| t.split("</title>").next().unwrap())
        .collect()
}

#[test]
fn training_on_a_device_leaves_the_time_of_each_layer() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 40, 20));
    let args = ["train", &model, "--data", &data, "--out", "a"];
    let shown = run(&files, &args);
    assert!(!shown.contains("GFLOP/s"), "nobody asked for a table");
    assert!(!files.path("a/trace.json").exists());
    let page = text(&files.path("a/report.html"));
    let (_, times) = page.split_once("Time per layer").unwrap();
    let (times, _) = times.split_once("</table>").unwrap();
    for part in ["A training step of", "conv1", "µs", "class=\"bar\""] {
        assert!(times.contains(part), "no {part:?}");
    }
}

#[test]
fn training_leaves_a_page_that_needs_no_network() {
    let files = Files::new();
    train(&files, "a", &[]);
    let page = text(&files.path("a/report.html"));
    for part in [
        "trained 2 epochs",
        "validation accuracy",
        "aria-label=\"Loss\"",
        "aria-label=\"Learning rate\"",
        "Worst mistakes",
        "4 of layer conv1",
        "max_pool2d",
        "<code>optimizer</code>",
        "CPU reference path",
        "Measured at the end of a training on a GPU",
        "All 20 test images, by the weights after epoch 2",
    ] {
        assert!(page.contains(part), "no {part:?}");
    }
    // The name of SVG is no address.
    let page_without_names = page.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http://", "https://", "src=\"/", "@import", "url("] {
        assert!(!page_without_names.contains(outside), "{outside}");
    }
    // Nobody waits for more of it.
    assert!(!page.contains("data-reload"));

    // The matrix is eval's.
    let eval = run(&files, &["eval", "a", "--device", "cpu", "--json"]);
    let confusion = &json_lines(eval.as_bytes())[0]["confusion"];
    let cells = cells(&page);
    assert_eq!(cells.len(), 100);
    for (i, cell) in cells.iter().enumerate() {
        let images = &confusion[i / 10][i % 10];
        let expected = format!("{}: {images} of 2 taken for {}", i / 10, i % 10);
        assert_eq!(*cell, expected);
    }
}

#[test]
fn a_page_made_anew_remembers_what_the_files_do_not() {
    let files = Files::new();
    train(&files, "a", &["--epochs", "3"]);
    let before = text(&files.path("a/report.html"));
    let said = run(&files, &["report", "a", "--device", "cpu"]);
    assert_eq!(
        said.trim(),
        Path::new("a").join("report.html").to_str().unwrap()
    );
    let after = text(&files.path("a/report.html"));
    assert_eq!(cells(&before), cells(&after));
    for part in [
        "between readbacks",
        "CPU reference path",
        "trained 3 epochs",
    ] {
        assert!(before.contains(part) && after.contains(part), "{part}");
    }
    run(
        &files,
        &[
            "report",
            "a",
            "--device",
            "cpu",
            "--best",
            "--out",
            "best.html",
        ],
    );
    assert!(text(&files.path("best.html")).contains("by the weights after epoch"));
}

#[test]
fn several_runs_lie_over_one_another() {
    let files = Files::new();
    train(&files, "a", &[]);
    train(
        &files,
        "b",
        &["--optimizer", "sgd", "--learning-rate", "0.25"],
    );
    assert_eq!(run(&files, &["report", "a", "b"]).trim(), "report.html");
    let page = text(&files.path("report.html"));
    let (_, differences) = page.split_once("Settings that differ").unwrap();
    for setting in ["optimizer", "learning_rate"] {
        assert!(differences.contains(&format!("<code>{setting}</code>")));
    }
    assert!(!differences.contains("<code>epochs</code>"));
    let (_, loss) = page.split_once("aria-label=\"Validation loss\"").unwrap();
    let (loss, _) = loss.split_once("</svg>").unwrap();
    assert_eq!(loss.matches("class=\"line").count(), 2);
}

#[test]
fn a_class_may_be_called_anything() {
    let files = Files::new();
    let name = "<script>alert(1)</script> & 'co'";
    for (i, class) in [name, "plain"].iter().cycle().take(12).enumerate() {
        // A slash cannot stand in a folder's name.
        let class = class.replace('/', "");
        files.png(&format!("images/train/{class}/{i}.png"), (i % 2) as u8);
        files.png(&format!("images/test/{class}/{i}.png"), (i % 2) as u8);
    }
    let model = files.model();
    let args = ["train", &model, "--data", "images", "--device", "cpu"];
    run(
        &files,
        &[&args[..], &["--epochs", "1", "--out", "a"]].concat(),
    );
    let page = text(&files.path("a/report.html"));
    assert!(!page.contains("<script>alert"));
    assert!(page.contains("&lt;script&gt;alert"));
}

/// Loads a page in Chromium; the document after its script ran, and what the console said.
fn browse(files: &Files, page: &str) -> [String; 2] {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--virtual-time-budget=1000",
        "--dump-dom",
    ];
    let address = format!("file://{}", files.text(page));
    let profile = format!("--user-data-dir={}", files.text("profile"));
    let output = names.iter().find_map(|name| {
        let mut command = Command::new(name);
        command
            .args(flags)
            .arg(&profile)
            .arg(&address)
            .output()
            .ok()
    });
    let output = output.expect("the test needs Chromium; see .ci/run");
    assert!(output.status.success());
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).unwrap());
    let said = err.lines().filter(|line| line.contains("CONSOLE"));
    [out, said.collect::<Vec<_>>().join("\n")]
}

#[test]
#[ignore = "needs Chromium; .ci/run runs it"]
fn a_browser_takes_the_pages_without_a_complaint() {
    let files = Files::new();
    train(&files, "a", &[]);
    train(&files, "b", &["--epochs", "1"]);
    run(&files, &["report", "a", "b"]);
    for (page, charts) in [("a/report.html", 4), ("report.html", 6)] {
        let [document, said] = browse(&files, page);
        assert_eq!(said, "", "{page}");
        // The script reached its end: a box for each chart, and the time in words.
        assert_eq!(
            document.matches("class=\"tip-box\"").count(),
            charts,
            "{page}"
        );
        let (_, time) = document.split_once("<time data-ms=\"").unwrap();
        let (_, words) = time.split_once('>').unwrap();
        assert!(!words.starts_with("</time>"), "{page}");
    }
    // A page that tries the network is held back, and that would be seen.
    let page = text(&files.path("report.html"));
    let spoiled = page.replace(
        "<footer>",
        "<img src=\"https://example.org/a.png\"><footer>",
    );
    files.write("spoiled.html", spoiled);
    let [_, said] = browse(&files, "spoiled.html");
    assert!(said.contains("Content Security Policy"), "{said}");
}
