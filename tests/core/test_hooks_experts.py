"""Experts beside modalities, and what updates and logs are named."""

import keras
import numpy as np
import pytest
from keras import ops
from outside_methods import WithJoint
from utils import (
    CLASSES,
    WIDTHS,
    compiled,
    half_presence,
    make_data,
    parts,
    saved,
    to_numpy,
)

import keras_mla
from keras_mla.core import (
    JointModel,
)

NAMES = tuple(WIDTHS)


# === Experts beside modalities ===


@pytest.mark.filterwarnings("ignore:`calibrate` ended at a bound")
@pytest.mark.parametrize("absent", [False, True])
def test_an_expert_that_is_no_modality(absent, tmp_path):
    x, y = make_data(24)
    presence = np.ones((24, 3), bool)
    if absent:
        x["presence"] = presence = half_presence(24)
    model = compiled(WithJoint(parts(), CLASSES))
    plain = compiled(keras_mla.MLA(parts(), CLASSES))
    for name in NAMES:
        plain.encoders[name].set_weights(model.encoders[name].get_weights())
    plain.head.set_weights(model.head.get_weights())
    how = dict(batch_size=8, shuffle=False, verbose=0)
    logs = model.fit(x, y, **how).history
    expected = plain.fit(x, y, **how).history
    # The joint expert does not change what other experts learn and report.
    for key in expected:
        if key not in ("accuracy", "fused_loss", "loss"):
            assert logs[key] == pytest.approx(expected[key], rel=1e-5), key
    np.testing.assert_allclose(
        to_numpy(model.head.kernel), to_numpy(plain.head.kernel), atol=1e-6
    )
    scores = model.evaluate(x, y, verbose=0, return_dict=True)
    found = model.predict_modalities(x)
    assert list(found) == [*NAMES, "joint", "fused"]
    known = presence.any(1)
    hits = (found["joint"]["logits"].argmax(1) == y)[known]
    assert scores["joint_accuracy"] == pytest.approx(hits.mean(), rel=1e-5)
    for fitted in (False, True):
        if fitted:
            fitted = model.calibrate((x, y))
            assert list(fitted["temperature"]) == [*NAMES, "joint"]
            found = model.predict_modalities(x)
        total = sum(
            found[e]["logits"] * found[e]["weight"][:, None]
            for e in model.experts
        )
        np.testing.assert_allclose(found["fused"], total, atol=1e-5)
        np.testing.assert_allclose(
            found["fused"], model.predict(x, verbose=0), atol=1e-5
        )
    again = saved(model, tmp_path)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_unpaired_data_skip_an_update_on_all_modalities():
    x, y = make_data(12)
    model = compiled(WithJoint(parts(), CLASSES))
    data = keras_mla.UnpairedDataset(
        {n: (x[n][: 6 + 2 * m], y[: 6 + 2 * m]) for m, n in enumerate(NAMES)},
        batch_size=4,
    )
    before = to_numpy(model.joint_head.kernel)
    logs = model.fit(data, verbose=0).history
    assert set(logs) == {
        "loss",
        *(f"{n}_{k}" for n in NAMES for k in ("loss", "accuracy")),
    }
    np.testing.assert_array_equal(to_numpy(model.joint_head.kernel), before)
    assert np.mean([logs[f"{n}_loss"][0] for n in NAMES]) == pytest.approx(
        logs["loss"][0], rel=1e-5
    )


@pytest.mark.parametrize(
    "names", [("fused", *NAMES), ("joint", *NAMES), (*NAMES, "fused")]
)
def test_experts_begin_with_the_modalities(names):
    class Wrong(WithJoint):
        experts = names

        def updates(self):
            return keras_mla.MLA.updates(self)

    with pytest.raises(ValueError, match="`experts` must be the modalities"):
        compiled(Wrong(parts(), CLASSES))


@pytest.mark.parametrize("name", ["loss", "fused_loss", "text_loss"])
def test_logs_have_names_of_their_own(name):
    class Wrong(keras_mla.models.MultiLossFusion):
        def updates(self):
            (update,) = super().updates()
            update.logs = (name,)
            return [update]

    with pytest.raises(ValueError, match=f"own logs.*'{name}'"):
        compiled(Wrong(parts(), CLASSES))


def test_a_weight_that_no_update_moves_is_told():
    class Forgetful(keras_mla.models.LateFusion):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.shift = self.add_weight(shape=(CLASSES,), name="shift")

        def unimodal_pass(self, name, feature, training):
            logits, kept = super().unimodal_pass(name, feature, training)
            return logits + self.shift, kept

    x, y = make_data(8)
    model = compiled(Forgetful(parts(), CLASSES))
    with pytest.warns(UserWarning, match="No update moves.*shift"):
        model.fit(x, y, verbose=0)


def test_absent_sequences_are_zeros_for_all_their_steps():
    # As many steps as samples: masks of either would fit.
    class Sequences(JointModel):
        def check_features(self, name, feature):
            pass

        def width_of(self, feature):
            return feature.shape[-1]

        def join(self, features, training):
            means = [ops.mean(features[name], axis=1) for name in NAMES]
            return self.head(ops.concatenate(means, axis=-1))

        def join_one(self, features):
            return self.join(features, False)

    steps = 4
    model = Sequences(
        {
            name: keras.Sequential(
                [keras.Input((steps, 2)), keras.layers.Dense(3)]
            )
            for name in NAMES
        },
        CLASSES,
    )
    rng = np.random.default_rng(0)
    x = {n: rng.normal(size=(steps, steps, 2)).astype("float32") for n in NAMES}
    presence = rng.random((steps, 3)) < 0.5
    found = model.predict({**x, "presence": presence}, verbose=0)
    features = model.features(x)
    means = [
        np.where(presence[:, i, None], features[n].mean(axis=1), 0)
        for i, n in enumerate(NAMES)
    ]
    kernel, bias = map(to_numpy, model.head.weights)
    np.testing.assert_allclose(
        found, np.concatenate(means, 1) @ kernel + bias, atol=1e-5
    )
