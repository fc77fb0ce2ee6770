import itertools

import keras
import methods_reference as ref
import numpy as np
import pytest

from keras_mla.backend import distribution
from keras_mla.models import TCMax
from keras_mla.models.balanced.tcmax import total_correlation_loss


def explicit(logits, one_hot, weight):
    """The loss, by a sum over all combinations of samples."""
    weight = np.asarray(weight, "float64")
    share = weight / weight.sum()
    logits = [np.asarray(z, "float64") for z in logits]
    classes = logits[0].shape[1]
    right = sum((share[:, None] * one_hot * z).sum() for z in logits)
    whole = 0.0
    for rows in itertools.product(range(len(share)), repeat=len(logits)):
        z = sum(z[row] for z, row in zip(logits, rows, strict=True))
        whole += np.prod(share[list(rows)]) * np.exp(z).sum()
    return -right + np.log(whole / classes)


def drawn(modalities=3, samples=5, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    z = [rng.normal(size=(samples, classes)) for _ in range(modalities)]
    return z, np.eye(classes)[rng.integers(0, classes, samples)]


def found(logits, labels, weight):
    value = total_correlation_loss(
        [keras.ops.convert_to_tensor(z, "float32") for z in logits],
        keras.ops.convert_to_tensor(labels, "float32"),
        keras.ops.convert_to_tensor(weight, "float32"),
    )
    return float(keras.ops.convert_to_numpy(value))


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_sums_over_samples_come_first(modalities):
    z, labels = drawn(modalities)
    for weight in ([1, 1, 1, 1, 1], [0.5, 0, 2, 1, 3]):
        expected = explicit(z, labels, weight)
        assert found(z, labels, weight) == pytest.approx(expected, rel=1e-5)
    assert found(z, labels, np.zeros(5)) == 0


def test_large_logits_and_rows_that_do_not_count():
    z, labels = drawn()
    z[0][1:3], z[1][1] = 1e4, -1e4
    assert np.isfinite(found(z, labels, np.ones(5)))
    # All is one class: log sum exp is the largest.
    sure = [np.full((5, 4), -1e4) for _ in range(2)]
    right = np.eye(4)[np.zeros(5, int)]
    for s in sure:
        s[:, 0] = 1e4
    assert found(sure, right, np.ones(5)) == pytest.approx(-np.log(4), abs=2e-2)
    weight = [1, 0, 1, 1, 1]
    expected = found(z, labels, weight)
    for part in z:
        part[1] = np.nan
    assert found(z, labels, weight) == pytest.approx(expected)


@pytest.mark.parametrize("modalities, presence", [("ca", False), ("cab", True)])
def test_loss_and_gradients(modalities, presence):
    x, y, present = ref.data(modalities, presence, samples=5)
    model = ref.compiled(TCMax(ref.encoders(modalities), head=3))
    ref.randomize(model)
    variables = ref.encoder_weights(model)
    for m, head in model.heads.items():
        variables |= ref.dense_of(f"{m}_head", head)

    def objective(p):
        features = ref.encode(p, x, modalities)
        z = [
            np.where(
                present[:, i, None],
                features[m] @ p[f"{m}_head_W"] + p[f"{m}_head_b"],
                0,
            )
            for i, m in enumerate(modalities)
        ]
        return explicit(z, np.eye(3)[y], present.any(1))

    ref.check_step(model, variables, x, y, objective)


def test_weights_ignored_classes_and_one_hot_labels():
    x, y, _ = ref.data("ca")
    weight = np.array([1, 2, 0, 1, 1, 3], "float32")
    results = []
    for labels, loss, weights in (
        (
            y,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weight,
        ),
        (
            np.where(weight > 0, y, -1),
            keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, ignore_class=-1
            ),
            np.maximum(weight, 1),
        ),
        (
            np.eye(3)[y],
            keras.losses.CategoricalCrossentropy(from_logits=True),
            weight,
        ),
    ):
        model = TCMax(ref.encoders("ca"), head=3)
        model.compile(keras.optimizers.SGD(1.0), loss=loss)
        ref.randomize(model)
        logs = model.train_on_batch(
            x, labels, sample_weight=weights, return_dict=True
        )
        assert logs["total_correlation"] == pytest.approx(-logs["loss"])
        results.append(
            [float(logs["loss"]), *map(np.array, model.get_weights())]
        )
    for result in results[1:]:
        for a, b in zip(results[0], result, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_it_needs_whole_batches_of_the_same_samples(monkeypatch):
    x, y, _ = ref.data("ca")
    model = ref.compiled(TCMax(ref.encoders("ca"), head=3))
    with pytest.raises(ValueError, match="same samples"):
        model.train_on_batch(x, {"c": y, "a": y})
    monkeypatch.setattr(distribution, "num_replicas", lambda: 2)
    with pytest.raises(ValueError, match="train on one device"):
        model.train_on_batch(x, y)
