//! `gpucnn train --find-lr`.

mod files;

use files::{Files, exists, gpucnn, json_lines};

#[test]
fn the_finder_suggests_a_rate_plots_it_and_leaves_no_run() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 40, 20));
    let args = [
        "train",
        &model,
        "--data",
        &data,
        "--optimizer",
        "sgd",
        "--find-lr",
    ];
    let run = |extra: &[&str]| {
        let output = gpucnn(&files, &[&args, extra].concat()).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{err}");
        output.stdout
    };
    let lines = json_lines(&run(&["plot.svg", "--json"]));
    let found = &lines[0];
    let points = found["points"].as_array().unwrap();
    let rates: Vec<f64> = points
        .iter()
        .map(|p| p["learning_rate"].as_f64().unwrap())
        .collect();
    assert!((rates[0] - 1e-7).abs() < 1e-20, "{}", rates[0]);
    // 100 updates span eight decades in 99 equal factors.
    let factor = 1e8_f64.powf(1.0 / 99.0);
    let equal = |w: &[f64]| (w[1] / w[0] / factor - 1.0).abs() < 1e-9;
    assert!(rates.windows(2).all(equal));
    assert_eq!(points.len() == 100, !found["diverged"].as_bool().unwrap());
    // The images tell their classes plainly, and SGD learns them with rates of about 0.1.
    let valley = found["valley"].as_f64().unwrap();
    assert!((1e-4..3.0).contains(&valley), "{valley}");
    let plot = std::fs::read_to_string(files.path("plot.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.contains("valley"));
    assert!(!exists(&files.path("runs")));
    // The same sweep again, with accumulated batches, for people.
    let text = String::from_utf8(run(&["--accumulate", "2"])).unwrap();
    assert!(text.contains("suggestion: --learning-rate"), "{text}");
    assert!(exists(&files.path("find-lr.svg")));
}
