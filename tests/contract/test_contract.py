"""What every exported layer, fusion and model must do."""

import inspect

import keras
import numpy as np
import pytest
from utils import WIDTHS, compiled, encoder, make_data, make_of, to_numpy

import keras_mla
from keras_mla import layers, models

# Not in alphabetical order, in which JAX returns the keys of a dict.
NAMES = ("text", "audio", "image")
# Arguments that a class needs besides its defaults.
ARGUMENTS = {
    "GradientProjector": {
        "alpha": 2.0,
        "order": "previous",
        "forgetting": 0.9,
    },
}
ABSTRACT = {"Fusion", "MultimodalModel"}


def exported(module, base):
    found = [getattr(module, name) for name in module.__all__]
    return [
        pytest.param(item, id=item.__name__)
        for item in found
        if inspect.isclass(item)
        and issubclass(item, base)
        and item.__name__ not in ABSTRACT
    ]


LAYERS = exported(layers, keras.layers.Layer)
FUSIONS = exported(layers, layers.Fusion)
# If few cases run, the last one is among them: it is the main one.
MODELS = sorted(exported(models, keras.Model), key=lambda p: p.id == "MLA")


def make_layer(cls):
    return cls(**ARGUMENTS.get(cls.__name__, {}))


def make_model(cls):
    return make_of(
        cls.__name__,
        lambda: {name: encoder(WIDTHS[name]) for name in NAMES},
        4,
        num_samples=16,
    )


def call(layer):
    rng = np.random.default_rng(0)
    if isinstance(layer, layers.Fusion):
        return layer(rng.normal(size=(5, 2, 3)).astype("float32"))
    inputs = rng.normal(size=(6, 4)), rng.normal(size=6)
    for _ in range(2):
        output = layer(*(i.astype("float32") for i in inputs))
    return output


@pytest.mark.parametrize("cls", LAYERS)
def test_layer_round_trip(cls):
    layer = make_layer(cls)
    config = layer.get_config()
    parameters = [
        p
        for p in inspect.signature(cls.__init__).parameters
        if p not in ("self", "kwargs")
    ]
    assert set(parameters) <= set(config)
    again = cls.from_config(config)
    assert again.get_config() == config
    np.testing.assert_array_equal(to_numpy(call(layer)), to_numpy(call(again)))
    revived = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert type(revived) is cls


@pytest.mark.parametrize("cls", LAYERS)
def test_layer_in_mixed_precision(cls):
    expected = to_numpy(call(make_layer(cls)))
    keras.config.set_dtype_policy("mixed_bfloat16")
    np.testing.assert_array_equal(to_numpy(call(make_layer(cls))), expected)


@pytest.mark.parametrize("cls", FUSIONS)
def test_fusion_in_a_model(cls):
    model = compiled(
        keras_mla.MLA(
            {name: encoder(WIDTHS[name]) for name in NAMES}, 4, fusion=cls()
        )
    )
    x, y = make_data(8, NAMES)
    model.fit(x, y, verbose=0)


@pytest.mark.parametrize("cls", MODELS)
def test_model_trains_saves_and_loads(cls, tmp_path):
    model = compiled(make_model(cls), "adam")
    assert model.built
    assert model.modalities == NAMES
    x, y = make_data(16, NAMES)
    x["sample_id"] = np.arange(16)
    model.adapt((x, y))
    before = [to_numpy(v) for v in model.trainable_variables]
    history = model.fit(x, y, validation_data=(x, y), verbose=0)
    assert all(
        (to_numpy(v) != b).any()
        for v, b in zip(model.trainable_variables, before, strict=True)
        if v.name == "kernel"
    )
    names = {"loss", "fused_loss", "accuracy"} | {
        f"{n}_{k}" for n in model.experts for k in ("loss", "accuracy")
    }
    names |= {n for s in model.stages() for u in s.updates for n in u.logs}
    assert names | {f"val_{n}" for n in names} == set(history.history)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    again = cls.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    logits = model.unimodal("text").predict(x["text"], verbose=0)
    assert logits.shape == (16, 4)


@pytest.mark.parametrize("cls", MODELS)
def test_model_with_presence_in_mixed_precision(cls):
    keras.config.set_dtype_policy("mixed_float16")
    model = compiled(make_model(cls), "adam")
    x, y = make_data(16, NAMES)
    x["sample_id"] = np.arange(16)
    presence = np.random.default_rng(0).random((16, 3)) < 0.6
    presence[0] = False
    for m, name in enumerate(NAMES):
        x[name][~presence[:, m]] = np.nan
    model.adapt(({**x, "presence": presence}, y))
    history = model.fit({**x, "presence": presence}, y, verbose=0)
    assert all(np.isfinite(v).all() for v in history.history.values())
    predicted = model.predict({**x, "presence": presence}, verbose=0)
    assert predicted.dtype == np.float32
    assert np.isfinite(predicted).all()
    np.testing.assert_array_equal(predicted[0], 0)
