import keras
import numpy as np
import pytest
from utils import mainly_on

from keras_mla import encoders
from tests.encoders.utils import (
    check_mixed_precision,
    check_round_trip,
    check_training,
    randomise,
    to_numpy,
)
from tests.utils import only_on

SHAPES = {"audio": (24, 16, 1), "image": (16, 16, 3)}
TINY = {"width": 16, "num_heads": 2, "depth": 2, "patch_size": 8}
AUTOENCODER = {
    **TINY,
    "depth": 1,
    "audio_shape": SHAPES["audio"],
    "image_shape": SHAPES["image"],
    "decoder_width": 8,
    "decoder_depth": 1,
    "decoder_num_heads": 2,
}


def data(batch=4):
    generator = np.random.default_rng(0)
    return {
        name: generator.random((batch, *shape)).astype("float32")
        for name, shape in SHAPES.items()
    }


@only_on("torch")
def test_number_of_parameters_at_full_size():
    encoder = encoders.CAVMAE("audio")
    trainable = sum(int(np.prod(v.shape)) for v in encoder.trainable_variables)
    # Twelve blocks of ViT-B, a last norm, a type, 512 learned positions and
    # 256 values a patch.
    block = 12 * 768**2 + 13 * 768
    assert trainable == 12 * block + (2 + 1 + 512 + 257) * 768
    assert encoder.embedding.grid == (8, 64)


@mainly_on("torch")
@pytest.mark.parametrize("modality", ["audio", "image"])
def test_encoder_round_trips_in_each_precision(modality, tmp_path):
    x = data()[modality]
    shape = SHAPES[modality]
    encoder = randomise(encoders.CAVMAE(modality, shape, **TINY))
    assert encoder(x).shape == (4, 16)
    check_round_trip(encoder, x, tmp_path)

    def make(dtype):
        return encoders.CAVMAE(modality, shape, **TINY, dtype=dtype)

    check_mixed_precision(make, x)


@mainly_on("torch")
def test_every_variable_learns():
    encoder = encoders.CAVMAE("audio", SHAPES["audio"], **{**TINY, "depth": 1})
    model = keras.Sequential([randomise(encoder), keras.layers.Dense(1)])
    x = data()["audio"]
    model(x)
    model.compile(optimizer="sgd", loss="mse")
    check_training(model, x, np.ones((4, 1)))


def test_spectrograms_are_read_frequency_first():
    encoder = encoders.CAVMAE("audio", SHAPES["audio"], **TINY)
    x = data()["audio"]
    first = x[:, 8:16, :8, 0].transpose(0, 2, 1).reshape(4, 64)
    kernel, bias = encoder.embedding.projection.get_weights()
    expected = first @ kernel + bias
    expected += to_numpy(encoder.embedding.positions)[1]
    expected += to_numpy(encoder.embedding.type_embedding)[0]
    tokens = to_numpy(encoder.embedding(x))
    np.testing.assert_allclose(tokens[:, 1], expected, atol=1e-5)


@mainly_on("torch")
def test_autoencoder_learns_and_round_trips(tmp_path):
    x = data(8)
    model = encoders.CAVMAEAutoencoder(
        **AUTOENCODER,
        contrastive_weight=0.1,
        trainable_positions=True,
        audio_mask_ratio=0.5,
        image_mask_ratio=0.5,
        seed=1,
    )
    randomise(model, 0.1).compile(optimizer=keras.optimizers.Adam(0.01))
    check_training(model, x)
    history = model.fit(x, epochs=10, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    parts = {name: values[-1] for name, values in history.items()}
    total = parts["audio_loss"] + parts["image_loss"]
    total += 0.1 * parts["contrastive_loss"]
    np.testing.assert_allclose(parts["loss"], total, rtol=1e-5)
    assert "contrastive_accuracy" in parts
    outputs = {name: to_numpy(value) for name, value in model(x).items()}
    # Half of six patches and of four.
    np.testing.assert_array_equal(outputs["audio_mask"].sum(1), 3)
    np.testing.assert_array_equal(outputs["image_mask"].sum(1), 2)
    assert outputs["audio"].shape == (8, 6, 64)
    assert outputs["image"].shape == (8, 4, 192)
    noise = {"audio": np.random.rand(8, 6), "image": np.random.rand(8, 4)}
    check_round_trip(model, x, tmp_path, noise=noise)


@mainly_on("torch")
def test_a_copied_encoder_computes_the_features_of_the_whole():
    x = data()
    model = encoders.CAVMAEAutoencoder(
        **AUTOENCODER, audio_mask_ratio=1e-8, image_mask_ratio=1e-8
    )
    outputs = randomise(model)(x)
    for modality in ("audio", "image"):
        encoder = model.make_encoder(modality)
        np.testing.assert_allclose(
            to_numpy(encoder(x[modality])),
            to_numpy(outputs[f"{modality}_feature"]),
            atol=1e-4,
        )


def test_encoders_own_their_weights():
    # On JAX, a step of either model would delete an array that both share.
    model = encoders.CAVMAEAutoencoder(**AUTOENCODER)
    values = {id(variable.value) for variable in model.weights}
    for modality in ("audio", "image"):
        encoder = model.make_encoder(modality)
        assert not values & {id(v.value) for v in encoder.weights}


@mainly_on("torch")
def test_autoencoder_in_mixed_precision():
    # The harder of the two: it needs loss scaling.
    model = encoders.CAVMAEAutoencoder(**AUTOENCODER, dtype="mixed_float16")
    model.compile(optimizer="adam")
    history = model.fit(data(), verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="modality=text"):
        encoders.CAVMAE("text")
    with pytest.raises(ValueError, match=r"\(time, frequency, 1\)"):
        encoders.CAVMAE("audio", (24, 16), **TINY)
    with pytest.raises(ValueError, match=r"input_shape=\(20, 16, 1\)"):
        encoders.CAVMAE("audio", (20, 16, 1), **TINY)
    with pytest.raises(ValueError, match=r"shape=\(1, 16, 24, 1\)"):
        encoders.CAVMAE("audio", SHAPES["audio"], **TINY)(
            np.zeros((1, 16, 24, 1))
        )
    with pytest.raises(ValueError, match="audio_mask_ratio=0"):
        encoders.CAVMAEAutoencoder(**AUTOENCODER, audio_mask_ratio=0)
    model = encoders.CAVMAEAutoencoder(**AUTOENCODER)
    with pytest.raises(ValueError, match="'audio' and 'image'"):
        model({"audio": data()["audio"]})
    model.compile(optimizer="sgd")
    with pytest.raises(ValueError, match="inputs alone"):
        model.fit(data(), np.zeros(4), verbose=0)


@mainly_on("torch")
def test_tokens_without_pooling():
    x = data()["audio"]
    pooled = randomise(encoders.CAVMAE("audio", SHAPES["audio"], **TINY))
    config = {**pooled.get_config(), "pooling": None}
    encoder = encoders.CAVMAE.from_config(config)
    encoder.set_weights(pooled.get_weights())
    found = to_numpy(encoder(x))
    assert found.shape == (4, 6, 16)
    np.testing.assert_allclose(found.mean(1), to_numpy(pooled(x)), atol=1e-5)
    with pytest.raises(ValueError, match="pooling='max'"):
        encoders.CAVMAE("audio", SHAPES["audio"], **TINY, pooling="max")
