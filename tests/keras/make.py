"""Makes the Keras models of tests/keras.rs, with what Keras predicts for a few images.

    python -m venv target/venv && target/venv/bin/pip install keras jax h5py
    KERAS_BACKEND=jax target/venv/bin/python tests/keras/make.py

Each NAME.keras stands beside NAME.npz: `x` are images of bytes, `y` what the layer before the
softmax gives for them.
"""

import pathlib

import keras
import numpy as np
from keras import layers as L

HERE = pathlib.Path(__file__).parent
keras.utils.set_random_seed(7)


def classic():
    """A Sequential with a Flatten between images and a Dense, compiled."""
    model = keras.Sequential(
        [
            keras.Input((12, 10, 3)),
            L.Rescaling(1 / 127.5, offset=-1.0),
            L.RandomFlip("horizontal"),
            L.Conv2D(6, (3, 2), activation="relu", padding="same", strides=(2, 1)),
            L.MaxPooling2D((2, 3), strides=(1, 2), padding="same"),
            L.Conv2D(4, 3, dilation_rate=2, activation="gelu", padding="same", use_bias=False),
            L.Flatten(),
            L.Dropout(0.5),
            L.Dense(9, activation="elu"),
            L.Dense(5, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.02, momentum=0.9, nesterov=True), "sparse_categorical_crossentropy")
    return model


def modern():
    """A Functional model of depthwise and separable convolutions, branches and norms."""
    image = keras.Input((9, 8, 3))
    x = L.Normalization(mean=[120.0, 110.0, 100.0], variance=[3600.0, 2500.0, 4900.0])(image)
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)
    x = L.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    trunk = L.Activation("swish")(x)
    y = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(trunk)
    y = L.LeakyReLU(negative_slope=0.1)(y)
    y = L.SeparableConv2D(8, 3, padding="same", activation="tanh")(y)
    x = L.Add()([trunk, y])
    x = L.Concatenate()([x, trunk])
    x = L.ZeroPadding2D(((1, 0), (0, 2)))(x)
    x = L.Conv2D(8, 3, groups=4, strides=2, padding="same")(x)
    x = L.BatchNormalization(scale=False)(x)
    x = L.ReLU()(x)
    x = L.AveragePooling2D(2, padding="same")(x)
    flat = L.Flatten()(x)
    pooled = L.GlobalAveragePooling2D()(x)
    most = L.GlobalMaxPooling2D()(x)
    x = L.Concatenate()([flat, pooled, most])
    x = L.Dense(6)(x)
    return keras.Model(image, L.Softmax()(x))


def grey():
    """Images without a channel, as keras.datasets.mnist has them."""
    return keras.Sequential(
        [
            keras.Input((8, 8)),
            L.Reshape((8, 8, 1)),
            L.Conv2D(3, 3, activation="sigmoid"),
            L.GlobalAveragePooling2D(keepdims=True),
            L.Conv2D(4, 1),
            L.Flatten(),
            L.Activation("softmax"),
        ]
    )


def branched():
    """Branches of different depths, made in another order than that of `model.layers`."""
    image = keras.Input((8, 6, 3))
    x = L.Rescaling(1 / 255)(image)
    short = L.Conv2D(6, 1, strides=2)(x)
    x = L.Conv2D(6, 3, padding="same", strides=2, activation="relu")(x)
    x = L.DepthwiseConv2D(3, padding="same")(x)
    x = L.BatchNormalization()(x)
    x = L.Conv2D(6, 3, padding="same", use_bias=False)(x)
    x = L.LayerNormalization()(x)
    x = L.Activation("relu")(L.Add()([x, L.BatchNormalization()(short)]))
    wide = L.Dense(4, activation="tanh")(L.Flatten()(x))
    deep = L.Dense(5, activation="relu")(L.GlobalAveragePooling2D()(x))
    deep = L.Dense(4)(deep)
    return keras.Model(image, L.Softmax()(L.Dense(3)(L.Concatenate()([deep, wide]))))


def shake(model):
    """Gives every weight a value, running statistics too: zeros would hide mistakes."""
    draw = np.random.default_rng(3)
    for v in model.weights:
        if "seed" in v.path:
            continue
        value = draw.normal(0.0, 0.4, v.shape)
        v.assign(np.abs(value) + 0.3 if "variance" in v.path else value)


for make in (classic, modern, grey, branched):
    model = make()
    shake(model)
    model.save(HERE / f"{make.__name__}.keras")
    (HERE / f"{make.__name__}.json").write_text(model.to_json(indent=1))
    shape = model.input_shape[1:]
    x = np.random.default_rng(5).integers(0, 256, (4, *shape)).astype("uint8")
    # gpucnn divides by 255 where a model does not scale by itself.
    seen = x.astype("float32") / (255 if make is grey else 1)
    y = np.log(model.predict(seen, verbose=0))
    y -= y.mean(axis=1, keepdims=True)
    np.savez_compressed(HERE / f"{make.__name__}.npz", x=x, y=y.astype("float32"))
