import methods_reference as ref
import numpy as np
import pytest

from keras_mla.models import FiLM


def conditioned(p, f, main):
    others = np.concatenate([v for m, v in f.items() if m != main], 1)
    gamma = others @ p["scale_W"] + p["scale_b"]
    beta = others @ p["shift_W"] + p["shift_b"]
    return (gamma * f[main] + beta) @ p["head_W"] + p["head_b"]


def weights(model):
    return (
        ref.encoder_weights(model)
        | ref.dense_of("head", model.head)
        | ref.dense_of("scale", model.modulation.scale)
        | ref.dense_of("shift", model.modulation.shift)
    )


@pytest.mark.parametrize(
    "modalities, presence, main", [("ab", False, None), ("abc", True, "a")]
)
def test_logits_loss_and_gradients(modalities, presence, main):
    x, y, present = ref.data(modalities, presence)
    widths = {"a": 3, "b": 2, "c": 4}
    model = FiLM(ref.encoders(modalities, widths), head=3, main=main)
    ref.randomize(ref.compiled(model))
    variables, known = weights(model), present.any(1)

    def logits(p):
        features = ref.encode(p, x, modalities)
        return conditioned(p, features, main or modalities[-1])

    expected = logits(ref.numpy_of(variables)) * known[:, None]
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)
    ref.check_step(
        model,
        variables,
        x,
        y,
        lambda p: ref.cross_entropy(logits(p), y, known),
    )


def test_the_others_are_deactivated_for_a_score():
    x, _, _ = ref.data("abc")
    model = FiLM(ref.encoders("abc"), head=3)
    ref.randomize(model)
    p = ref.numpy_of(weights(model))
    f = ref.encode(p, x, "abc")
    for name, logits in ref.unimodal_logits(model, x).items():
        alone = {m: v * (m == name) for m, v in f.items()}
        np.testing.assert_allclose(
            logits, conditioned(p, alone, "c"), atol=1e-5
        )


def test_unconditioned_features_pass_at_first():
    x, _, _ = ref.data("ab")
    model = FiLM(ref.encoders("ab"), head=3)
    p = ref.numpy_of(weights(model))
    np.testing.assert_allclose(
        ref.unimodal_logits(model, x)["b"],
        ref.encode(p, x, "ab")["b"] @ p["head_W"] + p["head_b"],
        atol=1e-5,
    )


def test_bad_arguments():
    with pytest.raises(ValueError, match="Received: main='d'"):
        FiLM(ref.encoders("ab"), head=3, main="d")
    with pytest.raises(ValueError, match="at least two"):
        FiLM(ref.encoders("a"), head=3)
