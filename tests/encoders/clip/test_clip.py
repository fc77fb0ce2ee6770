import json

import keras
import numpy as np
import pytest
from keras import ops
from utils import mainly_on

from keras_mla import encoders
from tests.encoders.utils import write_clip_preset

keras_hub = pytest.importorskip("keras_hub")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP with its converter and tokenizer in a local folder."""
    folder = str(tmp_path_factory.mktemp("clip"))
    return folder, write_clip_preset(folder)


def test_image_features_equal_keras_hubs(clip):
    folder, backbone = clip
    encoder = encoders.clip_image_encoder(folder)
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3))
    images = encoders.clip_image_converter(folder)(images.astype("uint8"))
    np.testing.assert_allclose(
        ops.convert_to_numpy(encoder(images)),
        ops.convert_to_numpy(backbone.get_vision_embeddings(images)),
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="clip_image_converter"):
        encoder(np.zeros((1, 8, 8, 3), "float32"))


def test_text_features_equal_keras_hubs(clip):
    folder, backbone = clip
    encoder = encoders.clip_text_encoder(folder)
    tokens = encoders.clip_tokenizer(folder, 8)(["A cat", "bat"])
    expected = [[48, 10, 41, 49, 0, 0, 0, 0], [48, 1, 0, 13, 49, 0, 0, 0]]
    np.testing.assert_array_equal(tokens["token_ids"], expected)
    mask = np.arange(8)[None] < np.array([[4], [5]])
    np.testing.assert_array_equal(tokens["padding_mask"], mask)
    features = ops.convert_to_numpy(encoder(tokens))
    theirs = backbone.get_text_embeddings(tokens["token_ids"])
    theirs = ops.convert_to_numpy(theirs)
    np.testing.assert_allclose(features, theirs, atol=1e-5)
    shorter = ops.convert_to_numpy(encoder(tokens["token_ids"][:, :5]))
    np.testing.assert_allclose(shorter, features, atol=1e-5)
    with pytest.raises(ValueError, match=r"keys=\['ids'\]"):
        encoder({"ids": tokens["token_ids"]})


def test_tokens_are_cut_and_checked(clip):
    tokenize = encoders.clip_tokenizer(clip[0], 4)
    ids = tokenize("cat cat cat")["token_ids"]
    np.testing.assert_array_equal(ids, [[48, 41, 41, 49]])
    with pytest.raises(TypeError, match="Received: 3 of type int"):
        tokenize(["a", 3])
    with pytest.raises(ValueError, match="sequence_length=2"):
        encoders.clip_tokenizer(clip[0], 2)


@mainly_on("torch")
def test_frozen_means_frozen(clip, tmp_path):
    folder, _ = clip
    frozen = encoders.clip_image_encoder(folder, trainable=False)
    assert not frozen.trainable_variables
    free = encoders.clip_image_encoder(folder)
    assert len(free.trainable_variables) == len(free.weights) - 1  # positions
    before = [ops.convert_to_numpy(w).copy() for w in frozen.weights]
    model = keras.Sequential([frozen, keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    x = np.random.default_rng(0).random((4, 16, 16, 3)).astype("float32")
    model.fit(x, np.ones((4, 1)), verbose=0)
    for old, weight in zip(before, frozen.weights, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(weight))
    frozen.save(tmp_path / "frozen.keras")
    loaded = keras.saving.load_model(tmp_path / "frozen.keras")
    assert not loaded.trainable_variables
    np.testing.assert_array_equal(
        ops.convert_to_numpy(loaded(x)), ops.convert_to_numpy(frozen(x))
    )


@mainly_on("torch")
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_and_round_trip(clip, tmp_path, dtype):
    folder, backbone = clip
    encoder = encoders.clip_text_encoder(folder, dtype=dtype)
    ids = np.array([[48, 1, 2, 49, 0]])
    features = encoder(ids)
    assert keras.backend.standardize_dtype(features.dtype) == dtype[6:]
    features = ops.convert_to_numpy(ops.cast(features, "float32"))
    expected = ops.convert_to_numpy(backbone.get_text_embeddings(ids))
    np.testing.assert_allclose(features, expected, atol=0.05)
    encoder.save(tmp_path / "text.keras")
    loaded = keras.saving.load_model(tmp_path / "text.keras")
    again = ops.convert_to_numpy(ops.cast(loaded(ids), "float32"))
    np.testing.assert_array_equal(again, features)


def test_a_wrong_preset_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"class_name": "x"}))
    with pytest.raises(ValueError, match=f"preset={tmp_path}"):
        encoders.clip_image_encoder(str(tmp_path))
