"""Synthetic checkpoints: random weights under the originals' names."""

import json
from pathlib import Path

import numpy as np


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
