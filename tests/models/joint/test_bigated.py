import methods_reference as ref
import numpy as np
import pytest

from keras_mla.models import BiGated


def gated(p, f, main):
    product = f[main] @ p[f"{main}_mixer_W"] + p[f"{main}_mixer_b"]
    for m, feature in f.items():
        if m != main:
            z = feature @ p[f"{m}_mixer_W"] + p[f"{m}_mixer_b"]
            product = product / (1 + np.exp(-z))
    return product @ p["head_W"] + p["head_b"]


def weights(model):
    result = ref.encoder_weights(model) | ref.dense_of("head", model.head)
    for name, mixer in model.gating.mixers.items():
        result |= ref.dense_of(f"{name}_mixer", mixer)
    return result


@pytest.mark.parametrize(
    "modalities, presence, main", [("ab", False, None), ("abc", True, "a")]
)
def test_logits_loss_and_gradients(modalities, presence, main):
    x, y, present = ref.data(modalities, presence)
    widths = {"a": 3, "b": 2, "c": 4}
    model = BiGated(ref.encoders(modalities, widths), head=3, main=main)
    ref.randomize(ref.compiled(model))
    variables, known = weights(model), present.any(1)

    def logits(p):
        features = ref.encode(p, x, modalities)
        return gated(p, features, main or modalities[-1])

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
    model = BiGated(ref.encoders("abc"), head=3)
    ref.randomize(model)
    p = ref.numpy_of(weights(model))
    f = ref.encode(p, x, "abc")
    for name, logits in ref.unimodal_logits(model, x).items():
        alone = {m: v * (m == name) for m, v in f.items()}
        np.testing.assert_allclose(logits, gated(p, alone, "c"), atol=1e-5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="Received: main='d'"):
        BiGated(ref.encoders("ab"), head=3, main="d")
