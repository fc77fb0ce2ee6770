"""Every public name is documented, and its examples run."""

import doctest
import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest

import keras_mla

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(keras_mla.__path__, "keras_mla.")
    if not name.startswith("keras_mla.backend")
]


def public_objects():
    """Returns the public classes and functions of this package, each once."""
    found = {}
    for name in ["keras_mla", *MODULES]:
        module = importlib.import_module(name)
        for key in getattr(module, "__all__", ()):
            item = getattr(module, key)
            if inspect.isclass(item) or inspect.isfunction(item):
                found[f"{item.__module__}.{item.__qualname__}"] = item
    return found


PUBLIC = public_objects()


@pytest.mark.parametrize("name", PUBLIC)
def test_is_documented(name):
    item = PUBLIC[name]
    assert item.__module__.startswith("keras_mla."), name
    assert inspect.getdoc(item), name
    members = vars(item) if inspect.isclass(item) else {}
    for key, member in members.items():
        if inspect.isfunction(member) and not key.startswith("_"):
            inherited = any(hasattr(b, key) for b in item.__mro__[1:])
            assert inherited or inspect.getdoc(member), f"{name}.{key}"


@pytest.mark.parametrize(
    "name", [n for n, item in PUBLIC.items() if ">>>" in (item.__doc__ or "")]
)
def test_examples_run(name, tmp_path, monkeypatch):
    if "`tf.data.Dataset`" in PUBLIC[name].__doc__ and name.endswith("load"):
        pytest.importorskip("tensorflow_io")
    monkeypatch.chdir(tmp_path)  # Some examples write files.
    item = PUBLIC[name]
    names = {"keras": keras, "np": np, "keras_mla": keras_mla}
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    test = doctest.DocTestParser().get_doctest(
        inspect.getdoc(item), names, name, None, 0
    )
    assert runner.run(test).failed == 0


def test_names_in_all_exist():
    for name in ["keras_mla", *MODULES]:
        module = importlib.import_module(name)
        for key in getattr(module, "__all__", ()):
            assert hasattr(module, key), f"{name}.{key}"
