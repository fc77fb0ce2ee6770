"""What is hidden, what is reconstructed, and what is counted."""

import keras
import numpy as np
import pytest
import reconstruction_reference as ref
from keras import ops
from methods_reference import numpy_of
from reconstruction_reference import NAMES
from utils import compiled, mainly_on, only_on, to_numpy, weights_of

from keras_mla.core import Batch
from keras_mla.models import CRA, AEFusion
from keras_mla.models.missing.reconstruction import reconstruction_loss


def make(cls=AEFusion, **kwargs):
    model = cls(
        ref.parts(), 3, widths=(4, 2), decoder=(3,), classifier=(4,), **kwargs
    )
    return ref.shuffled(model)


# === The loss ===


def test_only_hidden_entries_count():
    rng = np.random.default_rng(0)
    widths = {"text": 3, "audio": 5, "image": 2}
    guess, target = (
        {
            m: rng.normal(size=(6, w)).astype("float32")
            for m, w in widths.items()
        }
        for _ in range(2)
    )
    hidden = rng.random((6, 3)) < 0.4
    mask = ops.convert_to_tensor(hidden)
    loss = reconstruction_loss(guess, target, mask, NAMES)
    squares = [
        ((guess[m][i].astype("float64") - target[m][i]) ** 2).mean()
        for i in range(6)
        for k, m in enumerate(NAMES)
        if hidden[i, k]
    ]
    assert 2 < len(squares) < 18
    np.testing.assert_allclose(float(loss.mean), np.mean(squares), rtol=1e-5)
    assert float(loss.count) == len(squares)
    changed = {m: np.array(v) for m, v in target.items()}
    for k, m in enumerate(NAMES):
        changed[m][~hidden[:, k]] = np.nan if k else 7.0
    again = reconstruction_loss(guess, changed, mask, NAMES)
    assert float(again.mean) == float(loss.mean)
    changed["text"][hidden[:, 0]] += 1.0
    again = reconstruction_loss(guess, changed, mask, NAMES)
    assert float(again.mean) != float(loss.mean)
    nothing = reconstruction_loss(guess, target, ops.zeros_like(mask), NAMES)
    assert (float(nothing.mean), float(nothing.count)) == (0.0, 0.0)
    everything = reconstruction_loss(guess, target, None, NAMES)
    assert float(everything.count) == 18


# === What is hidden ===


@mainly_on("torch")
def test_the_incomplete_patterns_are_equally_likely():
    rows = 6000
    x = {m: np.zeros((rows, 1), "float32") for m in NAMES}
    presence = np.ones((rows, 3), bool)
    presence[:1000] = [False, True, True]
    presence[1000:1010] = [False, True, False]
    presence[1010:1020] = False
    data = ({**x, "presence": presence}, np.zeros(rows))
    batch = Batch.from_data(NAMES, data)
    seed = keras.random.SeedGenerator(0)
    left = to_numpy(batch.drop(0.5, seed, always=True).presence)
    assert not left[~presence].any()
    assert (left.sum(1) == 1)[:1000].all()  # One of two.
    assert 400 < left[:1000, 1].sum() < 600
    np.testing.assert_array_equal(left[1000:1020], presence[1000:1020])
    patterns, counts = np.unique(left[1020:], axis=0, return_counts=True)
    assert len(patterns) == 6
    np.testing.assert_allclose(counts, 830, atol=120)
    # Without `always`, an eighth stays complete.
    left = to_numpy(batch.drop(0.5, seed).presence)[1020:]
    np.testing.assert_allclose(left.all(1).mean(), 1 / 8, atol=0.02)


def hidden_in_training(model, x, y):
    """Returns the entries that one step has hidden."""
    seen = []
    original = model.prepare_batch

    def prepare(batch):
        batch = original(batch)
        seen.append(to_numpy(batch.extra["hidden"]) if batch.extra else None)
        return batch

    model.prepare_batch = prepare
    model.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    logs = model.train_on_batch(x, y, return_dict=True)
    model.test_on_batch(x, y)
    assert len(seen) == 2
    return *seen, logs


@only_on("torch")
def test_present_values_are_hidden_in_training_alone():
    x, y = ref.data(400)
    trained, tested, _ = hidden_in_training(make(), x, y)
    assert tested is None
    assert trained.any() and not trained[~x["presence"]].any()
    left = x["presence"] & ~trained
    np.testing.assert_array_equal(left.any(1), x["presence"].any(1))
    complete = x["presence"].all(1)
    assert left[complete].all(1).any()  # Some stay complete.
    trained, _, _ = hidden_in_training(make(train_complete=False), x, y)
    several = x["presence"].sum(1) > 1
    assert trained[several].any(1).all()


@only_on("torch")
def test_absent_values_are_reconstructed_if_asked_for():
    x, y = ref.data(400)
    trained, tested, _ = hidden_in_training(make(targets="hidden"), x, y)
    absent = ~x["presence"] & x["presence"].any(1, keepdims=True)
    np.testing.assert_array_equal(trained, absent)
    np.testing.assert_array_equal(tested, absent)


@only_on("torch")
@pytest.mark.parametrize("targets", ["present", "hidden"])
def test_what_modality_dropout_hides_is_reconstructed_too(targets):
    x, y = ref.data(100)
    kwargs = {"modality_dropout": 0.5, "hide_rate": 1e-9, "targets": targets}
    trained, tested, logs = hidden_in_training(make(**kwargs), x, y)
    dropped = trained & x["presence"]
    assert 20 < dropped.sum() < 120
    left = x["presence"] & ~trained
    np.testing.assert_array_equal(left.any(1), x["presence"].any(1))
    absent = trained & ~x["presence"]
    assert absent.any() == (targets == "hidden")
    assert (tested is None) == (targets == "present")
    assert np.isfinite(logs["reconstruction_loss"])


@mainly_on("torch")
def test_the_running_mean_can_stand_for_absent_features():
    x, y = ref.data(8)
    presence = x.pop("presence")
    model = compiled(make(impute="mean"))
    model.fit(x, y, verbose=0)
    vectors = {m: to_numpy(v) for m, v in model.imputation.vectors.items()}
    assert all(vector.any() for vector in vectors.values())
    f = model.features(x)
    shown = [
        np.where(presence[:, [i]], f[m], vectors[m])
        for i, m in enumerate(NAMES)
    ]
    code, _ = model.autoencoder(np.concatenate(shown, 1))
    found = model.imputed({**x, "presence": presence})["text"]
    expected = to_numpy(model.decoders["text"](code))
    there = presence[:, 0]
    np.testing.assert_allclose(found[~there], expected[~there], atol=1e-5)


@mainly_on("torch")
def test_what_stands_in_absent_values_changes_nothing():
    x, y = ref.data(9)
    results = []
    for other in (0.0, np.nan):
        model = compiled(make())
        given = dict(x)
        for index, m in enumerate(NAMES):
            given[m] = np.array(x[m])
            given[m][~x["presence"][:, index]] = other
        keras.utils.set_random_seed(1)
        model.hide_seed.state.assign([1, 2])
        model.fit(given, y, shuffle=False, verbose=0)
        results.append(weights_of(model))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


# === Samples and data that are left out or refused ===


def test_a_sample_without_any_modality_trains_nothing():
    x, y = ref.data()
    empty = ~x["presence"].any(1)
    assert empty.sum() >= 1
    model = compiled(make(targets="hidden"))
    scores = model.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_array_equal(model.predict(x, verbose=0)[empty], 0)
    fewer = {name: value[~empty] for name, value in x.items()}
    others = model.evaluate(fewer, y[~empty], verbose=0, return_dict=True)
    assert scores["reconstruction_loss"] > 0
    for name in ("loss", "fused_loss", "reconstruction_loss"):
        np.testing.assert_allclose(scores[name], others[name], rtol=1e-5)


@mainly_on("torch")
def test_nan_is_refused_before_training_if_it_is_a_target():
    x, y = ref.data()
    x["text"][3] = np.nan
    assert not x["presence"][3, 0]
    model = compiled(make(targets="hidden"))
    before = weights_of(model)
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="'text' holds NaN in 1"):
            call(x, y, verbose=0)
    with pytest.raises(ValueError, match="must be the true ones"):
        model.train_on_batch(x, y)
    for a, b in zip(before, weights_of(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(model.predict(x, verbose=0)).all()
    model = compiled(make())
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()


def test_unpaired_data_are_refused():
    x, y = ref.data()
    x.pop("presence")
    with pytest.raises(ValueError, match="not a dict keyed by modality"):
        compiled(make()).train_on_batch(x, dict.fromkeys(NAMES, y))


@pytest.mark.parametrize(
    "wrong",
    [
        {"targets": "absent"},
        {"hide_rate": 0.0},
        {"hide_rate": 1.0},
        {"reconstruction_weight": -1.0},
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match="must be"):
        AEFusion(ref.parts(), 3, **wrong)


# === Prediction ===


def test_imputed_features_and_unimodal_scores():
    x, _ = ref.data()
    model = make(cls=CRA, blocks=2)
    p = numpy_of(
        ref.of_cascade("c", model.autoencoder)
        | {
            k: v
            for m in NAMES
            for k, v in ref.of_stack(f"{m}_dec", model.decoders[m]).items()
        }
        | {
            k: v
            for m in NAMES
            for k, v in ref.of_stack(m, model.encoders[m]).items()
        }
    )
    f = {m: ref.stack(p, m, x[m], last=False) for m in NAMES}
    shown = ref.side_by_side(f, x["presence"])
    code = ref.transition(p, "c", ref.cumulative(p, "c", shown, 2)[0])
    found = model.imputed(x)
    assert list(found) == list(NAMES)
    for index, m in enumerate(NAMES):
        guess = ref.stack(p, f"{m}_dec", code, last=False)
        expected = np.where(x["presence"][:, [index]], f[m], guess)
        np.testing.assert_allclose(found[m], expected, atol=1e-5)
    alone = model.unimodal("audio").predict(x["audio"], verbose=0)
    only = {"text": None, "audio": x["audio"], "image": None}
    np.testing.assert_allclose(alone, model.predict(only, verbose=0), atol=1e-6)
    # If nothing is absent, features are what encoders return.
    x.pop("presence")
    np.testing.assert_allclose(model.imputed(x)["text"], f["text"], atol=1e-5)
