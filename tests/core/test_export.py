"""Export to SavedModel and ONNX."""

import importlib.util
import warnings

import keras
import numpy as np
import pytest
from token_model import BagOfTokens, trained_token_model
from utils import (
    encoder,
    in_process,
    long_on,
    make_data,
    make_method,
    make_model,
    only_on,
)

import keras_mla

BACKEND = keras.backend.backend()


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
    assert {i.name for i in session.get_inputs()} == set(flat)
    assert [o.name for o in session.get_outputs()] == ["logits"]
    for samples in (1, 24):
        feed = {name: value[:samples] for name, value in flat.items()}
        (served,) = session.run(None, feed)
        expected = model.predict(x, verbose=0)[:samples]
        np.testing.assert_allclose(served, expected, atol=1e-5)


def exported(path, model, x, presence, form):
    """Returns what a model predicts that was exported with all its outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.export(
            path,
            format=form,
            presence=presence,
            outputs="modalities",
            verbose=False,
        )
        if form == "tf_saved_model":
            tf = pytest.importorskip("tensorflow")
            loaded = tf.saved_model.load(path)  # It holds the variables.
            found = loaded.serve(x)
            return {name: value.numpy() for name, value in found.items()}
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, x), strict=True))


FORMS = {
    "jax": ["tf_saved_model", "onnx"],
    "torch": ["onnx"],
    "tensorflow": ["tf_saved_model", "onnx"],
}


@pytest.mark.every_case
@pytest.mark.parametrize("form", FORMS[BACKEND])
@pytest.mark.parametrize("presence", [False, True])
def test_export_of_all_outputs(tmp_path, presence, form):
    if BACKEND == "jax" and form == "onnx":
        pytest.importorskip("jax2onnx")
    model = make_model()
    x, _ = make_data(5)
    if presence:
        x["presence"] = np.arange(15).reshape(5, 3) % 4 != 0
    expected = model.serving_function()(x)
    found = exported(tmp_path / "model.onnx", model, x, presence, form)
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


WITHOUT_KERAS = """
import sys
sys.modules["keras"] = None
import numpy as np
import tensorflow as tf
folder = sys.argv[1]
loaded = tf.saved_model.load(folder + "/model")
found = loaded.serve(dict(np.load(folder + "/x.npz")))
np.savez(folder + "/found.npz", **{k: v.numpy() for k, v in found.items()})
"""


@long_on("jax")
@pytest.mark.skipif(BACKEND == "torch", reason="not from PyTorch")
@pytest.mark.filterwarnings("ignore")
def test_a_saved_model_of_all_outputs_needs_no_keras(tmp_path):
    pytest.importorskip("tensorflow")
    model = make_model()
    x, _ = make_data(5)
    x["presence"] = np.arange(15).reshape(5, 3) % 4 != 0
    model.export(
        tmp_path / "model", presence=True, outputs="modalities", verbose=False
    )
    np.savez(tmp_path / "x.npz", **x)
    result = in_process("-c", WITHOUT_KERAS, tmp_path, hidden=False)
    assert result.returncode == 0, result.stderr[-2000:]
    found = np.load(tmp_path / "found.npz")
    expected = model.serving_function()(x)
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


def recurrent(length):
    return keras.Sequential([keras.Input((length, 3)), keras.layers.LSTM(4)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(BACKEND == "jax", reason="not from JAX")
def test_a_wrong_onnx_file_is_an_error_and_removed(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    model = keras_mla.MLA({"steps": recurrent(None), "facts": other}, 2)
    if BACKEND == "torch":  # Its exporter unrolls the steps that it sees.
        with pytest.raises(ValueError, match="did not predict as the model"):
            model.export(path, format="onnx", verbose=False)
        assert not path.exists()
        other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
        model = keras_mla.MLA({"steps": recurrent(6), "facts": other}, 2)
    model.export(path, format="onnx", verbose=False)
    rng = np.random.default_rng(0)
    x = {"steps": rng.normal(size=(5, 6, 3)), "facts": rng.normal(size=(5, 3))}
    x = {name: value.astype("float32") for name, value in x.items()}
    (found,) = onnxruntime.InferenceSession(path).run(None, x)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=1e-5)


@only_on("torch")
@pytest.mark.filterwarnings("ignore")
def test_pictures_are_not_taken_for_squares(tmp_path):
    pytest.importorskip("onnxruntime")
    inputs = keras.Input((None, None, 3))
    resized = keras.layers.Resizing(8, 8, pad_to_aspect_ratio=True)(inputs)
    output = keras.layers.Dense(4)(keras.layers.Flatten()(resized))
    picture = keras.Model(inputs, output)
    path = tmp_path / "model.onnx"
    path.write_text("an earlier one")
    with pytest.raises(ValueError, match="did not predict as the model"):
        keras_mla.MLA({"picture": picture}, 2).export(
            path, format="onnx", verbose=False
        )
    assert path.read_text() == "an earlier one"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@only_on("torch")
@pytest.mark.filterwarnings("ignore")
def test_inputs_that_only_some_numbers_are(tmp_path, caplog):
    pytest.importorskip("onnxruntime")

    def spectrum(scale):
        inputs = keras.Input((4,))
        output = keras.layers.Dense(4)(keras.ops.log(scale * inputs))
        return keras.Model(inputs, output)

    path = tmp_path / "model.onnx"
    keras_mla.MLA({"sound": spectrum(1.0)}, 2).export(
        path, format="onnx", verbose=False
    )
    assert "was not compared" not in caplog.text
    model = keras_mla.MLA(
        {"sound": spectrum(-1.0), "facts": encoder(4)}, 2, feature_dim=4
    )
    model.export(path, format="onnx", verbose=False)
    # Normal ones are below 0 too, but never all of a batch.
    single = keras.Sequential([keras.Input((), dtype="int32")])
    single.add(keras.layers.Embedding(5, 4))
    keras_mla.MLA({"kind": single}, 2).export(
        path, format="onnx", verbose=False
    )


@only_on("torch")
@pytest.mark.filterwarnings("ignore")
def test_onnx_that_fails_says_what_it_is_compared_with(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    model = make_model()
    path = tmp_path / "model.onnx"

    def finish(path, inputs, names):  # As an exporter that adds one.
        import onnx

        graph = onnx.load(path).graph
        graph.node[-1].output[0] = "before"
        one = onnx.helper.make_tensor("one", 1, [1], [1.0])
        graph.initializer.append(one)
        add = onnx.helper.make_node("Add", ["before", "one"], ["logits"])
        graph.node.append(add)
        whole = onnx.load(path)
        whole.graph.CopyFrom(graph)
        onnx.save(whole, path)

    original = keras_mla.core.onnx_file.finish

    def both(path, inputs, names):
        original(path, inputs, names)
        finish(path, inputs, names)

    monkeypatch.setattr(keras_mla.core.onnx_file, "finish", both)
    with pytest.raises(ValueError, match="differs by 1"):
        model.export(path, format="onnx", verbose=False)
    assert not path.exists()
    model.export(path, format="onnx", verbose=False, verify=False)
    assert path.exists()


@pytest.mark.skipif(BACKEND == "jax", reason="not from JAX")
def test_export_of_all_outputs_of_other_methods(tmp_path):
    x, _ = make_data(5)
    for name in ("ConcatFusion", "JointMLA"):
        model = make_method(name)
        found = exported(tmp_path / f"{name}.onnx", model, x, False, "onnx")
        expected = model.serving_function()(x)
        assert list(found) == list(expected)
        for key, values in expected.items():
            np.testing.assert_allclose(found[key], values, atol=1e-5)


def test_export_of_names_that_collide(tmp_path):
    made = {name: encoder(3) for name in ("logits", "audio")}
    model = keras_mla.MLA(made, 4)
    with pytest.raises(ValueError, match=r"two inputs .* \['logits'\]"):
        model.export(tmp_path / "model.onnx", format="onnx")


def test_export_of_unknown_outputs(tmp_path):
    with pytest.raises(ValueError, match="outputs='all'"):
        make_model().export(tmp_path / "model", outputs="all")


def test_export_to_onnx_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"keras-mla\[onnx\]"):
        make_model().export(tmp_path / "model.onnx", format="onnx")


def test_export_of_an_unbuilt_model(tmp_path):
    model = keras_mla.MLA({"text": BagOfTokens()}, 4)
    with pytest.raises(ValueError, match="`export` needs a built model"):
        model.export(tmp_path / "model", format="onnx")
