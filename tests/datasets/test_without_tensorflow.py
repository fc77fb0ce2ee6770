"""Users of JAX and PyTorch need no TensorFlow."""

import pathlib

import keras
import pytest
from utils import in_process

SCRIPT = pathlib.Path(__file__).parent / "without_tensorflow.py"


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="needs another backend"
)
def test_each_data_set_trains_without_tensorflow(tmp_path):
    done = in_process(SCRIPT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
