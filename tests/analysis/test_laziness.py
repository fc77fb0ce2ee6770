import sys

import keras
import numpy as np
import pytest
from utils import (
    CLASSES,
    WIDTHS,
    compiled,
    half_presence,
    mainly_on,
    make_data,
    make_model,
    to_numpy,
)

from keras_mla.analysis import laziness, linear_readout

linear_model = pytest.importorskip("sklearn.linear_model")
NAMES = list(WIDTHS)


def split(x, y, *sizes):
    """Splits data into parts of these sizes."""
    ends = np.cumsum(sizes)
    return [
        ({n: v[end - size : end] for n, v in x.items()}, y[end - size : end])
        for end, size in zip(ends, sizes, strict=True)
    ]


def standardised(x, *others):
    mean, scale = x.mean(axis=0), x.std(axis=0)
    return [(part - mean) / scale for part in (x, *others)]


def test_ridge_equals_its_closed_form():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)) * [1, 10, 0.1]
    y = x @ rng.normal(size=(3, 2)) + rng.normal(size=(80, 2)) + 4
    found = linear_readout(
        (x[:50], y[:50]),
        (x[50:], y[50:]),
        validation=(x[:50], y[:50]),
        task="regression",
        penalties=[5.0],
    )
    z, z_test = standardised(x[:50], x[50:])
    mean = y[:50].mean(axis=0)
    weights = np.linalg.solve(z.T @ z + 5 * np.eye(3), z.T @ (y[:50] - mean))
    errors = ((z_test @ weights + mean - y[50:]) ** 2).sum(axis=0)
    spread = ((y[50:] - y[50:].mean(axis=0)) ** 2).sum(axis=0)
    assert found.score == pytest.approx((1 - errors / spread).mean())
    assert found.penalty == 5


def test_penalty_is_chosen_on_validation_never_on_test():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 12))
    y = (x[:, 0] + 1.5 * rng.normal(size=200) > 0).astype(int)
    train, validation = (x[:30], y[:30]), (x[30:80], y[30:80])
    test = x[80:], y[80:]
    found = linear_readout(train, test, validation)
    assert found.selection[found.penalty] == max(found.selection.values())
    # Other test labels change the score alone.
    other = linear_readout(train, (x[80:], 1 - y[80:]), validation)
    assert other.selection == found.selection
    assert other.penalty == found.penalty
    assert other.score == pytest.approx(1 - found.score)
    z, z_test = standardised(train[0], test[0])
    expected = linear_model.LogisticRegression(
        C=1 / found.penalty, max_iter=2000
    ).fit(z, train[1])
    assert found.score == pytest.approx(expected.score(z_test, test[1]))


def test_several_labels_may_be_constant():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 4))
    y = np.stack([x[:, 0] > 0, np.ones(60), x[:, 1] > 0], 1).astype(int)
    found = linear_readout(
        (x[:40], y[:40]), (x[40:], y[40:]), task="multi_label"
    )
    assert 0.9 < found.score <= 1
    constant = linear_readout(
        (x[:40], y[:40, 1:2]), (x[40:], y[40:, 1:2]), task="multi_label"
    )
    assert constant.score == 1
    one = linear_readout((x, np.zeros(60)), (x, np.arange(60) % 2))
    assert one.score == 0.5


def test_readout_refuses(monkeypatch):
    x = np.zeros((4, 2))
    with pytest.raises(ValueError, match="`task` must be"):
        linear_readout((x, x), (x, x), task="auto")
    with pytest.raises(ValueError, match="`penalties` must be"):
        linear_readout((x, x), (x, x), penalties=[])
    with pytest.raises(ValueError, match="`test` must hold features"):
        linear_readout((x, x), (x, x[:2]))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"install `keras-mla\[analysis\]`"):
        linear_readout((x, x), (x, x), task="regression")


@mainly_on("torch")
def test_a_lazy_encoder_has_a_gap():
    # The model's text encoder has learned nothing: its features are constant.
    x, y = make_data(160)
    train, validation, test = split(x, y, 80, 40, 40)
    model = compiled(make_model(), "adam")
    model.fit(*train, epochs=2, verbose=0)
    kernel, bias = model.encoders["text"].layers[0].weights
    kernel.assign(np.zeros(kernel.shape))
    bias.assign(np.ones(bias.shape))
    before = [to_numpy(v) for v in model.weights]
    result = laziness(model, train, test, validation, epochs=25, batch_size=16)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, to_numpy(new))
    assert list(result.together) == NAMES
    assert result.samples == dict.fromkeys(NAMES, 40)
    assert result.alone["text"] > 0.8
    assert result.gap["text"] > 0.3
    for name in NAMES:
        assert result.alone[name] == result.alone_readout[name].score
        assert result.gap[name] == pytest.approx(
            result.alone[name] - result.together[name].score
        )


@mainly_on("torch")
def test_only_samples_with_the_modality_count():
    x, y = make_data(96)
    x["presence"] = half_presence(96)
    for index, name in enumerate(NAMES):
        x[name][~x["presence"][:, index]] = np.nan
    train, test = split(x, y, 64, 32)
    model = compiled(make_model())
    result = laziness(model, train, test, alone=model, penalties=[1.0])
    assert result.gap == dict.fromkeys(NAMES, 0.0)
    (x_train, y_train), (x_test, y_test) = train, test
    have, have_test = x_train["presence"][:, 1], x_test["presence"][:, 1]
    assert result.samples["audio"] == have_test.sum()
    expected = linear_readout(
        (model.features(x_train)["audio"][have], y_train[have]),
        (model.features(x_test)["audio"][have_test], y_test[have_test]),
        penalties=[1.0],
    )
    assert result.together["audio"].score == expected.score


@mainly_on("torch")
@pytest.mark.parametrize("loss", ["binary", "regression"])
def test_other_tasks(loss):
    x, y = make_data(96)
    y = np.eye(CLASSES)[y]
    loss = (
        keras.losses.BinaryCrossentropy(from_logits=True)
        if loss == "binary"
        else keras.losses.MeanSquaredError()
    )
    model = compiled(make_model(), loss=loss, metrics=[])
    result = laziness(model, *split(x, y, 64, 32), epochs=1)
    assert set(result.alone_readout) == set(NAMES)
    assert result.together["text"].score > 0.3


@mainly_on("torch")
def test_draws_and_refuses(tmp_path):
    pytest.importorskip("matplotlib")
    x, y = make_data(60)
    train, test = split(x, y, 40, 20)
    model = make_model()
    result = laziness(
        model, train, test, alone={"text": 0.9, "image": 0.3, "audio": 0.5}
    )
    assert list(result.alone.values()) == [0.9, 0.5, 0.3]
    figure = result.plot(tmp_path / "lazy.png")
    assert (tmp_path / "lazy.png").read_bytes().startswith(b"\x89PNG")
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    together = [result.together[name].score for name in NAMES]
    assert heights == pytest.approx([*together, 0.9, 0.5, 0.3])
    nothing = laziness(model, train, test, alone=None)
    assert nothing.gap == {} and len(nothing.plot().axes[0].patches) == 3
    with pytest.raises(ValueError, match="compile the model first"):
        laziness(model, train, test)
    with pytest.raises(ValueError, match="must have the model's modalities"):
        laziness(model, train, test, alone={"text": 0.9})
    with pytest.raises(ValueError, match="`alone` must be 'train'"):
        laziness(model, train, test, alone="fit")
    absent = {**test[0], "presence": np.ones((20, 3), bool)}
    absent["presence"][:, 2] = False
    with pytest.raises(ValueError, match="no sample with 'image' in `test`"):
        laziness(model, train, (absent, test[1]), alone=None)
    with pytest.raises(ValueError, match="one array of labels"):
        laziness(model, train, (test[0], {"text": y}))
