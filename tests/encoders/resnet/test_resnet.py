import keras
import numpy as np
import pytest
from keras import ops
from utils import mainly_on, only_on, to_numpy

from keras_mla import backend, encoders

pytest.importorskip("keras_hub")


@pytest.fixture(scope="module")
def video():
    return encoders.video_resnet18((2, 32, 32, 3))


@mainly_on("torch")
def test_published_number_of_parameters(video):
    trainable = sum(int(np.prod(v.shape)) for v in video.trainable_variables)
    assert trainable == 11_176_512
    assert video.count_params() == 11_186_112


@mainly_on("torch")
def test_shapes_of_any_size(video):
    assert video(np.zeros((2, 2, 32, 32, 3), "float32")).shape == (2, 512)
    free = encoders.video_resnet18((None, None, None, 3))
    free.set_weights(video.get_weights())
    x = np.random.default_rng(0).random((2, 2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(
        ops.convert_to_numpy(free(x)), ops.convert_to_numpy(video(x)), 1e-4
    )
    assert free(np.zeros((1, 4, 16, 32, 3), "float32")).shape == (1, 512)


@mainly_on("torch")
@pytest.mark.parametrize("batch, shape", [(3, (40, 51, 1)), (1, (32, 32, 3))])
def test_a_step_equals_keras_hubs_network(batch, shape):
    import keras_hub

    # The last map of the second case holds a single value a channel.
    backbone = keras_hub.models.ResNetBackbone(
        [64], [7], [64, 128, 256, 512], [2] * 4, [1, 2, 2, 2], "basic_block",
        image_shape=shape,
    )  # fmt: skip
    pooled = keras.layers.GlobalAveragePooling2D()
    theirs = keras.Sequential([backbone, pooled])
    ours = encoders.ResNet18(shape)
    before = backbone.get_weights()
    ours.set_weights(before)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(batch, *shape)).astype("float32")
    y = generator.normal(size=(batch, 512)).astype("float32")
    for model in (ours, theirs):
        model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
        model.train_on_batch(x, y)
    # What a step changed, which rounding tells apart by a few thousandths.
    for old, a, b in zip(before, ours.weights, theirs.weights, strict=True):
        moved, expected = (ops.convert_to_numpy(w) - old for w in (a, b))
        error = np.linalg.norm(moved - expected)
        assert error <= 0.02 * np.linalg.norm(expected) + 1e-6, a.path
    np.testing.assert_allclose(
        ours.predict_on_batch(x), theirs.predict_on_batch(x), atol=5e-3
    )


@mainly_on("torch")
def test_frames_are_averaged(video):
    x = np.random.default_rng(0).random((2, 2, 32, 32, 3)).astype("float32")
    both = ops.convert_to_numpy(video(x))
    # The frames one by one, each as a video of two equal frames.
    parts = [
        ops.convert_to_numpy(video(np.repeat(x[:, i : i + 1], 2, axis=1)))
        for i in range(2)
    ]
    np.testing.assert_allclose(both, np.mean(parts, axis=0), atol=1e-5)


@mainly_on("torch")
def test_a_preset_starts_it_and_one_channel_sums_the_colours(tmp_path):
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        [64], [7], [64, 128, 256, 512], [2] * 4, [1, 2, 2, 2], "basic_block"
    )
    backbone.save_to_preset(str(tmp_path))
    x = np.random.default_rng(0).random((2, 32, 32, 1)).astype("float32")
    expected = backbone(np.repeat(x, 3, axis=-1))
    expected = ops.convert_to_numpy(expected).mean(axis=(1, 2))
    audio = encoders.audio_resnet18((32, 32, 1), preset=tmp_path)
    features = ops.convert_to_numpy(audio(x))
    np.testing.assert_allclose(features, expected, atol=1e-4)
    video = encoders.video_resnet18((1, 32, 32, 3), preset=tmp_path)
    features = ops.convert_to_numpy(video(np.repeat(x, 3, -1)[:, None]))
    np.testing.assert_allclose(features, expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"input_shape=\(32, 32, 2\)"):
        encoders.audio_resnet18((32, 32, 2), preset=tmp_path)
    with pytest.raises(ValueError, match="preset=.*nowhere"):
        encoders.audio_resnet18((32, 32, 1), preset=tmp_path / "nowhere")


@mainly_on("torch")
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_round_trip_and_mixed_precision(tmp_path, dtype):
    encoder = encoders.audio_resnet18((32, 32, 1), dtype=dtype)
    x = np.random.default_rng(0).random((2, 32, 32, 1)).astype("float32")
    full = encoders.audio_resnet18((32, 32, 1))
    full.set_weights(encoder.get_weights())
    expected = ops.convert_to_numpy(full(x))
    features = encoder(x)
    assert keras.backend.standardize_dtype(features.dtype) == dtype[6:]
    features = ops.convert_to_numpy(ops.cast(features, "float32"))
    np.testing.assert_allclose(features, expected, atol=0.05, rtol=0.05)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    again = ops.convert_to_numpy(ops.cast(loaded(x), "float32"))
    np.testing.assert_array_equal(again, features)


def test_errors():
    with pytest.raises(ValueError, match=r"\(time, frequency, 1\)"):
        encoders.audio_resnet18((2, 64, 64, 1))
    with pytest.raises(ValueError, match=r"\(frames, height, width, 3\)"):
        encoders.video_resnet18((64, 64, 3))
    with pytest.raises(ValueError, match="known number of channels"):
        encoders.ResNet18((64, 64, None))
    encoder = encoders.audio_resnet18((32, 32, 1))
    with pytest.raises(ValueError, match=r"inputs.shape=\(2, 32, 32, 3\)"):
        encoder(np.zeros((2, 32, 32, 3), "float32"))


@only_on("torch")
def test_a_single_value_is_normalized_as_keras_does():
    layer = keras.layers.BatchNormalization(axis=1)
    x = np.random.default_rng(0).normal(size=(1, 3, 1, 1)).astype("float32")
    layer.build(x.shape)
    moving = [to_numpy(v) for v in layer.non_trainable_variables]
    found = backend.kernels.batch_norm(
        layer, keras.ops.convert_to_tensor(x), True
    )
    np.testing.assert_array_equal(to_numpy(found), np.zeros_like(x))
    np.testing.assert_allclose(
        to_numpy(layer.moving_mean), 0.01 * x.ravel(), rtol=1e-5
    )
    np.testing.assert_allclose(
        to_numpy(layer.moving_variance), 0.99 * moving[1], rtol=1e-5
    )
