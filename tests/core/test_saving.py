"""Saving, loading and unimodal parts."""

import keras
import numpy as np
import pytest
from token_model import BagOfTokens, trained_token_model
from utils import (
    WIDTHS,
    compiled,
    largest_difference,
    mainly_on,
    make_data,
    make_model,
    to_numpy,
    weights_of,
)

import keras_mla
from keras_mla.layers import AverageFusion

BACKEND = keras.backend.backend()


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_saved_model_goes_on_as_if_never_saved(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    model = compiled(
        make_model(),
        "adam",
        weighted_metrics=["accuracy"],
        learning_rate_multiplier={"text": 0.5},
    )
    x, y = make_data()
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("float32")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.modalities == model.modalities
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    before = model.evaluate(x, y, verbose=0, return_dict=True)
    assert loaded.evaluate(x, y, verbose=0, return_dict=True) == before
    for each in (model, loaded):
        each.fit(x, y, shuffle=False, verbose=0)
    assert largest_difference(weights_of(model), weights_of(loaded)) == 0


@mainly_on("torch")
def test_everything_of_a_model_is_restored(tmp_path):
    model, x, y = trained_token_model()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert largest_difference(weights_of(model), weights_of(loaded)) == 0
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    assert loaded.projectors[0].get_config()["alpha"] == 3.0
    assert loaded.projectors[1].order == "previous"
    assert isinstance(loaded.fusion, AverageFusion)
    assert loaded.feature_dim == 5
    loaded.fit(x, y, verbose=0)


@mainly_on("torch")
def test_weights_alone(tmp_path):
    model = compiled(make_model())
    x, y = make_data()
    model.fit(x, y, verbose=0)
    model.save_weights(tmp_path / "model.weights.h5")
    other = compiled(make_model())
    other.fit(x, y, verbose=0)
    other.load_weights(tmp_path / "model.weights.h5")
    assert largest_difference(weights_of(model), weights_of(other)) == 0


def test_jit_compile_is_saved_as_it_was_given(tmp_path):
    model = compiled(make_model())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_compile_config()["jit_compile"] == "auto"


def test_an_uncompiled_model_stays_so(tmp_path):
    make_model().save(tmp_path / "model.keras")
    assert not keras.saving.load_model(tmp_path / "model.keras").compiled


@mainly_on("torch")
@pytest.mark.parametrize("deep", [False, True])
def test_unimodal_shares_weights(tmp_path, deep):
    model, x, y = trained_token_model()
    if not deep:
        model = compiled(make_model())
        x, y = make_data()
    unimodal = model.unimodal("image")
    model.fit(x, y, verbose=0)
    logits = model.predict_modalities(x)["image"]["logits"]
    np.testing.assert_allclose(
        unimodal.predict(x["image"], verbose=0), logits, atol=1e-6
    )
    unimodal.save(tmp_path / "image.keras")
    loaded = keras.saving.load_model(tmp_path / "image.keras")
    np.testing.assert_allclose(
        loaded.predict(x["image"], verbose=0), logits, atol=1e-6
    )


@mainly_on("torch")
def test_unimodal_of_nested_inputs():
    model, x, _ = trained_token_model()
    logits = model.unimodal("text").predict(x["text"], verbose=0)
    expected = model.predict_modalities(x)["text"]["logits"]
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_unimodal_errors():
    with pytest.raises(ValueError, match="no modality 'smell'.*'audio'"):
        make_model().unimodal("smell")
    unbuilt = keras_mla.MLA({"text": BagOfTokens()}, 4)
    with pytest.raises(ValueError, match="needs a built model"):
        unbuilt.unimodal("text")


def test_summary_and_plain_calls():
    model = make_model()
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    assert any("MLA" in line or "mla" in line for line in lines)
    x, _ = make_data(4)
    np.testing.assert_allclose(
        to_numpy(model(x)), model.predict(x, verbose=0), atol=1e-6
    )
    assert set(WIDTHS) == set(model.modalities)
