"""Parts of the site that are made from the library itself."""

import importlib
import inspect
import pathlib
import re
import tomllib
from collections.abc import Callable, Iterable

from sphinx.application import Sphinx

from keras_mla import encoders
from keras_mla.models import registry

_FAMILIES = {
    "joint": "One prediction from joined features",
    "late": "A head for each modality",
    "balanced": "Methods that balance modalities",
    "missing": "Methods for missing modalities",
}
_NEEDS = {
    "sample_id": '`x["sample_id"]` in training',
    "num_samples": "the number of training samples",
    "complete": "complete training samples",
    "adapt": "a call of `adapt` before `fit`",
    "teacher": "a fitted teacher",
    "frozen": "frozen encoders",
}
_TASKS = {
    "single_label": "one class of several",
    "multi_label": "several labels",
    "regression": "regression",
}
_EVIDENCE = pathlib.Path(__file__).parents[1] / "evidence.toml"
_SETS = ("crema_d", "kinetics_sounds", "food101", "mvsa", "iemocap")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def methods() -> str:
    """Returns a section for each family, with one for each of its methods."""
    evidence = tomllib.loads(_EVIDENCE.read_text(encoding="utf-8"))
    parts = []
    for family, title in _FAMILIES.items():
        parts.append(f"## {title}")
        for method in registry.METHODS.values():
            if method.family == family:
                parts.append(_method(method, evidence[method.name].strip()))
    return "\n\n".join(parts)


def _method(method: registry.Method, found: str) -> str:
    text = inspect.getdoc(method.cls) or ""
    formula = re.search(r"\$\$.*?\$\$", text, re.S)
    needs = [_NEEDS[name] for name in method.needs]
    if method.fewest_modalities > 1:
        needs.append(f"{method.fewest_modalities} modalities or more")
    if method.whole_batch:
        needs.append("whole batches")
    facts = {
        "Class": f"{{py:class}}`keras_mla.models.{method.name}`",
        "Source": method.paper,
        "Tasks": ", ".join(_TASKS[task] for task in method.tasks),
        "Needs": ", ".join(needs) or "nothing more",
        "Found": " ".join(found.split()),
    }
    return "\n\n".join(
        [
            f"### {method.title}",
            text.partition("\n")[0],
            formula[0] if formula else "",
            "\n".join(f":{name}: {fact}" for name, fact in facts.items()),
        ]
    )


def others() -> str:
    """Returns what was tried of encoders of others, as a table."""
    text = inspect.getdoc(encoders) or ""
    before, _, rest = text.partition("\n\n")[2].partition("\n    encoder")
    lines, _, after = rest.partition("\n\n")
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines.split("\n")[1:]]
    table = _table(["encoder", "use", "SavedModel", "ONNX"], rows)
    return f"{before.strip()}\n\n{table}\n\n{after}"


def datasets() -> str:
    """Returns the paper's data sets, as a table."""
    rows = []
    for name in _SETS:
        module = importlib.import_module(f"keras_mla.datasets.{name}")
        title, _, about = module.__doc__.partition(": ")
        functions = [
            f"{{py:func}}`{function} <keras_mla.datasets.{name}.{function}>`"
            for function in ("files", "load")
        ]
        rows.append([title, about.strip().rstrip("."), ", ".join(functions)])
    return _table(["data set", "is", "functions"], rows)


PARTS: dict[str, Callable[[], str]] = {
    "methods": methods,
    "encoders": others,
    "datasets": datasets,
}


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    mark = f"<!-- {name} -->"
    if name in PARTS and mark in source[0]:
        source[0] = source[0].replace(mark, PARTS[name]())


def setup(app: Sphinx) -> dict:
    """Replaces `<!-- methods -->` on the page of methods, and so on."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
