"""The central moment discrepancy, against NumPy."""

import keras
import numpy as np
import pytest
import reconstruction_reference as ref
from keras import ops
from utils import to_numpy

from keras_mla.models.missing.moments import moment_discrepancy


def draw(rows, seed):
    return np.random.default_rng(seed).random((rows, 4)).astype("float32")


@pytest.mark.parametrize(("moments", "span"), [(1, 1.0), (5, 2.0), (5, 1.0)])
def test_against_numpy(moments, span):
    x, y = draw(9, 0), draw(7, 1)
    present = np.array([True, False] * 4 + [True])
    x[~present] = np.nan
    found, both = moment_discrepancy(
        x, y, ops.convert_to_tensor(present), None, moments, span
    )
    expected = ref.discrepancy(
        x[present].astype("float64"), y.astype("float64"), moments, span
    )
    assert float(both) == 1
    np.testing.assert_allclose(float(found), expected, atol=1e-5)
    assert expected > 0.05


def test_equal_distributions_are_at_no_distance():
    x = draw(8, 0)
    y = np.concatenate([x, x[::-1]])
    found, _ = moment_discrepancy(x, y)
    np.testing.assert_allclose(float(found), 0, atol=1e-5)


def test_without_samples_there_is_no_distance():
    x, y = draw(8, 0), draw(8, 1)
    nobody = ops.zeros((8,), "bool")
    found, both = moment_discrepancy(x, y, nobody, None)
    assert (float(found), float(both)) == (0.0, 0.0)


def test_gradients_are_finite_where_moments_are_equal():
    """Moves `x` by a step of descent, from where the root is zero."""
    x = draw(8, 0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    model.layers[0].kernel.assign(np.eye(4))
    model.compile(
        keras.optimizers.SGD(1.0),
        lambda y, z: moment_discrepancy(z, y)[0],
        run_eagerly=True,
    )
    model.train_on_batch(x, x)
    kernel = to_numpy(model.layers[0].kernel)
    np.testing.assert_allclose(kernel, np.eye(4), atol=1e-3)
    # Away from it, the step is not zero.
    model.train_on_batch(x, x + 1)
    assert np.abs(to_numpy(model.layers[0].kernel) - np.eye(4)).max() > 0.1
