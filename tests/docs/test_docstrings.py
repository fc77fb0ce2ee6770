"""Every public name is documented, and its examples run."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap

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


def functions_of(name, item):
    """Yields the functions of a public name, each with its docstring."""
    if not inspect.isclass(item):
        yield name, inspect.unwrap(item), inspect.getdoc(item)
        return
    if inspect.isfunction(vars(item).get("__init__")):
        yield f"{name}.__init__", item.__init__, inspect.getdoc(item)
    for key, member in vars(item).items():
        member = getattr(member, "__func__", member)
        inherited = any(hasattr(base, key) for base in item.__mro__[1:])
        public = inspect.isfunction(member) and not key.startswith("_")
        if public and not inherited:
            yield f"{name}.{key}", member, inspect.getdoc(member)


def raised_by(function):
    """Returns the names of the errors that a function's own code raises."""
    try:
        source = inspect.getsource(function)
    except OSError:  # What `dataclasses` writes.
        return set()
    nodes = ast.walk(ast.parse(textwrap.dedent(source)))
    errors = [n.exc for n in nodes if isinstance(n, ast.Raise) and n.exc]
    errors = [getattr(error, "func", error) for error in errors]
    names = {error.id for error in errors if isinstance(error, ast.Name)}
    # A variable holds an error that something else has raised.
    return {n for n in names if n[0].isupper()} - {"NotImplementedError"}


def lacking(name, function, text):
    """Returns what a docstring does not say."""
    found = []
    signature = inspect.signature(function)
    for given in signature.parameters:
        named = rf"^ *(?:[\w*]+, )*\*{{0,2}}{given}(?:, [\w*]+)*: "
        if given not in ("self", "cls") and given[0] != "_":
            if not re.search(named, text, re.M):
                found.append(f"the argument {given}")
    nothing = signature.return_annotation in (None, "None", inspect._empty)
    says = r"^ *(Returns|Yields):|^(Returns|Yields|Whether) "
    if not (nothing or re.search(says, text, re.M)):
        if not name.endswith("__init__"):
            found.append("what is returned")
    _, _, errors = text.partition("Raises:")
    found += [e for e in sorted(raised_by(function)) if e not in errors]
    return found


@pytest.mark.parametrize("name", PUBLIC)
def test_nothing_lacks(name):
    found = {
        key: lacking(key, function, text or "")
        for key, function, text in functions_of(name, PUBLIC[name])
    }
    assert not any(found.values()), {k: v for k, v in found.items() if v}


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
