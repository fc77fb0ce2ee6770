"""Tests of several backends together, which run once on any backend."""

import json
import pathlib

import numpy as np
from utils import in_process, only_on

BACKENDS = ("tensorflow", "jax", "torch")
SCRIPT = pathlib.Path(__file__).parent / "cross_backend.py"

once = only_on("jax")


def run(backend, *command):
    result = in_process(*command, backend=backend)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@once
def test_other_backends_are_refused():
    result = in_process("-c", "import keras_mla", backend="numpy")
    assert "runs on the Keras backends" in result.stderr


@once
def test_backends_agree_and_read_each_other(tmp_path):
    for backend in BACKENDS:
        run(backend, SCRIPT, "train", tmp_path)
    results = {
        b: json.loads((tmp_path / f"{b}.json").read_text()) for b in BACKENDS
    }
    samples = results["jax"].pop("samples")
    for backend, result in results.items():
        # `import keras_mla` takes the backend alone.
        assert result.pop("imported") == [], backend
    for backend in ("tensorflow", "torch"):
        assert results[backend].pop("samples") == samples
        assert set(results[backend]) == set(results["jax"])
        for key, value in results["jax"].items():
            accuracy = "accuracy" in key
            np.testing.assert_allclose(
                results[backend][key],
                value,
                atol=1.01 / samples if accuracy else 1e-4,
                err_msg=f"{backend} {key}",
            )
    # PyTorch, the last one to train, has read the others' files.
    for backend in ("tensorflow", "jax"):
        run(backend, SCRIPT, "check", tmp_path)
