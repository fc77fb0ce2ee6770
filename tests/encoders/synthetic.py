"""Synthetic checkpoints: random weights under the originals' names."""

import json
from pathlib import Path

import numpy as np
from keras import ops


def load(name):
    """A fixture: what an original implementation computed, and how."""
    path = Path(__file__).parent / "fixtures" / name
    return json.loads(path.read_text())


def weights(shapes, seed):
    """Weights in the order of their names from one generator."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        value = generator.normal(size=shape)
        value *= np.sqrt(2 / np.prod(shape[1:])) if len(shape) == 4 else 0.2
        if name.endswith("running_var"):
            value = np.abs(value) + 0.5
        arrays[name] = value.astype("float32")
    return arrays


def write(name, path, prefix=""):
    """Writes the weights of a fixture as .npz; the fixture."""
    fixture = load(name)
    arrays = weights(fixture["shapes"], fixture["seed"])
    np.savez(path, **{f"{prefix}{k}": v for k, v in arrays.items()})
    return fixture


def inputs(*shapes, words=None):
    """What the fixtures were computed on."""
    generator = np.random.default_rng(7)
    arrays = [generator.random(s).astype("float32") for s in shapes]
    if words:
        arrays.append(generator.integers(0, words, (2, 6)))
    return arrays


def check(ours, theirs, tolerance=1e-4):
    ours = ops.convert_to_numpy(ours)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
