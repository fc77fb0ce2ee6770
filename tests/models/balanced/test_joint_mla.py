import keras
import numpy as np
import pytest
from utils import (
    CLASSES,
    WIDTHS,
    compiled,
    encoder,
    half_presence,
    largest_difference,
    make_data,
    make_model,
    parts,
    to_numpy,
)

from keras_mla.models import JointMLA


def norms():
    return [keras.layers.BatchNormalization(), keras.layers.Dropout(0.0)]


def twins(layers=lambda: ()):
    """MLA, and the same with a joint head."""
    first = make_model(layers=layers)
    second = JointMLA(
        {n: encoder(WIDTHS[n], layers=layers()) for n in WIDTHS}, head=CLASSES
    )
    for name in first.modalities:
        second.encoders[name].set_weights(first.encoders[name].get_weights())
    second.head.set_weights(first.head.get_weights())
    return first, second


@pytest.mark.parametrize("presence", [False, True])
def test_all_else_is_mla(presence):
    x, y = make_data(16)
    if presence:
        x["presence"] = half_presence(16)
    plain, joint = twins(norms)
    for model in (plain, joint):
        compiled(model).fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for name in plain.modalities:
        difference = largest_difference(
            *(
                [to_numpy(v) for v in m.encoders[name].weights]
                for m in (plain, joint)
            )
        )
        assert difference == 0
    np.testing.assert_array_equal(
        to_numpy(plain.head.kernel), to_numpy(joint.head.kernel)
    )


def test_the_joint_head_against_numpy():
    x, y = make_data(12)
    x["presence"] = half_presence(12)
    _, model = twins()
    compiled(model, keras.optimizers.SGD(1.0))
    # Encoders and shared head stay.
    for layer in (*model.encoders.values(), model.head):
        layer.trainable = False
    compiled(model, keras.optimizers.SGD(1.0))
    features = model.features(x)
    joined = np.concatenate(
        [
            np.where(x["presence"][:, i, None], features[m], 0)
            for i, m in enumerate(model.modalities)
        ],
        axis=1,
    ).astype("float64")
    kernel, bias = (
        to_numpy(v).astype("float64") for v in model.joint_head.weights
    )
    z = joined @ kernel + bias
    found = model.predict_modalities(x)["joint"]["logits"]
    known = x["presence"].any(1)
    np.testing.assert_allclose(found[known], z[known], atol=1e-5)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    slope = (p - np.eye(CLASSES)[y]) * known[:, None] / known.sum()
    model.train_on_batch(x, y)
    np.testing.assert_allclose(
        to_numpy(model.joint_head.kernel),
        kernel - joined.T @ slope,
        atol=2e-5,
    )


def test_a_modality_may_not_have_its_name():
    encoders = dict(zip(("joint", "text"), parts().values(), strict=False))
    with pytest.raises(ValueError, match="another name"):
        JointMLA(encoders, CLASSES)
