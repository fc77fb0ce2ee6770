"""Heads, and the calls of layers by a model."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mla

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


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
