"""Names of the inputs and outputs of an ONNX file."""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any


def check_installed() -> None:
    """Raises an `ImportError` unless `onnx` is installed."""
    if importlib.util.find_spec("onnx") is None:
        raise ImportError(
            "Export to ONNX needs the package `onnx`. Install it with: "
            "pip install 'keras-mla[onnx]'"
        )


def set_names(path: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Names the inputs and outputs of an ONNX file, whatever wrote it.

    Args:
        path: Path of the file.
        inputs: Names of the inputs. Those in the file begin with them; unused
            ones may be missing there.
        outputs: Names of the outputs, in the order of the file.
    """
    import onnx

    # Large weights may stand in files beside it.
    model = onnx.load(os.fspath(path), load_external_data=False)
    # No other value may have one of the new names.
    model = onnx.compose.add_prefix(
        model, "_/", rename_functions=False, rename_value_infos=True
    )
    graph = model.graph
    first, last = [], []
    for value in graph.input:
        plain = value.name.removeprefix("_/").split(":")[0]
        name = next(n for n in inputs if n == plain)
        first.append(onnx.helper.make_node("Identity", [name], [value.name]))
        value.name = name
    for value, name in zip(graph.output, outputs, strict=True):
        last.append(onnx.helper.make_node("Identity", [value.name], [name]))
        value.name = name
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, os.fspath(path))
