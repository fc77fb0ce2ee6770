"""Losses over samples that are present and not ignored, in any batches."""

import keras
import numpy as np
import pytest
from keras import ops
from utils import (
    CLASSES,
    WIDTHS,
    compiled,
    encoder,
    make_data,
    make_method,
    some,
)

from keras_mla import models
from keras_mla.core.losses import SampleLoss

NAMES = tuple(WIDTHS)
METHODS = ("MLA", "LateFusion", "SumFusion", "MultiLossFusion", "QMF")


def make(method="MLA", head=None, loss=None, layers=lambda: ()):
    model = make_method(method, head, layers)
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return compiled(model, loss=loss)


def draw(samples=50):
    x, y = make_data(samples)
    presence = np.random.default_rng(3).random((samples, 3)) < 0.6
    presence[:2] = [[False] * 3, [True] * 3]
    return x, y, presence


def cross_entropy(logits, y):
    z = logits.astype("float64")
    z = z - z.max(1, keepdims=True)
    return np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]


def evaluated(model, x, y, presence, **kwargs):
    return model.evaluate(
        {**x, "presence": presence}, y, verbose=0, return_dict=True, **kwargs
    )


@pytest.mark.parametrize("method", some(METHODS, "MultiLossFusion"))
def test_a_loss_does_not_depend_on_the_size_of_batches(method):
    x, y, presence = draw()
    presence[7:14, 0] = False  # A batch without one modality.
    model = make(method)
    whole = evaluated(model, x, y, presence, batch_size=50)
    parts = evaluated(model, x, y, presence, batch_size=7)
    assert parts == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("method", some(METHODS, "MLA", "MultiLossFusion"))
def test_the_loss_of_an_evaluation_in_numpy(method):
    x, y, presence = draw()
    model = make(method)
    scores = evaluated(model, x, y, presence, batch_size=7)
    unimodal = []
    for m, name in enumerate(NAMES):
        rows = presence[:, m]
        z = model.unimodal(name).predict(x[name][rows], verbose=0)
        unimodal.append(cross_entropy(z, y[rows]).mean())
        assert scores[f"{name}_loss"] == pytest.approx(unimodal[-1], rel=1e-5)
    known = presence.any(1)
    fused = model.predict({**x, "presence": presence}, verbose=0)[known]
    joint = cross_entropy(fused, y[known]).mean()
    expected = {
        "MLA": np.mean(unimodal),
        "LateFusion": np.mean(unimodal),
        "SumFusion": joint,
        "MultiLossFusion": joint + sum(unimodal),
        "QMF": joint + sum(unimodal),
    }
    assert scores["loss"] == pytest.approx(expected[method], rel=1e-5)


def test_a_modality_that_is_never_there_counts_in_no_loss():
    x, y, presence = draw()
    presence[:, 1] = False
    scores = evaluated(make(), x, y, presence, batch_size=7)
    present = [scores[f"{NAMES[m]}_loss"] for m in (0, 2)]
    assert scores["loss"] == pytest.approx(np.mean(present), rel=1e-6)
    assert scores[f"{NAMES[1]}_loss"] == 0


@pytest.mark.parametrize(
    "reduction", some(["sum_over_batch_size", "sum"], "sum_over_batch_size")
)
@pytest.mark.parametrize("weighted", some([False, True], True))
def test_ignored_classes_count_for_nothing(weighted, reduction):
    x, y, presence = draw()
    model = make(
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=1, reduction=reduction
        )
    )
    weight = np.random.default_rng(5).random(50).astype("float32")
    kwargs = {"sample_weight": weight} if weighted else {}
    scores = evaluated(model, x, y, presence, batch_size=50, **kwargs)
    for m, name in enumerate(NAMES):
        rows = presence[:, m] & (y != 1)
        z = model.unimodal(name).predict(x[name][rows], verbose=0)
        losses = cross_entropy(z, y[rows]) * (weight[rows] if weighted else 1)
        expected = losses.sum() if reduction == "sum" else losses.mean()
        assert scores[f"{name}_loss"] == pytest.approx(expected, rel=1e-5)


def test_ignored_samples_that_weigh_nothing():
    x, y = make_data(8)
    y[:4] = -1
    weight = (y >= 0).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=-1
    )
    model = compiled(make(loss=loss), loss=loss, metrics=None)
    plain = model.evaluate(
        x, y, sample_weight=weight, verbose=0, return_dict=True
    )
    for name in NAMES:
        z = model.unimodal(name).predict(x[name][4:], verbose=0)
        expected = cross_entropy(z, y[4:]).mean()
        assert plain[f"{name}_loss"] == pytest.approx(expected, rel=1e-5)


def test_one_hot_labels_of_samples_without_a_modality():
    x, y, presence = draw(16)
    presence[:4] = False
    one_hot = np.eye(CLASSES, dtype="float32")[y]
    one_hot[:4] = np.nan
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model = compiled(make(loss=loss), loss=loss, metrics=None)
    scores = evaluated(model, x, one_hot, presence)
    for m, name in enumerate(NAMES):
        rows = presence[:, m]
        z = model.unimodal(name).predict(x[name][rows], verbose=0)
        expected = cross_entropy(z, y[rows]).mean()
        assert scores[f"{name}_loss"] == pytest.approx(expected, rel=1e-5)


def test_an_update_must_return_the_losses_that_it_names():
    class Short(models.MLA):
        def updates(self):
            return [models.Update(self.modalities, (self,))]

        def update_losses(self, update, outputs, losses, batch):
            return [self.fused_loss(outputs, batch)]

    model = Short({n: encoder(WIDTHS[n]) for n in NAMES}, CLASSES)
    x, y = make_data(8)
    with pytest.raises(ValueError, match="Short.update_losses.*1 losses"):
        compiled(model).evaluate(x, y, verbose=0)


@pytest.mark.parametrize("number", [2, 3])
def test_one_update_of_several_modalities_minimises_their_mean(number):
    names = NAMES[:number]

    class First(models.MultimodalModel):
        def fuse(self, outputs, presence):
            return outputs.logits["text"]

    model = First({n: encoder(WIDTHS[n]) for n in names}, CLASSES)
    x, y = make_data(8)
    x = {name: x[name] for name in names}
    scores = compiled(model).evaluate(x, y, verbose=0, return_dict=True)
    mean = np.mean([scores[f"{name}_loss"] for name in names])
    assert scores["loss"] == pytest.approx(mean, rel=1e-6)


def test_a_hook_of_an_earlier_version_is_refused():
    with pytest.raises(TypeError, match="override `update_losses`"):

        class Old(models.MLA):
            def update_loss(self, update, outputs, losses, batch):
                return sum(losses.values())


def test_ignored_and_absent_samples_move_nothing():
    # Training equals training on the samples that count.
    x, y, presence = draw(8)
    presence[:, :] = (np.arange(8) % 3 > 0)[:, None]
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=1
    )
    rows = presence[:, 0] & (y != 1)
    first, second = make(loss=loss), make()
    second.set_weights(first.get_weights())
    first.train_on_batch({**x, "presence": presence}, y)
    second.train_on_batch({n: v[rows] for n, v in x.items()}, y[rows])
    for name in NAMES:  # The head's P sees ignored samples too.
        for a, b in zip(
            first.encoders[name].get_weights(),
            second.encoders[name].get_weights(),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, atol=1e-6)
        break  # Later ones see a head that P has changed.


@keras.saving.register_keras_serializable("tests")
class Squared(keras.losses.Loss):
    """A loss that weights samples in its own way."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_true = ops.one_hot(ops.cast(y_true, "int32"), CLASSES)
        losses = ops.mean((ops.cast(y_true, y_pred.dtype) - y_pred) ** 2, -1)
        if sample_weight is not None:
            losses = losses * ops.cast(sample_weight, losses.dtype)
        return ops.mean(losses)


@pytest.mark.parametrize("function", [False, True])
def test_a_loss_of_ones_own_with_presence(function):
    def squared(y_true, y_pred):
        y_true = ops.one_hot(ops.cast(y_true, "int32"), CLASSES)
        return ops.mean((ops.cast(y_true, y_pred.dtype) - y_pred) ** 2, -1)

    x, y, presence = draw()
    model = make(loss=squared if function else Squared())
    scores = evaluated(model, x, y, presence, batch_size=50)
    for m, name in enumerate(NAMES):
        rows = presence[:, m]
        z = model.unimodal(name).predict(x[name][rows], verbose=0)
        expected = ((np.eye(CLASSES)[y[rows]] - z) ** 2).mean()
        assert scores[f"{name}_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "method", some(["MLA", "SumFusion", "LateFusion"], "MLA")
)
def test_penalties_of_an_evaluation_are_those_of_training(method):
    head = keras.layers.Dense(
        CLASSES, activity_regularizer="l2", kernel_regularizer="l2"
    )
    model = make(
        method,
        head,
        layers=lambda: [keras.layers.Dense(6, activity_regularizer="l2")],
    )
    model.optimizer.learning_rate = 0.0
    x, y = make_data(8)
    trained = model.train_on_batch(x, y, return_dict=True)
    tested = model.test_on_batch(x, y, return_dict=True)
    assert float(tested["loss"]) == pytest.approx(
        float(trained["loss"]), rel=1e-5
    )
    if method == "MLA":  # The head's penalty of each modality, not the last.
        expected = []
        for name in NAMES:
            f = model.encoders[name].predict(x[name], verbose=0)
            z = model.unimodal(name).predict(x[name], verbose=0)
            kernel = head.get_weights()[0]
            expected.append(
                cross_entropy(z, y).mean()
                + 0.01 * (f**2).sum() / 8
                + 0.01 * (z**2).sum() / 8
                + 0.01 * (kernel**2).sum()
            )
        assert float(tested["loss"]) == pytest.approx(
            np.mean(expected), rel=1e-4
        )


def test_a_loss_that_returns_a_value_for_each_sample_is_not_summed():
    class OfSamples(keras.losses.Loss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return keras.ops.mean(y_pred, axis=1)

        def call(self, y_true, y_pred):
            return keras.ops.mean(y_pred, axis=1)

    logits = keras.ops.ones((3, 2))
    found = SampleLoss(OfSamples())(keras.ops.zeros(3), logits, None, None, 3)
    assert found.mean.shape == (3,)
