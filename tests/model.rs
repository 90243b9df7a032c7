//! Models from TOML: every kind of layer builds, gives the documented shape and survives
//! a round trip; what does not fit is refused with the layer and the shapes named.

use gpucnn::graph::Graph;
use gpucnn::model::{Layer, Mode, Model};
use gpucnn::ops::dropout::Dropout;
use gpucnn::ops::{Builder, Op};
use gpucnn::tensor::TensorType;
use std::collections::{BTreeSet, HashMap};

/// A model over images [4, 8, 6]: the given layers, then logits of two classes.
fn model(layers: &str) -> gpucnn::Result<Model> {
    let head = "name = \"test\"\ninput = [4, 8, 6]\n";
    let tail = "[[layer]]\ntype = \"flatten\"\nname = \"join\"\n\
                [[layer]]\ntype = \"dense\"\nname = \"logits\"\nunits = 2\n";
    Model::from_toml(&format!("{head}{layers}\n{tail}"), "test.toml")
}

/// The error that refuses the layers.
fn refusal(layers: &str) -> String {
    model(layers).expect_err("must be refused").to_string()
}

/// A layer after one named `before`, attributes as TOML, and its output for one image.
const LAYERS: [(&str, &[usize]); 31] = [
    ("type = 'conv2d'\nfilters = 5\nkernel = 3", &[5, 6, 4]),
    (
        "type = 'conv2d'\nfilters = 6\nkernel = [3, 2]\nstride = 2\npadding = 'same'\ngroups = 2",
        &[6, 4, 3],
    ),
    (
        "type = 'conv2d'\nfilters = 1\nkernel = 3\ndilation = 2\npadding = [1, 0, 0, 2]\n\
         bias = false\nactivation = 'relu'",
        &[1, 5, 4],
    ),
    (
        "type = 'depthwise_conv2d'\nkernel = 3\npadding = 1",
        &[4, 8, 6],
    ),
    ("type = 'max_pool2d'\nsize = 2", &[4, 4, 3]),
    (
        "type = 'max_pool2d'\nsize = 3\nstride = 1\npadding = 'same'",
        &[4, 8, 6],
    ),
    ("type = 'avg_pool2d'\nsize = [4, 3]", &[4, 2, 2]),
    ("type = 'global_avg_pool'", &[4]),
    ("type = 'flatten'", &[192]),
    ("type = 'reshape'\nshape = [2, 96]", &[2, 96]),
    ("type = 'activation'\nfunction = 'linear'", &[4, 8, 6]),
    ("type = 'activation'\nfunction = 'elu(0.5)'", &[4, 8, 6]),
    ("type = 'batch_norm2d'", &[4, 8, 6]),
    ("type = 'layer_norm2d'", &[4, 8, 6]),
    ("type = 'layer_scale'", &[4, 8, 6]),
    ("type = 'drop_path'\nrate = 0.25", &[4, 8, 6]),
    ("type = 'global_max_pool'", &[4]),
    ("type = 'batch_norm2d'\nmomentum = 0.9", &[4, 8, 6]),
    ("type = 'dropout'\nrate = 0.25", &[4, 8, 6]),
    ("type = 'zero_pad2d'", &[4, 10, 8]),
    ("type = 'zero_pad2d'\npadding = 2", &[4, 12, 10]),
    ("type = 'zero_pad2d'\npadding = [1, 0, 3, 2]", &[4, 9, 11]),
    ("type = 'concat'", &[4, 8, 6]),
    (
        "type = 'concat'\ninputs = ['before', 'input', 'before']",
        &[12, 8, 6],
    ),
    ("type = 'add'\ninputs = ['before', 'input']", &[4, 8, 6]),
    ("type = 'mul'\ninputs = ['before', 'input']", &[4, 8, 6]),
    (
        "type = 'flatten'\n[[layer]]\ntype = 'dense'\nunits = 7",
        &[7],
    ),
    (
        "type = 'flatten'\n[[layer]]\ntype = 'dense'\nunits = 7\nbias = false",
        &[7],
    ),
    (
        "type = 'flatten'\n[[layer]]\ntype = 'dropout'\nrate = 0",
        &[192],
    ),
    (
        "type = 'flatten'\n[[layer]]\ntype = 'activation'\nfunction = 'gelu'",
        &[192],
    ),
    (
        "type = 'flatten'\nname = 'flat'\n[[layer]]\ntype = 'concat'\ninputs = ['flat', 'flat']",
        &[384],
    ),
];

#[test]
fn every_kind_of_layer_builds_with_the_documented_shape() {
    let mut seen = BTreeSet::new();
    for (layer, output) in LAYERS {
        let before = "[[layer]]\ntype = 'activation'\nname = 'before'\nfunction = 'relu'";
        let model = model(&format!("{before}\n[[layer]]\n{layer}"));
        let model = model.unwrap_or_else(|e| panic!("{layer}: {e}"));
        let summary = model.summary().unwrap();
        let tested = &summary.layers[summary.layers.len() - 3];
        assert_eq!(tested.output, output, "{layer}");
        seen.extend(summary.layers.iter().map(|l| l.type_name));

        let text = model.to_toml().unwrap();
        let back = Model::from_toml(&text, "back.toml").unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(back, model, "{text}");
    }
    let known: BTreeSet<_> = Layer::TYPES.iter().copied().collect();
    assert_eq!(seen, known, "every type has a case above");
}

/// Layers that do not fit, and what the refusal must say.
const REFUSED: [(&str, &[&str]); 14] = [
    (
        "type = 'conv2d'\nname = 'big'\nfilters = 2\nkernel = 9",
        &["big", "9 by 9", "8 by 6"],
    ),
    (
        "type = 'conv2d'\nname = 'thirds'\nfilters = 3\nkernel = 1\ngroups = 3",
        &["thirds", "4 input channels", "3 groups"],
    ),
    (
        "type = 'max_pool2d'\nname = 'wide'\nsize = [1, 7]",
        &["wide", "1 by 7", "8 by 6"],
    ),
    (
        "type = 'avg_pool2d'\nname = 'none'\nsize = 0",
        &["none", "[0, 0]", "at least 1"],
    ),
    (
        "type = 'dense'\nname = 'early'\nunits = 2",
        &["early", "[N, features]", "[1, 4, 8, 6]"],
    ),
    (
        "type = 'reshape'\nname = 'odd'\nshape = [5, 5]",
        &["odd", "[1, 4, 8, 6]", "[1, 5, 5]"],
    ),
    (
        "type = 'flatten'\n[[layer]]\ntype = 'batch_norm2d'\nname = 'flat'",
        &["flat", "N, C, H, W", "[1, 192]"],
    ),
    (
        "type = 'flatten'\n[[layer]]\ntype = 'zero_pad2d'\nname = 'flat'",
        &["flat", "N, C, H, W", "[1, 192]"],
    ),
    (
        "type = 'zero_pad2d'\nname = 'three'\npadding = [1, 2, 3]",
        &["layer 1", "zero_pad2d", "[top, bottom, left, right]"],
    ),
    (
        "type = 'dropout'\nname = 'all'\nrate = 1.0",
        &["all", "rate", "below 1", "found 1"],
    ),
    (
        "type = 'batch_norm2d'\nname = 'stiff'\nmomentum = 1.5",
        &["stiff", "momentum", "found 1.5"],
    ),
    (
        "type = 'max_pool2d'\nsize = 2\n[[layer]]\ntype = 'concat'\nname = 'both'\n\
         inputs = ['input', 'pool1']",
        &["both", "[1, 4, 8, 6]", "[1, 4, 4, 3]"],
    ),
    (
        "type = 'concat'\nname = 'nothing'\ninputs = []",
        &["nothing", "at least 1 input"],
    ),
    (
        "type = 'dropout'\nname = 'two'\nrate = 0.5\ninputs = ['input', 'input']",
        &["two", "expected 1 input, found 2"],
    ),
];

#[test]
fn what_does_not_fit_is_refused_with_the_layer_and_the_shapes_named() {
    for (layer, parts) in REFUSED {
        let error = refusal(&format!("[[layer]]\n{layer}"));
        for part in parts {
            assert!(error.contains(part), "{layer}\n{error}\nlacks {part:?}");
        }
    }
}

/// The dropout ops of a model as lowered in a mode.
fn dropouts(model: &Model, mode: Mode) -> Vec<Dropout> {
    let mut graph = Graph::new();
    let [c, h, w] = model.input();
    let images = graph.state("images", TensorType::f32([2, c, h, w]));
    let state = |graph: &mut Graph, name: &str, shape: &gpucnn::tensor::Shape| {
        let value = graph.state(name, TensorType::f32(shape.clone()));
        (name.to_owned(), value)
    };
    let parameters = model.parameters().iter();
    let parameters: HashMap<_, _> = parameters
        .map(|p| state(&mut graph, &p.name, &p.shape))
        .collect();
    let logits = model.lower(&mut graph, &parameters, images, mode).unwrap();
    assert_eq!(*graph.ty(logits), TensorType::f32([2, 2]));
    let ops = graph.nodes().iter().map(|n| &*n.op);
    ops.filter_map(<dyn Op>::downcast).copied().collect()
}

#[test]
fn dropout_works_in_training_only_and_each_layer_has_its_own_mask() {
    let model = model(
        "[[layer]]\ntype = 'dropout'\nrate = 0.5\n\
         [[layer]]\ntype = 'dropout'\nrate = 0.25\n\
         [[layer]]\ntype = 'dropout'\nrate = 0.0",
    )
    .unwrap();
    assert_eq!(dropouts(&model, Mode::Inference), []);
    let found = dropouts(&model, Mode::Training);
    let rates: Vec<_> = found.iter().map(|d| d.rate).collect();
    assert_eq!(rates, [0.5, 0.25]);
    assert_ne!(found[0].key, found[1].key);
}
