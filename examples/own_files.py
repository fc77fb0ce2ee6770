"""Train on files of your own: pictures and texts, some of them missing.

Each product has two pictures and a description. Here they are made up: a
picture shows the product's colour, a description names it. One picture is
missing, one is broken, one description is empty: each is an absent modality.
Needs the `media` extra, and no TensorFlow.

    python examples/own_files.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import pathlib
import tempfile

import keras
import numpy as np
from PIL import Image

import keras_mla
from keras_mla.datasets import image, pipeline

keras.utils.set_random_seed(0)
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def write_files(folder):
    """Writes two pictures of each product; returns samples and texts."""
    rng = np.random.default_rng(0)
    samples, texts = [], []
    for number in range(90):
        label = number % 3
        name, colour = list(COLOURS.items())[label]
        inputs = {}
        for view in ("front", "side"):
            noise = rng.integers(-30, 31, (40, 40, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype("uint8")
            path = folder / f"{number}_{view}.png"
            Image.fromarray(pixels).save(path)
            inputs[view] = str(path)
        if number != 5:  # This product has no description.
            inputs["text"] = f"a {name} product, number {number}"
            texts.append(inputs["text"])
        source = f"product {number}"
        samples.append(pipeline.Sample(str(number), label, inputs, source))
    (folder / "3_front.png").unlink()
    (folder / "4_side.png").write_bytes(b"no picture")
    return samples, texts


with tempfile.TemporaryDirectory() as folder:
    samples, texts = write_files(pathlib.Path(folder))
    words = sorted({word for text in texts for word in text.split()})

    def multi_hot(texts):
        """Returns which of the words each text has."""
        return np.float32([[w in t.split() for w in words] for t in texts])

    settings = image.ImageSettings(size=16)
    data = pipeline.build(
        samples,
        {
            "front": pipeline.image_reader(settings, "front"),
            "side": pipeline.image_reader(settings, "side"),
            "text": pipeline.text_reader(multi_hot),
        },
        engine="python",
        training=True,
        augment=False,
        on_error="absent",
    )

    def pictures():
        """Returns an encoder of pictures."""
        layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(8)]
        return keras.Sequential([keras.Input((16, 16, 3)), *layers])

    model = keras_mla.MLA(
        {
            "front": pictures(),
            "side": pictures(),
            "text": keras.Sequential(
                [keras.Input((len(words),)), keras.layers.Dense(8)]
            ),
        },
        head=3,
    )
    model.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(data, epochs=15, verbose=0).history
    print("absent:", sorted(data.absent))
    for name in ("front_accuracy", "side_accuracy", "text_accuracy"):
        print(f"{name:15s} {100 * history[name][-1]:5.1f} %")
