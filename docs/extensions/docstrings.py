"""Docstrings in Markdown, as this library writes them, for Sphinx.

Formulas in dollars, code in single backquotes, fenced code, and lists that
follow a line of text become what reStructuredText writes for them. A name of
this library in backquotes becomes a link.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Any

from names import reference
from sphinx.application import Sphinx

from keras_mla import core

_BLOCK = re.compile(
    r"^(?P<i1> *)\$\$(?P<math>.*?)\$\$"
    r"|^(?P<i2> *)```\w*\n(?P<fenced>.*?)^ *```"
    r"|^(?P<i3> *)(?P<doctest>>>> .*?)(?=\n *\n|\Z)",
    re.S | re.M,
)
_OF_KERAS = {
    "build",
    "build_from_config",
    "call",
    "compute_mask",
    "compute_output_shape",
    "compute_output_spec",
    "from_config",
    "get_build_config",
    "get_config",
    "load_own_variables",
    "save_own_variables",
}
_METHODS = "keras_mla.models."
_HOOKS = {
    name
    for base in (core.MultimodalModel, core.JointModel, core.LateModel)
    for name in dir(base)
} - {"adapt"}
# Code first: it may hold dollars.
_INLINE = re.compile(r"``?(?P<code>[^`]+?)``?|\$(?P<math>[^$]+?)\$")


def convert(text: str) -> str:
    """Returns a docstring in Markdown as reStructuredText."""
    return "".join(_parts(text))


def _parts(text: str) -> Iterator[str]:
    end = 0
    for block in _BLOCK.finditer(text):
        yield _prose(text[end : block.start()])
        indent = block["i1"] or block["i2"] or block["i3"] or ""
        if block["math"] is not None:
            lines = [line.strip() for line in block["math"].split("\n")]
            yield _directive("math::", lines, indent)
        elif block["fenced"] is not None:
            lines = block["fenced"].split("\n")
            lines = [line.removeprefix(indent) for line in lines]
            yield _directive("code-block:: python", lines, indent)
        else:
            # An example is not indented under its heading.
            lines = f"{indent}{block['doctest']}".split("\n")
            yield "\n" + "\n".join(f"    {line}" for line in lines)
        end = block.end()
    yield _prose(text[end:])


def _directive(kind: str, lines: list[str], indent: str) -> str:
    body = "\n".join(f"{indent}    {line}" for line in lines if line.strip())
    return f"\n{indent}.. {kind}\n\n{body}\n\n"


def _prose(text: str) -> str:
    return _INLINE.sub(_replace, _separated(_by_line(text)))


def _by_line(text: str) -> str:
    """Makes a paragraph of each line of references that ends in a period."""
    before, heading, references = text.partition("Reference:\n")
    return before + heading + re.sub(r"\.\n(?= )", ".\n\n", references)


def _separated(text: str) -> str:
    """Puts an empty line before a list that follows a line of text."""
    result: list[str] = []
    in_list = False
    for line in text.split("\n"):
        starts = bool(re.match(r" *(- |\d+\. )", line))
        if starts and not in_list and result and result[-1].strip():
            result.append("")
        if line.strip():
            in_list = starts or (in_list and line.startswith(" "))
        result.append(line)
    return "\n".join(result)


def _replace(match: re.Match) -> str:
    after = match.string[match.end() : match.end() + 1]
    tail = "\\ " if after.isalnum() else ""
    if match["math"]:
        return f":math:`{' '.join(match['math'].split())}`{tail}"
    code = " ".join(match["code"].split())
    target = reference(code)
    if target:
        return f":py:obj:`{code} <{target}>`{tail}"
    return f"``{code}``{tail}"


def _process(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    lines[:] = convert("\n".join(lines)).split("\n")


def _signature(
    app: Sphinx, what: str, name: str, obj: Any, *_: Any
) -> tuple[str, str] | None:
    """Returns the constructor's arguments, which Keras's `__new__` hides."""
    if what != "class" or obj.__init__ is object.__init__:
        return None
    signature = inspect.signature(obj.__init__)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in list(signature.parameters.values())[1:]
    ]
    signature = inspect.Signature(parameters)
    return str(signature), ""


def _skip(
    app: Sphinx, what: str, name: str, obj: Any, *rest: Any
) -> bool | None:
    """Leaves out what Keras asks of each layer, and what bases document."""
    if what == "module":
        return None
    function = inspect.unwrap(getattr(obj, "fget", None) or obj)
    module = getattr(function, "__module__", None) or ""
    # scikit-learn adds `set_fit_request` and the like.
    foreign = module.startswith(("keras.", "sklearn."))
    if foreign or name in _OF_KERAS or name.endswith("_request"):
        return True
    return True if module.startswith(_METHODS) and name in _HOOKS else None


def setup(app: Sphinx) -> dict:
    """Converts docstrings before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
