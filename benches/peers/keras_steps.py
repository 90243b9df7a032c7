"""Training speed of Keras on TensorFlow for one preset and batch, as one JSON line.

Usage: python benches/peers/keras_steps.py mnist-cnn|cifar10-cnn BATCH SECONDS

Random images lie in memory before the clock starts; the first step, which traces and compiles
the graph, is timed apart. Needs: pip install tensorflow-cpu (or tensorflow).
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
import tensorflow as tf

L = keras.layers


def mnist_cnn():
    return (28, 28, 1), "adam", [
        L.Conv2D(32, 3, activation="relu"),
        L.MaxPooling2D(),
        L.Conv2D(64, 3, activation="relu"),
        L.MaxPooling2D(),
        L.Flatten(),
        L.Dense(128, activation="relu"),
        L.Dense(10),
    ]


def cifar10_cnn():
    return (32, 32, 3), "rmsprop", [
        L.Conv2D(32, 3, activation="relu"),
        L.MaxPooling2D(),
        L.Conv2D(64, 3, activation="relu"),
        L.MaxPooling2D(),
        L.Conv2D(64, 3, activation="relu"),
        L.Flatten(),
        L.Dense(64, activation="relu"),
        L.Dense(10),
    ]


def main():
    name, batch, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    started = time.perf_counter()
    shape, optimizer, layers = {"mnist-cnn": mnist_cnn, "cifar10-cnn": cifar10_cnn}[name]()
    model = keras.Sequential([L.Input(shape), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    images = 64 * batch
    rng = np.random.default_rng(0)
    x = rng.random((images, *shape), dtype=np.float32)
    y = rng.integers(0, 10, images)
    data = tf.data.Dataset.from_tensor_slices((x, y)).repeat().batch(batch)
    model.fit(data, steps_per_epoch=1, verbose=0)
    first_step = time.perf_counter() - started
    model.fit(data, steps_per_epoch=16, verbose=0)
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        model.fit(data, steps_per_epoch=64, verbose=0)
        steps += 64
    elapsed = time.perf_counter() - began
    print(json.dumps({
        "peer": f"Keras {keras.__version__} on TensorFlow {tf.__version__}",
        "model": name,
        "batch": batch,
        "first_step_seconds": round(first_step, 2),
        "images_per_s": round(steps * batch / elapsed),
    }))


main()
