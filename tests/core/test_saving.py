"""Saving, loading, unimodal parts and export."""

import warnings

import keras
import numpy as np
import pytest
from utils import (
    WIDTHS,
    compiled,
    encoder,
    largest_difference,
    mainly_on,
    make_data,
    make_model,
    only_on,
    to_numpy,
    weights_of,
)

import keras_mla
from keras_mla.layers import AverageFusion, GradientProjector

BACKEND = keras.backend.backend()


@keras.saving.register_keras_serializable(package="tests")
class BagOfTokens(keras.layers.Layer):
    """Mean embedding: an encoder that declares no input."""

    def __init__(self, vocabulary=20, features=6, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary, self.features = vocabulary, features
        self.embedding = keras.layers.Embedding(vocabulary, features)

    def build(self, input_shape):
        self.embedding.build(input_shape["token_ids"])

    def call(self, inputs):
        mask = keras.ops.cast(inputs["padding_mask"], "float32")[..., None]
        embedded = self.embedding(inputs["token_ids"]) * mask
        return keras.ops.sum(embedded, axis=1) / keras.ops.sum(mask, axis=1)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "features": self.features,
        }


def token_data(samples=24):
    rng = np.random.default_rng(0)
    x, y = make_data(samples, ("image",))
    x["text"] = {
        "token_ids": rng.integers(0, 20, (samples, 7)).astype("int32"),
        "padding_mask": np.arange(7) < rng.integers(1, 8, (samples, 1)),
    }
    return x, y


def trained_token_model():
    model = keras_mla.MLA(
        {"image": encoder(8, 5), "text": BagOfTokens()},
        head=keras.Sequential(
            [
                keras.layers.Dense(5, "relu"),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(4),
            ]
        ),
        feature_dim=5,
        projector=GradientProjector(alpha=3.0, order="previous"),
        fusion=AverageFusion(),
    )
    compiled(model, keras.optimizers.AdamW(0.01, weight_decay=0.1))
    x, y = token_data()
    model.fit(x, y, verbose=0, epochs=2)
    return model, x, y


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


def pooled(model):
    """Gives a model the fusion that joint calibration may give it."""
    fusion = keras_mla.layers.PoolFusion()
    model.replace_fusion(fusion)
    fusion.weight.assign([2.0, 0.5])
    fusion.bias.assign(np.linspace(-1, 1, fusion.bias.shape[0]))


@pytest.mark.skipif(BACKEND == "torch", reason="not from PyTorch")
@pytest.mark.parametrize("presence", [False, True])
def test_export_saved_model(tmp_path, presence):
    tf = pytest.importorskip("tensorflow")
    model, x, _ = trained_token_model()
    if presence:
        given = np.random.default_rng(0).random((24, 2)) < 0.6
        x["presence"] = given
        pooled(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.export(tmp_path / "model", presence=presence, verbose=False)
        loaded = tf.saved_model.load(tmp_path / "model")
        served = loaded.serve(x)
    np.testing.assert_allclose(
        served.numpy(), model.predict(x, verbose=0), atol=1e-5
    )


@only_on("torch")
def test_export_saved_model_from_torch_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow or jax"):
        make_model().export(tmp_path / "model")


@pytest.mark.skipif(BACKEND == "jax", reason="not from JAX")
def test_export_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x, _ = trained_token_model()
    pooled(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    flat = {"image": x["image"]}
    flat |= {f"text_{key}": value for key, value in x["text"].items()}
    names = [i.name for i in session.get_inputs()]
    assert {n.split(":")[0] for n in names} == set(flat)
    for samples in (1, 24):
        feed = {n: flat[n.split(":")[0]][:samples] for n in names}
        (served,) = session.run(None, feed)
        expected = model.predict(x, verbose=0)[:samples]
        np.testing.assert_allclose(served, expected, atol=1e-5)


def test_export_of_an_unbuilt_model(tmp_path):
    model = keras_mla.MLA({"text": BagOfTokens()}, 4)
    with pytest.raises(ValueError, match="`export` needs a built model"):
        model.export(tmp_path / "model", format="onnx")


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
