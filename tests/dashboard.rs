//! `train --dashboard` in a terminal with a shell: how it comes and goes.
#![cfg(all(unix, feature = "dashboard"))]

mod files;

use files::Files;
use gpucnn::model::Model;
use gpucnn::report::{Controls, Dashboard};
use gpucnn::train::{Config, Event, Observer, RunFolder};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A terminal in which a shell runs.
struct Terminal(PathBuf);

impl Terminal {
    fn open(files: &Files) -> Self {
        let terminal = Self(files.path("socket"));
        let folder = files.text("");
        let shell = "env PS1='ready> ' bash --norc --noprofile -i";
        let size = ["-x", "100", "-y", "30"];
        let new = ["-f", "/dev/null", "new-session", "-d", "-c", &folder];
        terminal.tmux(&[&new[..], &size, &[shell]].concat());
        terminal.wait_for("ready>");
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        let output = tmux.arg("-S").arg(&self.0).args(args).output();
        let output = output.expect("tmux is installed");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Clears the shell's screen, so that what comes is new, and gives it a line.
    fn enter(&self, line: &str) {
        self.tmux(&["send-keys", &format!("clear; {line}"), "Enter"]);
    }

    fn wait_for(&self, text: &str) -> String {
        let begin = Instant::now();
        loop {
            let seen = self.tmux(&["capture-pane", "-p"]);
            if seen.contains(text) {
                return seen;
            }
            let late = begin.elapsed() > Duration::from_secs(60);
            assert!(!late, "no {text:?} on the screen:\n{seen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the terminal is the dashboard's, with the other screen and no cursor, or the
    /// shell's.
    fn wait_until_taken(&self, taken: bool) {
        let wanted = if taken { "1 0" } else { "0 1" };
        let begin = Instant::now();
        loop {
            let state = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
            if state.trim() == wanted {
                return;
            }
            let late = begin.elapsed() > Duration::from_secs(60);
            assert!(!late, "{state} instead of {wanted}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut tmux = Command::new("tmux");
        let _ = tmux.arg("-S").arg(&self.0).arg("kill-server").output();
    }
}

/// What the dashboard says while it is there.
const DASHBOARD: &str = "q stops and saves";

#[test]
#[ignore = "needs tmux; .ci/run runs it"]
fn a_shell_suspends_it_and_brings_it_back() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 400, 20));
    let terminal = Terminal::open(&files);
    let binary = assert_cmd::cargo::cargo_bin!("gpucnn").display();
    terminal.enter(&format!(
        "(echo $BASHPID > id; exec {binary} train {model} --data {data} --device cpu \
         --epochs 100000 --out run --dashboard)"
    ));
    terminal.wait_for(DASHBOARD);
    terminal.wait_until_taken(true);

    terminal.press("C-z");
    terminal.wait_for("Stopped");
    terminal.wait_until_taken(false);
    terminal.enter("fg");
    terminal.wait_for(DASHBOARD);
    terminal.wait_until_taken(true);

    // By a signal; then it goes on in the background, where the terminal is the shell's.
    let id = std::fs::read_to_string(files.path("id")).unwrap();
    let sent = Command::new("kill")
        .args(["-s", "TSTP", id.trim()])
        .status();
    assert!(sent.unwrap().success());
    terminal.wait_for("Stopped");
    let epochs = || {
        let history = std::fs::read_to_string(files.path("run/history.csv"));
        history.map_or(0, |text| text.lines().count())
    };
    let before = epochs();
    terminal.enter("bg");
    let begin = Instant::now();
    while epochs() < before + 2 {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "it does not go on"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    terminal.wait_until_taken(false);
    terminal.enter("fg");
    terminal.wait_for(DASHBOARD);
    terminal.wait_until_taken(true);

    // The lines of a training without a dashboard follow its end.
    terminal.press("q");
    terminal.wait_for("stopped");
    terminal.wait_until_taken(false);
    terminal.tmux(&["send-keys", "echo code $?", "Enter"]);
    terminal.wait_for("code 130");
}

/// Names the folder in which a training is to panic, for the test below.
const PANIC_IN: &str = "GPUCNN_TEST_PANIC_IN";

#[test]
#[ignore = "does nothing by itself; the next one runs it in a terminal"]
fn a_training_that_panics() {
    let Some(folder) = std::env::var_os(PANIC_IN) else {
        return;
    };
    let folder = Path::new(&folder);
    let model = Model::load("lenet5").unwrap();
    let config = Config::new(&model).unwrap();
    let run = RunFolder::create(Some(&folder.join("run")), &model, &config, &[]).unwrap();
    let controls = Controls {
        stop: Arc::default(),
        signalled: Arc::default(),
        end: Arc::new(|| {}),
    };
    let mut dashboard = Dashboard::new(model.name(), &config, &run, controls);
    let start = Event::Start {
        device: "none".into(),
        parameters: 1,
        images: [1, 0],
        streamed: [false; 2],
        memory: [0; 2],
    };
    dashboard.event(&start).unwrap();
    while !folder.join("panic").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the training fell over");
}

#[test]
#[ignore = "needs tmux; .ci/run runs it"]
fn a_panic_gives_the_terminal_back_and_is_read_there() {
    let files = Files::new();
    let terminal = Terminal::open(&files);
    let (folder, itself) = (files.text(""), std::env::current_exe().unwrap());
    terminal.enter(&format!(
        "{PANIC_IN}={folder} {} --ignored --exact a_training_that_panics --nocapture",
        itself.display()
    ));
    terminal.wait_for(DASHBOARD);
    terminal.wait_until_taken(true);
    files.write("panic", "");
    terminal.wait_for("the training fell over");
    terminal.wait_until_taken(false);
    terminal.wait_for("test result: FAILED");
    // The lines of a terminal in raw mode would begin where the last ones ended.
    terminal.enter("stty -a");
    let modes = terminal.wait_for("opost");
    assert!(!modes.contains("-opost"), "{modes}");
}
