//! `gpucnn plan`: what it says is what a device does.

mod files;

use files::{Files, gpucnn, json_lines};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn run(files: &Files, args: &[&str]) -> String {
    let output = gpucnn(files, args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

fn plan(files: &Files, args: &[&str]) -> Value {
    let args = [&["plan"], args, &["--json"]].concat();
    json_lines(run(files, &args).as_bytes()).remove(0)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value}"))
}

#[test]
fn the_dispatches_are_those_that_a_training_runs() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 16, 8));
    let train = ["train", &model, "--data", &data, "--epochs", "1"];
    let options = ["--out", "run", "--profile", "--json"];
    let events = json_lines(run(&files, &[&train[..], &options].concat()).as_bytes());
    let profile = events.iter().find(|e| e["event"] == "profile").unwrap();
    let mut measured = Vec::new();
    for node in list(&profile["nodes"]) {
        for dispatch in list(&node["dispatches"]) {
            let kernel = dispatch["kernel"].as_str().unwrap();
            measured.push((node["layer"].clone(), node["op"].clone(), kernel.to_owned()));
        }
    }
    // Of a model and of its run alike. The gate is the executor's own.
    assert_eq!(measured.iter().filter(|d| d.2.contains("gate")).count(), 1);
    measured.retain(|d| !d.2.contains("gate"));
    for source in [&model, "run"] {
        let plan = plan(&files, &[source]);
        let planned: Vec<_> = list(&plan["dispatches"])
            .iter()
            .map(|d| {
                let shader = d["shader"].as_str().unwrap();
                (d["layer"].clone(), d["op"].clone(), shader.to_owned())
            })
            .collect();
        assert_eq!(planned, measured, "{source}");
    }
}

#[test]
fn no_two_tenants_of_a_slot_meet_and_all_reads_fall_into_their_lives() {
    let files = Files::new();
    for args in [
        &["resnet20", "--device", "webgpu"][..],
        &[
            "lenet5",
            "--device",
            "webgpu",
            "--batch-size",
            "7",
            "--recompute",
        ],
        &["mobilenet-v2", "--device", "webgpu", "--inference"],
    ] {
        let plan = plan(&files, args);
        let nodes = list(&plan["nodes"]);
        let mut alive = vec![0; nodes.len()];
        let mut lives = BTreeMap::new();
        for slot in list(&plan["slots"]) {
            let mut end = None;
            for tenant in list(&slot["tenants"]) {
                let [first, last] = ["first_node", "last_node"].map(|k| number(&tenant[k]));
                assert!(end.is_none_or(|end| end < first), "{args:?}: {slot}");
                assert!(number(&tenant["bytes"]) <= number(&slot["bytes"]), "{slot}");
                end = Some(last);
                lives.insert(tenant["name"].as_str().unwrap(), first..=last);
                for bytes in &mut alive[first as usize..=last as usize] {
                    *bytes += number(&tenant["bytes"]);
                }
            }
        }
        assert_eq!(
            number(&plan["lower_bound_bytes"]),
            *alive.iter().max().unwrap(),
            "{args:?}"
        );
        // What renames a result has no life of its own.
        for (i, node) in nodes.iter().enumerate() {
            for input in list(&node["inputs"]) {
                if let Some(life) = lives.get(input.as_str().unwrap()) {
                    assert!(life.contains(&(i as u64)), "{args:?}: %{i} reads {input}");
                }
            }
        }
        let states: BTreeSet<_> = list(&plan["states"])
            .iter()
            .map(|s| s["name"].as_str().unwrap())
            .collect();
        for dispatch in list(&plan["dispatches"]) {
            for binding in list(&dispatch["bindings"]) {
                let place = binding["place"].as_str().unwrap();
                let known = match place.split_once(' ') {
                    Some(("slot", index)) => {
                        index.parse::<usize>().unwrap() < list(&plan["slots"]).len()
                    }
                    Some(("state", name)) => states.contains(name),
                    _ => place == "step",
                };
                assert!(known, "{args:?}: {binding}");
            }
        }
    }
}

#[test]
fn text_and_picture_show_the_fused_graph() {
    let files = Files::new();
    let args = ["plan", "lenet5", "--device", "webgpu", "--svg", "plan.svg"];
    let text = run(&files, &args);
    for part in [
        "lenet5: a training step of 32 images",
        "conv2d + max_pool2d + activation",
        "conv1.weight, conv1.bias",
        "gradients/fc3.weight",
        "activate relu",
        "*%",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let svg = std::fs::read_to_string(files.path("plan.svg")).unwrap();
    let json = plan(&files, &args[1..4]);
    let slots = list(&json["slots"]).iter();
    let tenants: usize = slots.map(|slot| list(&slot["tenants"]).len()).sum();
    // A bar for each tenant, and one of what is alive for each node.
    let bars = svg.matches("<title>").count() - 1;
    assert_eq!(bars, tenants + list(&json["nodes"]).len());
    assert!(svg.contains("conv2d + max_pool2d + activation") && !svg.contains("NaN"));
    let halves = plan(&files, &[&args[1..4], &["--precision", "f16"]].concat());
    assert!(number(&halves["slot_bytes"]) < number(&json["slot_bytes"]));
    assert!(halves.to_string().contains("f16[32, 6, 14, 14]"));
    let adam = text.contains("optimizer.v");
    let sgd = run(
        &files,
        &["plan", "lenet5", "--device", "webgpu", "--optimizer", "sgd"],
    );
    assert!(adam && !sgd.contains("optimizer.v"));
}

#[test]
fn what_cannot_be_planned_is_refused() {
    let files = Files::new();
    for (args, expected) in [
        (
            &["lenet5", "--device", "cpu"][..],
            "which has no dispatches",
        ),
        (
            &["lenet5", "--device", "webgpu", "--batch-size", "0"],
            "at least 1",
        ),
        (
            &["vgg16-bn-imagenet", "--device", "webgpu"],
            "max_storage_buffer_binding_size",
        ),
        (&["lenet", "--device", "webgpu"], "did you mean \"lenet5\"?"),
    ] {
        let args = [&["plan"], args].concat();
        let output = gpucnn(&files, &args).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?}");
        assert!(err.contains(expected), "{args:?}: {err}");
    }
}
