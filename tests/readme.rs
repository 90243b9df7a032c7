//! README.md against the program: its layers, flags, events, files and model files are
//! those that exist, none is left out, and the defaults it states are the real ones.

mod files;

use files::{Files, gpucnn, json_lines};
use gpucnn::model::{Layer, Model};
use gpucnn::ops::optimizer::Optimizer;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const README: &str = include_str!("../README.md");

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let rest = README.split(fence.as_str()).skip(1);
    rest.map(|text| text.split("```").next().unwrap()).collect()
}

/// What stands between backticks in a text.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The text below a heading, up to the next one.
fn section(heading: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("\n{heading}\n")).unwrap();
    rest.split("\n#").next().unwrap()
}

fn output(command: &mut assert_cmd::Command) -> String {
    let output = command.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn its_model_files_load() {
    let models = blocks("toml");
    assert_eq!(models.len(), 2);
    for model in models {
        Model::from_toml(model, "README.md").unwrap();
    }
}

/// A model whose layer under test has the given attributes.
fn model(type_name: &str, attributes: &[&str]) -> Model {
    let relu = |name| format!("{{ type = 'activation', function = 'relu', name = '{name}' }}");
    let (flat, dense) = ("{ type = 'flatten' }", "{ type = 'dense', units = 2 }");
    let mut layers = vec![relu("a"), relu("b")];
    // A dense layer wants flat input; its output may be flattened once more.
    if type_name == "dense" {
        layers.push(flat.into());
    }
    let attributes = attributes.join(", ");
    let comma = if attributes.is_empty() { "" } else { ", " };
    let tested = format!("{{ type = '{type_name}', name = 'tested'{comma}{attributes} }}");
    layers.extend([tested, flat.into(), dense.into()]);
    let layers = layers.join(", ");
    let text = format!("name = 'test'\ninput = [4, 8, 8]\nlayer = [{layers}]");
    Model::from_toml(&text, &text).unwrap_or_else(|e| panic!("{e}"))
}

/// The attributes that the layer under test has when all are written out.
fn attributes(model: &Model) -> BTreeSet<String> {
    let file: toml::Table = toml::from_str(&model.to_toml().unwrap()).unwrap();
    let layers = file["layer"].as_array().unwrap();
    let is_tested = |l: &&toml::Value| l["name"].as_str() == Some("tested");
    let layer = layers.iter().find(is_tested).unwrap();
    let names = layer.as_table().unwrap().keys();
    let own = names.filter(|n| !["type", "name"].contains(&n.as_str()));
    own.cloned().collect()
}

#[test]
fn it_documents_every_layer_with_every_attribute_and_its_default() {
    let rows = section("### Layers")
        .lines()
        .filter(|l| l.starts_with("| `"));
    let mut documented = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        let type_name = code(cells[1])[0];
        let (required, defaults) = (code(cells[3]), code(cells[4]));
        // A stride that follows the size is no value of its own.
        let (sized, stated): (Vec<_>, Vec<_>) = defaults.iter().partition(|d| d.contains("size"));
        let short = model(type_name, &required);
        let long = model(
            type_name,
            &[required.as_slice(), stated.as_slice()].concat(),
        );
        assert_eq!(short, long, "{type_name}: the defaults");
        let name = |a: &&str| a.split(' ').next().unwrap().to_owned();
        let listed: BTreeSet<_> = required.iter().chain(&defaults).map(name).collect();
        let mut all = attributes(&long);
        all.extend(sized.iter().map(name));
        assert_eq!(listed, all, "{type_name}: the attributes");
        documented.push(type_name);
    }
    assert_eq!(documented, Layer::TYPES);
}

#[test]
fn it_lists_the_presets() {
    let rows = section("### Presets")
        .lines()
        .filter(|l| l.starts_with("| `"));
    let mut documented = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = code(cells[1])[0];
        let model = Model::load(name).unwrap();
        assert_eq!(cells[2], model.input().map(|n| n.to_string()).join(" x "));
        let parameters = cells[3].replace(',', "");
        assert_eq!(parameters, model.parameter_count().to_string(), "{name}");
        documented.push(name);
    }
    assert_eq!(documented, Model::presets().collect::<Vec<_>>());
}

#[test]
fn it_names_every_activation_and_optimizer() {
    let text = "name = 'x'\ninput = [1, 1, 1]\nlayer = [{ type = 'activation', function = '' }]";
    let error = Model::from_toml(text, "test").unwrap_err().to_string();
    let (_, activations) = error.trim_end().split_once("expected one of ").unwrap();
    let documented = code(section("### Layers"));
    for name in activations.split(", ") {
        assert!(documented.contains(&name), "activation {name}");
    }
    let documented = code(section("## Flags"));
    for name in Optimizer::NAMES {
        assert!(documented.contains(&name), "optimizer {name}");
    }
}

/// The `--flags` in a text.
fn flags(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c == '-' || c.is_ascii_lowercase()))
        .filter(|word| word.starts_with("--") && word.contains(char::is_alphabetic))
        .collect()
}

#[test]
fn its_flags_are_those_of_the_program() {
    let files = Files::new();
    let commands = [
        "train", "eval", "predict", "explain", "report", "export", "import", "run", "prune",
        "quantize", "summary", "plan", "devices",
    ];
    let commands = commands
        .into_iter()
        .chain(cfg!(feature = "serve").then_some("serve"));
    let help: Vec<String> = commands
        .map(|c| output(&mut gpucnn(&files, &[c, "--help"])))
        .collect();
    let existing: BTreeSet<&str> = help.iter().flat_map(|text| flags(text)).collect();
    assert_eq!(flags(section("## Flags")), existing);
    let train = section("## Flags")
        .lines()
        .filter(|l| l.starts_with("| `--"));
    let mut train: BTreeSet<&str> = train.flat_map(|row| flags(code(row)[0])).collect();
    train.extend(["--help", "--version"]);
    assert_eq!(train, flags(&help[0]));
}

/// The fields of events by kind, those of objects in them included: `top.class`.
fn fields<'a>(events: impl IntoIterator<Item = &'a Value>) -> BTreeMap<String, BTreeSet<String>> {
    fn collect(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(name, value)| {
                found.insert(format!("{path}{name}"));
                collect(value, &format!("{path}{name}."), found);
            }),
            Value::Array(items) => items.iter().for_each(|v| collect(v, path, found)),
            _ => {}
        }
    }
    let mut kinds = BTreeMap::<String, BTreeSet<String>>::new();
    for event in events {
        let kind = event["event"].as_str().unwrap().to_owned();
        collect(event, "", kinds.entry(kind).or_default());
    }
    kinds
}

#[test]
fn its_events_and_files_are_those_of_a_run() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 40, 20));
    let image = files.png("seven.png", 7);
    let options = [
        "--out",
        "run",
        "--log-every",
        "1",
        "--profile",
        "--tensorboard",
    ];
    let commands = [
        [&["train", &model, "--data", &data], &options[..]].concat(),
        vec!["eval", "run"],
        vec!["predict", "run", &image],
        vec!["explain", "run", &image],
        vec!["train", &model, "--data", &data, "--find-lr"],
        vec![
            "train",
            &model,
            "--data",
            &data,
            "--out",
            "again",
            "--init",
            "run/weights.safetensors",
            "--epochs",
            "1",
        ],
        // After the first step there is no finite one.
        vec![
            "train",
            &model,
            "--data",
            &data,
            "--optimizer",
            "sgd",
            "--learning-rate",
            "1e30",
            "--on-nan",
            "skip",
            "--epochs",
            "1",
        ],
    ];
    let mut events = Vec::new();
    for command in commands {
        let args = [&command[..], &["--json"]].concat();
        events.extend(json_lines(output(&mut gpucnn(&files, &args)).as_bytes()));
    }
    let documented = json_lines(blocks("json")[0].as_bytes());
    assert_eq!(fields(&documented), fields(&events));

    let rows = section("## The run folder").lines();
    let rows = rows.filter(|l| l.starts_with("| `"));
    let documented: BTreeSet<_> = rows.map(|row| code(row)[0].to_owned()).collect();
    let entries = std::fs::read_dir(files.path("run")).unwrap();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(documented, names.collect());
}
