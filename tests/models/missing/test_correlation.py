"""The correlation loss, against NumPy in float64 and CCA in closed form."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.optimize import minimize
from utils import mainly_on, to_numpy

from keras_mla.backend import step
from keras_mla.models.missing import correlation
from keras_mla.models.missing.correlation import canonical_correlation_loss

ROWS = 14


def correlations(first, second, ridge):
    """Canonical correlations by inverse roots, which the library avoids."""

    def whitened(x):
        x = x - x.mean(0)
        s = x.T @ x / (len(x) - 1)
        s += (ridge + 1e-6 * np.trace(s)) * np.eye(len(s))
        values, vectors = np.linalg.eigh(s)
        return x @ (vectors / np.sqrt(values)) @ vectors.T

    t = whitened(first).T @ whitened(second) / (len(first) - 1)
    return np.linalg.svd(t, compute_uv=False)


def by_hand(features, present, smooth, ridge=1e-3):
    total = 0.0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        both = present[:, i] & present[:, j]
        if both.sum() >= 2:
            found = correlations(features[i][both], features[j][both], ridge)
            total -= (found**2).sum() if smooth else found.sum()
    return total


def with_gradient(values, *args, **kwargs):
    """The loss of features, and its gradient for each of them."""
    model = keras.Sequential()
    for value in values:
        model.add(keras.layers.Dense(value.shape[1], use_bias=False))
        model.layers[-1].build((None, value.shape[0]))
        model.layers[-1].kernel.assign(value)
    kernels = [layer.kernel for layer in model.layers]

    def objective():
        features = [ops.convert_to_tensor(kernel) for kernel in kernels]
        loss = canonical_correlation_loss(features, *args, **kwargs)
        return [loss], loss

    gradients, loss = step.value_and_grads(model, objective, kernels)
    return float(to_numpy(loss)), [to_numpy(g) for g in gradients[0]]


def drawn(seed=0):
    """Three related sets of features, one of them with fewer columns."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(ROWS, 2))
    return [
        shared @ rng.normal(size=(2, k)) + 0.7 * rng.normal(size=(ROWS, k))
        for k in (3, 2, 3)
    ]


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("missing", [False, True])
def test_loss_and_gradient(smooth, missing):
    features = drawn()
    present = np.ones((ROWS, 3), bool)
    if missing:
        present = np.random.default_rng(1).random((ROWS, 3)) < 0.8
    shown = [f.astype("float32") for f in features]
    if missing:
        for m, values in enumerate(shown):
            values[~present[:, m]] = 1e6  # Counts for nothing.
    given = ops.convert_to_tensor(present) if missing else None
    loss, gradients = with_gradient(shown, given, smooth, 0.1)
    assert loss == pytest.approx(
        by_hand(features, present, smooth, 0.1), rel=1e-5
    )
    for m, gradient in enumerate(gradients):
        expected = np.zeros_like(features[m])
        for index in np.ndindex(expected.shape):
            ends = []
            for sign in (1, -1):
                moved = [f.copy() for f in features]
                moved[m][index] += sign * 1e-5
                ends.append(by_hand(moved, present, smooth, 0.1))
            expected[index] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(gradient, expected, atol=2e-5)
        assert not gradient[~present[:, m]].any()


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("case", ["repeated", "constant", "equal", "no row"])
def test_what_is_degenerate_is_finite(case, smooth):
    # Orthogonal columns: both covariances are multiples of the identity.
    signs = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]], float)
    first = np.tile(signs[1:].T, (2, 1))
    second = first.copy()
    present, expected = None, -2.0
    if case == "constant":
        first, expected = np.full((8, 2), 3.0), 0.0
    elif case == "equal":
        second = first[:, :1] @ np.ones((1, 2))
        expected = -1.0
    elif case == "no row":
        present, expected = np.tile([[True, False]], (8, 1)), 0.0
        present = ops.convert_to_tensor(present)
    given = [v.astype("float32") for v in (first, second)]
    loss, gradients = with_gradient(given, present, smooth)
    assert loss == pytest.approx(expected, abs=1e-2)
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        if expected == 0 and case == "no row":
            assert not gradient.any()


def test_few_common_rows_count_for_nothing():
    given = [f.astype("float32") for f in drawn()]
    present = np.ones((ROWS, 3), bool)
    present[4:, 0] = False
    args = ops.convert_to_tensor(present), True, 0.1
    loss, gradients = with_gradient(given, *args, fewest=5)
    pair = correlations(*[g.astype("float64") for g in given[1:]], 0.1)
    assert loss == pytest.approx(-(pair**2).sum(), rel=1e-5)
    assert not gradients[0].any() and gradients[1].any()
    more, gradients = with_gradient(given, *args, fewest=4)
    assert more < loss and gradients[0].any()


@mainly_on("torch")
@pytest.mark.parametrize("smooth", [True, False])
def test_linear_maps_reach_the_correlations_of_cca(smooth):
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(40, 2))
    first, second = (
        np.hstack([shared + noise, rng.normal(size=(40, 2))])
        @ rng.normal(size=(4, 4))
        for noise in 0.8 * rng.normal(size=(2, 40, 2))
    )
    best = correlations(first, second, 0)[:2]
    assert 0.5 < best[1] < best[0] < 0.95
    best = -(best**2).sum() if smooth else -best.sum()

    def objective(flat):
        a, b = flat.reshape(2, 4, 2)
        given = [
            (x @ w).astype("float32") for x, w in ((first, a), (second, b))
        ]
        loss, gradients = with_gradient(given, None, smooth, 1e-6)
        found = np.stack([first.T @ gradients[0], second.T @ gradients[1]])
        return loss, found.ravel().astype("float64")

    start = rng.normal(size=16)
    assert objective(start)[0] > best + 0.1
    found = minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 60}
    )
    assert found.fun == pytest.approx(best, abs=1e-3)


def test_replicas_are_refused(monkeypatch):
    monkeypatch.setattr(correlation.distribution, "num_replicas", lambda: 2)
    with pytest.raises(ValueError, match="train on one device. Received: 2"):
        canonical_correlation_loss([f.astype("float32") for f in drawn()])
