"""MLB and MMPareto, which change the gradients of joint and own losses."""

import keras
import methods_reference as ref
import numpy as np
import pytest
from scipy import optimize

from keras_mla.models import MLB, MMPareto
from keras_mla.models.balanced import mm_pareto

# Not in alphabetical order.
CASES = [("ca", False), ("cab", True)]


def model_and_weights(cls, modalities, seed=0, **kwargs):
    model = ref.compiled(cls(ref.encoders(modalities), head=3, **kwargs))
    ref.randomize(model, seed)
    variables = ref.encoder_weights(model)
    for m, head in model.heads.items():
        variables |= ref.dense_of(f"{m}_head", head)
    assert len(variables) == len(model.trainable_variables)
    return model, variables


def logits(p, x, modalities):
    features = ref.encode(p, x, modalities)
    return {
        m: f @ p[f"{m}_head_W"] + p[f"{m}_head_b"] for m, f in features.items()
    }


def losses(p, x, y, present, modalities):
    """The joint loss, and the sum of all modalities' own losses."""
    of_each = logits(p, x, modalities)
    total = sum(
        np.where(present[:, i, None], of_each[m], 0)
        for i, m in enumerate(modalities)
    )
    own = sum(
        ref.cross_entropy(of_each[m], y, present[:, i])
        for i, m in enumerate(modalities)
    )
    return ref.cross_entropy(total, y, present.any(1)), own


def gradients_of(p, x, y, present, modalities):
    """Those of the joint loss, and those of the own losses."""
    return [
        ref.numeric_gradients(
            lambda q, which=which: losses(q, x, y, present, modalities)[which],
            p,
        )
        for which in (0, 1)
    ]


@pytest.mark.parametrize("modalities, presence", CASES)
def test_mlb_speeds_up_what_is_behind(modalities, presence):
    x, y, present = ref.data(modalities, presence)
    model, variables = model_and_weights(MLB, modalities, alpha=0.7, beta=5.0)
    p = ref.numpy_of(variables)
    scores = []
    for index, m in enumerate(modalities):
        right = np.exp(-ref.cross_entropies(logits(p, x, modalities)[m], y))
        scores.append(right[present[:, index]].mean())
    factors = {}
    for index, m in enumerate(modalities):
        others = [s for i, s in enumerate(scores) if i != index]
        ratio = np.mean([s / scores[index] for s in others])
        most = 5.0 if ratio > 1 else 2.0
        factors[m] = 1 + (most - 1) * np.tanh(0.7 * (ratio - 1))
    assert min(factors.values()) < 1 < max(factors.values())
    logs, found = ref.applied_gradients(model, variables, x, y)
    expected = sum(losses(p, x, y, present, modalities))
    np.testing.assert_allclose(float(logs["loss"]), expected, rtol=1e-5)
    joint, own = gradients_of(p, x, y, present, modalities)
    for name in p:
        factor = 1 if "head" in name else factors[name[0]]
        np.testing.assert_allclose(
            found[name],
            factor * (joint[name] + own[name]),
            atol=2e-5 * max(factor, 1),
            err_msg=name,
        )


@pytest.mark.parametrize("modalities, presence", CASES)
def test_mm_pareto_integrates_two_gradients(modalities, presence):
    x, y, present = ref.data(modalities, presence, samples=8)
    model, variables = model_and_weights(
        MMPareto, modalities, seed=4, gamma=1.2
    )
    p = ref.numpy_of(variables)
    joint, own = gradients_of(p, x, y, present, modalities)
    logs, found = ref.applied_gradients(model, variables, x, y)
    expected = sum(losses(p, x, y, present, modalities))
    np.testing.assert_allclose(float(logs["loss"]), expected, rtol=1e-5)
    for name in p:
        if "head" in name:
            np.testing.assert_allclose(
                found[name], joint[name] + own[name], atol=2e-5, err_msg=name
            )
    for m in modalities:
        names = [f"{m}_W", f"{m}_b"]
        of_joint, of_own, mine = (
            np.concatenate([g[n].ravel() for n in names])
            for g in (joint, own, found)
        )
        np.testing.assert_allclose(
            mine, 1.2 * integrated(of_joint, of_own), atol=5e-5, err_msg=m
        )


def integrated(joint, own):
    """The paper's integration, its weights found by search."""
    share = 0.5
    if joint @ own < 0:
        share = optimize.minimize_scalar(
            lambda a: ((a * joint + (1 - a) * own) ** 2).sum(),
            bounds=(0, 1),
            method="bounded",
            options={"xatol": 1e-10},
        ).x
    mixed = 2 * share * joint + 2 * (1 - share) * own
    length = np.linalg.norm(mixed)
    if length == 0:
        return mixed
    return max(1, np.linalg.norm(joint + own) / length) * mixed


@pytest.mark.parametrize(
    "joint, own",
    [
        ([1.0, 2.0], [2.0, 1.0]),  # They agree.
        ([1.0, 0.0], [0.0, 3.0]),  # A right angle.
        ([1.0, 0.5], [-2.0, 1.0]),  # A conflict.
        ([1.0, 0.0], [-0.1, 0.2]),
        ([0.1, 0.0], [-3.0, 1.0]),
        ([0.0, 0.0], [1.0, 1.0]),
        ([1.0, 1.0], [0.0, 0.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([1.0, -2.0], [-1.0, 2.0]),  # They cancel.
    ],
)
def test_weights_are_those_of_the_shortest_step(joint, own):
    tensors = [
        [keras.ops.convert_to_tensor(g, "float32")] for g in (joint, own)
    ]
    weights = [
        float(keras.ops.convert_to_numpy(w))
        for w in mm_pareto.integration_weights(*tensors)
    ]
    joint, own = np.array(joint), np.array(own)
    mine = weights[0] * joint + weights[1] * own
    np.testing.assert_allclose(mine, integrated(joint, own), atol=2e-4)


@pytest.mark.parametrize(
    "cls, kwargs, message",
    [
        (MLB, {"alpha": -1}, "alpha=-1"),
        (MLB, {"beta": 0.5}, "beta=0.5"),
        (MMPareto, {"gamma": 0}, "gamma=0"),
    ],
)
def test_wrong_arguments(cls, kwargs, message):
    with pytest.raises(ValueError, match=message):
        cls(ref.encoders("ca"), 3, **kwargs)
    if cls is MLB:
        with pytest.raises(ValueError, match="at least two"):
            MLB(ref.encoders("c"), 3)
