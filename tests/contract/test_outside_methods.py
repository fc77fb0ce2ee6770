"""Methods can be written outside the package, and do what they say."""

import ast
import inspect
import pathlib

import keras
import numpy as np
import outside_methods
import pytest
from outside_methods import MMPareto, TaughtImputation, WithJoint
from utils import (
    CLASSES,
    WIDTHS,
    compiled,
    encoder,
    make_data,
    make_method,
    to_numpy,
)

NAMES = tuple(WIDTHS)


def parts():
    return {name: encoder(WIDTHS[name]) for name in NAMES}


def saved(model, path):
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras", safe_mode=True)


@pytest.mark.parametrize("cls", [MMPareto, TaughtImputation, WithJoint])
def test_they_are_short_and_use_public_names(cls):
    source = inspect.getsource(cls)
    assert len(source.splitlines()) <= 60
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            dunder = node.attr.startswith("__") and node.attr.endswith("__")
            assert dunder or not node.attr.startswith("_"), node.attr
    module = pathlib.Path(outside_methods.__file__).read_text()
    assert "keras_mla.core import" in module and "backend" not in module


def test_pareto_integration_against_numpy(tmp_path):
    x, y = make_data(12)
    model = compiled(MMPareto(parts(), CLASSES, gamma=1.2))
    rng = np.random.default_rng(13)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 1.5, variable.shape))
    before = {v.path: to_numpy(v) for v in model.trainable_variables}
    parts_of = model.predict_modalities(x)
    features = model.features(x)
    one_hot = np.eye(CLASSES)[y]

    def slope(z):
        p = np.exp(z - z.max(1, keepdims=True))
        return (p / p.sum(1, keepdims=True) - one_hot) / len(y)

    model.train_on_batch(x, y)
    conflicts = 0
    for name in NAMES:
        head, own = model.heads[name], model.encoders[name].variables
        active = features[name] > 0
        gradients = []
        for z in (parts_of["fused"], parts_of[name]["logits"]):
            back = slope(np.float64(z)) @ before[head.kernel.path].T * active
            gradients.append([x[name].T @ back, back.sum(0)])
        joint, alone = gradients
        flat = [np.concatenate([g.ravel() for g in gs]) for gs in gradients]
        both = flat[0] @ flat[1]
        share = 0.5
        if both < 0:
            conflicts += 1
            distance = ((flat[0] - flat[1]) ** 2).sum()
            share = np.clip((flat[1] @ flat[1] - both) / distance, 0, 1)
        mixed = [
            2 * share * a + 2 * (1 - share) * b
            for a, b in zip(joint, alone, strict=True)
        ]
        norm = np.sqrt(sum((m**2).sum() for m in mixed))
        factor = 1.2 * max(np.linalg.norm(flat[0] + flat[1]) / norm, 1)
        for variable, gradient in zip(own, mixed, strict=True):
            np.testing.assert_allclose(
                to_numpy(variable),
                before[variable.path] - 0.1 * factor * gradient,
                atol=2e-5,
            )
    assert 0 < conflicts < len(NAMES)  # Both cases were met.
    again = saved(model, tmp_path)
    assert again.gamma == 1.2


def test_imputation_learns_what_a_teacher_knows(tmp_path):
    x, y = make_data(64)
    teacher = compiled(make_method("ConcatFusion"), "adam")
    teacher.fit(x, y, epochs=5, verbose=0)
    model = compiled(
        TaughtImputation(parts(), CLASSES, teacher=teacher),
        keras.optimizers.Adam(0.02),
    )
    history = model.fit(x, y, epochs=12, verbose=0).history
    assert history["imputed"][-1] < 0.7 * history["imputed"][0]
    presence = np.ones((64, 3), bool)
    presence[:, 0] = False
    x["presence"] = presence
    x[NAMES[0]][:] = np.nan
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()
    again = saved(model, tmp_path)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    scores = model.evaluate(x, y, verbose=0, return_dict=True)
    assert np.isfinite(scores["imputed"])
