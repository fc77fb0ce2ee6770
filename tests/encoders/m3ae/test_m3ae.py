import keras
import numpy as np
import pytest
from keras import ops
from utils import mainly_on

from keras_mla import encoders
from keras_mla.encoders.nn.tokens import sincos_2d
from tests.encoders.utils import (
    check_mixed_precision,
    check_round_trip,
    check_training,
    randomise,
    to_numpy,
)
from tests.utils import only_on

TINY = {
    "width": 16,
    "depth": 2,
    "num_heads": 2,
    "image_shape": (16, 24, 3),
    "patch_size": 8,
    "vocabulary_size": 30,
    "max_length": 12,
}
DECODER = {"decoder_width": 8, "decoder_depth": 1, "decoder_num_heads": 2}
AUTOENCODER = {**TINY, **DECODER, "depth": 1}


def data(batch=4):
    generator = np.random.default_rng(0)
    lengths = generator.integers(4, 9, (batch, 1))
    return {
        "image": generator.random((batch, 16, 24, 3)).astype("float32"),
        "text": {
            "token_ids": generator.integers(0, 30, (batch, 8)).astype("int32"),
            "padding_mask": np.arange(8)[None] < lengths,
        },
    }


@only_on("torch")
@pytest.mark.parametrize(
    "size, width, depth", [("base", 768, 12), ("small", 384, 12)]
)
def test_published_numbers_of_parameters(size, width, depth):
    # ViT-B/16 without its positions and head has 85,647,360.
    block = 12 * width**2 + 13 * width
    norm = 2 * width
    common = depth * block + norm + 2 * width  # class token, type
    assert common + (768 + 1) * 768 == 85_648_128 or size == "small"
    image = encoders.M3AE("image", size)
    assert _trainable(image) == common + (768 + 1) * width
    assert image.embedding.positions.shape == (256, width)
    if size == "small":
        text = encoders.M3AE("text", size)
        assert _trainable(text) == common + 30522 * width


def _trainable(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@mainly_on("torch")
@pytest.mark.parametrize("modality", ["image", "text"])
def test_encoder_round_trips_in_each_precision(modality, tmp_path):
    x = data()[modality]
    encoder = randomise(encoders.M3AE(modality, **TINY))
    assert encoder(x).shape == (4, 16)
    check_round_trip(encoder, x, tmp_path)

    def make(dtype):
        return encoders.M3AE(modality, **TINY, dtype=dtype)

    check_mixed_precision(make, x)


@mainly_on("torch")
@pytest.mark.parametrize("modality", ["image", "text"])
def test_every_variable_learns(modality):
    x = data()[modality]
    encoder = randomise(encoders.M3AE(modality, **TINY))
    model = keras.Sequential([encoder, keras.layers.Dense(1)])
    model(x)
    model.compile(optimizer="sgd", loss="mse")
    check_training(model, x, np.ones((4, 1)))


@mainly_on("torch")
def test_padding_has_no_influence():
    text = data()["text"]
    encoder = randomise(encoders.M3AE("text", **TINY))
    features = to_numpy(encoder(text))
    ids, mask = text["token_ids"], text["padding_mask"]
    other = {"token_ids": np.where(mask, ids, 3), "padding_mask": mask}
    np.testing.assert_allclose(to_numpy(encoder(other)), features, atol=1e-5)
    for row in range(2):
        alone = encoder(ids[row : row + 1, : mask[row].sum()])
        np.testing.assert_allclose(to_numpy(alone)[0], features[row], atol=1e-5)
    pooled = encoders.M3AE("text", **TINY, pool_padding=True)
    pooled.set_weights(encoder.get_weights())
    assert np.abs(to_numpy(pooled(text)) - features).max() > 1e-3


def test_positions_spread_over_the_trained_grid():
    encoder = encoders.M3AE("image", **TINY, trained_grid=(4, 6))
    table = sincos_2d(16, (2, 3), (4, 6))
    np.testing.assert_allclose(
        to_numpy(encoder.embedding.positions), table, atol=1e-6
    )


@mainly_on("torch")
def test_autoencoder_learns_and_round_trips(tmp_path):
    x = data(8)
    model = encoders.M3AEAutoencoder(**AUTOENCODER, seed=1)
    randomise(model, 0.1).compile(optimizer=keras.optimizers.Adam(0.01))
    check_training(model, x)
    history = model.fit(x, epochs=10, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    names = {"loss", "image_loss", "text_loss", "text_accuracy"}
    assert set(history) == names
    total = history["image_loss"][-1] + 0.1 * history["text_loss"][-1]
    np.testing.assert_allclose(history["loss"][-1], total, rtol=1e-5)
    outputs = {name: to_numpy(value) for name, value in model(x).items()}
    assert outputs["image"].shape == (8, 6, 192)
    assert outputs["text"].shape == (8, 8, 30)
    # Six patches, of which one stays; eight words, of which two do.
    np.testing.assert_array_equal(outputs["image_mask"].sum(1), 5)
    np.testing.assert_array_equal(outputs["text_mask"].sum(1), 6)
    assert len(np.unique(outputs["image_mask"], axis=0)) > 1
    noise = {"image": np.random.rand(8, 6), "text": np.random.rand(8, 8)}
    check_round_trip(model, x, tmp_path, noise=noise)
    for modality in ("image", "text"):
        encoder = model.make_encoder(modality, pool_padding=True)
        assert encoder.pool_padding
        assert encoder(x[modality]).shape == (8, 16)


def test_encoders_own_their_weights():
    # On JAX, a step of either model would delete an array that both share.
    model = encoders.M3AEAutoencoder(**AUTOENCODER)
    values = {id(variable.value) for variable in model.weights}
    for modality in ("image", "text"):
        encoder = model.make_encoder(modality)
        assert not values & {id(v.value) for v in encoder.weights}


@mainly_on("torch")
def test_autoencoder_in_mixed_precision():
    model = encoders.M3AEAutoencoder(**AUTOENCODER, dtype="mixed_bfloat16")
    model.compile(optimizer="adam")
    history = model.fit(data(), verbose=0).history
    assert np.isfinite(history["loss"]).all()


@mainly_on("torch")
def test_only_what_is_masked_counts():
    x = data(2)
    model = encoders.M3AEAutoencoder(**AUTOENCODER)
    noise = {"image": np.random.rand(2, 6), "text": np.random.rand(2, 8)}
    outputs = model(x, noise=noise)
    loss = to_numpy(model.compute_loss(x=x, y_pred=outputs))
    patches = ops.convert_to_numpy(encoders.patchify(x["image"], 8))
    mask = to_numpy(outputs["image_mask"])
    error = ((to_numpy(outputs["image"]) - patches) ** 2).mean(-1)
    image = np.mean([e[m > 0].mean() for e, m in zip(error, mask, strict=True)])
    logits = np.float64(to_numpy(outputs["text"]))
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    ids = x["text"]["token_ids"]
    crosses = -np.take_along_axis(logits, ids[..., None], -1)[..., 0]
    mask = to_numpy(outputs["text_mask"]) * x["text"]["padding_mask"]
    text = np.mean(
        [c[m > 0].mean() for c, m in zip(crosses, mask, strict=True)]
    )
    np.testing.assert_allclose(loss, image + 0.1 * text, rtol=1e-5)


def test_one_modality_alone_trains_too():
    model = encoders.M3AEAutoencoder(**AUTOENCODER)
    model.compile(optimizer="sgd")
    logs = model.evaluate({"text": data()["text"]}, verbose=0, return_dict=True)
    np.testing.assert_allclose(
        float(logs["loss"]), 0.1 * float(logs["text_loss"]), rtol=1e-5
    )


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="modality=video"):
        encoders.M3AE("video")
    with pytest.raises(ValueError, match="size=huge"):
        encoders.M3AE("image", "huge")
    with pytest.raises(ValueError, match=r"image_shape=\(16, 20, 3\)"):
        encoders.M3AE("image", **{**TINY, "image_shape": (16, 20, 3)})
    encoder = encoders.M3AE("image", **TINY)
    with pytest.raises(ValueError, match=r"shape=\(1, 24, 16, 3\)"):
        encoder(np.zeros((1, 24, 16, 3), "float32"))
    encoder = encoders.M3AE("text", **TINY)
    with pytest.raises(ValueError, match="length=13, max_length=12"):
        encoder(np.zeros((1, 13), "int32"))
    with pytest.raises(ValueError, match=r"keys=\['ids'\]"):
        encoder({"ids": np.zeros((1, 3), "int32")})
    with pytest.raises(ValueError, match="text_mask_ratio=1.0"):
        encoders.M3AEAutoencoder(**AUTOENCODER, text_mask_ratio=1.0)
    model = encoders.M3AEAutoencoder(**AUTOENCODER)
    with pytest.raises(ValueError, match=r"Received: \['audio'\]"):
        model({"audio": np.zeros((1, 2))})
    model.compile(optimizer="sgd")
    with pytest.raises(ValueError, match="inputs alone"):
        model.fit(data(), np.zeros(4), verbose=0)


@mainly_on("torch")
def test_tokens_without_pooling(tmp_path):
    x = data()
    for modality in ("image", "text"):
        pooled = randomise(encoders.M3AE(modality, **TINY))
        encoder = encoders.M3AE(modality, **TINY, pooling=None)
        encoder.set_weights(pooled.get_weights())
        found = encoder(x[modality])
        mask = np.ones((4, 7), bool)  # The class token and six patches.
        if modality == "text":
            mask = to_numpy(found["padding_mask"]).astype("bool")
            given = x["text"]["padding_mask"]
            np.testing.assert_array_equal(mask, np.pad(
                given, ((0, 0), (1, 0)), constant_values=True
            ))  # fmt: skip
            found = found["features"]
        expected = [
            row[there].mean(0)
            for row, there in zip(to_numpy(found), mask, strict=True)
        ]
        np.testing.assert_allclose(
            to_numpy(pooled(x[modality])), expected, atol=1e-5
        )
        encoder.save(tmp_path / "encoder.keras")
        again = keras.saving.load_model(tmp_path / "encoder.keras")
        assert again.pooling is None
    # Without a mask there is none.
    assert encoder(x["text"]["token_ids"]).shape == (4, 9, 16)


@only_on("torch")
@pytest.mark.parametrize(
    "wrong", [{"pooling": "max"}, {"pooling": None, "pool_padding": True}]
)
def test_wrong_pooling(wrong):
    with pytest.raises(ValueError, match="pooling="):
        encoders.M3AE("text", **TINY, **wrong)
