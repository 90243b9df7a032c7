"""Training speed of PyTorch for one preset and batch, as one JSON line.

Usage: python benches/peers/torch_steps.py MODE PRECISION mnist-cnn|cifar10-cnn|resnet18 BATCH SECONDS

MODE is eager, compile (torch.compile) or graphs (one CUDA graph a step); PRECISION is f32, tf32
or amp (bfloat16 autocast, which needs no gradient scaler and so fits into a graph). Without CUDA
there is only eager f32. Random images lie on the device before the clock starts; the first step,
which compiles or captures, is timed apart. Needs: pip install torch.
"""

import json
import sys
import time

import torch
from torch import nn

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
BATCHES = 8  # that take turns


def conv(inputs, outputs):
    return [nn.Conv2d(inputs, outputs, 3), nn.ReLU()]


def head(features, hidden):
    return [nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 10)]


def mnist_cnn():
    layers = [*conv(1, 32), nn.MaxPool2d(2), *conv(32, 64), nn.MaxPool2d(2), *head(1600, 128)]
    return (1, 28, 28), layers, torch.optim.Adam, {"lr": 0.001}


def cifar10_cnn():
    layers = [*conv(3, 32), nn.MaxPool2d(2), *conv(32, 64), nn.MaxPool2d(2), *conv(64, 64)]
    return (3, 32, 32), layers + head(1024, 64), torch.optim.RMSprop, {"lr": 0.001, "alpha": 0.9}


class Block(nn.Module):
    """Two convolutions and what leads past them, of ResNet-18 (He et al. 2015)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(
            *conv_norm(inputs, outputs, 3, stride), nn.ReLU(), *conv_norm(outputs, outputs, 3, 1))
        same = stride == 1 and inputs == outputs
        self.past = nn.Identity() if same else nn.Sequential(*conv_norm(inputs, outputs, 1, stride))

    def forward(self, x):
        return torch.relu(self.body(x) + self.past(x))


def conv_norm(inputs, outputs, kernel, stride):
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


def resnet18():
    layers, inputs = [*conv_norm(3, 64, 3, 1), nn.ReLU()], 64
    for outputs, stride in [(64, 1), (128, 2), (256, 2), (512, 2)]:
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
        inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    return (3, 32, 32), layers, torch.optim.SGD, options


MODELS = {"mnist-cnn": mnist_cnn, "cifar10-cnn": cifar10_cnn, "resnet18": resnet18}


def synchronize():
    if CUDA:
        torch.cuda.synchronize()


def captured(step, x, y):
    """`step` as a CUDA graph that reads x and y; its warm-up runs on a stream of its own."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(x, y)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(x, y)

    def replay(images, labels):
        x.copy_(images)
        y.copy_(labels)
        graph.replay()

    return replay


def main():
    mode, precision, name, batch, seconds = sys.argv[1:]
    batch, seconds = int(batch), float(seconds)
    if not CUDA and (mode, precision) != ("eager", "f32"):
        sys.exit("needs CUDA")
    started = time.perf_counter()
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    shape, layers, optimizer, options = MODELS[name]()
    net = nn.Sequential(*layers).to(DEVICE)
    if CUDA and optimizer is not torch.optim.SGD:
        # A graph holds no host-side step count; eager and compiled runs get the same optimizer.
        options = {**options, "capturable": True}
    optimizer = optimizer(net.parameters(), **options)
    criterion = nn.CrossEntropyLoss()
    model = torch.compile(net) if mode == "compile" else net

    def step(images, labels):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "amp"):
            loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()

    batches = [(torch.rand(batch, *shape, device=DEVICE), torch.randint(10, (batch,), device=DEVICE))
               for _ in range(BATCHES)]
    if mode == "graphs":
        step = captured(step, *(t.clone() for t in batches[0]))
    step(*batches[0])
    synchronize()
    first_step = time.perf_counter() - started
    for data in batches * 2:
        step(*data)
    synchronize()
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for data in batches:
            step(*data)
        synchronize()
        steps += BATCHES
    elapsed = time.perf_counter() - began
    print(json.dumps({
        "peer": f"PyTorch {torch.__version__}",
        "model": name,
        "batch": batch,
        "first_step_seconds": round(first_step, 2),
        "images_per_s": round(steps * batch / elapsed),
    }))


main()
