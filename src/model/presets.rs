//! The models that ship with the library.

use super::{
    Activation, Add, BatchNorm2d, Conv2d, Dense, DepthwiseConv2d, DropPath, Dropout, Flatten,
    GlobalAvgPool, GlobalMaxPool, KernelInit, Layer, LayerNorm2d, LayerScale, MaxPool2d, Model,
    ModelBuilder, Node, Pad, TrainingDefaults,
};
use crate::error::Result;
use crate::ops::Pads;
use crate::ops::activation::Function;
use crate::ops::batch::Normalization;

/// A preset: its name and how it is made.
type Preset = (&'static str, fn() -> Result<Model>);

const PRESETS: &[Preset] = &[
    ("mnist-cnn", || {
        Model::from_toml(include_str!("presets/mnist-cnn.toml"), "mnist-cnn")
    }),
    ("cifar10-cnn", || {
        Model::from_toml(include_str!("presets/cifar10-cnn.toml"), "cifar10-cnn")
    }),
    ("lenet5", lenet5),
    ("vgg11-bn", vgg11_bn),
    ("resnet20", resnet20),
    ("resnet18", || resnet18("resnet18", Stem::Small, 10)),
    ("resnet18-imagenet", || {
        resnet18("resnet18-imagenet", Stem::Large, 1000)
    }),
    ("wide-resnet-16-4", wide_resnet_16_4),
    ("mobilenet-v2", mobilenet_v2),
    ("vgg11-bn-imagenet", || {
        vgg_imagenet("vgg11-bn-imagenet", VGG11)
    }),
    ("vgg16-bn-imagenet", || {
        vgg_imagenet("vgg16-bn-imagenet", VGG16)
    }),
    ("convnext-atto", convnext_atto),
    ("speedrun", speedrun),
];

/// The names of the presets.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The preset of a name.
pub(super) fn by_name(name: &str) -> Option<Result<Model>> {
    let preset = PRESETS.iter().find(|(known, _)| *known == name);
    preset.map(|(_, make)| make())
}

/// LeNet-5 (LeCun et al. 1998) in today's dress: ReLU, max pooling, logits.
fn lenet5() -> Result<Model> {
    Model::builder("lenet5", [1, 28, 28])
        .add(
            Conv2d::new(6, 5)
                .padding(Pad::Same)
                .activation(Function::Relu),
        )
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(16, 5).activation(Function::Relu))
        .add(MaxPool2d::new(2))
        .add(Flatten)
        .add(Dense::new(120).activation(Function::Relu))
        .add(Dense::new(84).activation(Function::Relu))
        .add(Dense::new(10))
        .build()
}

/// The beginning of the CIFAR models, with the training that is common for them: Nesterov
/// momentum 0.9, batches of 128, weight decay 5e-4 but not on biases and normalisation, a
/// cosine from 0.1 to 0 over 200 epochs of which 5 are warm-up; images are flipped and cropped
/// out of a border of 4 pixels (He et al. 2015, section 4.2).
fn cifar(name: &str, input: [usize; 3]) -> ModelBuilder {
    Model::builder(name, input)
        .normalization(Normalization {
            mean: vec![0.4914, 0.4822, 0.4465],
            std: vec![0.2470, 0.2435, 0.2616],
            ..Normalization::default()
        })
        .training(TrainingDefaults {
            optimizer: "nesterov".into(),
            learning_rate: Some(0.1),
            weight_decay: Some(5e-4),
            batch_size: 128,
            epochs: 200,
            schedule: "cosine".into(),
            warmup: 5.0,
            augment: Some("flip,crop=4".into()),
            ..TrainingDefaults::default()
        })
}

/// The beginning of the ImageNet models, with torchvision's normalisation and training: 90
/// epochs, the rate a tenth after each 30, weight decay 1e-4 on all parameters; half its rate
/// for half its batch.
fn imagenet(name: &str) -> ModelBuilder {
    Model::builder(name, [3, 224, 224])
        .normalization(Normalization {
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
            ..Normalization::default()
        })
        .training(TrainingDefaults {
            optimizer: "momentum".into(),
            learning_rate: Some(0.05),
            weight_decay: Some(1e-4),
            decay_all: true,
            batch_size: 128,
            epochs: 90,
            schedule: "step".into(),
            ..TrainingDefaults::default()
        })
}

/// Filters of VGG's convolutions (Simonyan and Zisserman 2014, table 1); 0 for a pool.
const VGG11: &[usize] = &[64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0];
const VGG16: &[usize] = &[
    64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0,
];

/// The convolutions of torchvision's `vgg11_bn` under its names, one dense layer behind them.
fn vgg11_bn() -> Result<Model> {
    let cifar = cifar("vgg11-bn", [3, 32, 32]);
    // Half the rate and half the epochs of the residual nets.
    let training = TrainingDefaults {
        learning_rate: Some(0.05),
        epochs: 100,
        ..cifar.training.clone()
    };
    let mut net = Net(cifar.training(training));
    let x = net.vgg_features(VGG11);
    let x = net.layer("flatten", Flatten, &[&x]);
    net.layer("classifier", Dense::new(10), &[&x]);
    net.0.build()
}

/// torchvision's VGG with batch normalisation for ImageNet, under its names. It trains as
/// torchvision's other nets do: 90 epochs, the rate a tenth after each 30, weight decay 1e-4;
/// with a tenth of their rate, as torchvision's VGG.
fn vgg_imagenet(name: &str, plan: &[usize]) -> Result<Model> {
    let imagenet = imagenet(name);
    let training = TrainingDefaults {
        learning_rate: Some(0.005),
        ..imagenet.training.clone()
    };
    let mut net = Net(imagenet.training(training));
    let mut x = net.vgg_features(plan);
    x = net.layer("flatten", Flatten, &[&x]);
    for (place, units) in [(0, 4096), (3, 4096)] {
        let name = |i: usize| format!("classifier.{}", place + i);
        x = net.layer(&name(0), Dense::new(units), &[&x]);
        x = net.layer(&name(1), Activation::new(Function::Relu), &[&x]);
        x = net.layer(&name(2), Dropout::new(0.5), &[&x]);
    }
    net.layer("classifier.6", Dense::new(1000), &[&x]);
    net.0.build()
}

/// ResNet-20 for CIFAR (He et al. 2015, section 4.2), with 1 x 1 convolutions where the
/// shape changes. Weight decay 1e-4 and 164 epochs, its 64,000 iterations, are the paper's.
fn resnet20() -> Result<Model> {
    let cifar = cifar("resnet20", [3, 32, 32]);
    let training = TrainingDefaults {
        weight_decay: Some(1e-4),
        epochs: 164,
        ..cifar.training.clone()
    };
    let mut net = Net(cifar.training(training));
    let x = net.0.input();
    let mut x = net.conv_norm_relu(["conv1", "bn1"], conv(16, 3, 1), &x);
    for (stage, filters) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..3 {
            let name = format!("layer{}.{block}", stage + 1);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = net.basic_block(&name, filters, stride, &x);
        }
    }
    net.head("fc", 10, &x);
    net.0.build()
}

/// How a ResNet begins.
#[derive(Clone, Copy, PartialEq)]
enum Stem {
    /// A 3 x 3 convolution, for images of 32 x 32.
    Small,
    /// A 7 x 7 convolution and a pool, each halving, for images of 224 x 224.
    Large,
}

/// ResNet-18 (He et al. 2015), with torchvision's names.
fn resnet18(name: &str, stem: Stem, classes: usize) -> Result<Model> {
    let mut net = Net(match stem {
        Stem::Small => cifar(name, [3, 32, 32]),
        Stem::Large => imagenet(name),
    });
    let first = match stem {
        Stem::Small => conv(64, 3, 1),
        Stem::Large => conv(64, 7, 2),
    };
    let input = net.0.input();
    let mut x = net.conv_norm_relu(["conv1", "bn1"], first, &input);
    if stem == Stem::Large {
        let pool = MaxPool2d::new(3).stride(2).padding(around(1));
        x = net.layer("maxpool", pool, &[&x]);
    }
    for (stage, filters) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            let name = format!("layer{}.{block}", stage + 1);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = net.basic_block(&name, filters, stride, &x);
        }
    }
    net.head("fc", classes, &x);
    net.0.build()
}

/// WRN-16-4 (Zagoruyko and Komodakis 2016): pre-activation blocks, four times as wide. Rate,
/// Nesterov momentum, weight decay, batch and epochs are the paper's.
fn wide_resnet_16_4() -> Result<Model> {
    let cifar = cifar("wide-resnet-16-4", [3, 32, 32]);
    // The paper's border mirrors the image.
    let training = TrainingDefaults {
        augment: Some("flip,crop=4,border=reflect".into()),
        ..cifar.training.clone()
    };
    let mut net = Net(cifar.training(training));
    let input = net.0.input();
    let mut x = net.layer("conv1", conv(16, 3, 1), &[&input]);
    for (stage, filters) in [64, 128, 256].into_iter().enumerate() {
        for block in 0..2 {
            let name = |part: &str| format!("block{}.{block}.{part}", stage + 1);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let y = net.norm_relu(&name("bn1"), &x);
            let shortcut = match block {
                0 => net.layer(&name("shortcut"), conv(filters, 1, stride), &[&y]),
                _ => x,
            };
            let y = net.layer(&name("conv1"), conv(filters, 3, stride), &[&y]);
            let y = net.norm_relu(&name("bn2"), &y);
            let y = net.layer(&name("conv2"), conv(filters, 3, 1), &[&y]);
            x = net.layer(&name("add"), Add::default(), &[&y, &shortcut]);
        }
    }
    let x = net.norm_relu("bn1", &x);
    net.head("fc", 10, &x);
    net.0.build()
}

/// MobileNetV2 (Sandler et al. 2018) for 32 x 32 images: the strides of the stem and the
/// second stage are 1.
fn mobilenet_v2() -> Result<Model> {
    // Expansion, output channels, blocks and stride of each stage, from table 2.
    const STAGES: [[usize; 4]; 7] = [
        [1, 16, 1, 1],
        [6, 24, 2, 1],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ];
    const RELU: Function = Function::Relu;
    let mut net = Net(cifar("mobilenet-v2", [3, 32, 32]));
    let input = net.0.input();
    let mut channels = 32;
    let mut x = net.conv_norm_relu(["conv1", "bn1"], conv(channels, 3, 1), &input);
    for (stage, [expansion, filters, blocks, first_stride]) in STAGES.into_iter().enumerate() {
        for block in 0..blocks {
            let name = |part: &str| format!("stage{}.{block}.{part}", stage + 1);
            let stride = if block == 0 { first_stride } else { 1 };
            let mut y = x.clone();
            if expansion > 1 {
                let expand = conv(channels * expansion, 1, 1);
                y = net.conv_norm_relu([&name("expand"), &name("bn1")], expand, &y);
            }
            let depthwise = DepthwiseConv2d {
                stride: stride.into(),
                padding: around(1),
                bias: false,
                ..DepthwiseConv2d::new(3)
            };
            y = net.layer(&name("depthwise"), depthwise, &[&y]);
            y = net.layer(&name("bn2"), norm(), &[&y]);
            y = net.layer(&name("relu"), Activation::new(RELU), &[&y]);
            y = net.layer(&name("project"), conv(filters, 1, 1), &[&y]);
            y = net.layer(&name("bn3"), norm(), &[&y]);
            x = match stride == 1 && channels == filters {
                true => net.layer(&name("add"), Add::default(), &[&y, &x]),
                false => y,
            };
            channels = filters;
        }
    }
    let x = net.conv_norm_relu(["conv2", "bn2"], conv(1280, 1, 1), &x);
    let x = net.layer("gap", GlobalAvgPool {}, &[&x]);
    let x = net.layer("dropout", Dropout::new(0.2), &[&x]);
    net.layer("classifier", Dense::new(10), &[&x]);
    net.0.build()
}

/// ConvNeXt (Liu et al. 2022) in timm's smallest size, for 32 x 32 images: the stem halves them
/// where it quarters larger ones. Trained as the paper does, but for the number of epochs and
/// the rate, which is its 4e-3 for 4096 images by the root of the batch's share.
fn convnext_atto() -> Result<Model> {
    const WIDTHS: [usize; 4] = [40, 80, 160, 320];
    const DEPTHS: [usize; 4] = [2, 2, 6, 2];
    const DROP_PATH: f64 = 0.1;
    let cifar = cifar("convnext-atto", [3, 32, 32]);
    let training = TrainingDefaults {
        optimizer: "adamw".into(),
        learning_rate: Some(7e-4),
        weight_decay: Some(0.05),
        label_smoothing: 0.1,
        warmup: 10.0,
        augment: Some("flip, crop, mixup=0.8, cutmix=1".into()),
        ..cifar.training.clone()
    };
    let mut net = Net(cifar.training(training));
    let blocks: usize = DEPTHS.iter().sum();
    let mut x = net.0.input();
    let mut place = 0;
    for (stage, (width, depth)) in WIDTHS.into_iter().zip(DEPTHS).enumerate() {
        let halve = Conv2d::new(width, 2).stride(2);
        if stage == 0 {
            x = net.layer("stem.0", halve, &[&x]);
            x = net.layer("stem.1", layer_norm(), &[&x]);
        } else {
            let of = |part: usize| format!("stages.{stage}.downsample.{part}");
            x = net.layer(&of(0), layer_norm(), &[&x]);
            x = net.layer(&of(1), halve, &[&x]);
        }
        for block in 0..depth {
            let rate = DROP_PATH * place as f64 / (blocks - 1) as f64;
            x = net.convnext_block(&format!("stages.{stage}.blocks.{block}"), width, rate, &x);
            place += 1;
        }
    }
    let x = net.layer("gap", GlobalAvgPool {}, &[&x]);
    let x = net.layer("head.norm", layer_norm(), &[&x]);
    net.layer("head.fc", Dense::new(10), &[&x]);
    net.0.build()
}

/// CIFAR-10 in the least time: the shape of airbench94's net (Jordan 2024, "94% on CIFAR-10 in
/// 3.29 Seconds on a Single GPU"), three pairs of convolutions of which each first is pooled,
/// GELU, a fast-moving batch normalisation, label smoothing, few epochs, and its start: a stem
/// that is whitened and frozen, the identity in the other convolutions, logits of zero. Its
/// steps, too, but for smaller batches and a cosine: matrices turn by Muon at one norm, and
/// factors of the rate bring all else to about airbench's rates, except scales of
/// normalisation, which hardly move and which airbench has not.
fn speedrun() -> Result<Model> {
    const WIDTHS: [usize; 3] = [64, 256, 256];
    let cifar = cifar("speedrun", [3, 32, 32]);
    let training = TrainingDefaults {
        optimizer: "muon-normalized".into(),
        learning_rate: Some(0.012),
        weight_decay: Some(0.0),
        layer_rates: vec!["*.norm?.bias=2200".into(), "head=0.43".into()],
        label_smoothing: 0.2,
        batch_size: 500,
        epochs: 8,
        warmup: 0.0,
        augment: Some("flip, crop=2, border=reflect".into()),
        ..cifar.training.clone()
    };
    let mut net = Net(cifar.training(training));
    let gelu = || Activation::new(Function::Gelu);
    let norm = || BatchNorm2d {
        momentum: 0.6,
        epsilon: 1e-5,
    };
    let input = net.0.input();
    let stem = Conv2d::new(24, 2).bias(false).init(KernelInit::Whiten);
    let mut x = net.layer("stem", stem.activation(Function::Gelu), &[&input]);
    net.0.freeze_last();
    let conv = |width| conv(width, 3, 1).init(KernelInit::Dirac);
    for (group, width) in WIDTHS.into_iter().enumerate() {
        let of = |part: &str| format!("group{}.{part}", group + 1);
        x = net.layer(&of("conv1"), conv(width), &[&x]);
        x = net.layer(&of("pool"), MaxPool2d::new(2), &[&x]);
        x = net.layer(&of("norm1"), norm(), &[&x]);
        x = net.layer(&of("gelu1"), gelu(), &[&x]);
        x = net.layer(&of("conv2"), conv(width), &[&x]);
        x = net.layer(&of("norm2"), norm(), &[&x]);
        x = net.layer(&of("gelu2"), gelu(), &[&x]);
    }
    let x = net.layer("pool", GlobalMaxPool {}, &[&x]);
    let head = Dense::new(10).bias(false).init(KernelInit::Zeros);
    net.layer("head", head, &[&x]);
    net.0.build()
}

fn layer_norm() -> LayerNorm2d {
    LayerNorm2d { epsilon: 1e-6 }
}

fn around(pad: usize) -> Pad {
    Pad::Explicit(Pads::uniform(pad))
}

/// A convolution whose padding is half its kernel, without a bias: batch normalisation
/// follows.
fn conv(filters: usize, kernel: usize, stride: usize) -> Conv2d {
    Conv2d::new(filters, kernel)
        .stride(stride)
        .padding(around(kernel / 2))
        .bias(false)
}

/// Batch normalisation with PyTorch's settings, which the published weights have.
fn norm() -> BatchNorm2d {
    BatchNorm2d {
        momentum: 0.9,
        epsilon: 1e-5,
    }
}

/// A builder with the parts these models share.
struct Net(ModelBuilder);

impl Net {
    fn layer(&mut self, name: &str, layer: impl Into<Layer>, inputs: &[&Node]) -> Node {
        let inputs: Vec<Node> = inputs.iter().copied().cloned().collect();
        self.0 = self.0.clone().named(name);
        self.0.layer(layer, &inputs)
    }

    fn norm_relu(&mut self, name: &str, x: &Node) -> Node {
        let y = self.layer(name, norm(), &[x]);
        let relu = Activation::new(Function::Relu);
        self.layer(&format!("{name}.relu"), relu, &[&y])
    }

    fn conv_norm_relu(&mut self, names: [&str; 2], conv: Conv2d, x: &Node) -> Node {
        let y = self.layer(names[0], conv, &[x]);
        self.norm_relu(names[1], &y)
    }

    /// Two 3 x 3 convolutions and a shortcut, which a 1 x 1 convolution fits where the
    /// shape changes.
    fn basic_block(&mut self, name: &str, filters: usize, stride: usize, x: &Node) -> Node {
        let of = |part: &str| format!("{name}.{part}");
        let first = conv(filters, 3, stride);
        let y = self.conv_norm_relu([&of("conv1"), &of("bn1")], first, x);
        let y = self.layer(&of("conv2"), conv(filters, 3, 1), &[&y]);
        let y = self.layer(&of("bn2"), norm(), &[&y]);
        let shortcut = match stride {
            1 => x.clone(),
            _ => {
                let fit = conv(filters, 1, stride);
                let s = self.layer(&of("downsample.0"), fit, &[x]);
                self.layer(&of("downsample.1"), norm(), &[&s])
            }
        };
        let activation = Function::Relu;
        self.layer(&of("add"), Add { activation }, &[&y, &shortcut])
    }

    /// A depthwise 7 x 7 convolution, a norm, two 1 x 1 convolutions with four times the
    /// channels between them, a small factor and a shortcut.
    fn convnext_block(&mut self, name: &str, width: usize, drop_path: f64, x: &Node) -> Node {
        let of = |part: &str| format!("{name}.{part}");
        let depthwise = DepthwiseConv2d {
            padding: around(3),
            ..DepthwiseConv2d::new(7)
        };
        let y = self.layer(&of("conv_dw"), depthwise, &[x]);
        let y = self.layer(&of("norm"), layer_norm(), &[&y]);
        let expand = Conv2d::new(4 * width, 1).activation(Function::Gelu);
        let y = self.layer(&of("mlp.fc1"), expand, &[&y]);
        let y = self.layer(&of("mlp.fc2"), Conv2d::new(width, 1), &[&y]);
        let y = self.layer(&of("scale"), LayerScale::default(), &[&y]);
        let y = self.layer(&of("drop_path"), DropPath::new(drop_path), &[&y]);
        self.layer(&of("add"), Add::default(), &[&y, x])
    }

    /// VGG's convolutions, each with normalisation and ReLU, numbered as in torchvision.
    fn vgg_features(&mut self, plan: &[usize]) -> Node {
        let mut x = self.0.input();
        let mut place = 0;
        for &filters in plan {
            let mut next = |layer: Layer, x: &Node| {
                place += 1;
                self.layer(&format!("features.{}", place - 1), layer, &[x])
            };
            if filters == 0 {
                x = next(MaxPool2d::new(2).into(), &x);
                continue;
            }
            x = next(conv(filters, 3, 1).bias(true).into(), &x);
            x = next(norm().into(), &x);
            x = next(Activation::new(Function::Relu).into(), &x);
        }
        x
    }

    fn head(&mut self, name: &str, classes: usize, x: &Node) {
        let x = self.layer("gap", GlobalAvgPool {}, &[x]);
        self.layer(name, Dense::new(classes), &[&x]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_parameters_their_papers_and_torchvision_count() {
        let expected = [
            // Keras's summaries of the two classics.
            ("mnist-cnn", 225_034),
            ("cifar10-cnn", 122_570),
            // 61,706, as every account of LeNet-5 with 5 x 5 padding has it.
            ("lenet5", 61_706),
            // torchvision's vgg11_bn: 9,225,984 in the features; 512 * 10 + 10 behind.
            ("vgg11-bn", 9_225_984 + 5_130),
            // 0.27 M in the paper, whose shortcuts have no weights; two 1 x 1 convolutions
            // and their normalisation are 16 * 32 + 64 + 32 * 64 + 128.
            ("resnet20", 269_722 + 2_752),
            // torchvision's resnet18: 11,689,512 for 1000 classes.
            ("resnet18-imagenet", 11_689_512),
            // The same with 10 classes and a 3 x 3 stem.
            (
                "resnet18",
                11_689_512 - 513 * 1000 + 513 * 10 - 64 * 3 * (49 - 9),
            ),
            // 2.7 M in the paper.
            ("wide-resnet-16-4", 2_748_890),
            // torchvision's mobilenet_v2: 3,504,872 for 1000 classes.
            ("mobilenet-v2", 3_504_872 - 1281 * 1000 + 1281 * 10),
            // `num_params` in torchvision's vgg.py.
            ("vgg11-bn-imagenet", 132_868_840),
            ("vgg16-bn-imagenet", 138_365_992),
            // 3.7 M in timm, whose stem is 4 x 4 and whose classes are 1000.
            (
                "convnext-atto",
                3_695_520 - 321 * 1000 + 321 * 10 - 3 * 40 * (16 - 4),
            ),
            // airbench94's 1.97 M, less the stem's biases and with scales of normalisation.
            ("speedrun", 1_972_480),
        ];
        assert_eq!(names().collect::<Vec<_>>().len(), expected.len());
        for (name, parameters) in expected {
            let model = by_name(name).unwrap().unwrap();
            assert_eq!(model.parameter_count(), parameters, "{name}");
            assert_eq!(model.name(), name);
            let text = model.to_toml().unwrap();
            assert_eq!(Model::from_toml(&text, name).unwrap(), model, "{name}");
        }
    }
}
