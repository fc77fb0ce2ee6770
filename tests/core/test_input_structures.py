"""Encoders of several inputs: dicts, lists and tuples."""

import keras
import numpy as np
import pytest
from utils import CLASSES, compiled, encoder, largest_difference, weights_of

import keras_mla

WIDTHS = (4, 3)


def near_and_far():
    return [
        keras.Input((width,), name=name)
        for name, width in zip(("near", "far"), WIDTHS, strict=True)
    ]


def joined(inputs, structure):
    features = keras.layers.Concatenate()(inputs)
    return keras.Model(structure, keras.layers.Dense(6)(features))


def of_list():
    inputs = near_and_far()
    return joined(inputs, inputs)


def of_tuple():
    inputs = near_and_far()
    return joined(inputs, tuple(inputs))


def of_dict():
    near, far = near_and_far()
    return joined([near, far], {"near": near, "far": far})


@keras.saving.register_keras_serializable(package="tests")
class Pair(keras.layers.Layer):
    """A layer of two inputs, that declares none."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(6)

    def build(self, shapes):
        self.dense.build((None, sum(shape[-1] for shape in shapes)))

    def call(self, inputs):
        return self.dense(keras.ops.concatenate(inputs, axis=-1))


STRUCTURES = {
    "list": (of_list, list),
    "tuple": (of_tuple, tuple),
    "layer of a tuple": (Pair, tuple),
    "dict": (of_dict, lambda v: dict(zip(("near", "far"), v, strict=True))),
}


def data(structure, samples=12):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(samples, n)).astype("float32") for n in WIDTHS]
    x = {"sensors": structure(values), "audio": np.ones((samples, 5))}
    return x, rng.integers(0, CLASSES, samples)


@pytest.mark.every_case
@pytest.mark.parametrize("case", STRUCTURES)
def test_an_encoder_of_several_inputs(case, tmp_path):
    make, structure = STRUCTURES[case]
    x, y = data(structure)
    x["presence"] = np.arange(24).reshape(12, 2) % 5 != 0
    # The first value of an absent row may be anything.
    for value in keras.tree.flatten(x["sensors"]):
        value[~x["presence"][:, 0]] = np.nan
    model = keras_mla.MLA({"sensors": make(), "audio": encoder(5)}, CLASSES)
    compiled(model).fit(x, y, batch_size=5, verbose=0)
    expected = model.predict(x, verbose=0)
    assert np.isfinite(expected).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert largest_difference(weights_of(model), weights_of(loaded)) == 0
    for found in (loaded.predict(x, verbose=0), model.serving_function()(x)):
        found = found["logits"] if isinstance(found, dict) else found
        np.testing.assert_allclose(found, expected, atol=1e-5)
    alone = loaded.unimodal("sensors").predict(
        data(structure)[0]["sensors"], verbose=0
    )
    assert alone.shape == (12, CLASSES)


def test_a_request_with_another_number_of_inputs():
    model = keras_mla.MLA({"sensors": of_list(), "audio": encoder(5)}, CLASSES)
    with pytest.raises(ValueError, match="'sensors' must be a list of 2"):
        model.serving_function()({"sensors": [[[1.0] * 4]]})


def test_absent_modalities_of_unknown_size():
    # A convolution takes no picture smaller than its window.
    picture = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.Conv2D(6, 3),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model = keras_mla.MLA({"picture": picture, "audio": encoder(5)}, CLASSES)
    x = {"picture": np.ones((2, 9, 9, 1)), "audio": np.ones((2, 5))}
    expected = model.predict(
        {**x, "presence": np.array([[0, 1], [0, 1]])}, verbose=0
    )
    found = model.predict({**x, "picture": None}, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = model.serving_function()({"audio": x["audio"]})["logits"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
