"""Losses and gradients of AE, CRA, MMIN and IF-MMIN, against NumPy."""

import keras
import methods_reference as base
import numpy as np
import pytest
import reconstruction_reference as ref
from reconstruction_reference import NAMES
from utils import compiled, mainly_on, only_on, to_numpy

from keras_mla.core import Batch
from keras_mla.models import IFMMIN, METHODS, ConcatFusion

IMPUTING = ("AEFusion", "CRA", "MMIN", "InvariantFusion", "IFMMIN")
WIDTHS = (4, 2)
TEACHING = {"invariant": (3, 2), "classifier": (4,), "dropout": 0.0}


def teacher_of(name, seed=5):
    """A teacher with random weights, and the arguments that name it."""
    if METHODS[name].teacher is None:
        return {}
    if name == "MMIN":
        return {"teacher": ref.shuffled(ConcatFusion(ref.parts(), 3), seed)}
    return {"teacher": ref.shuffled(IFMMIN.teacher(ref.parts(), 3, **TEACHING))}


def make(name, **kwargs):
    """A small model of a method, with random weights."""
    own = {
        "AEFusion": {"widths": WIDTHS, "decoder": (3,), "classifier": (4,)},
        "CRA": {
            "widths": WIDTHS, "blocks": 2, "decoder": (3,), "classifier": (4,),
        },
        "MMIN": {
            "widths": WIDTHS, "blocks": 2, "classifier": (4,), "dropout": 0.0,
        },
        "InvariantFusion": TEACHING,
        "IFMMIN": {"widths": WIDTHS, "blocks": 2, **TEACHING},
    }[name]  # fmt: skip
    given = {**own, **teacher_of(name), **kwargs}
    return ref.shuffled(METHODS[name].cls(ref.parts(), 3, **given))


# === The methods in NumPy ===


def weights(model):
    """The trainable weights of a model, by name."""
    found = base.encoder_weights(model) | base.dense_of("head", model.head)
    found |= ref.of_stack("hidden", model.hidden)
    for name in ("autoencoder", "cascade", "back"):
        if hasattr(model, name):
            found |= ref.of_cascade(name, getattr(model, name))
    for m, decoder in getattr(model, "decoders", {}).items():
        found |= ref.of_stack(f"{m}_dec", decoder)
    if hasattr(model, "shared"):
        found |= ref.of_stack("shared", model.shared)
    if getattr(model, "bridge", None) is not None:
        found |= base.dense_of("bridge", model.bridge)
    return found


def classified(p, x):
    return ref.stack(p, "hidden", x) @ p["head_W"] + p["head_b"]


def shared(p, f, presence=None):
    """What the shared encoder makes of shown features."""
    shown = np.split(ref.side_by_side(f, presence), len(NAMES), axis=1)
    return [ref.stack(p, "shared", part, 0.01) for part in shown]


def logits_and_terms(name, p, x, presence, targets, hidden, given):
    """The logits, and the weighted terms of the loss besides cross-entropy.

    Args:
        name: Name of the method.
        p: dict of weights.
        x: dict of true values.
        presence: Entries that are shown.
        targets: dict of `"features"` and `"alike"`, by modality.
        hidden: Entries that are reconstructed.
        given: Entries with a true value.
    """
    f = ref.features(p, x)
    h = ref.side_by_side(f, presence)
    if name in ("AEFusion", "CRA"):
        if name == "CRA":
            code, _ = ref.cumulative(p, "autoencoder", h, 2)
            code = ref.transition(p, "autoencoder", code)
        else:
            code, _ = ref.chained(p, "autoencoder", h, 1, slopes=(0.01, 0.01))
        guess = np.concatenate(
            [ref.stack(p, f"{m}_dec", code, last=False) for m in NAMES], 1
        )
        error = ref.error(guess, targets["features"], hidden)
        return classified(p, code), 1.0 * error
    if name == "InvariantFusion":
        alike = shared(p, f, presence)
        z = [1 / (1 + np.exp(-part)) for part in alike]
        pairs = [
            ref.discrepancy(z[a][presence[:, a]], z[b][presence[:, b]])
            for a, b in ((0, 1), (0, 2), (1, 2))
        ]
        return classified(p, np.concatenate([h, *alike], 1)), np.mean(pairs)
    if name == "MMIN":
        guess, latents = ref.cumulative(p, "cascade", h, 2)
        guess = ref.transition(p, "cascade", guess)
        back, _ = ref.cumulative(p, "back", guess, 2)
        back = ref.transition(p, "back", back)
        terms = 4 * ref.error(guess, targets["features"], hidden)
        terms += 2 * ref.error(back, targets["own"], presence)
        return classified(p, latents), terms
    alike = np.concatenate(shared(p, f, presence), 1)
    added = alike @ p["bridge_W"] + p["bridge_b"]
    guess, latents = ref.chained(p, "cascade", h, 2, added)
    guess = ref.transition(p, "cascade", guess)
    terms = 1.0 * ref.error(guess, targets["features"], hidden)
    terms += 1.0 * ref.error(alike, targets["alike"], given)
    return classified(p, latents), terms


def constants(name, model, x):
    """The features that losses compare with, which get no gradient."""
    own = ref.features(base.numpy_of(weights(model)), x)
    if METHODS[name].teacher is None:
        return {"features": own}
    teacher = model.teacher.model
    p = base.numpy_of(base.encoder_weights(teacher))
    found = {"own": own, "features": ref.features(p, x)}
    if name == "IFMMIN":
        p |= base.numpy_of(ref.of_stack("shared", teacher.shared))
        parts = shared(p, found["features"])
        found["alike"] = dict(zip(NAMES, parts, strict=True))
    return found


def check(name, model, x, y, hidden, given):
    """Compares a step with NumPy, for the entries that it hides."""
    presence = x["presence"] & ~hidden
    known, targets = presence.any(1), constants(name, model, x)

    def objective(p):
        logits, terms = logits_and_terms(
            name, p, x, presence, targets, hidden, given
        )
        return base.cross_entropy(logits, y, known) + terms

    variables = weights(model)
    # Compiled: on JAX an eager step compiles each operation by itself.
    model = compiled(model, keras.optimizers.SGD(1.0), metrics=None)
    base.check_step(model, variables, x, y, objective, tolerance=1e-4)


def hidden_targets(name):
    return {} if name == "InvariantFusion" else {"targets": "hidden"}


@pytest.mark.parametrize("name", IMPUTING)
def test_a_step_on_hidden_values(name):
    x, y = ref.data()
    model = make(name, **hidden_targets(name))
    given = np.tile(x["presence"].any(1, keepdims=True), 3)
    check(name, model, x, y, given & ~x["presence"], given)


@mainly_on("torch")
@pytest.mark.parametrize("name", [n for n in IMPUTING if n[:3] != "Inv"])
def test_a_step_on_present_values(name, monkeypatch):
    x, y = ref.data(9)
    hidden = np.zeros_like(x["presence"])
    hidden[[0, 2, 2], [2, 0, 1]] = True
    assert x["presence"][hidden].all()
    for index, m in enumerate(NAMES):
        x[m][~x["presence"][:, index]] = np.nan
    monkeypatch.setattr(
        Batch, "drop", lambda batch, rate, seed, always: batch.hide(hidden)
    )
    check(name, make(name), x, y, hidden, x["presence"])


@pytest.mark.parametrize("name", IMPUTING)
def test_training_at_a_missing_rate_of_70_percent(name, tmp_path):
    x, y = ref.data(24)
    rng = np.random.default_rng(2)
    x["presence"] = np.eye(3, dtype=bool)[rng.integers(0, 3, 24)]
    assert x["presence"].mean() == pytest.approx(1 / 3)
    model = make(name, **hidden_targets(name))
    names = {f"{t}_loss" for t in getattr(model, "terms_named", ())}
    names = names or {"discrepancy_loss"}
    compiled(model, keras.optimizers.Adam(0.01))
    history = model.fit(x, y, batch_size=12, verbose=0).history
    assert names <= set(history)
    assert all(np.isfinite(v).all() for v in history.values())
    scores = model.evaluate(x, y, verbose=0, return_dict=True)
    assert all(np.isfinite(v) for v in scores.values())
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    configs = again.get_config(), model.get_config()
    for layers in configs:  # The contract test compares them.
        for key in ("encoders", "head", "teacher"):
            layers.pop(key, None)
    assert configs[0] == configs[1]
    count = len(again.trainable_variables)
    assert count == len(model.trainable_variables)
    assert all(0 < scores[term] for term in names)


@only_on("torch")
def test_each_method_says_what_it_trains_on():
    """Whether a sample is trained with all it has, as published."""
    defaults = {
        name: make(name).train_complete
        for name in IMPUTING
        if name != "InvariantFusion"
    }
    assert defaults == {
        "AEFusion": True, "CRA": True, "MMIN": False, "IFMMIN": False,
    }  # fmt: skip


# === The discrepancy of the first stage ===


@mainly_on("torch")
def test_the_discrepancy_without_pairs():
    x, y = ref.data(6)
    x["presence"] = np.tile([True, False, False], (6, 1))
    model = compiled(make("InvariantFusion"))
    scores = model.evaluate(x, y, verbose=0, return_dict=True)
    assert scores["discrepancy_loss"] == 0
    assert scores["loss"] == pytest.approx(scores["fused_loss"], rel=1e-6)
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()
    # One pair: its own discrepancy, not a third of it.
    x["presence"][::2, 2] = True
    scores = model.evaluate(x, y, verbose=0, return_dict=True)
    p = base.numpy_of(weights(model))
    text, _, image = shared(p, ref.features(p, x), x["presence"])
    z = [1 / (1 + np.exp(-part)) for part in (text, image[::2])]
    expected = ref.discrepancy(*z)
    assert scores["discrepancy_loss"] == pytest.approx(expected, abs=1e-5)
    assert to_numpy(model.shared.layers[0].kernel).shape == (3, 3)


@pytest.mark.parametrize("wrong", [{"moments": 0}, {"invariant": ()}])
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match="at least one moment"):
        IFMMIN.teacher(ref.parts(), 3, **wrong)


@only_on("torch")
@pytest.mark.parametrize("name", ["AEFusion", "CRA"])
def test_a_batch_is_encoded_once(name):
    model = make(name, hide_rate=0.9)
    model = compiled(model, "sgd", run_eagerly=True)
    rng = np.random.default_rng(0)
    x = {
        m: rng.normal(size=(8, *model.encoders[m].input_shape[1:]))
        for m in NAMES
    }
    calls = []
    for m in NAMES:
        encoder = model.encoders[m]
        encoder.register_forward_hook(
            lambda *args, m=m: calls.append((m, args[1][0]))
        )
    model.train_on_batch(x, np.arange(8) % 3)
    calls.clear()  # The first batch is also rehearsed.
    model.train_on_batch(x, np.arange(8) % 3)
    assert sorted(m for m, _ in calls) == sorted(NAMES)
    # Encoders see all true values, of which most are hidden behind them.
    for m, given in calls:
        np.testing.assert_allclose(to_numpy(given), x[m], rtol=1e-6)
