"""Encoders of others work where the docstring of `encoders` says so."""

import re

import keras
import numpy as np
import pytest
from keras import layers
from utils import long, mainly_on

import keras_mla

BACKEND = keras.backend.backend()
LETTER = {"tensorflow": "T", "jax": "J", "torch": "P"}[BACKEND]
SAMPLES = 6
SMALL = {
    "vocabulary_size": 20,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 8,
}
ANY = {"weights": None, "pooling": "avg", "include_top": False}


def rng():
    return np.random.default_rng(0)


def hub(name, **arguments):
    models = pytest.importorskip("keras_hub").models
    return getattr(models, name)(**{**SMALL, **arguments})


def pooled(inputs, output):
    if len(output.shape) == 3:
        output = layers.GlobalAveragePooling1D()(output)
    if len(output.shape) == 4:
        output = layers.GlobalAveragePooling2D()(output)
    return keras.Model(inputs, layers.Dense(5)(output))


def whole(backbone):
    """Returns an encoder in which a backbone is one layer."""
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name),
        backbone.input,
    )
    return pooled(inputs, backbone(inputs))


def tokens(*more):
    ids = rng().integers(1, 20, (SAMPLES, 8)).astype("int32")
    values = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    return {**values, **{name: np.zeros_like(ids) for name in more}}


def pictures(size):
    return rng().random((SAMPLES, size, size, 3)).astype("float32")


def bert():
    backbone = hub("BertBackbone", max_sequence_length=16)
    output = backbone.output["pooled_output"]
    return pooled(backbone.input, output), tokens("segment_ids")


def albert():
    backbone = hub("AlbertBackbone", embedding_dim=8, max_sequence_length=16)
    output = backbone.output["pooled_output"]
    return pooled(backbone.input, output), tokens("segment_ids")


def distil_bert():
    backbone = hub("DistilBertBackbone", max_sequence_length=16)
    return pooled(backbone.input, backbone.output), tokens()


def roberta():
    backbone = hub("RobertaBackbone", max_sequence_length=16)
    return pooled(backbone.input, backbone.output), tokens()


def deberta():
    return whole(hub("DebertaV3Backbone", max_sequence_length=16)), tokens()


def vit():
    models = pytest.importorskip("keras_hub").models
    backbone = models.ViTBackbone(
        image_shape=(16, 16, 3),
        patch_size=8,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=8,
    )
    return whole(backbone), pictures(16)


def clip_vision():
    models = pytest.importorskip("keras_hub").models
    backbone = models.CLIPVisionEncoder(
        patch_size=8,
        hidden_dim=8,
        num_layers=1,
        num_heads=2,
        intermediate_dim=8,
        image_shape=(16, 16, 3),
    )
    output = backbone.output
    if isinstance(output, dict):
        output = output["encoder_output"]
    return pooled(backbone.inputs[0], output), pictures(16)


def whisper():
    backbone = hub(
        "WhisperBackbone",
        max_encoder_sequence_length=16,
        max_decoder_sequence_length=8,
    )
    output = backbone.output["encoder_sequence_output"]
    sound = rng().random((SAMPLES, 16, 80)).astype("float32")
    return pooled(backbone.input["encoder_features"], output), sound


def mobile_net_v3():
    encoder = keras.applications.MobileNetV3Small(
        input_shape=(32, 32, 3), **ANY
    )
    return encoder, pictures(32) * 255


def mobile_net():
    encoder = keras.applications.MobileNet(
        input_shape=(None, None, 3), alpha=0.25, **ANY
    )
    return encoder, pictures(32)


def efficient_net():
    encoder = keras.applications.EfficientNetB0(input_shape=(32, 32, 3), **ANY)
    return encoder, pictures(32) * 255


def as_dict():
    inputs = {"b": keras.Input((4,), name="b"), "a": keras.Input((3,))}
    output = layers.Concatenate()([inputs["b"], inputs["a"]])
    values = {"b": np.ones((SAMPLES, 4)), "a": np.ones((SAMPLES, 3))}
    values = {n: v.astype("float32") for n, v in values.items()}
    return keras.Model(inputs, layers.Dense(5)(output)), values


def as_list(kind=list):
    inputs = kind([keras.Input((4,)), keras.Input((3,))])
    encoder = keras.Model(
        inputs, layers.Dense(5)(layers.Concatenate()(list(inputs)))
    )
    values = kind(rng().random((SAMPLES, n)).astype("float32") for n in (4, 3))
    return encoder, values


def any_length():
    encoder = [keras.Input((None,), dtype="int32"), layers.Embedding(20, 6)]
    encoder.append(layers.GlobalAveragePooling1D())
    return keras.Sequential(encoder), tokens()["token_ids"]


def any_size():
    encoder = [keras.Input((None, None, 3)), layers.Conv2D(4, 3)]
    encoder.append(layers.GlobalAveragePooling2D())
    return keras.Sequential(encoder), pictures(9)


def masked_lstm():
    encoder = [keras.Input((None,), dtype="int32")]
    encoder.append(layers.Embedding(20, 6, mask_zero=True))
    return keras.Sequential([*encoder, layers.LSTM(5)]), tokens()["token_ids"]


def fixed_batch():
    inputs = keras.Input((3, 2), batch_size=SAMPLES)
    encoder = keras.Sequential([inputs, layers.LSTM(5)])
    return encoder, rng().random((SAMPLES, 3, 2)).astype("float32")


ENCODERS = {
    "keras-hub BertBackbone": bert,
    "keras-hub AlbertBackbone": albert,
    "keras-hub DistilBertBackbone": distil_bert,
    "keras-hub RobertaBackbone": roberta,
    "keras-hub DebertaV3Backbone, whole": deberta,
    "keras-hub ViTBackbone, whole": vit,
    "keras-hub CLIPVisionEncoder": clip_vision,
    "keras-hub WhisperBackbone, its encoder": whisper,
    "keras.applications MobileNetV3Small": mobile_net_v3,
    "keras.applications MobileNet, any size": mobile_net,
    "keras.applications EfficientNetB0": efficient_net,
    "inputs in a dict": as_dict,
    "inputs in a list": as_list,
    "inputs in a tuple": lambda: as_list(tuple),
    "tokens of any length": any_length,
    "pictures of any size": any_size,
    "LSTM over any length, masked": masked_lstm,
    "LSTM, a fixed batch size": fixed_batch,
}
# What takes seconds everywhere; the others run with `--long`.
FAST = ["inputs in a tuple"]
if BACKEND == "torch":
    FAST = [n for n in ENCODERS if "applications" not in n]


def table():
    """Returns the letters of each column of the docstring, by encoder."""
    rows = re.findall(
        r"^ +(\S.*?)  +([TJP-]+)  +([TJP-]+)  +([TJP-]+)$",
        keras_mla.encoders.__doc__,
        re.MULTILINE,
    )
    return {name: columns for name, *columns in rows}


def trained(encoder, values):
    keras.utils.set_random_seed(0)
    other = keras.Sequential([keras.Input((4,)), layers.Dense(7)])
    model = keras_mla.MLA({"x": encoder, "a": other}, 3, feature_dim=4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    x = {"x": values, "a": np.ones((SAMPLES, 4), "float32")}
    model.fit(x, np.arange(SAMPLES) % 3, batch_size=SAMPLES, verbose=0)
    return model, x


def predicted(model, x):
    return model.predict(x, batch_size=SAMPLES, verbose=0)


def lists(x):
    """Returns inputs with lists for tuples, as SavedModels have them."""
    return {n: list(v) if isinstance(v, tuple) else v for n, v in x.items()}


def flat(x):
    """Returns inputs under the names that ONNX has."""
    found = {}
    for name, value in lists(x).items():
        if isinstance(value, list):
            value = dict(enumerate(value))
        parts = value if isinstance(value, dict) else {None: value}
        for part, array in parts.items():
            found[name if part is None else f"{name}_{part}"] = array
    return found


def test_the_table_has_a_row_for_each_encoder():
    assert set(table()) == set(ENCODERS)


def cases(*names):
    return [
        name if name in names else pytest.param(name, marks=long())
        for name in ENCODERS
    ]


@pytest.mark.every_case
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", cases(*FAST))
def test_use(tmp_path, name):
    assert LETTER in table()[name][0]
    model, x = trained(*ENCODERS[name]())
    expected = predicted(model, x)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predicted(loaded, x), expected, atol=1e-6)
    presence = np.array([[True, False], [False, True]] * (SAMPLES // 2))
    x["presence"] = presence
    served = model.serving_function(batch_size=SAMPLES)(x)["logits"]
    np.testing.assert_allclose(served, predicted(model, x), atol=1e-5)


@pytest.mark.every_case
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(BACKEND == "torch", reason="not from PyTorch")
@pytest.mark.parametrize(
    "name", cases(*["pictures of any size"] * (BACKEND == "jax"))
)
def test_saved_model(tmp_path, name):
    tf = pytest.importorskip("tensorflow")
    model, x = trained(*ENCODERS[name]())
    if LETTER not in table()[name][1]:
        with pytest.raises(ValueError, match="`keras.Input` of a known size"):
            model.export(tmp_path / "model", verbose=False)
        return
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")  # It holds the weights.
    served = loaded.serve(lists(x))
    np.testing.assert_allclose(served, predicted(model, x), atol=1e-5)


@pytest.mark.every_case
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(BACKEND == "jax", reason="not from JAX")
@pytest.mark.parametrize(
    "name",
    cases(
        "keras-hub DistilBertBackbone"
        if BACKEND == "tensorflow"
        else "pictures of any size"
    ),
)
def test_onnx(tmp_path, name):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    model, x = trained(*ENCODERS[name]())
    if LETTER not in table()[name][2]:
        with pytest.raises(ValueError, match="export it there"):
            model.export(path, format="onnx", verbose=False)
        return
    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path)
    names = {value.name for value in session.get_inputs()}
    feed = {n: value for n, value in flat(x).items() if n in names}
    (served,) = session.run(None, feed)
    np.testing.assert_allclose(served, predicted(model, x), atol=1e-5)


@mainly_on("torch")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["DebertaV3Backbone", "ViTBackbone"])
def test_layers_that_load_in_their_backbone_alone(tmp_path, name):
    encoder, _ = deberta() if name.startswith("D") else vit()
    [backbone] = [p for p in encoder.layers if type(p).__name__ == name]
    inner = pooled(backbone.input, backbone.output)
    with pytest.raises(ValueError, match="Call the backbone as a layer"):
        keras_mla.MLA({"x": inner}, 3)
    # It is keras-hub's fault: when it is gone, the check can go as well.
    inner.save(tmp_path / "inner.keras")
    with pytest.raises((TypeError, ValueError)):
        keras.saving.load_model(tmp_path / "inner.keras")
