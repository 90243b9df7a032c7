//! Ctrl-C, SIGTERM and SIGHUP during `gpucnn train`, as real signals.
#![cfg(unix)]

mod files;

use files::{Files, exists, gpucnn, json_lines};
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A training on the reference path, which takes its time.
struct Training {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Training {
    /// Starts it in the folder, with further arguments.
    fn start(files: &Files, args: &[&str]) -> Self {
        let mut process = Command::new(assert_cmd::cargo::cargo_bin!("gpucnn"))
            .args(["train", "--device", "cpu", "--json", "--out", "run"])
            .args(args)
            .current_dir(files.path(""))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Reads events up to the first of a kind.
    fn wait_for(&mut self, event: &str) -> serde_json::Value {
        loop {
            let line = self.lines.next().expect("the event comes").unwrap();
            let found: serde_json::Value = serde_json::from_str(&line).unwrap();
            if found["event"] == event {
                return found;
            }
        }
    }

    fn interrupt(&self) {
        self.signal("INT");
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }
}

#[test]
fn ctrl_c_saves_a_run_that_can_be_evaluated() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 5000, 20));
    let args = [&model, "--data", &data, "--log-every", "1"];
    let mut training = Training::start(&files, &args);
    training.wait_for("step");
    training.interrupt();
    let epoch = training.wait_for("epoch");
    let end = training.wait_for("end");
    assert_eq!(end["stopped"], true);
    assert_eq!(training.process.wait().unwrap().code(), Some(130));

    let images = epoch["images"].as_u64().unwrap();
    assert!((8..5000).contains(&images), "{images}");
    assert!(epoch["val_loss"].is_null());
    let history = std::fs::read_to_string(files.path("run/history.csv")).unwrap();
    assert_eq!(history.lines().count(), 2, "{history}");
    assert!(history.contains(&format!("\n1,{images},")), "{history}");

    let args = ["eval", "run", "--device", "cpu", "--json"];
    let output = gpucnn(&files, &args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json_lines(&output.stdout)[0]["images"], 20);
}

#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    let files = Files::new();
    // A step of seconds.
    let args = ["mnist-cnn", "--batch-size", "256", "--limit", "512"];
    let mut training = Training::start(&files, &args);
    training.wait_for("start");
    // Signals that arrive before the process next runs are one to it: send until it ends.
    let ended = loop {
        training.interrupt();
        std::thread::sleep(Duration::from_millis(50));
        if let Some(status) = training.process.try_wait().unwrap() {
            break status;
        }
    };
    assert_eq!(ended.code(), Some(130));
    assert_eq!(training.lines.count(), 0, "it went on to the end");
    assert!(!exists(&files.path("run/weights.safetensors")));
}

/// Whether the test was started with SIGHUP ignored, which processes inherit.
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
    mask.is_some_and(|m| m & 1 == 1)
}

#[test]
fn sigterm_and_a_lost_terminal_save_the_run_too() {
    for (name, code) in [("TERM", 143), ("HUP", 129)] {
        if name == "HUP" && hangups_are_ignored() {
            eprintln!("SIGHUP is ignored here, as under nohup, and so by the program");
            continue;
        }
        let files = Files::new();
        let (model, data) = (files.model(), files.idx("data", 60_000, 20));
        let args = [&model, "--data", &data, "--log-every", "1"];
        let mut training = Training::start(&files, &args);
        training.wait_for("step");
        training.signal(name);
        assert_eq!(training.wait_for("end")["stopped"], true);
        assert_eq!(training.process.wait().unwrap().code(), Some(code));
        assert!(exists(&files.path("run/weights.safetensors")));
        assert!(exists(&files.path("run/checkpoints")));
    }
}

/// As `nohup gpucnn train` when the terminal is closed; and standard output is gone with it.
#[test]
fn a_training_under_nohup_outlives_the_terminal() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 400, 20));
    let mut process = Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$0\" \"$@\""])
        .arg(assert_cmd::cargo::cargo_bin!("gpucnn"))
        .args(["train", &model, "--data", &data, "--device", "cpu"])
        .args(["--out", "run", "--log-every", "1"])
        .current_dir(files.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    drop((lines, process.stderr.take()));
    let id = process.id().to_string();
    let sent = Command::new("kill").args(["-s", "HUP", &id]).status();
    assert!(sent.unwrap().success());
    assert_eq!(process.wait().unwrap().code(), Some(0));
    let history = std::fs::read_to_string(files.path("run/history.csv")).unwrap();
    assert_eq!(history.lines().count(), 3, "{history}");
}
