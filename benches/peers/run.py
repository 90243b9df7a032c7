#!/usr/bin/env python3
"""gpucnn beside its peers, in one run on one machine: writes benches/PEERS.md.

Usage: python benches/peers/run.py [--rounds N] [--seconds F]

Peers that are not installed are named as such. Every combination of model and batch is measured
in rounds, gpucnn and the peers by turns, so that other work on the machine hits all alike; the
median round counts. gpucnn trains with its own command on images of its own (MNIST, and random
CIFAR-10 files), shuffling and metrics included; a peer trains on random images in memory.
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
MODELS = ["mnist-cnn", "cifar10-cnn"]
BATCHES = [32, 256]
# A script for each peer: MODEL BATCH SECONDS, prints one JSON line.
PEERS = {"Keras": ("keras_steps.py", "pip install tensorflow-cpu")}


def cifar_files(folder):
    """Random CIFAR-10 files: 12,800 training and 256 test records."""
    rng = random.Random(0)
    records = lambda n: b"".join(bytes([i % 10]) + rng.randbytes(3072) for i in range(n))
    (folder / "data_batch_1.bin").write_bytes(records(12_800))
    (folder / "test_batch.bin").write_bytes(records(256))


def gpucnn(model, batch, cifar):
    """The speed of the epochs after the first, which has compiled and warmed everything."""
    images = max(64 * batch, 6_400)
    with tempfile.TemporaryDirectory() as folder:
        command = [GPUCNN, "train", model, "--batch-size", str(batch), "--limit", str(images)]
        command += ["--epochs", "3", "--json", "--log-every", "1", "--out", f"{folder}/run"]
        command += ["--data", str(cifar)] if model == "cifar10-cnn" else []
        began = time.perf_counter()
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
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


def peer(script, model, batch, seconds):
    command = [sys.executable, pathlib.Path(__file__).with_name(script), model, str(batch)]
    run = subprocess.run([*command, str(seconds)], capture_output=True, text=True)
    return json.loads(run.stdout) if run.returncode == 0 else None


def median(rounds, key):
    return statistics.median(r[key] for r in rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    args = parser.parse_args()
    subprocess.run(["cargo", "build", "--release"], cwd=ROOT, check=True)
    load = os.getloadavg()[0]
    rows, names, device = [], set(), None
    with tempfile.TemporaryDirectory() as folder:
        cifar = pathlib.Path(folder)
        cifar_files(cifar)
        for model in MODELS:
            for batch in BATCHES:
                ours, theirs = [], {name: [] for name in PEERS}
                for _ in range(args.rounds):
                    ours.append(gpucnn(model, batch, cifar))
                    for name, (script, _) in PEERS.items():
                        found = peer(script, model, batch, args.seconds)
                        if found:
                            theirs[name].append(found)
                device = ours[0]["device"]
                own = median(ours, "images_per_s")
                rows.append([model, batch, "gpucnn", own, median(ours, "first_step_seconds"), 1.0])
                for name, rounds in theirs.items():
                    if rounds:
                        names.add(rounds[0]["peer"])
                        speed = median(rounds, "images_per_s")
                        first = median(rounds, "first_step_seconds")
                        rows.append([model, batch, name, speed, first, own / speed])
                print(*rows[-1], file=sys.stderr)
    missing = [f"{n} was not installed (`{how}`)" for n, (_, how) in PEERS.items()
               if not any(r[2] == n for r in rows)]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT,
                            capture_output=True, text=True).stdout.strip()
    lines = [
        "# gpucnn beside its peers", "",
        f"Written by `benches/peers/run.py` on {datetime.date.today()}; its head says how.", "",
        f"- Device: {device}",
        f"- Host: {os.cpu_count()} cores, {platform.machine()}; load average before the run {load:.1f},"
        " after it {:.1f}. Beyond the cores in use, that is other work.".format(os.getloadavg()[0]),
        f"- gpucnn {commit}; {'; '.join(sorted(names)) or 'no peer'}",
        *[f"- {m}" for m in missing], "",
        "| Model | Batch | | Images/s | Seconds to the first step | gpucnn is so many times as fast |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for model, batch, name, speed, first, ratio in rows:
        lines.append(f"| {model} | {batch} | {name} | {speed:.0f} | {first:.2f} | {ratio:.2f} |")
    (ROOT / "benches/PEERS.md").write_text("\n".join(lines) + "\n")
    print("wrote benches/PEERS.md", file=sys.stderr)


main()
