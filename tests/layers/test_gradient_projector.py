import keras
import numpy as np
import pytest
from mla_reference import closed_form
from utils import only_on, to_numpy

from keras_mla.layers import GradientProjector

SIZE, UNITS, STEPS = 7, 3, 40


def run(projector, features, gradients):
    return np.stack(
        [
            to_numpy(projector(g, h))
            for g, h in zip(gradients, features, strict=True)
        ]
    )


@pytest.fixture
def steps():
    rng = np.random.default_rng(1)
    features = rng.normal(0.4, 1, (STEPS, SIZE)).astype("float32")
    gradients = rng.normal(size=(STEPS, SIZE, UNITS)).astype("float32")
    return features, gradients


@pytest.mark.parametrize("alpha", [0.01, 1.0, 100.0])
def test_current_is_the_closed_form(steps, alpha):
    features, gradients = steps
    projector = GradientProjector(alpha=alpha)
    projected = run(projector, features, gradients)
    P = to_numpy(projector.P)
    np.testing.assert_allclose(P, closed_form(features[1:], alpha), atol=5e-5)
    np.testing.assert_array_equal(projected[0], gradients[0])
    for t in (1, 2, STEPS - 1):
        expected = closed_form(features[1 : t + 1], alpha) @ gradients[t]
        np.testing.assert_allclose(projected[t], expected, atol=2e-4)


def test_previous_folds_in_the_step_before(steps):
    features, gradients = steps
    projector = GradientProjector(alpha=0.5, order="previous")
    projected = run(projector, features, gradients)
    np.testing.assert_array_equal(projected[0], gradients[0])
    for t in (1, STEPS - 1):
        expected = closed_form(features[:t], 0.5) @ gradients[t]
        np.testing.assert_allclose(projected[t], expected, atol=1e-4)


def test_P_is_symmetric_with_eigenvalues_in_0_1():
    rng = np.random.default_rng(2)
    projector = GradientProjector(alpha=0.1)
    for _ in range(300):
        feature = np.maximum(rng.normal(0.5, 2, SIZE), 0).astype("float32")
        projector(np.ones((SIZE, UNITS), "float32"), feature)
    P = to_numpy(projector.P)
    np.testing.assert_array_equal(P, P.T)
    eigenvalues = np.linalg.eigvalsh(P.astype("float64"))
    assert eigenvalues.min() > -1e-6
    assert eigenvalues.max() <= 1 + 1e-6


def test_forgetting_and_normalize_against_numpy(steps):
    features, gradients = steps
    projector = GradientProjector(alpha=0.3, forgetting=0.9, normalize=True)
    projected = run(projector, features, gradients)
    P = np.eye(SIZE)
    for t in range(1, STEPS):
        h = features[t].astype("float64")
        q = P @ h / (0.3 + h @ P @ h)
        P = P - np.outer(q, h @ P)
        P = 0.9 * P + 0.1 * np.eye(SIZE)
        P = P / np.linalg.norm(P)
        np.testing.assert_allclose(projected[t], P @ gradients[t], atol=1e-5)
    np.testing.assert_array_equal(projected[0], gradients[0])
    np.testing.assert_allclose(to_numpy(projector.P), P, atol=1e-6)


def test_large_features_leave_P_between_0_and_1():
    rng = np.random.default_rng(0)
    size, scale = 8, 1e4
    kinds = rng.normal(size=(3, size)) * scale
    # The same features come again and again.
    features = [kinds[i % 3] for i in range(300)]
    gradient = rng.normal(size=(size, 2))
    projector = GradientProjector(alpha=1.0)
    found = run(projector, features, [gradient] * 300)[-1]
    # In float64; the first feature of all is not folded in.
    total = sum(np.outer(h, h) for h in features[1:])
    expected = np.linalg.inv(np.eye(size) + total) @ gradient
    np.testing.assert_allclose(found, expected, atol=1e-4)
    eigenvalues = np.linalg.eigvalsh(keras.ops.convert_to_numpy(projector.P))
    assert eigenvalues.min() > -1e-5 and eigenvalues.max() < 1 + 1e-5


@pytest.mark.parametrize("scale", [30.0, 100.0, 1000.0])
@pytest.mark.parametrize("kind", ["few directions", "nearly constant"])
def test_large_features_with_some_noise(kind, scale):
    rng = np.random.default_rng(0)
    size, base = 64, rng.normal(size=(8, 64))
    projector = GradientProjector(alpha=1.0)
    for _ in range(120):
        drawn = rng.normal(size=8) if kind == "few directions" else np.ones(8)
        h = scale * (drawn @ base) + 0.1 * rng.normal(size=size)
        found = projector(np.ones((size, 1), "float32"), h.astype("float32"))
    eigenvalues = np.linalg.eigvalsh(to_numpy(projector.P))
    assert eigenvalues.min() > -1e-3 and eigenvalues.max() < 1 + 1e-5
    # No longer than the gradient was.
    assert np.linalg.norm(to_numpy(found)) < 1.001 * size**0.5


def test_forgetting_stays_bounded():
    rng = np.random.default_rng(3)
    projector = GradientProjector(alpha=0.1, forgetting=0.99)
    for _ in range(1000):
        feature = rng.normal(1, 0.1, SIZE).astype("float32")
        projector(np.ones((SIZE, 1), "float32"), feature)
    eigenvalues = np.linalg.eigvalsh(to_numpy(projector.P))
    assert 0 < eigenvalues.min()
    assert eigenvalues.max() <= 1 + 1e-6


def test_reset_returns_to_the_beginning(steps):
    features, gradients = steps
    projector = GradientProjector(order="previous")
    first = run(projector, features, gradients)
    projector.reset()
    assert projector.trace == SIZE
    np.testing.assert_array_equal(run(projector, features, gradients), first)


def test_keeps_dtype_of_the_gradient_and_float32_state():
    keras.config.set_dtype_policy("mixed_bfloat16")
    projector = GradientProjector()
    gradient = keras.ops.ones((SIZE, UNITS), "bfloat16")
    projected = projector.project
    projector.build((SIZE, UNITS))
    result, _ = projected(gradient, keras.ops.ones((SIZE,), "bfloat16"))
    assert keras.backend.standardize_dtype(result.dtype) == "bfloat16"
    assert projector.P.dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0.0}, "`alpha` must be greater than 0.*alpha=0.0"),
        ({"alpha": float("nan")}, "`alpha` must be greater than 0"),
        ({"order": "next"}, "`order` must be 'current' or 'previous'.*'next'"),
        ({"forgetting": 0.0}, "`forgetting` must be greater than 0"),
        ({"forgetting": 1.5}, "`forgetting` must be.*forgetting=1.5"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        GradientProjector(**arguments)


def test_the_first_step_leaves_everything_as_it_is():
    gradient = np.ones((SIZE, UNITS), "float32")
    projector = GradientProjector()
    projected = projector(gradient, np.full(SIZE, np.inf, "float32"))
    np.testing.assert_array_equal(to_numpy(projected), gradient)
    np.testing.assert_array_equal(to_numpy(projector.P), np.eye(SIZE))


@only_on("torch")
def test_state_stays_out_of_autograd():
    feature = keras.ops.ones(SIZE).requires_grad_() * 1
    projector = GradientProjector()
    for _ in range(2):
        projector(keras.ops.ones((SIZE, UNITS)), feature)
    assert not projector.P.value.requires_grad


def test_nothing_of_it_is_trained():
    projector = GradientProjector(order="previous")
    projector.build((3, 2))
    assert not projector.trainable_variables
    assert len(projector.non_trainable_variables) == 3


@only_on("tensorflow")
def test_a_gpu_s_product_is_the_same(monkeypatch):
    import tensorflow as tf

    from keras_mla.backend.kernels import matrix_vector

    rng = np.random.default_rng(0)
    matrix, vector = (
        tf.constant(rng.normal(size=shape), "float32")
        for shape in ((SIZE, SIZE), (SIZE,))
    )
    expected = matrix.numpy().astype("float64") @ vector.numpy()
    for gpus in ([], ["one"]):
        monkeypatch.setattr(
            tf.config, "list_physical_devices", lambda kind, gpus=gpus: gpus
        )
        product = matrix_vector(matrix, vector)
        np.testing.assert_allclose(product, expected, atol=1e-5)
