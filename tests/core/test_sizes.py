"""Sizes that are unknown until the model gets data."""

import json
import zipfile

import keras
import numpy as np
import pytest
from keras import ops
from utils import compiled, encoder, make_data, only_on, some, to_numpy

import keras_mla

LENGTHS = (5, 9)


@keras.saving.register_keras_serializable("tests")
class Positions(keras.layers.Layer):
    """Adds learned positions, up to a length of 20."""

    def build(self, shape):
        self.table = self.add_weight(shape=(20, shape[-1]), name="table")

    def call(self, x):
        return x + self.table[: ops.shape(x)[1]]

    def compute_output_shape(self, shape):
        return shape


def text():
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(20, 6),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )


def strided():
    return keras.Sequential(
        [
            keras.Input((None, 2)),
            keras.layers.Conv1D(6, 3, strides=2, padding="same"),
            keras.layers.MaxPooling1D(2),
            keras.layers.GlobalMaxPooling1D(),
        ]
    )


def positions():
    inputs = keras.Input((None, 2))
    outputs = keras.layers.GlobalAveragePooling1D()(
        keras.layers.Dense(6)(Positions()(inputs))
    )
    return keras.Model(inputs, outputs)


def frames():
    distributed = keras.layers.TimeDistributed
    return keras.Sequential(
        [
            keras.Input((None, 4, 4, 1)),
            distributed(keras.layers.Conv2D(6, 3)),
            distributed(keras.layers.GlobalAveragePooling2D()),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )


ENCODERS = {
    "text": (text, ()),
    "strided": (strided, (2,)),
    "positions": (positions, (2,)),
    "frames": (frames, (4, 4, 1)),
}


def data(kind, length, samples=8):
    _, shape = ENCODERS[kind]
    rng = np.random.default_rng(0)
    value = rng.random((samples, length, *shape)).astype("float32")
    if kind == "text":
        value = (20 * value).astype("int32")
    x, y = make_data(samples, ("image",))
    return {"sequence": value, **x}, y


@pytest.mark.parametrize(
    "kind",
    ENCODERS
    if keras.backend.backend() == "jax"  # JAX traces sizes as symbols.
    else some(ENCODERS, "text"),
)
def test_an_axis_of_unknown_length(kind, tmp_path):
    make, shape = ENCODERS[kind]
    model = compiled(
        keras_mla.MLA({"sequence": make(), "image": encoder(8)}, 4)
    )
    assert model.built  # In the constructor, because nothing needs tracing.
    signature = model.get_build_config()["signature"]
    assert signature["sequence"]["shape"] == [None, None, *shape]
    for length in LENGTHS:
        x, y = data(kind, length)
        model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    part = model.unimodal("sequence")
    for length in LENGTHS:
        x, _ = data(kind, length)
        np.testing.assert_allclose(
            loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
        )
        np.testing.assert_allclose(
            part.predict(x["sequence"], verbose=0),
            model.predict_modalities(x)["sequence"]["logits"],
            atol=1e-6,
        )


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """An encoder that declares no input."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.positions, self.dense = Positions(), keras.layers.Dense(6)

    def build(self, shape):
        self.positions.build(shape)
        self.dense.build(shape)

    def call(self, x):
        return ops.mean(self.dense(self.positions(x)), axis=1)


def test_an_encoder_that_declares_nothing(tmp_path):
    model = compiled(
        keras_mla.MLA({"sequence": Subclassed(), "image": encoder(8)}, 4)
    )
    assert not model.built
    for length in LENGTHS:
        x, y = data("positions", length)
        model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
    )


def test_a_file_holds_no_placeholder(tmp_path):
    model = keras_mla.MLA({"sequence": text(), "image": encoder(8)}, 4)
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config = json.loads(archive.read("config.json"))
    shapes = config["build_config"]["signature"]
    assert shapes["sequence"] == {"shape": [None, None], "dtype": "int32"}
    assert config["config"]["keras_mla_version"] == keras_mla.__version__


def test_the_first_of_several_errors_is_told():
    class Refuses(keras.layers.Layer):
        def call(self, inputs):
            raise RuntimeError(f"{inputs.shape[1]} is no length")

    model = keras_mla.MLA({"sequence": Refuses()}, 4)
    signature = {"sequence": {"shape": [None, None, 2], "dtype": "float32"}}
    with pytest.raises(RuntimeError, match="16 is no length"):
        model.build_from_config({"signature": signature})


def test_a_symbolic_call_knows_the_length_no_better():
    model = keras_mla.MLA({"sequence": Subclassed(), "image": encoder(8)}, 4)
    model.build_from_config(
        {
            "signature": {
                "sequence": {"shape": [None, None, 2], "dtype": "float32"},
                "image": {"shape": [None, 8], "dtype": "float32"},
            }
        }
    )
    x, _ = data("positions", 7)
    assert to_numpy(model(x)).shape == (8, 4)
    signature = model.get_build_config()["signature"]
    assert signature["sequence"]["shape"] == [None, None, 2]


@only_on("torch")
@pytest.mark.filterwarnings("ignore")  # The exporter emits warnings of its own.
def test_a_new_model_is_exported_for_any_length(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = keras_mla.MLA({"sequence": text(), "image": encoder(8)}, 4)
    path = str(tmp_path / "model.onnx")
    model.export(path, format="onnx", verbose=False)  # Never called on data.
    session = onnxruntime.InferenceSession(path)
    for length in LENGTHS:
        x, _ = data("text", length)
        np.testing.assert_allclose(
            session.run(None, x)[0], model.predict(x, verbose=0), atol=1e-5
        )
