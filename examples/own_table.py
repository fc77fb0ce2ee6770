"""Train on a table of your own: texts, numbers and categories, some missing.

The table is a CSV file of products. Here it is made up: the title names the
kind of product, the price and the shop hint at it, and some cells are empty. An
empty cell is an absent modality. The model keeps the table, so that whoever
loads it can pass rows as they are. Needs the `tables` extra.

    python examples/own_table.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import csv
import pathlib
import tempfile

import keras
import numpy as np

import keras_mla
from keras_mla import datasets

keras.utils.set_random_seed(0)
KINDS = {"pan": (30, "cook"), "shoe": (80, "wear"), "hat": (40, "wear")}


def write_table(path):
    """Writes 600 products."""
    rng = np.random.default_rng(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["title", "price", "shop", "kind"])
        for _ in range(600):
            kind = rng.choice(list(KINDS))
            price, shop = KINDS[kind]
            title = f"{rng.choice(['old', 'new', 'red'])} {kind}s for all"
            row = [title, round(rng.normal(price, 10), 2), shop]
            row = [cell if rng.random() < 0.8 else "" for cell in row]
            if any(row):
                writer.writerow([*row, kind])


def read_words(table, modality):
    """Returns an encoder of tokens."""
    shapes = table.shapes[modality]
    types = {"token_ids": "int32", "padding_mask": "bool"}
    inputs = {k: keras.Input(shapes[k], dtype=types[k], name=k) for k in types}
    size = table.fields[modality].vocabulary_size
    words = keras.layers.Embedding(size, 16)(inputs["token_ids"])
    words = keras.layers.GlobalAveragePooling1D()(
        words, mask=inputs["padding_mask"]
    )
    return keras.Model(inputs, keras.layers.Dense(16)(words))


with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    write_table(folder / "products.csv")
    table = datasets.Table(
        {"words": "title", "facts": ["price", "shop"]},
        label="kind",
        kinds={"title": "text"},
    )
    parts = table.split(folder / "products.csv")
    table.adapt(parts["train"])
    model = keras_mla.MLA(
        {
            "words": read_words(table, "words"),
            "facts": keras.Sequential(
                [
                    keras.Input(table.shapes["facts"]),
                    keras.layers.Dense(16, activation="relu"),
                ]
            ),
        },
        head=table.units,
        table=table,
    )
    model.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(*table.arrays(parts["train"]), epochs=15, verbose=0)
    scores = model.evaluate(
        *table.arrays(parts["test"]), verbose=0, return_dict=True
    )
    for name in ("accuracy", "words_accuracy", "facts_accuracy"):
        print(f"{name:15s} {100 * scores[name]:5.1f} %")
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")

rows = [{"title": "red shoes", "price": 75}, {"price": 31.5, "shop": "cook"}]
outputs = loaded.predict(loaded.table.inputs(rows), verbose=0)
print("predicted:", loaded.table.decode_predictions(outputs))
