"""Makes the ONNX files of this folder, as PyTorch's and Keras's exporters write them.

    pip install torch onnxscript onnx onnxruntime
    python tests/onnx_import/make.py

Beside each NAME.onnx, NAME.input and NAME.output hold what it is given and what onnxruntime
computes from it, float32, little-endian. Written with torch 2.15 (both of its exporters),
onnx 1.19.1 and onnxruntime 1.23.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

HERE = Path(__file__).parent


class Classic(nn.Module):
    """Flattening by the shape, as tutorials have it: Shape, Gather, Concat and Reshape."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False)
        self.average = nn.AvgPool2d(2, stride=1, padding=1)
        self.drop = nn.Dropout(0.5)
        self.fc1 = nn.Linear(6 * 4 * 4, 5)
        self.fc2 = nn.Linear(5, 3)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.average(nn.functional.leaky_relu(self.conv2(x), 0.2))
        x = self.drop(x.view(x.size(0), -1))
        return torch.softmax(self.fc2(nn.functional.gelu(self.fc1(x))), dim=1)


class Mobile(nn.Module):
    """Squeeze-and-excitation, hard swish, a residual, a concatenation, adaptive pooling."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1), nn.Hardsigmoid()
        )
        self.project = nn.Conv2d(16, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.stem(x)
        y = nn.functional.relu6(self.depthwise(x))
        y = x + y * self.squeeze(y)
        y = torch.cat([y, nn.functional.silu(x)], dim=1)
        y = nn.functional.adaptive_avg_pool2d(self.project(y), 1)
        return self.head(torch.flatten(y, 1))


def settle(net):
    torch.manual_seed(1)
    for name, tensor in net.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 1.5)
        elif "running_mean" in name:
            tensor.uniform_(-0.2, 0.2)
    return net.eval()


def save(name, model, given):
    onnx.checker.check_model(model, full_check=True)
    path = HERE / f"{name}.onnx"
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {session.get_inputs()[0].name: given})
    given.astype("<f4").tofile(path.with_suffix(".input"))
    found.astype("<f4").tofile(path.with_suffix(".output"))
    print(name, path.stat().st_size, [n.op_type for n in model.graph.node])


def from_torch(name, net, shape, dynamo, opset):
    net = settle(net)
    path = HERE / f"{name}.onnx"
    options = {"dynamo": dynamo, "opset_version": opset, "input_names": ["x"], "output_names": ["y"]}
    if dynamo:
        options["external_data"] = False
        options["dynamic_shapes"] = {"x": {0: "batch"}}
    else:
        options["dynamic_axes"] = {"x": {0: "batch"}, "y": {0: "batch"}}
    torch.onnx.export(net, (torch.randn(2, *shape),), path, **options)
    model = onnx.load(path)
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    given = np.random.default_rng(2).uniform(0, 1, (2, *shape)).astype("float32")
    save(name, model, given)


def as_keras_writes_it():
    """What tf2onnx makes of Rescaling, Conv2D, BatchNormalization, MaxPooling2D, Flatten, Dense:
    NHWC outside, NCHW inside, a flattening of NHWC, products and sums for dense layers."""
    rng = np.random.default_rng(5)
    weight = lambda name, *dims: numpy_helper.from_array(rng.uniform(-0.5, 0.5, dims).astype("f4"), name)
    integers = lambda name, *values: numpy_helper.from_array(np.array(values, "i8"), name)
    constants = [
        numpy_helper.from_array(np.array(1 / 127.5, "f4"), "scale"),
        numpy_helper.from_array(np.array(-1.0, "f4"), "offset"),
        weight("conv2d/kernel", 4, 3, 3, 3),
        weight("conv2d/bias", 4),
        numpy_helper.from_array(np.abs(rng.uniform(0.5, 1.5, 4)).astype("f4"), "bn/gamma"),
        weight("bn/beta", 4),
        weight("bn/mean", 4),
        numpy_helper.from_array(rng.uniform(0.5, 1.5, 4).astype("f4"), "bn/variance"),
        integers("flat", -1, 5 * 6 * 4),
        weight("dense/kernel", 5 * 6 * 4, 7),
        weight("dense/bias", 7),
        weight("dense_1/kernel", 7, 3),
        weight("dense_1/bias", 3),
        numpy_helper.from_array(np.array(0.0, "f4"), "zero"),
        numpy_helper.from_array(np.array(6.0, "f4"), "six"),
    ]
    node = helper.make_node
    nodes = [
        node("Mul", ["image", "scale"], ["scaled"]),
        node("Add", ["scaled", "offset"], ["rescaled"]),
        node("Transpose", ["rescaled"], ["nchw"], perm=[0, 3, 1, 2]),
        node("Conv", ["nchw", "conv2d/kernel", "conv2d/bias"], ["c"], auto_pad="SAME_UPPER", strides=[1, 1]),
        node("BatchNormalization", ["c", "bn/gamma", "bn/beta", "bn/mean", "bn/variance"], ["b"], epsilon=1e-3),
        node("Clip", ["b", "zero", "six"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID"),
        node("Transpose", ["p"], ["nhwc"], perm=[0, 2, 3, 1]),
        node("Reshape", ["nhwc", "flat"], ["f"]),
        node("MatMul", ["f", "dense/kernel"], ["m"]),
        node("Add", ["m", "dense/bias"], ["d"]),
        node("Elu", ["d"], ["e"]),
        node("MatMul", ["e", "dense_1/kernel"], ["n"]),
        node("Add", ["n", "dense_1/bias"], ["logits"]),
    ]
    value = lambda name, *dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    graph = helper.make_graph(nodes, "keras", [value("image", "n", 10, 12, 3)], [value("logits", "n", 3)], constants)
    opset = [helper.make_opsetid("", 15)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="tf2onnx")
    given = rng.integers(0, 256, (2, 10, 12, 3)).astype("f4")
    save("keras", model, given)


def integers_of_floats():
    """Integers, and an extent, that follow from what the device computes; the test knows the results."""
    node = helper.make_node
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("ArgMax", ["r"], ["k"], axis=1, keepdims=0),
        node("Mul", ["k", "billions"], ["large"]),
        node("Greater", ["x", "zero"], ["positive"]),
        node("Cast", ["positive"], ["ones"], to=TensorProto.INT64),
        node("ReduceSum", ["ones"], ["count"], keepdims=0),
        node("Reshape", ["count", "list"], ["end"]),
        node("Reshape", ["r", "list"], ["flat"]),
        node("Slice", ["flat", "start", "end"], ["part"]),
        node("Add", ["part", "part"], ["twice"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(value), name)
        for name, value in [("billions", 3_000_000_000), ("zero", np.float32(0)), ("list", [-1]), ("start", [0])]
    ]
    value = helper.make_tensor_value_info
    outputs = [value("large", TensorProto.INT64, [2]), value("twice", TensorProto.FLOAT, ["count"])]
    graph = helper.make_graph(nodes, "integers", [value("x", TensorProto.FLOAT, [2, 3])], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, HERE / "integers.onnx")


if __name__ == "__main__":
    integers_of_floats()
    torch.manual_seed(1)
    from_torch("classic", Classic(), (1, 15, 13), False, 13)
    from_torch("mobile", Mobile(), (3, 12, 10), False, 17)
    from_torch("classic_dynamo", Classic(), (1, 15, 13), True, 18)
    from_torch("mobile_dynamo", Mobile(), (3, 12, 10), True, 20)
    as_keras_writes_it()
