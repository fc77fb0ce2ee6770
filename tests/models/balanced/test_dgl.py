import methods_reference as ref
import numpy as np
import pytest
from utils import to_numpy

from keras_mla.models import DGL


def make(modalities, **kwargs):
    model = ref.compiled(DGL(ref.encoders(modalities), head=3, **kwargs))
    ref.randomize(model)
    return model, ref.encoder_weights(model) | ref.dense_of("head", model.head)


def joint_loss(p, features, y, present):
    z = np.concatenate(list(features.values()), 1) @ p["head_W"] + p["head_b"]
    return ref.cross_entropy(z, y, present.any(1))


def own_losses(p, features, y, present, modalities):
    total = 0.0
    slices = np.split(p["head_W"], len(modalities))
    for index, (m, W) in enumerate(zip(modalities, slices, strict=True)):
        z = features[m] @ W + p["head_b"]
        total += ref.cross_entropy(z, y, present[:, index])
    return total


@pytest.mark.parametrize("modalities, presence", [("ca", False), ("cab", True)])
def test_each_loss_moves_its_own_part(modalities, presence):
    x, y, present = ref.data(modalities, presence)
    model, variables = make(modalities, alpha=3.0)
    p = ref.numpy_of(variables)

    def joint(q):
        return joint_loss(q, ref.encode(q, x, modalities), y, present)

    def own(q):
        features = ref.encode(q, x, modalities)
        return own_losses(q, features, y, present, modalities)

    logs, found = ref.applied_gradients(model, variables, x, y)
    np.testing.assert_allclose(
        float(logs["loss"]), joint(p) + 3 * own(p), rtol=1e-5
    )
    of_joint, of_own = (ref.numeric_gradients(f, p) for f in (joint, own))
    for name in p:
        mine = of_joint[name] if name.startswith("head") else 3 * of_own[name]
        np.testing.assert_allclose(found[name], mine, atol=5e-5, err_msg=name)


def test_its_scores_are_those_it_trains_on():
    x, _, _ = ref.data("cab")
    model, variables = make("cab")
    p = ref.numpy_of(variables)
    features = ref.encode(p, x, "cab")
    found = model.predict_modalities(x)
    for m, W in zip("cab", np.split(p["head_W"], 3), strict=True):
        np.testing.assert_allclose(
            found[m]["logits"], features[m] @ W + p["head_b"], atol=1e-5
        )
        np.testing.assert_allclose(
            model.unimodal(m).predict(x[m], verbose=0),
            found[m]["logits"],
            atol=1e-5,
        )


def test_no_encoder_feels_the_joint_loss_and_no_head_the_others():
    """By a bit: what the other loss is does not matter."""
    x, y, _ = ref.data("cab")
    changed = []
    for alpha in (1.0, 4.0):
        model, variables = make("cab", alpha=alpha)
        ref.applied_gradients(model, variables, x, y)
        changed.append(to_numpy(model.head.kernel))
    np.testing.assert_array_equal(*changed)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="alpha=0"):
        DGL(ref.encoders("ca"), 3, alpha=0)
