"""Every test runs on the backend that `KERAS_BACKEND` names."""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Results are compared to a few ulp, whatever instructions the machine has.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Small models are compiled often here and run a few times.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true",
)
sys.path.insert(0, str(pathlib.Path(__file__).parent / "saving"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import keras
import pytest


@pytest.fixture(autouse=True)
def fresh_state():
    """Gives each test the same seed and a clean global Keras state."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")
