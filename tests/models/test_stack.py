"""Calling layers by the short way changes nothing."""

import keras
import numpy as np
import pytest
from keras import ops
from utils import only_on

import keras_mla
from keras_mla.models import stack

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def dense(**kwargs):
    layer = keras.layers.Dense(2, **kwargs)
    layer.build((None, 3))
    return layer


def count_calls(monkeypatch):
    """Counts calls by the long way, `Layer.__call__`."""
    calls = []
    original = keras.layers.Dense.__call__

    def call(self, *args, **kwargs):
        calls.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(keras.layers.Dense, "__call__", call)
    return calls


def test_a_plain_dense_is_called_directly(monkeypatch):
    layer = dense(activation="relu")
    expected = ops.convert_to_numpy(layer(X))
    calls = count_calls(monkeypatch)
    y = stack.call(layer, ops.convert_to_tensor(X), True)
    assert not calls
    np.testing.assert_array_equal(ops.convert_to_numpy(y), expected)


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3)])
@pytest.mark.parametrize(
    "kwargs",
    [{}, {"use_bias": False}, {"activation": "tanh"}, {"lora_rank": 1}],
)
def test_a_dense_of_any_kind_is_what_keras_computes(kwargs, shape):
    layer = dense(**kwargs)
    rng = np.random.default_rng(1)
    for variable in layer.weights:  # The bias is zero at first, LoRA's too.
        variable.assign(rng.normal(size=variable.shape))
    x = rng.normal(size=shape).astype("float32")
    expected = ops.convert_to_numpy(layer(x))
    y = stack.call(layer, ops.convert_to_tensor(x), True)
    np.testing.assert_allclose(ops.convert_to_numpy(y), expected, atol=1e-6)


def test_arrays_are_converted():
    layer = dense()
    expected = ops.convert_to_numpy(layer(X))
    y = stack.call(layer, X, True)
    np.testing.assert_array_equal(ops.convert_to_numpy(y), expected)


@pytest.mark.parametrize("dtype", ["float16", "int32"])
def test_another_dtype_is_cast(dtype):
    y = stack.call(dense(), ops.cast(X, dtype), False)
    assert keras.backend.standardize_dtype(y.dtype) == "float32"


def test_the_policy_decides():
    layer = dense(dtype="mixed_float16")
    y = stack.call(layer, ops.convert_to_tensor(X), False)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"


def test_full_precision_in_a_mixed_model():
    # Of a model in half precision, whose variables appear in it.
    keras.config.set_dtype_policy("mixed_bfloat16")
    head = keras.layers.Dense(4, dtype="float32")
    encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)])
    model = keras_mla.MLA({"a": encoder}, head)
    feature = encoder(X)
    assert keras.backend.standardize_dtype(feature.dtype) == "bfloat16"
    expected = ops.convert_to_numpy(head(feature))
    y = model({"a": X})
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(y), expected, rtol=1e-6)


def test_lora_in_full_precision_in_a_mixed_model():
    keras.config.set_dtype_policy("mixed_bfloat16")
    head = keras.layers.Dense(4, dtype="float32")
    encoder = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(5, dtype="float32")]
    )
    model = keras_mla.MLA({"a": encoder}, head)
    head.enable_lora(2)
    head.bias.assign(np.linspace(0, 1, 4))
    expected = ops.convert_to_numpy(head(encoder(X)))
    y = ops.convert_to_numpy(model({"a": X}))
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@only_on("torch")
def test_inputs_come_to_the_device():
    import torch

    with keras.device("meta"):  # Any other than the inputs'.
        layer = dense()
        assert stack.call(layer, torch.ones(4, 3), True).device.type == "meta"


def test_another_width_is_keras_error():
    with pytest.raises(ValueError, match="incompatible"):
        stack.call(dense(), ops.ones((4, 5)), False)


def test_regularisers_see_the_output():
    layer = dense(activity_regularizer=keras.regularizers.L2(1.0))
    stack.call(layer, ops.convert_to_tensor(X), True)
    assert len(layer.losses) == 1


def test_masks_pass():
    embedding = keras.layers.Embedding(5, 3, mask_zero=True)
    network = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            embedding,
            keras.layers.Dense(2),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )
    tokens = ops.convert_to_tensor(np.array([[1, 2, 0, 0]], "int32"))
    np.testing.assert_allclose(
        ops.convert_to_numpy(stack.run(network, tokens, False)),
        ops.convert_to_numpy(network(tokens)),
        rtol=1e-6,
    )


def test_masks_pass_in_compiled_steps():
    # Padding counts neither in predictions nor in the loss of a batch.
    encoder = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(5, 3, mask_zero=True),
            keras.layers.Dense(2),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )
    model = keras_mla.MLA({"text": encoder}, 2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    x, y = np.array([[1, 2, 0, 0], [3, 0, 0, 0]], "int32"), np.array([0, 1])
    logits = model.head(encoder(ops.convert_to_tensor(x)))
    logs = model.train_on_batch({"text": x}, y, return_dict=True)
    expected = float(ops.convert_to_numpy(loss(y, logits)))
    assert logs["text_loss"] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(
        model.predict_modalities({"text": x})["text"]["logits"],
        ops.convert_to_numpy(logits),
        rtol=1e-5,
    )


def test_symbolic_inputs_stay_symbolic():
    y = stack.call(dense(), keras.Input((3,)), False)
    assert isinstance(y, keras.KerasTensor) and y.shape == (None, 2)


@only_on("torch")
def test_hooks_are_called():
    layer, seen = dense(), []
    layer.register_forward_hook(lambda *arguments: seen.append(arguments))
    stack.call(layer, ops.convert_to_tensor(X), False)
    assert len(seen) == 1
