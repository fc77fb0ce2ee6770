"""Small models and data that tests share."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_mla
from keras_mla.core.heads import number_of_units

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Not in alphabetical order, in which JAX returns the keys of a dict.
WIDTHS = {"text": 3, "audio": 5, "image": 8}
CLASSES = 4
FEATURES = 6
# Set by conftest from the option `--long`.
LONG = False


def long():
    """Leaves a test out unless `--long` is given."""
    return pytest.mark.skipif(not LONG, reason="Runs with --long.")


def mainly_on(backend):
    """Runs a test on this backend; on the others only with `--long`.

    For tests that take long on other backends and hardly depend on them.
    """
    return pytest.mark.skipif(
        keras.backend.backend() != backend and not LONG,
        reason=f"Runs on {backend}, elsewhere with --long.",
    )


def long_on(backend):
    """Leaves a test out on this backend unless `--long` is given.

    For tests that take long where a like test runs.
    """
    return pytest.mark.skipif(
        keras.backend.backend() == backend and not LONG,
        reason=f"Runs on {backend} with --long.",
    )


def only_on(backend):
    """Skips a test on the other backends.

    The test is about this backend, or other tests cover the other backends.
    """
    return pytest.mark.skipif(
        keras.backend.backend() != backend, reason=f"Runs on {backend}."
    )


def some(cases, *kept):
    """Returns all cases on PyTorch, where tests start fast; elsewhere `kept`.

    For tests that differ between cases, but hardly between backends. With
    `--long` all cases run everywhere.
    """
    if LONG or keras.backend.backend() == "torch":
        return list(cases)
    assert set(kept) <= set(cases)
    return list(kept)


def in_process(
    *command,
    backend=None,
    hidden=True,
    more=None,
    start=subprocess.run,
    **options,
):
    """Runs Python in a process of its own; returns what `start` returns.

    With another backend, TensorFlow is as if it were not installed, if it can
    be hidden: Keras takes seconds to import it.

    Args:
        *command: What stands behind `python` on the command line.
        backend: Name of the backend. Defaults to that of the tests.
        hidden: Whether TensorFlow is hidden.
        more: Further variables of its environment.
        start: `subprocess.run`, or `subprocess.Popen`.
        **options: Further arguments of `start`.
    """
    backend = backend or keras.backend.backend()
    folders = [ROOT, ROOT / "tests"]
    if hidden and backend != "tensorflow":
        folders.insert(0, ROOT / "tests" / "no_tensorflow")
    path = [*map(str, folders), os.environ.get("PYTHONPATH", "")]
    if start is subprocess.run:
        options = {"capture_output": True, "text": True, **options}
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        **(more or {}),
    }
    return start(
        [sys.executable, *map(str, command)], env=environment, **options
    )


METHODS = keras_mla.models.METHODS
# Arguments that make methods small, and fit for batches of 8 samples.
ARGUMENTS: dict = {
    "CCA": {"width": 2},
    "DCCA": {"width": 2, "hidden": 8},
    "DCCAE": {"width": 2, "hidden": 8},
    "CPMNet": {"width": 4},
    "TagFusion": {"width": 8, "num_heads": 2},
    "TATE": {"width": 8, "num_heads": 2},
}


def make_method(method, head=None, layers=lambda: (), **kwargs):
    """A model of any method, of small encoders for all modalities."""
    return make_of(
        method,
        lambda: {n: encoder(WIDTHS[n], layers=layers()) for n in WIDTHS},
        CLASSES if head is None else head,
        **kwargs,
    )


def make_of(method, encoders, head, num_samples=48, **kwargs):
    """A model of any method, with an unfitted teacher if it needs one.

    Args:
        method: Name of the method.
        encoders: Function that returns new encoders.
        head: Number of classes, or a layer.
        num_samples: Number of training samples.
        **kwargs: Further arguments of `Method.make`.
    """
    kwargs = {**ARGUMENTS.get(method, {}), **kwargs}
    method = METHODS[method]
    if method.teacher is not None:
        units = head if isinstance(head, int) else number_of_units(head)
        small = ARGUMENTS.get(method.teacher, {})
        first = METHODS[method.teacher].make(encoders(), units, **small)
        if not first.built:
            x, _ = make_data(2)
            first.build_for({name: x[name] for name in first.modalities})
        kwargs.setdefault("teacher", first)
    return method.make(encoders(), head, num_samples, **kwargs)


def to_numpy(value):
    """Copies a tensor or variable, which a later step may overwrite."""
    return np.array(keras.ops.convert_to_numpy(value))


def encoder(inputs, features=FEATURES, layers=()):
    """Dense(relu), and more layers if given."""
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            keras.layers.Dense(features, "relu"),
            *layers,
        ]
    )


def make_data(samples=48, modalities=tuple(WIDTHS), seed=0):
    """Features that tell the class, some better than others."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, samples).astype("int32")
    x = {}
    for index, name in enumerate(modalities):
        means = rng.normal(size=(CLASSES, WIDTHS[name]))
        noise = rng.normal(size=(samples, WIDTHS[name]))
        x[name] = (means[y] + (0.3 + index) * noise).astype("float32")
    return x, y


def half_presence(samples, seed=1):
    """Presence of three modalities; one sample has two, another one none."""
    presence = np.random.default_rng(seed).random((samples, 3)) < 0.6
    presence[:2] = [[True, False, True], [False, False, False]]
    return presence


register = keras.saving.register_keras_serializable(package="tests")


def parts():
    """A small encoder of each modality."""
    return {name: encoder(WIDTHS[name]) for name in WIDTHS}


def saved(model, path):
    """A model, saved and loaded."""
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras", safe_mode=True)


def make_model(modalities=tuple(WIDTHS), layers=lambda: (), **kwargs):
    """An MLA model of small encoders."""
    kwargs.setdefault("head", CLASSES)
    return keras_mla.MLA(
        {name: encoder(WIDTHS[name], layers=layers()) for name in modalities},
        **kwargs,
    )


def compiled(model, optimizer=None, **kwargs):
    """Compiles with SGD and sparse cross-entropy by default."""
    kwargs.setdefault("metrics", ["accuracy"])
    kwargs.setdefault(
        "loss", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.compile(optimizer=optimizer or keras.optimizers.SGD(0.1), **kwargs)
    return model


def reference_weights(model):
    """Weights of a `make_model` model, as `reference.ReferenceMLA` takes."""
    weights = {}
    for name, enc in model.encoders.items():
        weights[name, "w"], weights[name, "b"] = map(
            to_numpy, enc.trainable_variables[:2]
        )
    weights["head", "w"] = to_numpy(model.head.kernel)
    weights["head", "b"] = to_numpy(model.head.bias)
    return weights


def weights_of(model):
    """Copies of all weights, P and its like included."""
    return [to_numpy(v) for v in model.weights]


def largest_difference(first, second):
    """Largest absolute difference between two lists of arrays."""
    return max(
        float(np.abs(a.astype("float64") - b).max())
        for a, b in zip(first, second, strict=True)
        if a.size
    )


def words_encoder(table, modality, features=4):
    """Returns an encoder of a table's tokens: the mean of their embeddings."""
    shapes = table.shapes[modality]
    types = {"token_ids": "int32", "padding_mask": "bool"}
    inputs = {k: keras.Input(shapes[k], dtype=types[k], name=k) for k in types}
    size = table.fields[modality].vocabulary_size
    words = keras.layers.Embedding(size, features)(inputs["token_ids"])
    pool = keras.layers.GlobalAveragePooling1D()
    return keras.Model(inputs, pool(words, mask=inputs["padding_mask"]))
