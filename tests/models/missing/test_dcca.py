"""DCCA and DCCAE: a step against NumPy, small batches, missing modalities."""

import keras
import methods_reference as ref
import numpy as np
import pytest
from incomplete_data import NAMES, at_rate
from keras import ops
from utils import (
    WIDTHS,
    compiled,
    encoder,
    mainly_on,
    make_data,
    some,
    to_numpy,
)

from keras_mla.models import DCCA, DCCAE
from keras_mla.models.missing.correlation import CorrelatedModel

METHODS = [DCCA, DCCAE]


def make(cls=DCCA, features=3, names=NAMES, **kwargs):
    parts = {name: encoder(WIDTHS[name], features) for name in names}
    return cls(parts, 4, **{"width": 2, "hidden": 3, **kwargs})


def variables_of(model):
    """The trainable variables, by short names."""
    found = ref.encoder_weights(model)
    parts = {f"{n}_p": net for n, net in model.networks.items()}
    for n, net in getattr(model, "decoders", {}).items():
        parts[f"{n}_q"] = net
    for name, network in parts.items():
        number = 0
        for layer in network.layers:
            if isinstance(layer, keras.layers.Dense):
                found |= ref.dense_of(f"{name}{number}", layer)
                number += 1
            elif layer.weights:
                found[f"{name}{number}_gamma"] = layer.gamma
                found[f"{name}{number}_beta"] = layer.beta
    return found | ref.dense_of("head", model.head)


def network(p, name, x):
    for number in range(2):
        x = x @ p[f"{name}{number}_W"] + p[f"{name}{number}_b"]
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3)
        number += 1
        x = x * p[f"{name}{number}_gamma"] + p[f"{name}{number}_beta"]
        x = np.maximum(x, 0)
    return x @ p[f"{name}2_W"] + p[f"{name}2_b"]


def correlation(first, second, ridge):
    def root(s):
        values, vectors = np.linalg.eigh(
            s + (ridge + 1e-6 * np.trace(s)) * np.eye(len(s))
        )
        return vectors / np.sqrt(values) @ vectors.T

    first, second = first - first.mean(0), second - second.mean(0)
    n = len(first) - 1
    t = root(first.T @ first / n) @ first.T @ second / n
    return ((t @ root(second.T @ second / n)) ** 2).sum()


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("cls", some(METHODS, DCCA))
def test_a_step_against_numpy(cls, missing):
    more = {"weight": 0.5} if cls is DCCAE else {}
    model = make(cls, ridge=0.1, **more)
    ref.compiled(model)
    ref.randomize(model)
    x, y = make_data(14, NAMES)
    present = np.ones((14, 3), bool)
    if missing:
        present = np.random.default_rng(0).random((14, 3)) < 0.75
        x["presence"] = present
        for m, name in enumerate(NAMES):
            x[name][~present[:, m]] = np.nan
    # Absent rows are copies of present ones, in turn.
    rows = {}
    for m, name in enumerate(NAMES):
        known = np.flatnonzero(present[:, m])
        turn = known[np.arange(14) % len(known)]
        rows[name] = np.where(present[:, m], np.arange(14), turn)
    variables = variables_of(model)
    start = ref.numpy_of(variables)

    def passed(p):
        features = {
            n: np.maximum(x[n][rows[n]] @ p[f"{n}_W"] + p[f"{n}_b"], 0)
            for n in NAMES
        }
        return features, {n: network(p, f"{n}_p", features[n]) for n in NAMES}

    targets, stopped = passed(start)

    def objective(p):
        _, z = passed(p)
        beside = np.concatenate(
            [
                np.where(present[:, m, None], stopped[n], 0)
                for m, n in enumerate(NAMES)
            ],
            axis=1,
        )
        logits = beside @ p["head_W"] + p["head_b"]
        loss = ref.cross_entropy(logits, y, present.any(1))
        for i, j in ((0, 1), (0, 2), (1, 2)):
            both = present[:, i] & present[:, j]
            assert both.sum() >= 4
            loss -= correlation(z[NAMES[i]][both], z[NAMES[j]][both], 0.1)
        for m, n in enumerate(NAMES if cls is DCCAE else ()):
            error = (network(p, f"{n}_q", z[n]) - targets[n]) ** 2
            loss += 0.5 * error.mean(1)[present[:, m]].mean()
        return loss

    ref.check_step(model, variables, x, y, objective, tolerance=1e-4)


@pytest.mark.parametrize("cls", some(METHODS, DCCA))
@pytest.mark.parametrize("smooth", some([True, False], False))
def test_two_steps_at_a_high_missing_rate(cls, smooth):
    model = compiled(make(cls, smooth=smooth), "adam")
    x, y = at_rate(32, 0.7)
    x["audio"][x["presence"][:, 1]] = 2.0  # Outputs are constant.
    history = model.fit(x, y, batch_size=16, verbose=0).history
    assert all(np.isfinite(v).all() for v in history.values())
    assert all(np.isfinite(to_numpy(v)).all() for v in model.weights)


@mainly_on("torch")
@pytest.mark.parametrize("cls", METHODS)
def test_files_hold_arguments_and_weights(cls, tmp_path):
    given = {"width": 3, "hidden": 5, "smooth": False, "ridge": 0.2}
    if cls is DCCAE:
        given["weight"] = 0.3
    model = compiled(make(cls, **given), "adam")
    x, y = make_data(16, NAMES)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert {name: getattr(again, name) for name in given} == given
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))
    assert again.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


# The sum of correlations that are not squared may stay where the signs of three
# pairs contradict each other.
@mainly_on("torch")
@pytest.mark.parametrize(
    ("smooth", "names"), [(True, NAMES), (False, NAMES[:2])]
)
def test_training_correlates_what_is_related(smooth, names):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(128, 1))
    x = {
        name: (
            shared @ rng.normal(size=(1, WIDTHS[name]))
            + 0.3 * rng.normal(size=(128, WIDTHS[name]))
        ).astype("float32")
        for name in names
    }
    model = make(names=names, features=6, width=1, hidden=8, smooth=smooth)
    compiled(model, keras.optimizers.Adam(0.01))
    y = (shared[:, 0] > 0).astype("int32")
    logs = model.fit(x, y, batch_size=64, epochs=15, verbose=0).history
    far = np.subtract(logs["loss"], logs["fused_loss"])
    pairs = len(names) * (len(names) - 1) / 2
    assert -pairs < far[-1] < -0.8 * pairs
    assert far[-1] < far[0]
    assert logs["fused_loss"][-1] < logs["fused_loss"][0]


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.x, self.y


@mainly_on("torch")
def test_a_batch_that_is_too_small_is_refused():
    x, y = make_data(20, NAMES)
    few = {name: values[:3] for name, values in x.items()}
    model = compiled(make(width=2))
    before = [to_numpy(v) for v in model.weights]
    message = "need at least 4 rows.*Received: 3 rows, width=2"
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, batch_size=3, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, 3, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.fit(few, y[:3], verbose=0)
    with pytest.raises(ValueError, match=message):
        model.fit(Batches(few, y[:3]), verbose=0)
    with pytest.raises(ValueError, match=message):
        model.train_on_batch(few, y[:3])
    for value, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(value, to_numpy(variable))
    with pytest.raises(ValueError, match="Inputs must be a dict"):
        model.fit(np.ones((8, 3)), y[:8], verbose=0)


@mainly_on("torch")
def test_a_smaller_last_batch_trains_the_head_alone():
    x, y = make_data(8, NAMES)
    model = compiled(make(width=3))
    history = model.fit(x, y, batch_size=6, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    few = {name: values[6:] for name, values in x.items()}
    kernels = [model.encoders["text"].layers[0].kernel, model.head.kernel]
    before = [to_numpy(k) for k in kernels]
    super(CorrelatedModel, model).train_on_batch(few, y[6:])
    assert (to_numpy(kernels[0]) == before[0]).all()
    assert (to_numpy(kernels[1]) != before[1]).any()


@mainly_on("torch")
@pytest.mark.parametrize(
    ("cls", "wrong", "message"),
    [
        (DCCA, {"width": 0}, "Received: width=0"),
        (DCCA, {"ridge": 0}, "ridge=0"),
        (DCCAE, {"weight": -1}, "Received: weight=-1"),
    ],
)
def test_bad_arguments(cls, wrong, message):
    with pytest.raises(ValueError, match=message):
        make(cls, **wrong)


@mainly_on("torch")
def test_absent_projections_can_be_a_learned_vector():
    model = compiled(make(impute="token"), "adam")
    x, y = at_rate(32, 0.5)
    tokens = model.imputation.vectors
    before = {name: to_numpy(tokens[name]) for name in NAMES}
    model.fit(x, y, verbose=0)
    for name in NAMES:
        assert tokens[name].shape == (2,)
        assert (to_numpy(tokens[name]) != before[name]).any()
    here = np.flatnonzero(x["presence"][:, 0])[:2]
    x = {"text": x["text"][here], "audio": None, "image": None}
    beside = [to_numpy(tokens[n]) for n in NAMES[1:]]
    feature = model.networks["text"](model.encoders["text"](x["text"]))
    beside = np.concatenate(
        [
            to_numpy(feature),
            np.tile(beside[0], (2, 1)),
            np.tile(beside[1], (2, 1)),
        ],
        1,
    )
    np.testing.assert_allclose(
        model.predict(x, verbose=0),
        ops.convert_to_numpy(model.head(beside)),
        atol=1e-5,
    )
