import itertools

import numpy as np
import pytest
from utils import to_numpy

from keras_mla.layers import PoolFusion, ProductFusion


def world(classes=3, symbols=4, modalities=3, seed=0):
    """A prior, and the distribution of each modality's symbol by class."""
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.ones(classes))
    given = rng.dirichlet(np.ones(symbols), (modalities, classes))
    return prior, given


def seen_of(modalities):
    return np.array(list(itertools.product([False, True], repeat=modalities)))


def test_the_product_is_bayes_rule():
    prior, given = world()
    symbols = np.array(list(itertools.product(range(4), repeat=3)))
    # (samples, modalities, classes): p(class | symbol of one modality).
    one = np.stack([given[m][:, symbols[:, m]].T for m in range(3)], 1) * prior
    one /= one.sum(2, keepdims=True)
    fusion = ProductFusion(prior=prior.tolist())
    for seen in seen_of(3):
        likelihood = np.prod(
            [given[m][:, symbols[:, m]].T for m in np.flatnonzero(seen)],
            axis=0,
        )
        posterior = np.broadcast_to(prior * likelihood, (64, 3))
        posterior = posterior / posterior.sum(1, keepdims=True)
        logits = np.where(seen[:, None], np.log(one), np.nan).astype("float32")
        z = to_numpy(fusion(logits, np.tile(seen, (64, 1))))
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        np.testing.assert_allclose(p, posterior, atol=1e-5)
    logits = np.log(one).astype("float32")
    np.testing.assert_allclose(to_numpy(fusion(logits)), z, atol=1e-5)


def test_the_product_of_several_labels_is_bayes_rule_for_each():
    worlds = [world(2, seed=label) for label in range(3)]
    symbols = np.array(list(itertools.product(range(4), repeat=3)))
    prior = [p[1] for p, _ in worlds]
    fusion = ProductFusion(prior, task="multi_label")
    for seen in seen_of(3):
        logits, expected = [], []
        for p, given in worlds:
            odds = np.log(given[:, 1] / given[:, 0])
            of_each = np.stack([odds[m][symbols[:, m]] for m in range(3)], 1)
            base = np.log(p[1] / p[0])
            logits.append(of_each + base)
            expected.append((of_each * seen).sum(1) + base)
        z = to_numpy(
            fusion(
                np.stack(logits, 2).astype("float32"), np.tile(seen, (64, 1))
            )
        )
        np.testing.assert_allclose(z, np.stack(expected, 1), atol=1e-4)


def test_without_a_prior_logits_add_up():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 3, 4)).astype("float32")
    p = to_numpy(ProductFusion()(logits)) - logits.sum(1)
    np.testing.assert_allclose(p, np.tile(p[:, :1], 4), atol=1e-5)
    fusion = ProductFusion()
    fusion(logits)
    fusion.task = "multi_label"  # A model learns its task after it is built.
    np.testing.assert_allclose(to_numpy(fusion(logits)), logits.sum(1), 1e-5)


@pytest.mark.parametrize("built", [False, True])
def test_a_prior_is_adapted(built):
    labels = np.array([0, 0, 1, 2, 2, 2])
    logits = np.zeros((1, 2, 4), "float32")
    fusion = ProductFusion()
    if built:
        fusion(logits)
        fusion.adapt(labels)
    else:
        fusion.adapt(np.eye(4)[labels])
        with pytest.raises(ValueError, match="how many classes"):
            ProductFusion().adapt(labels)
    expected = np.array([2.5, 1.5, 3.5, 0.5]) / 8
    np.testing.assert_allclose(
        to_numpy(fusion(logits))[0], -np.log(expected), rtol=1e-5
    )
    again = ProductFusion.from_config(fusion.get_config())
    np.testing.assert_allclose(
        to_numpy(again(logits)), to_numpy(fusion(logits))
    )
    if built:
        fusion.adapt(labels[:, None], [1, 0, 2, 1, 1, 0])
        expected = np.array([1.5, 2.5, 2.5, 0.5]) / 7
        np.testing.assert_allclose(
            to_numpy(fusion(logits))[0], -np.log(expected), rtol=1e-5
        )
    fusion.task = "multi_label"
    fusion.adapt(np.array([[1, 0, 1, 1], [1, 0, 0, 1]]))
    odds = np.log([2.5 / 0.5, 0.5 / 2.5, 1, 2.5 / 0.5])
    np.testing.assert_allclose(to_numpy(fusion(logits))[0], -odds, atol=1e-5)


def test_a_prior_of_one_label():
    fusion = ProductFusion(task="multi_label")
    fusion.adapt(np.array([1, 1, 0]))
    np.testing.assert_allclose(fusion.given_prior, [2.5 / 4])


@pytest.mark.parametrize(
    "prior", [[0.5, 0.0], [0.5, np.nan], [[0.5]], 0.5, [0.5, 1e-50]]
)
def test_a_prior_must_be_probabilities(prior):
    with pytest.raises(ValueError, match="between 0 and 1"):
        ProductFusion(prior)


def test_a_product_needs_a_probability_for_each_class():
    with pytest.raises(ValueError, match="2 probabilities for 3 classes"):
        ProductFusion([0.5, 0.5])(np.zeros((1, 2, 3), "float32"))
    fusion = ProductFusion()
    fusion(np.zeros((1, 2, 3), "float32"))
    with pytest.raises(ValueError, match="from 0 to 2. Received: 3"):
        fusion.adapt([0, 3])
    with pytest.raises(ValueError, match="from 0 to 2. Received: 0.7"):
        fusion.adapt([0.7])
    with pytest.raises(ValueError, match="no label"):
        fusion.adapt([])
    with pytest.raises(ValueError, match="InverseVarianceFusion"):
        ProductFusion(task="regression")


def test_a_pool_against_numpy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 3, 4))
    presence = rng.random((8, 3)) < 0.5
    presence[0] = False
    fusion = PoolFusion()
    fusion.build((None, 3, 4))
    w, t, b = np.array([2, 0, 0.5]), np.array([1, 2, 4.0]), rng.normal(size=4)
    for variable, value in (
        (fusion.weight, w),
        (fusion.temperature, t),
        (fusion.bias, b),
        (fusion.scale, 1.5),
    ):
        variable.assign(value)
    shown = np.where(presence[..., None], logits, 0)
    expected = 1.5 * (((w / t)[:, None] * shown).sum(1) + b)
    expected[0] = 0
    dirty = np.where(presence[..., None], logits, np.nan).astype("float32")
    np.testing.assert_allclose(
        to_numpy(fusion(dirty, presence)), expected, atol=1e-5
    )
    np.testing.assert_allclose(
        to_numpy(fusion.factors_of(dirty, presence)),
        1.5 * w / t * presence,
        atol=1e-6,
    )
    whole = 1.5 * (((w / t)[:, None] * logits).sum(1) + b)
    np.testing.assert_allclose(
        to_numpy(fusion(logits.astype("float32"))), whole, atol=1e-5
    )
