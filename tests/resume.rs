//! Checkpoints and `gpucnn train --resume`, through the binary: whatever happens to a
//! run, it ends as the run that was left alone.

mod files;

use files::{Files, SIDE, gpucnn, json_lines};
use gpucnn::formats::safetensors;
use gpucnn::ops::Draw;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// All that a resumed run could lose: a batch norm's statistics, a dropout's stream, both
/// moments of Adam, and batches that do not divide the images.
const MODEL: &str = r#"
    name = "tiny"
    input = [1, SIDE, SIDE]
    [training]
    optimizer = "adam"
    learning_rate = 0.005
    batch_size = 8
    [[layer]]
    type = "conv2d"
    filters = 6
    kernel = 3
    activation = "relu"
    [[layer]]
    type = "batch_norm2d"
    [[layer]]
    type = "max_pool2d"
    size = 2
    [[layer]]
    type = "flatten"
    [[layer]]
    type = "dropout"
    rate = 0.3
    [[layer]]
    type = "dense"
    units = 10
"#;

/// A folder with the model and data, and the arguments of a training on them.
struct Work {
    files: Files,
    args: Vec<String>,
}

impl Work {
    fn new(train_images: usize, extra: &[&str]) -> Self {
        let files = Files::new();
        files.write("tiny.toml", MODEL.replace("SIDE", &SIDE.to_string()));
        files.idx("data", train_images, 20);
        let args = ["tiny.toml", "--data", "data"].iter().chain(extra);
        let args = args.map(|a| (*a).to_owned()).collect();
        Self { files, args }
    }

    /// The arguments that begin a run in the folder `out`.
    fn begin<'a>(&'a self, out: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
        let own = self.args.iter().map(String::as_str);
        let all = ["train"].into_iter().chain(own);
        all.chain(["--out", out])
            .chain(extra.iter().copied())
            .collect()
    }

    /// Runs the binary to its end and returns exit code, standard output and errors.
    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let output = gpucnn(&self.files, args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// Runs the binary, which must succeed; returns what it wrote to standard error.
    fn succeed(&self, args: &[&str]) -> String {
        let (code, _, errors) = self.run(args);
        assert_eq!(code, Some(0), "{args:?}: {errors}");
        errors
    }

    /// Runs the binary, which must refuse with a message that holds every one of `wanted`.
    fn refused(&self, args: &[&str], wanted: &[&str]) {
        let (code, _, errors) = self.run(args);
        assert_eq!(code, Some(2), "{args:?}: {errors}");
        for text in wanted {
            assert!(errors.contains(text), "no {text:?} in: {errors}");
        }
    }

    fn checkpoints(&self, run: &str) -> Vec<PathBuf> {
        let folder = self.files.path(run).join("checkpoints");
        let entries = folder.read_dir().into_iter().flatten();
        let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
        paths.sort();
        paths
    }

    /// Steps at the newest checkpoint.
    fn newest_step(&self, run: &str) -> usize {
        let paths = self.checkpoints(run);
        let names = paths.iter().filter_map(|p| p.file_stem()?.to_str());
        let steps = names.filter_map(|n| n.strip_prefix("step-")?.parse().ok());
        steps.max().unwrap_or(0)
    }

    /// The bits of all weights, by name.
    fn weights(&self, run: &str) -> Vec<(String, Vec<u32>)> {
        let path = self.files.path(run).join("weights.safetensors");
        let tensors = safetensors::load(&path).unwrap().into_iter();
        let bits = |data: &[f32]| data.iter().map(|x| x.to_bits()).collect();
        tensors.map(|(name, t)| (name, bits(t.data()))).collect()
    }

    /// The lines of the history without seconds and images a second, the last two columns.
    fn history(&self, run: &str) -> Vec<String> {
        let path = self.files.path(run).join("history.csv");
        let text = std::fs::read_to_string(path).unwrap();
        let timeless = |line: &str| line.rsplitn(3, ',').last().unwrap().to_owned();
        text.lines().map(timeless).collect()
    }

    fn assert_same(&self, run: &str, other: &str) {
        assert_eq!(self.history(run), self.history(other));
        assert_eq!(self.weights(run), self.weights(other));
    }

    fn spawn(&self, args: &[&str]) -> Process {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("gpucnn"))
            .args(args)
            .arg("--json")
            .current_dir(self.files.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines }
    }
}

/// The binary at work.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
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
}

/// Kills a run with SIGKILL at random moments, 5 or `GPUCNN_TEST_KILLS`, and goes on with
/// it each time.
#[test]
fn a_run_that_is_killed_again_and_again_ends_in_the_same_bits() {
    let kills = std::env::var("GPUCNN_TEST_KILLS").map_or(5, |n| n.parse().unwrap());
    const EPOCH_STEPS: usize = 251;
    // An epoch a kill: more than any kill lets pass.
    let work = Work::new(2001, &["--epochs", &kills.to_string(), "--log-every", "5"]);

    let begun = Instant::now();
    let mut process = work.spawn(&work.begin("alone", &["--checkpoint-minutes", "0"]));
    process.wait_for("start");
    let startup = begun.elapsed();
    process.wait_for("end");
    assert!(process.child.wait().unwrap().success());

    let mut draw = Draw::new(17);
    let (mut step, mut inside_an_epoch) = (0, 0);
    for kill in 0..kills {
        let args = match work.checkpoints("killed").is_empty() {
            // One in about every 10 ms.
            true => work.begin("killed", &["--checkpoint-minutes", "0.00017"]),
            false => vec!["train", "--resume", "killed"],
        };
        let mut process = work.spawn(&args);
        let pause = if draw.int(0, 4) == 0 {
            startup.mul_f64(draw.float(0.0, 1.0))
        } else {
            let target = step + draw.int(5, 150);
            while process.wait_for("step")["step"].as_u64().unwrap() < target as u64 {}
            Duration::from_millis(15).mul_f64(draw.float(0.0, 1.0))
        };
        std::thread::sleep(pause);
        let ended = process.child.try_wait().unwrap();
        assert!(ended.is_none(), "kill {kill} came too late");
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        step = work.newest_step("killed");
        eprintln!("kill {kill}: the newest checkpoint is of step {step}");
        inside_an_epoch += usize::from(step % EPOCH_STEPS != 0);
    }
    assert!(inside_an_epoch > 0);
    work.succeed(&["train", "--resume", "killed"]);
    work.assert_same("killed", "alone");
    // Nothing unfinished lies about.
    let names = std::fs::read_dir(work.files.path("killed")).unwrap();
    // Model, weights, best weights, history, settings, classes, the page and the checkpoints.
    assert_eq!(names.count(), 8);
    assert_eq!(work.checkpoints("killed").len(), 2);
}

#[test]
#[cfg(unix)]
fn a_run_that_ctrl_c_stopped_goes_on_from_there() {
    let work = Work::new(2001, &["--epochs", "2", "--log-every", "1"]);
    work.succeed(&work.begin("alone", &[]));
    let mut process = work.spawn(&work.begin("stopped", &[]));
    while process.wait_for("step")["step"] != 300 {}
    let id = process.child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
    process.wait_for("end");
    assert_eq!(process.child.wait().unwrap().code(), Some(130));

    let step = work.newest_step("stopped");
    assert!((300..502).contains(&step), "{step}");
    let history = work.history("stopped");
    let images = format!("2,{},", (step - 251) * 8);
    assert!(history[2].starts_with(&images), "{history:?}");
    work.succeed(&["eval", "stopped"]);

    let errors = work.succeed(&["train", "--resume", "stopped"]);
    assert!(errors.contains(&format!("after step {step}")), "{errors}");
    work.assert_same("stopped", "alone");
}

/// The reference path computes in float64, so f32 would not be enough; and the learning rate
/// of plateau depends on the epochs before.
#[test]
fn a_finished_run_trains_on() {
    let plateau = "--schedule plateau --schedule-every 1 --monitor accuracy --clip-norm 1";
    let flags: Vec<_> = plateau.split(' ').chain(["--device", "cpu"]).collect();
    let work = Work::new(60, &flags);
    work.succeed(&work.begin("alone", &["--epochs", "6"]));
    let history = work.history("alone");
    let rate = |line: &str| line.rsplit(',').next().unwrap().to_owned();
    // The rate falls in time for both halves.
    assert_ne!(rate(&history[1]), rate(&history[3]), "{history:?}");
    assert_ne!(rate(&history[3]), rate(&history[6]), "{history:?}");

    work.succeed(&work.begin("longer", &["--epochs", "1"]));
    work.refused(
        &["train", "--resume", "longer"],
        &["longer has trained all its 1 epochs", "--epochs"],
    );
    for epochs in ["3", "6"] {
        work.succeed(&["train", "--resume", "longer", "--epochs", epochs]);
    }
    work.assert_same("longer", "alone");
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let work = Work::new(60, &["--device", "cpu"]);
    work.succeed(&work.begin("alone", &["--epochs", "3"]));
    work.succeed(&work.begin("run", &["--epochs", "2"]));
    // The end of the first and the second epoch.
    let [older, newer]: [PathBuf; 2] = work.checkpoints("run").try_into().unwrap();
    let mut bytes = std::fs::read(&newer).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&newer, &bytes).unwrap();
    let go_on = ["train", "--resume", "run", "--epochs", "3"];
    let errors = work.succeed(&[&go_on[..], &["--keep-checkpoints", "1"]].concat());
    for text in [
        "step-00000016.safetensors: is damaged",
        "checksum",
        "step 8,",
    ] {
        assert!(errors.contains(text), "no {text:?} in: {errors}");
    }
    work.assert_same("run", "alone");

    // The one that is left is cut short, a second is of a version to come.
    let [last]: [PathBuf; 1] = work.checkpoints("run").try_into().unwrap();
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
    let text = b"gpucnn-checkpoint-";
    let at = bytes.windows(text.len()).position(|w| w == text).unwrap();
    let mut newer = bytes;
    newer[at + text.len()] = b'7';
    std::fs::write(&older, &newer).unwrap();
    let wanted = [
        "run: has no checkpoint that is whole",
        "step-00000024.safetensors: is damaged",
        "step-00000008.safetensors: has format \"gpucnn-checkpoint-7\"",
    ];
    let go_on = ["train", "--resume", "run", "--epochs", "4"];
    work.refused(&go_on, &wanted);
    std::fs::remove_dir_all(work.files.path("run/checkpoints")).unwrap();
    work.refused(&go_on, &["run: has no checkpoint to go on from"]);
}

#[test]
fn what_contradicts_the_run_is_refused_by_name() {
    let work = Work::new(60, &["--device", "cpu", "--epochs", "2"]);
    work.succeed(&work.begin("run", &[]));
    for flag in [
        "--data=x",
        "--seed=1",
        "--batch-size=4",
        "--optimizer=sgd",
        "--learning-rate=1",
        "--weight-decay=1",
        "--schedule=cosine",
        "--warmup=1",
        "--clip-norm=1",
        "--limit=9",
        "--val-split=0.5",
        "--init=x",
        "--no-shuffle",
        "--out=x",
    ] {
        let name = flag.split('=').next().unwrap();
        work.refused(&["train", "--resume", "run", flag], &["--resume", name]);
    }
    work.refused(&["train", "resnet20", "--resume", "run"], &["[MODEL]"]);
    work.refused(
        &["train", "--resume", "run", "--epochs", "1"],
        &["--epochs 1", "2 that run is set to"],
    );
    for (flag, wanted) in [
        ("--checkpoint-minutes=-1", "zero or a positive number"),
        ("--checkpoint-minutes=inf", "zero or a positive number"),
        ("--keep-checkpoints=0", "at least 1"),
    ] {
        let args = ["train", "--resume", "run", "--epochs", "3", flag];
        work.refused(&args, &[flag.split('=').next().unwrap(), wanted]);
    }
    work.refused(&["train", "--resume", "data"], &["data: is no run folder"]);

    work.files.idx("data", 50, 20);
    work.refused(
        &["train", "--resume", "run", "--epochs", "3"],
        &["data: has 50 training images, it had 60"],
    );
}

/// A disk that is full: no file of more than 8 KiB can be written. The weights have less,
/// a checkpoint with both of Adam's moments has more.
#[test]
#[cfg(unix)]
fn a_full_disk_stops_no_training_and_leaves_no_half_file() {
    let work = Work::new(60, &["--device", "cpu", "--epochs", "2", "--json"]);
    work.succeed(&work.begin("alone", &[]));
    let args = work.begin("full", &[]);
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""])
        .arg(assert_cmd::cargo::cargo_bin!("gpucnn"))
        .args(args)
        .current_dir(work.files.path(""))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = json_lines(&output.stdout);
    let warnings = lines.iter().filter(|l| l["event"] == "warning");
    let warnings: Vec<_> = warnings.map(|l| l["message"].as_str().unwrap()).collect();
    // The page has more, too. It is written at the start, after both epochs and at the end.
    let (pages, warnings): (Vec<_>, Vec<_>) = warnings
        .into_iter()
        .partition(|w| w.contains("report.html: cannot write"));
    assert_eq!(pages.len(), 4, "{pages:?}");
    // Before the first step and after both epochs.
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for warning in &warnings[..2] {
        assert!(warning.contains("safetensors: cannot write"), "{warning}");
        assert!(
            warning.contains("the next checkpoint tries again"),
            "{warning}"
        );
    }
    assert_eq!(work.checkpoints("full"), [] as [PathBuf; 0]);
    work.assert_same("full", "alone");
}

#[test]
fn a_disk_that_comes_back_is_written_to_again() {
    let work = Work::new(2000, &["--device", "cpu", "--epochs", "3"]);
    // A file where the folder should be.
    let place = work.files.path("run/checkpoints");
    work.files.write("run/checkpoints", "");
    let mut process = work.spawn(&work.begin("run", &[]));
    for _ in 0..2 {
        let warning = process.wait_for("warning");
        let text = warning["message"].as_str().unwrap();
        assert!(text.contains("run/checkpoints: cannot create"), "{text}");
    }
    std::fs::remove_file(place).unwrap();
    process.wait_for("end");
    assert!(process.child.wait().unwrap().success());
    assert_eq!(work.newest_step("run"), 750);
}

#[test]
fn the_last_weights_must_be_written() {
    let work = Work::new(60, &["--device", "cpu", "--epochs", "2"]);
    // No file can be renamed to a folder.
    work.files.write("run/history.csv/in-the-way", "");
    let (code, output, errors) = work.run(&work.begin("run", &[]));
    assert_eq!(code, Some(1), "{errors}");
    let both = [
        "warning: run/history.csv: cannot write",
        "error: run/history.csv",
    ];
    for text in both {
        assert!(errors.contains(text), "no {text:?} in: {errors}");
    }
    assert!(
        output.contains("epoch 1/2") && !output.contains("epoch 2/2"),
        "{output}"
    );

    // What could not be written then is, once it can be.
    std::fs::remove_dir_all(work.files.path("run/history.csv")).unwrap();
    work.succeed(&["train", "--resume", "run"]);
    work.succeed(&work.begin("alone", &[]));
    work.assert_same("run", "alone");
}

#[test]
fn all_that_follows_from_steps_and_seed_goes_on_too() {
    let work = Work::new(
        60,
        &[
            "--ema=0.9",
            "--accumulate=3",
            "--augment=crop=1,zoom=0.1,border=reflect,cutout=2",
            "--schedule=plateau",
            "--schedule-every=1",
            "--warmup=1.5",
            "--patience=2",
            "--learning-rate=0.3",
            "--epochs=12",
        ],
    );
    let often = ["--checkpoint-minutes=0.0000001", "--keep-checkpoints=1000"];
    work.succeed(&work.begin("alone", &often));
    let history = work.history("alone");
    // Neither the rate nor the number of epochs is what it began with.
    assert!(history.len() < 13, "{history:?}");
    // Eight batches an epoch: updates after the third, the sixth and the eighth.
    let inside_a_group = |step: usize| !matches!(step % 8, 0 | 3 | 6);
    let all = work.checkpoints("alone");
    let steps: Vec<usize> = all.iter().map(|path| step_of(path)).collect();
    let chosen: Vec<usize> = steps.into_iter().filter(|s| inside_a_group(*s)).collect();
    assert!(chosen.len() >= 3, "{chosen:?}");
    for (i, step) in chosen.iter().enumerate().step_by(chosen.len() / 3) {
        let run = format!("run-{i}");
        copy_folder(&work.files.path("alone"), &work.files.path(&run));
        for path in work.checkpoints(&run) {
            if step_of(&path) > *step {
                std::fs::remove_file(path).unwrap();
            }
        }
        // Where the images lie does not matter.
        let errors = work.succeed(&["train", "--resume", &run, "--data-budget=0"]);
        assert!(errors.contains(&format!("after step {step}")), "{errors}");
        assert!(errors.contains("are streamed"), "{errors}");
        work.assert_same(&run, "alone");
        let best = |run: &str| std::fs::read(work.files.path(&format!("{run}/best.safetensors")));
        assert_eq!(best(&run).unwrap(), best("alone").unwrap());
    }
}

fn step_of(checkpoint: &Path) -> usize {
    let name = checkpoint.file_stem().unwrap().to_str().unwrap();
    name.strip_prefix("step-").unwrap().parse().unwrap()
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}
