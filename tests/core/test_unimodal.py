"""`unimodal(name)` shares weights, follows training, and can be saved."""

import keras
import numpy as np
import pytest
from utils import (
    CLASSES,
    WIDTHS,
    compiled,
    encoder,
    mainly_on,
    make_data,
    some,
    to_numpy,
)

from keras_mla import models

NAMES = tuple(WIDTHS)
METHODS = {
    "SumFusion": {},
    "ConcatFusion": {},
    "FiLM": {"main": "audio"},
    "BiGated": {"main": "audio"},
    "OGMGE": {},
    "MultiLossFusion": {},
    "QMF": {"num_samples": 16},
    "LateFusion": {},
    "MLA": {},
}


def deep_head():
    return keras.Sequential(
        [keras.layers.Dense(5, "relu"), keras.layers.Dense(CLASSES)]
    )


def make(method, widths=(6, 6, 6), head=CLASSES):
    parts = {
        name: encoder(WIDTHS[name], width)
        for name, width in zip(NAMES, widths, strict=True)
    }
    return getattr(models, method)(parts, head, **METHODS[method])


@pytest.mark.parametrize("name", some(["text", "image"], "image"))
@pytest.mark.parametrize("method", some(METHODS, "ConcatFusion", "FiLM"))
def test_it_follows_training_and_is_saved(method, name, tmp_path):
    model = compiled(make(method), keras.optimizers.SGD(0.5))
    x, y = make_data(16)
    part = model.unimodal(name)
    model.fit({**x, "sample_id": np.arange(16)}, y, epochs=2, verbose=0)
    inputs = {n: keras.ops.convert_to_tensor(x[n]) for n in NAMES}
    outputs = model.forward_pass(NAMES, inputs, False)
    expected = to_numpy(outputs.logits[name])
    part.save(tmp_path / "part.keras")
    loaded = keras.saving.load_model(tmp_path / "part.keras", safe_mode=True)
    for unimodal in (part, model.unimodal(name), loaded):
        np.testing.assert_allclose(
            unimodal.predict(x[name], verbose=0), expected, atol=1e-5
        )


@pytest.mark.parametrize("method", ["ConcatFusion", "OGMGE"])
def test_shares_of_the_bias_add_up(method):
    model = make(method)
    model.head.bias.assign(np.arange(CLASSES, dtype="float32"))
    x, _ = make_data(8)
    total = sum(model.unimodal(n).predict(x[n], verbose=0) for n in NAMES)
    np.testing.assert_allclose(model.predict(x, verbose=0), total, atol=1e-5)
    kernel, bias = model.head.get_weights()
    f = model.encoders["audio"].predict(x["audio"], verbose=0)
    np.testing.assert_allclose(
        model.unimodal("audio").predict(x["audio"], verbose=0),
        f @ kernel[6:12] + bias / 3,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "method",
    some(
        ["LateFusion", "UnimodalEnsemble", "MultiLossFusion", "QMF"],
        "LateFusion",
    ),
)
@pytest.mark.parametrize("built", some([False, True], True))
def test_separate_heads_of_several_layers_and_widths(method, built, tmp_path):
    head = deep_head()
    if built:
        head = keras.Sequential([keras.Input((4,)), *head.layers])
    model = getattr(models, method)(
        {
            n: encoder(WIDTHS[n], w)
            for n, w in zip(NAMES, (4, 5, 7), strict=True)
        },
        head,
        **METHODS.get(method, {}),
    )
    compiled(model)
    x, y = make_data(16)
    x["sample_id"] = np.arange(16)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@mainly_on("torch")
@pytest.mark.filterwarnings("ignore")  # Keras warns of layers that it leaves.
@pytest.mark.parametrize("change", ["quantize", "lora"])
def test_predict_modalities_sees_changed_layers(change):
    model = compiled(make("MLA"), keras.optimizers.SGD(0.5))
    x, y = make_data(16)
    model.predict_modalities(x)
    if change == "quantize":
        model.quantize("int8")
    else:
        model.encoders["text"].layers[-1].enable_lora(2)
        compiled(model, keras.optimizers.SGD(0.5)).fit(
            x, y, epochs=2, verbose=0
        )
    np.testing.assert_allclose(
        model.predict_modalities(x)["fused"],
        model.predict(x, verbose=0),
        atol=1e-6,
    )
