"""Imports go one way, and frameworks are imported in few places."""

import ast
import pathlib

import pytest
from utils import only_on

import keras_mla

ROOT = pathlib.Path(keras_mla.__file__).parent
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
# The other parts that each part may import.
ALLOWED = {
    "backend": set(),
    "layers": {"backend"},
    "metrics": {"backend"},
    "core": {"backend", "layers", "version"},
    "models": {"core", "layers", "backend"},
    "callbacks": {"layers", "core"},
    "encoders": {"layers", "backend"},
    "datasets": set(),
    "analysis": set(),
    "version": set(),
}
FRAMEWORKS = {"tensorflow", "jax", "torch"}
# Readers of files and checkpoints, and pipelines, by TensorFlow or PyTorch.
READERS = {"datasets", "encoders"}

pytestmark = only_on("torch")  # It depends on no backend.


def imported(path):
    """Yields the full names of modules that a file imports."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
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
        if path.parts[0] not in READERS:
            assert not roots & FRAMEWORKS, path


def test_a_method_imports_no_other_method():
    for path in FILES:
        if path.parts[0] == "models" and len(path.parts) == 3:
            own = {
                n for n in imported(path) if n.startswith("keras_mla.models")
            }
            assert not own, path


def test_every_part_is_known():
    parts = {path.parts[0].removesuffix(".py") for path in FILES}
    assert parts - {"__init__"} == set(ALLOWED)
