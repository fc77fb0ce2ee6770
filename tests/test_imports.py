"""Imports go one way, and frameworks are imported in few places."""

import ast
import pathlib

import keras
import pytest
from utils import in_process, only_on

import keras_mla

ROOT = pathlib.Path(keras_mla.__file__).parent
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
# The other parts that each part may import.
ALLOWED = {
    "backend": set(),
    "layers": {"backend"},
    "metrics": {"backend"},
    "core": {"backend", "layers", "presence", "version"},
    "models": {"core", "layers", "backend"},
    "callbacks": {"layers", "core"},
    "encoders": {"layers", "backend"},
    "datasets": {"presence"},
    "analysis": {"core", "layers", "models"},
    "saving": {"core", "layers", "models", "version"},
    "comparison": {
        "analysis",
        "callbacks",
        "core",
        "datasets",
        "encoders",
        "layers",
        "models",
        "presence",
        "saving",
        "version",
    },
    "wrappers": {
        "backend",
        "callbacks",
        "comparison",
        "core",
        "datasets",
        "models",
        "presence",
    },
    "__main__": {"comparison"},
    "presence": set(),
    "version": set(),
}
FRAMEWORKS = {"tensorflow", "jax", "torch"}
# What reads checkpoints, or computes on data, by a framework. These files
# import it when they are called. Other parts of the data sets call
# `extras.need`.
READERS = {
    "encoders/checkpoints/read.py",
    "datasets/readers/image.py",
    "datasets/readers/spectrograms.py",
    "datasets/readers/text.py",
}
# What each part of the data sets may import of its other parts.
ALLOWED_IN_DATASETS = {
    "listing": set(),
    "extras": set(),
    "readers": {"extras"},
    "pipeline": {"extras", "listing", "readers"},
    "sets": {"listing", "pipeline", "readers"},
    "protocols": {"extras"},
    "table": {"extras", "listing", "pipeline", "readers"},
    "prepare": {"extras", "listing", "readers", "sets"},
}
# What an encoder's folder may import of the other folders.
ALLOWED_IN_ENCODERS = {"nn", "checkpoints", "hub"}

pytestmark = only_on("torch")  # It depends on no backend.


def nodes(tree):
    """Yields the nodes of a tree, except for imports for annotations alone."""
    yield tree
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == (
            "TYPE_CHECKING"
        ):
            continue
        yield from nodes(node)


def imported(path):
    """Yields the full names of modules that a file imports."""
    for node in nodes(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_one_way(path):
    part = path.parts[0].removesuffix(".py")
    if part == "__init__":
        return  # `__init__` names everything.
    found = {
        name.split(".")[1]
        for name in imported(path)
        if name.startswith("keras_mla.") and len(name.split(".")) > 1
    }
    assert found - {part} <= ALLOWED[part], path


@pytest.mark.parametrize("path", FILES, ids=str)
def test_only_the_backend_imports_frameworks_and_keras_src(path):
    roots = {name.split(".")[0] for name in imported(path)}
    private = {name for name in imported(path) if name.startswith("keras.src")}
    if path.parts[0] != "backend":
        assert not private, path
        if path.as_posix() not in READERS:
            assert not roots & FRAMEWORKS, path


@pytest.mark.parametrize("path", sorted(READERS))
def test_readers_import_one_framework_inside_functions(path):
    expected = "torch" if path.startswith("encoders") else "tensorflow"
    found = {name.split(".")[0] for name in imported(pathlib.Path(path))}
    assert found & FRAMEWORKS == {expected}
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert expected not in ast.unparse(node)


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parts[0] == "datasets"], ids=str
)
def test_data_sets_import_one_way(path):
    part = path.parts[1].removesuffix(".py")
    if part == "__init__":
        return  # It names everything.
    found = {
        name.split(".")[2]
        for name in imported(path)
        if name.startswith("keras_mla.datasets.")
    }
    assert found - {part} <= ALLOWED_IN_DATASETS[part], path


def test_only_the_backend_reads_private_names_of_keras():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mse"])
    parts = [model, model.layers[0], model.optimizer, *model.weights]
    parts += [keras.metrics.AUC(), keras.metrics.MeanSquaredError()]
    parts += [keras.losses.MeanSquaredError(), keras.callbacks.Callback()]
    names = {name for part in parts for name in dir(part)}
    private = {n for n in names if n[:1] == "_" and n[:2] != "__"}
    assert "_compile_metrics" in private
    for path in FILES:
        if path.parts[0] == "backend":
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            found = {getattr(node, "attr", None), getattr(node, "value", None)}
            found = {name for name in found if isinstance(name, str)}
            assert not found & private, (path, node.lineno, found & private)


def test_a_method_imports_no_other_method():
    """A method may import what its family shares, which is no method."""
    methods = {m.cls.__module__ for m in keras_mla.models.METHODS.values()}
    for path in FILES:
        if path.parts[0] == "models" and len(path.parts) == 3:
            family = f"keras_mla.models.{path.parts[1]}."
            own = {
                n for n in imported(path) if n.startswith("keras_mla.models")
            }
            assert all(name.startswith(family) for name in own), path
            assert not own & methods, path


def test_an_encoder_imports_no_other_encoder():
    for path in FILES:
        if path.parts[0] == "encoders" and len(path.parts) == 3:
            own = {
                name.split(".")[2]
                for name in imported(path)
                if name.startswith("keras_mla.encoders.")
            }
            assert own - {path.parts[1]} <= ALLOWED_IN_ENCODERS, path


def test_every_part_is_known():
    parts = {path.parts[0].removesuffix(".py") for path in FILES}
    assert parts - {"__init__"} == set(ALLOWED)


def test_a_missing_backend_is_told_in_words_that_help():
    result = in_process(
        "-c",
        "import keras_mla",
        backend="torch",
        more={"KERAS_BACKEND": "tensorflow"},
    )
    assert result.returncode
    last = result.stderr.splitlines()[-1]
    assert "to run on tensorflow, which is not installed" in last
    assert "`export KERAS_BACKEND=" in last
