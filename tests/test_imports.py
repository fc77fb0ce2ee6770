"""Imports go one way, and frameworks are imported in few places."""

import ast
import pathlib

import pytest
from utils import only_on

import keras_mla

ROOT = pathlib.Path(keras_mla.__file__).parent
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
# What each part may import of the others, itself aside.
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
# What reads files by a framework.
READERS = ("datasets", "encoders/checkpoints")
# What an encoder's folder may import of the others.
ENCODER_PARTS = {"nn", "checkpoints", "hub"}

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
        return  # It names everything.
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
        if not path.as_posix().startswith(READERS):
            assert not roots & FRAMEWORKS, path


def test_a_method_imports_no_other_method():
    for path in FILES:
        if path.parts[0] == "models" and len(path.parts) == 3:
            own = {
                n for n in imported(path) if n.startswith("keras_mla.models")
            }
            assert not own, path


def test_an_encoder_imports_no_other_encoder():
    for path in FILES:
        if path.parts[0] == "encoders" and len(path.parts) == 3:
            own = {
                name.split(".")[2]
                for name in imported(path)
                if name.startswith("keras_mla.encoders.")
            }
            assert own - {path.parts[1]} <= ENCODER_PARTS, path


def test_every_part_is_known():
    parts = {path.parts[0].removesuffix(".py") for path in FILES}
    assert parts - {"__init__"} == set(ALLOWED)
