"""The method that CONTRIBUTING works out is whole, and right."""

import pathlib
import re

import keras
import numpy as np
import pytest
from utils import CLASSES, WIDTHS, compiled, encoder, make_data

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = tuple(WIDTHS)


def worked_example():
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S
    )
    (source,) = [b for b in blocks if "register_keras_serializable" in b]
    return source


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def test_it_is_short_and_uses_public_names():
    source = worked_example()
    assert len(source.splitlines()) < 60
    assert not re.search(r"\._[a-z]", source)


def test_it_trains_reports_saves_and_loads(tmp_path):
    names = {"__name__": "worked_example"}
    exec(worked_example(), names)
    model = names["MutualLearning"](
        {name: encoder(WIDTHS[name]) for name in NAMES}, CLASSES, weight=0.3
    )
    compiled(model)
    x, y = make_data(12)
    presence = np.random.default_rng(0).random((12, 3)) < 0.6
    x["presence"] = presence
    model.fit(x, y, verbose=0)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    found = model.predict_modalities(x)
    fused = log_softmax(np.float64(found["fused"]))
    far = [
        (np.exp(fused) * (fused - log_softmax(found[name]["logits"]))).sum(1)
        for name in NAMES
    ]
    divergence = np.stack(far, 1)[presence].mean()
    assert logs["divergence"] == pytest.approx(divergence, rel=1e-4)
    own = sum(logs[f"{name}_loss"] for name in NAMES)
    assert logs["loss"] == pytest.approx(own + 0.3 * divergence, rel=1e-4)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert again.weight == 0.3
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )
