"""Encoders and autoencoders, and the script that saves them for later versions.

`tests/saving/files/<version>/encoders/` holds what a version saved, and what
it computed. Run this before a release, once, and add the folder to the tree:

    KERAS_BACKEND=jax python tests/saving/saved_encoders.py
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from saved_files import FOLDER, compress

import keras_mla
from keras_mla import encoders

TINY = {"width": 8, "depth": 1, "num_heads": 2, "patch_size": 4}
DECODER = {"decoder_width": 8, "decoder_depth": 1, "decoder_num_heads": 2}
WORDS = {"vocabulary_size": 20, "max_length": 5}
AUDIO, IMAGE = (12, 8, 1), (8, 8, 3)


def make(name):
    """Returns the model that a file is named for."""
    if name == "M3AE_text":
        return encoders.M3AE("text", **TINY, **WORDS)
    if name == "M3AE_image":
        return encoders.M3AE(
            "image", **TINY, image_shape=IMAGE, trained_grid=(4, 4)
        )
    if name == "M3AEAutoencoder":
        return encoders.M3AEAutoencoder(
            **TINY, **DECODER, **WORDS, image_shape=IMAGE, seed=1
        )
    if name == "CAVMAE_audio":
        return encoders.CAVMAE("audio", AUDIO, **TINY)
    if name == "CAVMAEAutoencoder":
        return encoders.CAVMAEAutoencoder(
            AUDIO, IMAGE, **TINY, **DECODER, trainable_positions=True, seed=1
        )
    import keras_hub

    if name == "CLIPTextTower":
        tower = keras_hub.models.CLIPTextEncoder(
            20, 8, 8, 1, 2, 16, max_sequence_length=5
        )
        return encoders.CLIPTextTower(tower, 4)
    tower = keras_hub.models.CLIPVisionEncoder(
        4, 8, 1, 2, 16, image_shape=IMAGE
    )
    return encoders.CLIPImageTower(tower, 4)


NAMES = (
    "M3AE_text",
    "M3AE_image",
    "M3AEAutoencoder",
    "CAVMAE_audio",
    "CAVMAEAutoencoder",
    "CLIPTextTower",
    "CLIPImageTower",
)


def data(name):
    """Returns the inputs of three samples, and the noise of the masks."""
    rng = np.random.default_rng(0)
    mask = np.arange(5) < np.array([[5], [3], [4]])
    ids = rng.integers(1, 20, (3, 5)).astype("int32")
    x = {
        "text": {"token_ids": ids, "padding_mask": mask},
        "audio": rng.random((3, *AUDIO)).astype("float32"),
        "image": rng.random((3, *IMAGE)).astype("float32"),
    }
    noise = {"text": 5, "audio": 6, "image": 4}
    noise = {
        key: rng.random((3, tokens)).astype("float32")
        for key, tokens in noise.items()
    }
    if name == "M3AEAutoencoder":
        return {key: x[key] for key in ("image", "text")}, noise
    if name == "CAVMAEAutoencoder":
        return {key: x[key] for key in ("audio", "image")}, noise
    for key in x:
        if key in name.lower():
            return x[key], None
    raise ValueError(f"No file is named {name!r}.")


def results(model, name):
    """What a model computes, and what the encoders that it makes compute."""
    x, noise = data(name)
    if noise is None:
        return {"features": keras.ops.convert_to_numpy(model(x))}
    outputs = model(x, noise=noise)
    found = {"loss": model.compute_loss(x=x, y_pred=outputs), **outputs}
    for modality, value in x.items():
        found[f"encoded_{modality}"] = model.make_encoder(modality)(value)
    return {key: keras.ops.convert_to_numpy(v) for key, v in found.items()}


def main():
    """Saves a model of each kind, and its results."""
    folder = FOLDER / keras_mla.__version__ / "encoders"
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        file = folder / f"{name}.keras"
        if file.exists():
            print(f"{file} is there and stays as it is.")
            continue
        keras.utils.set_random_seed(0)
        model = make(name)
        generator = np.random.default_rng(1)
        for variable in model.trainable_variables:
            variable.assign(0.3 * generator.normal(size=variable.shape))
        if "Autoencoder" in name:
            model.compile("adam")
            model.fit(data(name)[0], verbose=0)
        model.save(file)
        compress(file)
        np.savez_compressed(folder / f"{name}.npz", **results(model, name))


if __name__ == "__main__":
    sys.exit(main())
