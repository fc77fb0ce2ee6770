"""Names that become links: this library's, and Keras's."""

import functools
import importlib
import inspect
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

import keras_mla

# Keras has no inventory. These are pages of its own site.
KERAS = "https://keras.io/api/"
PAGES = {
    "keras.Input": "layers/core_layers/input/",
    "keras.Model": "models/model/",
    "keras.Model.compile": "models/model_training_apis/#compile-method",
    "keras.Model.evaluate": "models/model_training_apis/#evaluate-method",
    "keras.Model.fit": "models/model_training_apis/#fit-method",
    "keras.Model.predict": "models/model_training_apis/#predict-method",
    "keras.Sequential": "models/sequential/",
    "keras.applications": "applications/",
    "keras.callbacks.BackupAndRestore": "callbacks/backup_and_restore/",
    "keras.callbacks.Callback": "callbacks/base_callback/",
    "keras.callbacks.EarlyStopping": "callbacks/early_stopping/",
    "keras.distribution": "distribution/",
    "keras.layers.Dense": "layers/core_layers/dense/",
    "keras.layers.Layer": "layers/base_layer/",
    "keras.metrics.Metric": "metrics/base_metric/",
    "keras.optimizers": "optimizers/",
    "keras.utils.PyDataset": "utils/python_utils/",
    "keras.utils.set_random_seed": "utils/python_utils/",
}
MODULES = tuple(
    name
    for name in keras_mla.__all__
    if inspect.ismodule(getattr(keras_mla, name))
)


@functools.cache
def own() -> dict[str, str]:
    """Returns the documented name of each public class and function."""
    found: dict[str, str] = {}
    for part in MODULES:
        module = importlib.import_module(f"keras_mla.{part}")
        for name in module.__all__:
            item = getattr(module, name)
            if inspect.isclass(item) or inspect.isfunction(item):
                full = f"keras_mla.{part}.{name}"
                # What authors of methods need is documented in `core`.
                for short in (
                    name,
                    f"{part}.{name}",
                    full,
                    f"keras_mla.{name}",
                ):
                    found.setdefault(short, full)
    # It is documented beside what else `missing` has.
    of_missing = "keras_mla.datasets.missing.presence_of"
    return {
        n: of_missing if "presence_of" in n else t for n, t in found.items()
    }


def reference(code: str) -> str | None:
    """Returns the full name that code in a docstring names, if any."""
    if code in PAGES:
        return code
    module, _, name = code.partition(".")
    if module in ("np", "numpy") and name:
        return f"numpy.{name}"  # Without NumPy's inventory it stays code.
    return own().get(code)


def _missing(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    target = node.get("reftarget", "")
    if target not in PAGES:
        return None
    link = nodes.reference("", "", refuri=KERAS + PAGES[target])
    link += content
    return link


def setup(app: Sphinx) -> dict:
    """Resolves names of Keras."""
    app.connect("missing-reference", _missing)
    return {"parallel_read_safe": True}
