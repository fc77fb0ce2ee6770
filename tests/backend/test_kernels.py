"""Kernels give the same results as Keras itself."""

import keras
import numpy as np
import pytest
from keras import ops
from utils import only_on, to_numpy

from keras_mla.backend import kernels
from keras_mla.core.metrics import results

rng = np.random.default_rng(0)
LABELS = [rng.integers(0, 4, n) for n in (8, 5)]
LOGITS = [rng.normal(size=(n, 4)).astype("float32") for n in (8, 5)]
WEIGHTS = [rng.random(n).astype("float32") for n in (8, 5)]


@keras.saving.register_keras_serializable(package="tests")
class Doubled(keras.metrics.SparseCategoricalAccuracy):
    """A metric with its own `update_state`."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true, y_pred, sample_weight)
        super().update_state(y_true, y_pred, sample_weight)


def each_logit(y, logits):
    """Values of two axes."""
    return logits


def one(y, logits):
    """No tensor at all."""
    return 1.0


METRICS = {
    "accuracy": keras.metrics.SparseCategoricalAccuracy,
    "top2": lambda: keras.metrics.SparseTopKCategoricalAccuracy(2),
    "cross-entropy": lambda: keras.metrics.SparseCategoricalCrossentropy(
        from_logits=True
    ),
    "two axes": lambda: keras.metrics.MeanMetricWrapper(each_logit),
    "a number": lambda: keras.metrics.MeanMetricWrapper(one),
    "a subclass": Doubled,
    "half": lambda: keras.metrics.SparseCategoricalAccuracy(dtype="float16"),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", METRICS)
def test_update_and_result_are_those_of_the_metric(name, weighted):
    if weighted and name == "a number":
        pytest.skip("Keras weighs no numbers.")
    ours, keras_own = METRICS[name](), METRICS[name]()
    for y, logits, weight in zip(LABELS, LOGITS, WEIGHTS, strict=True):
        y, logits = ops.convert_to_tensor(y), ops.convert_to_tensor(logits)
        weight = weight if weighted else None
        kernels.update_metric(ours, y, logits, weight)
        keras_own.update_state(y, logits, weight)
    for a, b in zip(ours.variables, keras_own.variables, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-6)
    (result,) = results({"it": ours}, ()).values()
    np.testing.assert_allclose(
        to_numpy(result), to_numpy(keras_own.result()), rtol=1e-6
    )


def test_masked_samples_do_not_count():
    # Masking hides the rows that are all zero.
    logits = keras.layers.Masking()(np.eye(4, 3, dtype="float32"))
    metric = keras.metrics.SparseCategoricalAccuracy()
    kernels.update_metric(metric, ops.arange(4), logits, None)
    assert float(metric.count.value) == 3
    assert float(metric.result()) == 1


@pytest.mark.parametrize("weighted", [False, True])
def test_a_loss_is_that_of_keras(weighted):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    y, logits = ops.convert_to_tensor(LABELS[0]), LOGITS[0]
    logits = ops.convert_to_tensor(logits)
    if weighted:  # A mask hides the rows that are all zero.
        logits = keras.layers.Masking()(
            ops.concatenate([logits[:5], 0 * logits[5:]])
        )
    np.testing.assert_allclose(
        to_numpy(kernels.reduced_loss(loss, y, logits)),
        to_numpy(loss(y, logits)),
        rtol=1e-6,
    )


def nested(**kwargs):
    """A Sequential of layers and a Sequential."""
    inner = keras.Sequential([keras.layers.Dense(5, "relu", **kwargs)])
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4), inner, keras.layers.Dense(2)]
    )


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 1)])
def test_a_nested_layer_gives_what_it_gives(dtype, shape):
    layer = nested()
    if keras.backend.backend() == "jax" and dtype == "float64":
        pytest.skip("JAX has no float64 unless it is told to")
    x = ops.cast(rng.normal(size=shape), dtype)
    if len(shape) == 3:  # Keras drops the last axis of size one.
        expected = layer(ops.squeeze(x, -1))
    else:
        expected = layer(x)
    found = kernels.call(layer, x, False)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(to_numpy(found), to_numpy(expected), rtol=1e-6)


def test_a_nested_layer_trains_as_it_trains():
    layer = nested(activity_regularizer=keras.regularizers.L2(1.0))
    drop = keras.layers.Dropout(0.5)
    outer = keras.Sequential([keras.Input((3,)), layer, drop])
    y = to_numpy(kernels.call(outer, ops.ones((50, 3)), True))
    assert 0.2 < (y == 0).mean() < 0.8
    assert len(layer.losses) == 1
    assert (to_numpy(kernels.call(outer, ops.ones((50, 3)), False)) != 0).all()


def test_masks_pass():
    network = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(5, 3, mask_zero=True),
            keras.layers.Dense(2),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )
    tokens = ops.convert_to_tensor(np.array([[1, 2, 0, 0]], "int32"))
    np.testing.assert_allclose(
        to_numpy(kernels.call(network, tokens, False)),
        to_numpy(network(tokens)),
        rtol=1e-6,
    )


def test_symbolic_inputs_stay_symbolic():
    y = kernels.call(nested(), keras.Input((3,)), False)
    assert isinstance(y, keras.KerasTensor) and y.shape == (None, 2)


@only_on("torch")
def test_hooks_are_called():
    layer, seen = nested(), []
    for part in (layer, layer.layers[1]):
        part.register_forward_hook(lambda *arguments: seen.append(arguments))
        kernels.call(layer, ops.ones((2, 3)), False)
    assert len(seen) == 3
