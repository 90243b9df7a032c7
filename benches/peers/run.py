#!/usr/bin/env python3
r"""gpucnn beside its peers, in one run on one machine: writes benches/PEERS.md.

Usage: python benches/peers/run.py [--rounds N] [--seconds F] [--model NAME ...] [--batch N ...]
           [--precision f32|f16] [--images N] [--peer NAME ...] [--out FILE.md]

Run it with the Python that has Keras and PyTorch. Peers that are not installed are named as
such; burn is built here, by cargo. Every combination of model and batch is measured in rounds,
gpucnn again after each peer, so that other work on the machine hits all alike; the median
round counts, and a ratio is the median of those with the gpucnn run just after. gpucnn trains
with its own command on images of its own (MNIST, and random CIFAR-10 files), shuffling and
metrics and the preset's augmentation included; a peer trains on random images in memory. The first
step counts from the start of the process, for Keras and PyTorch from after the imports; each run
begins with empty caches of shaders and tuning.

resnet18 is for large GPUs, and beside gpucnn only in PyTorch. With gpucnn's own mixed precision:

    python benches/peers/run.py --model resnet18 --batch 128 --precision f16 --out resnet18.md \
        --peer "PyTorch eager amp" "PyTorch compile amp" "PyTorch graphs amp"
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
GPUCNN = ROOT / "target/release/gpucnn"
CLASSICS = ["mnist-cnn", "cifar10-cnn"]
MODELS = [*CLASSICS, "resnet18"]
BATCHES = [32, 256]
HERE = pathlib.Path(__file__).resolve().parent
BURN = ROOT / "target/burn"
TORCH = [(mode, kind) for mode in ["eager", "compile", "graphs"] for kind in ["f32", "tf32", "amp"]]
# A command and how to install it for each peer: MODEL BATCH SECONDS, prints one JSON line.
PEERS = {
    "burn": ([BURN / "release/burn-steps"], "cargo build, see its error"),
    "Keras": ([sys.executable, HERE / "keras_steps.py"], "pip install tensorflow-cpu"),
} | {
    f"PyTorch {mode} {kind}": ([sys.executable, HERE / "torch_steps.py", mode, kind],
                               "pip install torch")
    for mode, kind in TORCH
}


def processor():
    """The processor's name where the system tells it, or its kind."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cifar_files(folder):
    """Random CIFAR-10 files: 12,800 training and 256 test records."""
    rng = random.Random(0)
    records = lambda n: b"".join(bytes([i % 10]) + rng.randbytes(3072) for i in range(n))
    (folder / "data_batch_1.bin").write_bytes(records(12_800))
    (folder / "test_batch.bin").write_bytes(records(256))


def gpucnn(model, batch, cifar, args):
    """The speed of the epochs after the first, which has compiled and warmed everything."""
    images = args.images or max(64 * batch, 6_400)
    with tempfile.TemporaryDirectory() as folder:
        command = [GPUCNN, "train", model, "--batch-size", str(batch), "--limit", str(images)]
        command += ["--epochs", "3", "--json", "--log-every", "1", "--out", f"{folder}/run"]
        command += ["--precision", args.precision]
        command += ["--data", str(cifar)] if model != "mnist-cnn" else []
        began = time.perf_counter()
        run = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"XDG_CACHE_HOME": folder},
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        first_step, speeds, device = None, [], None
        for line in run.stdout:
            event = json.loads(line)
            if event["event"] == "start":
                device = event["device"]
            elif event["event"] == "step" and first_step is None:
                first_step = time.perf_counter() - began
            elif event["event"] == "epoch":
                speeds.append(event["images_per_s"])
        if run.wait() != 0:
            sys.exit(f"gpucnn failed: {command}")
    return {"peer": "gpucnn", "device": device, "first_step_seconds": first_step,
            "images_per_s": statistics.median(speeds[1:])}


def peer(command, model, batch, seconds):
    """What a peer printed, or a line that says why it did not."""
    with tempfile.TemporaryDirectory() as cache:
        # burn keeps what it tuned below the working directory, drivers their shaders in the cache.
        try:
            run = subprocess.run([*command, model, str(batch), str(seconds)], cwd=cache,
                                 env=os.environ | {"XDG_CACHE_HOME": cache},
                                 capture_output=True, text=True)
        except FileNotFoundError:
            return "not built"
    if run.returncode == 0:
        return json.loads(run.stdout)
    return (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]


def median(rounds, key):
    return statistics.median(r[key] for r in rounds)


def measure(model, batch, peers, cifar, args, missing):
    """The table's rows for a model and batch, and the peers' names with versions."""
    ours, theirs, ratios = [], {}, {}
    for _ in range(args.rounds):
        for name in peers:
            if name in missing:
                continue
            found = peer(PEERS[name][0], model, batch, args.seconds)
            if isinstance(found, str):
                missing[name] = found
                continue
            own = gpucnn(model, batch, cifar, args)
            ours.append(own)
            theirs.setdefault(name, []).append(found)
            ratios.setdefault(name, []).append({
                key: own[key] / found[key] for key in ["images_per_s", "first_step_seconds"]})
    ours = ours or [gpucnn(model, batch, cifar, args)]
    rows = [[model, batch, "gpucnn", median(ours, "images_per_s"),
             median(ours, "first_step_seconds"), 1.0, 1.0]]
    for name, rounds in theirs.items():
        rows.append([model, batch, name,
                     *(median(rounds, key) for key in ["images_per_s", "first_step_seconds"]),
                     *(median(ratios[name], key) for key in ["images_per_s", "first_step_seconds"])])
    for row in rows:
        print(*row, file=sys.stderr)
    return rows, {rounds[0]["peer"] for rounds in theirs.values()}, ours[0]["device"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--model", nargs="+", default=CLASSICS, choices=MODELS)
    parser.add_argument("--precision", default="f32", choices=["f32", "f16"])
    parser.add_argument("--images", type=int, help="of an epoch of gpucnn [64 batches, 6400 at least]")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches/PEERS.md")
    parser.add_argument("--batch", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--peer", nargs="+", default=list(PEERS), choices=PEERS)
    args = parser.parse_args()
    subprocess.run(["cargo", "build", "--release"], cwd=ROOT, check=True)
    if "burn" in args.peer:
        subprocess.run(["cargo", "build", "--release", "--locked", "--target-dir", BURN],
                       cwd=HERE / "burn", check=False)
    load = os.getloadavg()[0]
    rows, names, device, missing = [], set(), None, {}
    with tempfile.TemporaryDirectory() as folder:
        cifar = pathlib.Path(folder)
        cifar_files(cifar)
        for model in args.model:
            for batch in args.batch:
                peers = [p for p in args.peer if model in CLASSICS or p.startswith("PyTorch")]
                more, versions, device = measure(model, batch, peers, cifar, args, missing)
                rows += more
                names |= versions
    reasons = {}
    for name, why in missing.items():
        reasons.setdefault((why, PEERS[name][1]), []).append(name)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT,
                            capture_output=True, text=True).stdout.strip()
    lines = [
        "# gpucnn beside its peers", "",
        f"Written by `benches/peers/run.py` on {datetime.date.today()}; its head says how.", "",
        f"- Device: {device}",
        f"- Host: {os.cpu_count()} cores, {processor()}; load average before the run {load:.1f},"
        " after it {:.1f}. Beyond the cores in use, that is other work.".format(os.getloadavg()[0]),
        f"- gpucnn {commit}, {args.precision}; {'; '.join(sorted(names)) or 'no peer'}",
        f"- Rounds: {args.rounds}, of at least {args.seconds:g} s for each peer",
        *[f"- Not measured: {', '.join(names)}: {why} (install: `{how}`)"
          for (why, how), names in reasons.items()], "",
        "`Faster` is gpucnn's images/s over the peer's; `Start` its seconds to the first finished"
        " step over the peer's.", "",
        "| Model | Batch | | Images/s | Seconds to the first step | Faster | Start |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for model, batch, name, speed, first, faster, start in rows:
        lines.append(f"| {model} | {batch} | {name} | {speed:.0f} | {first:.2f} | {faster:.2f} |"
                     f" {start:.2f} |")
    args.out.write_text("\n".join(lines) + "\n")
    print(f"wrote {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
