import keras
import numpy as np
import pytest
from utils import (
    CLASSES,
    WIDTHS,
    compiled,
    encoder,
    half_presence,
    mainly_on,
    make_data,
    make_model,
    only_on,
)

import keras_mla
from keras_mla.analysis import modality_worth
from keras_mla.analysis.worth import prior

NAMES = tuple(WIDTHS)


def log_softmax(logits):
    logits = logits.astype("float64")
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def likelihood(y, logits):
    return log_softmax(logits)[np.arange(len(y)), y].mean()


def frequencies(y):
    return np.bincount(y, minlength=CLASSES) / len(y)


@pytest.mark.parametrize("presence", [None, half_presence(48)])
def test_values_of_subsets(presence):
    x, y = make_data()
    model = compiled(make_model())
    model.fit(x, y, epochs=3, verbose=0)
    if presence is not None:
        x["presence"] = presence
        x["audio"][~presence[:, 1]] = np.nan
    worth = modality_worth(model, x, y)
    assert list(worth.shapley) == list(NAMES)
    assert len(worth.values) == 8
    prior = np.log(frequencies(y))
    assert worth.values[()] == pytest.approx(prior[y].mean())
    whole = model.predict(x, verbose=0)
    known = np.ones(48, bool) if presence is None else presence.any(axis=1)
    whole[~known] = prior
    assert worth.values[NAMES] == pytest.approx(likelihood(y, whole), rel=1e-5)
    # A subset of one modality is the modality's own prediction.
    alone = model.predict_modalities(x)["audio"]["logits"].copy()
    if presence is not None:
        alone[~presence[:, 1]] = prior
    assert worth.values["audio",] == pytest.approx(
        likelihood(y, alone), rel=1e-5
    )
    assert sum(worth.shapley.values()) == pytest.approx(worth.total)
    assert worth.total == pytest.approx(worth.values[NAMES] - worth.values[()])


@mainly_on("torch")
def test_a_constant_encoder_adds_nothing_and_equal_ones_the_same():
    # Averaged log-probabilities of a model whose head ignores features.
    x, y = make_data()
    model = make_model(fusion=keras_mla.layers.AverageFusion())
    model.head.kernel.assign(np.zeros(model.head.kernel.shape))
    model.head.bias.assign(np.log(frequencies(y)))
    worth = modality_worth(model, x, y)
    for share in worth.shapley.values():
        assert share == pytest.approx(0, abs=1e-6)
    model.head.bias.assign(np.arange(4.0))
    shares = list(modality_worth(model, x, y).shapley.values())
    assert shares == pytest.approx([shares[0]] * 3)
    assert shares[0] < 0


@mainly_on("torch")
def test_measures_agree():
    x, y = make_data()
    model = compiled(make_model())
    model.fit(x, y, epochs=3, verbose=0)
    own = modality_worth(model, x, y, "accuracy")
    whole = model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]
    assert own.values[NAMES] == pytest.approx(whole)
    assert own.values[()] == pytest.approx(frequencies(y).max())
    for value in (
        "sparse_categorical_accuracy",
        keras.metrics.SparseCategoricalAccuracy(),
        lambda y, logits: (logits.argmax(1) == y).mean(),
    ):
        other = modality_worth(model, x, y, value)
        assert other.shapley == pytest.approx(own.shapley, abs=1e-6)


@mainly_on("torch")
def test_prior_labels_and_sampling():
    x, y = make_data()
    model = compiled(make_model())
    trained_on = np.array([0, 0, 1, 1, 1, 2], "int32")
    worth = modality_worth(
        model, x, y, prior_labels=trained_on, permutations=30
    )
    prior = np.array([2, 3, 1, 0.5]) / 6.5
    assert worth.values[()] == pytest.approx(np.log(prior)[y].mean())
    assert set(worth.standard_error) == set(NAMES)
    exact = modality_worth(model, x, y, prior_labels=trained_on)
    for name in NAMES:
        difference = worth.shapley[name] - exact.shapley[name]
        assert abs(difference) <= 4 * worth.standard_error[name] + 1e-9
    assert sum(worth.shapley.values()) == pytest.approx(worth.total)


@mainly_on("torch")
@pytest.mark.parametrize(
    "loss", [keras.losses.MeanSquaredError(), "multi_label"]
)
def test_other_tasks(loss):
    x, y = make_data()
    y = np.eye(CLASSES)[y]
    regression = loss != "multi_label"
    if not regression:
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model = compiled(make_model(), loss=loss, metrics=[])
    worth = modality_worth(model, x, y)
    mean = y.mean(axis=0)
    expected = (
        -((y - mean) ** 2).mean() / 2
        if regression
        else (y * np.log(mean) + (1 - y) * np.log(1 - mean)).mean()
    )
    assert worth.values[()] == pytest.approx(expected)
    assert sum(worth.shapley.values()) == pytest.approx(worth.total)
    if regression:
        with pytest.raises(ValueError, match="A regression has no accuracy"):
            modality_worth(model, x, y, "accuracy")


@mainly_on("torch")
def test_ignored_labels_and_joint_methods():
    x, y = make_data()
    model = keras_mla.models.ConcatFusion(
        {name: encoder(WIDTHS[name]) for name in NAMES}, CLASSES
    )
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=-1
    )
    compiled(model, loss=loss, metrics=[])
    some = {name: value[8:] for name, value in x.items()}
    expected = modality_worth(model, some, y[8:])
    y[:8] = -1
    assert modality_worth(model, x, y).shapley == pytest.approx(
        expected.shapley, rel=1e-5
    )


@mainly_on("torch")
def test_draws_and_refuses(tmp_path):
    pytest.importorskip("matplotlib")
    x, y = make_data()
    model = compiled(make_model())
    worth = modality_worth(model, x, y)
    figure = worth.plot(tmp_path / "worth.png")
    assert (tmp_path / "worth.png").read_bytes().startswith(b"\x89PNG")
    (axis,) = figure.axes
    heights = [bar.get_height() for bar in axis.patches]
    assert heights == pytest.approx(list(worth.shapley.values()))
    labels = [text.get_text() for text in axis.get_xticklabels()]
    assert labels == list(NAMES)
    with pytest.raises(ValueError, match="`y` must be one array"):
        modality_worth(model, x, dict.fromkeys(NAMES, y))
    with pytest.raises(ValueError, match="a label for each sample"):
        modality_worth(model, x, y[:5])
    with pytest.raises(ValueError, match="`value` must be"):
        modality_worth(model, x, y, 3)


@only_on("torch")
def test_the_prior_of_each_task():
    found = prior("single_label", np.array([[0], [0], [2]]), 3)
    np.testing.assert_allclose(np.exp(found), np.array([2, 0.5, 1]) / 3.5)
    found = prior("multi_label", np.array([[1, 0], [0, 0]]), 2)
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), [0.5, 0.25])
    found = prior("regression", np.array([1.0, 4.0], "float32"), 1)
    np.testing.assert_allclose(found, [2.5])
    with pytest.raises(ValueError, match="no label"):
        prior("regression", np.zeros((0, 1)), 1)
