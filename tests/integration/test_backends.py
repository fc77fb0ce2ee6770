"""Tests of several backends together, which run once on any backend."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from utils import only_on

BACKENDS = ("tensorflow", "jax", "torch")
SCRIPT = pathlib.Path(__file__).parent / "cross_backend.py"

once = only_on("jax")


def run(backend, *command):
    environment = {**os.environ, "KERAS_BACKEND": backend}
    root = SCRIPT.parents[2]
    environment["PYTHONPATH"] = os.pathsep.join([str(root), f"{root}/tests"])
    result = subprocess.run(
        [sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@once
@pytest.mark.parametrize("backend", BACKENDS)
def test_import_takes_one_backend(backend):
    code = (
        "import sys, keras; before = set(sys.modules); import keras_mla;"
        "new = {n.split('.')[0] for n in set(sys.modules) - before};"
        "print(sorted(new & {'tensorflow', 'jax', 'torch', 'keras_hub',"
        " 'scipy', 'sklearn', 'matplotlib', 'soundfile', 'av', 'PIL'}))"
    )
    assert run(backend, "-c", code).splitlines()[-1] == "[]"


@once
def test_other_backends_are_refused():
    code = "import keras_mla"
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        cwd=SCRIPT.parents[2],
    )
    assert "runs on the Keras backends" in result.stderr


@once
def test_backends_agree_and_read_each_other(tmp_path):
    for backend in BACKENDS:
        run(backend, str(SCRIPT), "train", str(tmp_path))
    results = {
        b: json.loads((tmp_path / f"{b}.json").read_text()) for b in BACKENDS
    }
    samples = results["jax"].pop("samples")
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
    for backend in BACKENDS:
        run(backend, str(SCRIPT), "check", str(tmp_path))
