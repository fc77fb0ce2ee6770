"""Models of every method, and the script that saves them for later versions.

`tests/saving/files/<version>/` holds what a version saved, and what it
predicted. Run this before a release, once, and add the folder to the tree:

    KERAS_BACKEND=jax python tests/saving/saved_files.py

Existing files are never written again: they represent the files of users.
"""

import os
import pathlib
import sys
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import keras_mla
from keras_mla import encoders, layers, models

FOLDER = pathlib.Path(__file__).parent / "files"
CLASSES = 3
# Not in alphabetical order, and of unequal widths.
WIDTHS = {"video": 4, "audio": 3, "text": 2}
PLAIN = (
    "SumFusion",
    "ConcatFusion",
    "FiLM",
    "BiGated",
    "LateFusion",
    "MultiLossFusion",
    "UnimodalEnsemble",
    "MLA",
)


def encoder(inputs, features=4):
    """One Dense layer."""
    return keras.Sequential(
        [keras.Input((inputs,)), keras.layers.Dense(features, "tanh")]
    )


def small(features=(4, 4, 4)):
    """An encoder for each modality, of the given widths."""
    return {
        name: encoder(inputs, width)
        for (name, inputs), width in zip(WIDTHS.items(), features, strict=True)
    }


def deep_head():
    """A head of two kernels."""
    return keras.Sequential(
        [keras.layers.Dense(5, "relu"), keras.layers.Dense(CLASSES)]
    )


def make(name):
    """Returns the model that a file is named after."""
    if name in PLAIN:
        return getattr(models, name)(small(), CLASSES)
    if name == "OGMGE":  # Its noise would differ between backends.
        return models.OGMGE(small(), CLASSES, noise=False)
    if name == "QMF":
        return models.QMF(small((4, 3, 5)), CLASSES, num_samples=8)
    if name == "MLA_options":
        return models.MLA(
            small((4, 3, 5)),
            deep_head(),
            feature_dim=4,
            projector=layers.GradientProjector(
                alpha=2.0, order="previous", forgetting=0.9, normalize=True
            ),
            fusion=layers.AverageFusion(),
        )
    if name == "ConcatFusion_deep":
        return models.ConcatFusion(small((4, 3, 5)), deep_head())
    if name == "LateFusion_deep":
        return models.LateFusion(
            small(), deep_head(), fusion=layers.EntropyFusion()
        )
    if name == "MLA_M3AE":
        size = dict(width=8, depth=1, num_heads=2)
        return models.MLA(
            {
                "text": encoders.M3AE(
                    "text", vocabulary_size=20, max_length=4, **size
                ),
                "image": encoders.M3AE(
                    "image", image_shape=(8, 8, 3), patch_size=4, **size
                ),
            },
            CLASSES,
        )
    raise ValueError(f"No file is named {name!r}.")


NAMES = (
    *PLAIN,
    "OGMGE",
    "QMF",
    "MLA_options",
    "ConcatFusion_deep",
    "LateFusion_deep",
    "MLA_M3AE",
)


def data(name):
    """Returns inputs, presence and labels of eight samples."""
    rng = np.random.default_rng(0)
    if name == "MLA_M3AE":
        x = {
            "text": rng.integers(1, 20, (8, 4)).astype("int32"),
            "image": rng.random((8, 8, 8, 3)).astype("float32"),
        }
    else:
        x = {
            modality: rng.normal(size=(8, width)).astype("float32")
            for modality, width in WIDTHS.items()
        }
    presence = rng.random((8, len(x))) < 0.6
    if name == "QMF":
        x["sample_id"] = np.arange(8)
    return x, presence, rng.integers(0, CLASSES, 8).astype("int32")


def compiled(model):
    """Compiles with an optimizer that has slots."""
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def predictions(model, name):
    """Returns what a model predicts, before and after further training."""
    x, presence, y = data(name)
    found = {
        "fused": model.predict(x, verbose=0),
        "present": model.predict({**x, "presence": presence}, verbose=0),
    }
    for modality in model.modalities:
        found[f"unimodal_{modality}"] = model.unimodal(modality).predict(
            x[modality], verbose=0
        )
    model.train_on_batch({**x, "presence": presence}, y)
    found["trained"] = model.predict(x, verbose=0)
    return found


def compress(file):
    """Packs a file again with compression, which Keras leaves out."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def main():
    """Saves a trained model of each kind, and its predictions."""
    folder = FOLDER / keras_mla.__version__
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        file = folder / f"{name}.keras"
        if file.exists():
            print(f"{file} is there and stays as it is.")
            continue
        keras.utils.set_random_seed(0)
        model = compiled(make(name))
        x, _, y = data(name)
        model.fit(x, y, epochs=3, verbose=0)
        if getattr(model, "fusion", None) is not None:
            model.calibrate((x, y))
        model.save(file)
        compress(file)
        np.savez_compressed(folder / f"{name}.npz", **predictions(model, name))


if __name__ == "__main__":
    sys.exit(main())
