"""What an ONNX file needs before and after Keras writes it."""

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras


def check(signature: Any, outputs: Sequence[str], verify: bool) -> list[str]:
    """Returns the names of the inputs of an ONNX file.

    Raises:
        ImportError: If a package is not installed.
        ValueError: If two inputs or outputs would have one name.
    """
    needed = {"onnx": "Export to ONNX needs"}
    if verify:
        needed["onnxruntime"] = "`verify=True` needs"
    for package, what in needed.items():
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"{what} the package `{package}`. Install it with: "
                "pip install 'keras-mla[onnx]'"
            )
    inputs = [
        getattr(spec, "name", None) or f"input_{index}"  # As Keras does.
        for index, spec in enumerate(keras.tree.flatten(signature))
    ]
    names = [*inputs, *outputs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"An ONNX file cannot have two inputs or outputs named {twice}. "
            "Rename a modality, or a part of one: 'a_b' is also the name of "
            "the part 'b' of the modality 'a'."
        )
    return inputs


@contextlib.contextmanager
def replacing(path: Any) -> Iterator[str]:
    """Yields a path to write to, which replaces `path` unless an error comes.

    Large weights stand in files beside it, which come with it.
    """
    folder, name = os.path.split(os.path.abspath(os.fspath(path)))
    part = tempfile.mkdtemp(prefix=".export-", dir=folder)
    try:
        yield os.path.join(part, name)
        for written in os.listdir(part):
            os.replace(
                os.path.join(part, written), os.path.join(folder, written)
            )
    finally:
        shutil.rmtree(part, ignore_errors=True)


def finish(path: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Names the inputs and outputs of an ONNX file, whatever wrote it.

    It also writes the operation `Erfc`, which tf2onnx leaves as it is, as those
    that ONNX has: https://github.com/onnx/tensorflow-onnx/issues/2347.

    Args:
        path: Path of the file.
        inputs: Names of the inputs, as they were exported. Unused ones may be
            missing in the file.
        outputs: Names of the outputs, in the order of the file.

    Raises:
        ValueError: If the file has an input that was not exported.
    """
    import onnx

    # Large weights may stand in files beside it.
    model = onnx.load(os.fspath(path), load_external_data=False)
    graph = model.graph
    # No other value may have one of the new names.
    moved = {name: f"keras_mla/{name}" for name in [*inputs, *outputs]}
    _rename(graph, moved)
    known = {f"{name}:0": name for name in inputs}  # TensorFlow's names.
    known |= {moved[name]: name for name in inputs}
    first, last = [], []
    # Weights may be listed among the inputs.
    weights = {value.name for value in graph.initializer}
    for value in graph.input:
        if value.name in weights:
            continue
        if value.name not in known:
            raise ValueError(
                f"The ONNX file asks for the input {value.name!r}, which is a "
                "constant of a layer: tf2onnx takes it for an input. Save the "
                "model, load it with KERAS_BACKEND=torch, and export it there."
            )
        name = known[value.name]
        first.append(onnx.helper.make_node("Identity", [name], [value.name]))
        value.name = name
    for value, name in zip(graph.output, outputs, strict=True):
        last.append(onnx.helper.make_node("Identity", [value.name], [name]))
        value.name = name
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)
    _replace_erfc(graph)
    onnx.save(model, os.fspath(path))


def _replace_erfc(graph: Any) -> None:
    """Writes erfc(x) as 1 - erf(x), in a graph and in the graphs in it."""
    from onnx import helper

    nodes = []
    for node in graph.node:
        for inner in _inner(node):
            _replace_erfc(inner)
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        [x], [result] = node.input, node.output
        negative = helper.make_node("Neg", [x], [f"{result}/negative"])
        erf = helper.make_node("Erf", [f"{result}/negative"], [f"{result}/erf"])
        # 1 + erf(-x), where one is exp(0) of the type of x.
        zero = helper.make_node("Sub", [x, x], [f"{result}/zero"])
        one = helper.make_node("Exp", [f"{result}/zero"], [f"{result}/one"])
        total = [f"{result}/one", f"{result}/erf"]
        nodes += [negative, erf, zero, one]
        nodes.append(helper.make_node("Add", total, [result]))
    del graph.node[:]
    graph.node.extend(nodes)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Renames values of a graph and of the graphs in its nodes."""
    for value in [
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
    ]:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in _inner(node):
            _rename(inner, names)


def _inner(node: Any) -> list[Any]:
    """Returns the graphs in a node, such as the body of a loop."""
    return [
        graph
        for attribute in node.attribute
        for graph in [attribute.g, *attribute.graphs]
        if graph.node
    ]
