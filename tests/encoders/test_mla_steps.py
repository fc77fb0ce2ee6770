"""One step of MLA with each set of encoders that the paper uses."""

import keras
import numpy as np
import pytest

from keras_mla import MLA, encoders
from tests.encoders.utils import to_numpy

M3AE = {
    "width": 16,
    "depth": 1,
    "num_heads": 2,
    "image_shape": (16, 16, 3),
    "patch_size": 8,
    "vocabulary_size": 30,
    "max_length": 8,
}


def resnets():
    pytest.importorskip("keras_hub")
    return {
        "audio": encoders.audio_resnet18((32, 32, 1)),
        "video": encoders.video_resnet18((2, 32, 32, 3)),
    }


def m3aes():
    return {name: encoders.M3AE(name, **M3AE) for name in ("image", "text")}


def cavmae_and_m3aes():
    cavmae = encoders.CAVMAE(
        "audio", (32, 16, 1), width=16, num_heads=2, depth=1, patch_size=8
    )
    return {"audio": cavmae, **m3aes()}


def clips():
    hub = pytest.importorskip("keras_hub").models
    vision = hub.CLIPVisionEncoder(8, 16, 1, 2, 32, image_shape=(16, 16, 3))
    text = hub.CLIPTextEncoder(30, 16, 16, 1, 2, 32, max_sequence_length=8)
    return {
        "image": encoders.CLIPImageTower(vision, 8),
        "text": encoders.CLIPTextTower(text, 8),
    }


def example(name, encoder, batch=4):
    generator = np.random.default_rng(0)
    if name == "text":
        ids = generator.integers(0, 30, (batch, 8)).astype("int32")
        mask = np.arange(8)[None] < generator.integers(4, 9, (batch, 1))
        return {"token_ids": ids, "padding_mask": mask}
    shape = getattr(encoder, "example_shape", (16, 16, 3))
    return generator.random((batch, *shape)).astype("float32")


@pytest.mark.parametrize("make", [m3aes, cavmae_and_m3aes, resnets, clips])
def test_a_step_moves_every_encoder_and_the_model_round_trips(make, tmp_path):
    towers = make()
    x = {name: example(name, tower) for name, tower in towers.items()}
    y = np.arange(4) % 3
    model = MLA(encoders=towers, head=3)
    model.compile(
        optimizer=keras.optimizers.SGD(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    before = {
        name: [np.array(to_numpy(v)) for v in tower.trainable_variables]
        for name, tower in towers.items()
    }
    history = model.fit(x, y, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for name, tower in towers.items():
        moved = [
            np.abs(to_numpy(v) - old).max() > 0
            for v, old in zip(
                tower.trainable_variables, before[name], strict=True
            )
        ]
        assert np.mean(moved) > 0.9
    logits = to_numpy(model(x))
    assert logits.shape == (4, 3)
    if make is not resnets:  # large: its encoder's own test saves it
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(to_numpy(loaded(x)), logits, atol=1e-5)
