"""Imputation in joint methods, against NumPy."""

import keras
import numpy as np
import pytest
from utils import WIDTHS, compiled, encoder, make_data, to_numpy

from keras_mla.core.imputation import Imputation
from keras_mla.models import BiGated, ConcatFusion

NAMES = ("text", "audio", "image")


def parts():
    return {name: encoder(WIDTHS[name]) for name in NAMES}


def test_the_running_mean_is_that_of_present_features():
    rng = np.random.default_rng(0)
    layer = Imputation("mean", momentum=0.6)
    mean = {name: np.zeros(2) for name in NAMES}
    moved = dict.fromkeys(NAMES, 0)
    for batch in range(5):
        features = {
            n: rng.normal(3, 1, (4, 2)).astype("float32") for n in NAMES
        }
        presence = rng.random((4, 3)) < 0.5
        presence[:, 1] &= batch != 2  # No sample has the audio.
        for index, name in enumerate(NAMES):
            features[name][~presence[:, index]] = np.nan
            there = features[name][presence[:, index]].astype("float64")
            if len(there):
                moved[name] += 1
                rate = max(1 - 0.6, 1 / moved[name])
                mean[name] += rate * (there.mean(0) - mean[name])
        done = layer(features, presence, training=True)
        for index, name in enumerate(NAMES):
            expected = np.where(
                presence[:, index, None], features[name], mean[name]
            )
            np.testing.assert_allclose(
                to_numpy(done[name]), expected, rtol=1e-5
            )
    before = [to_numpy(v) for v in layer.variables]
    layer(features, presence, training=False)
    for variable, value in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), value)


@pytest.mark.parametrize("impute", ["mean", "token"])
def test_a_model_imputes(impute, tmp_path):
    model = compiled(ConcatFusion(parts(), 4, impute=impute), "adam")
    x, y = make_data(32, NAMES)
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)  # All are there.
    vectors = {n: to_numpy(v) for n, v in model.imputation.vectors.items()}
    if impute == "mean":
        assert all(vector.any() for vector in vectors.values())
    x["presence"] = np.ones((32, 3), bool)
    x["presence"][::2, 0] = x["presence"][1::4, 2] = False
    x["text"][::2] = np.nan
    model.fit(x, y, batch_size=8, verbose=0)
    vectors = {n: to_numpy(v) for n, v in model.imputation.vectors.items()}
    # By hand: the head on features, and vectors where there are none.
    features = model.features(x)
    joined = [
        np.where(x["presence"][:, [i]], np.nan_to_num(features[n]), vectors[n])
        for i, n in enumerate(NAMES)
    ]
    kernel, bias = map(to_numpy, (model.head.kernel, model.head.bias))
    expected = np.concatenate(joined, 1) @ kernel + bias
    np.testing.assert_allclose(
        model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5
    )
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_other_joint_methods_impute_too():
    model = compiled(BiGated(parts(), 4, impute="token"), "adam")
    x, y = make_data(8, NAMES)
    x["presence"] = np.tile([True, False, True], (8, 1))
    before = to_numpy(model.imputation.vectors["audio"])
    model.fit(x, y, verbose=0)
    assert (to_numpy(model.imputation.vectors["audio"]) != before).any()


def test_an_unknown_imputation():
    with pytest.raises(ValueError, match="must be one of .*'mode'"):
        ConcatFusion(parts(), 4, impute="mode")
