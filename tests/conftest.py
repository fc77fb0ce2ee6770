"""Every test runs on the backend that `KERAS_BACKEND` names."""

import collections
import os
import pathlib
import sys
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests run side by side. Threads of theirs that wait for each other would take
# all cores: PyTorch's do, and steps take twenty times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Results are compared to a few ulp, whatever instructions the machine has.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Small models are compiled often here and run a few times.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true",
)

# Modules that tests share.
sys.path.insert(0, str(pathlib.Path(__file__).parent / "distribution"))
sys.path.insert(0, str(pathlib.Path(__file__).parent / "saving"))
sys.path.insert(0, str(pathlib.Path(__file__).parent / "reference"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import browser as chromium
import keras
import pytest
import utils


def pytest_addoption(parser):
    parser.addoption(
        "--long",
        action="store_true",
        help="Run long tests too, and all cases on every backend.",
    )


def pytest_configure(config):
    utils.LONG = config.getoption("--long")
    config.addinivalue_line(
        "markers", "every_case: All cases run on every backend."
    )


# Tests that run on every backend, each with one of its cases.
EVERYWHERE = (
    "contract",
    "saving",
    "layers",
    "models",
    "core/test_hooks",
    "docs/test_guides.py",
    "core/test_export.py",
    "core/test_input_structures.py",
    "core/test_order.py",
    "core/test_serving_function.py",
    "core/test_model_table.py",
    "comparison/test_command.py",
    "examples/test_serve.py",
    "wrappers",
    "integration/test_data_doors.py",
)


# What depends on no backend: it runs on PyTorch.
ONCE = ("datasets", "encoders/checkpoints")


# Methods that share their steps with MMIN, DCCAE, MultiLossFusion or
# ConcatFusion. What all methods must do, `contract`, and their own tests have
# them.
RELATIVES = {
    "AEFusion", "CRA", "DCCA", "DGL", "IFMMIN", "InvariantFusion", "MLB",
    "MMPareto", "TATE", "TagFusion", "UniPre"
}  # fmt: skip


def _of_relatives(item):
    path = item.nodeid.removeprefix("tests/")
    case = item.nodeid.partition("[")[2].removesuffix("]")
    return not path.startswith(("contract", "models")) and bool(
        RELATIVES & set(case.split("-"))
    )


def pytest_collection_modifyitems(config, items):
    """Leaves fewer tests on TensorFlow and JAX, which compile every model.

    PyTorch runs everything, but for `RELATIVES` in tests of all methods. The
    others run one case of a test, and share the
    tests that are neither in `EVERYWHERE` nor in `ONCE`. With `--long` all run
    everywhere.
    """
    backend = keras.backend.backend()
    if utils.LONG:
        return
    left = [item for item in items if _of_relatives(item)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if not _of_relatives(item)]
    if backend == "torch":
        return
    cases = collections.defaultdict(list)
    for item in items:
        if not any(mark.args[0] for mark in item.iter_markers("skipif")):
            cases[item.nodeid.partition("[")[0]].append(item)
    kept = set()
    for name, found in cases.items():
        first = found[0]
        marked = any(first.iter_markers("skipif"))
        path = name.removeprefix("tests/")
        if path.startswith(ONCE):
            continue
        if not (marked or path.startswith(EVERYWHERE)):
            share = "jax" if zlib.crc32(name.encode()) % 2 else "tensorflow"
            if share != backend:
                continue
        if first.get_closest_marker("every_case") is None:
            # Another one on each.
            found = [found[0 if backend == "tensorflow" else -1]]
        kept |= {id(item) for item in found}
    left = [item for item in items if id(item) not in kept]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if id(item) in kept]


@pytest.fixture(scope="module")
def browser():
    """A browser; the test is skipped where there is none."""
    started = chromium.start()
    yield started
    started.quit()


@pytest.fixture(autouse=True)
def fresh_state():
    """Gives each test the same seed and a clean global Keras state."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")
