"""Trains and saves on one backend, and loads what other backends saved.

KERAS_BACKEND=jax python tests/integration/cross_backend.py train FOLDER
KERAS_BACKEND=torch python tests/integration/cross_backend.py check FOLDER
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras

BEFORE = set(sys.modules)
import keras_mla  # noqa: E402, F401

HEAVY = {
    *("tensorflow", "jax", "torch", "keras_hub", "scipy", "sklearn"),
    *("matplotlib", "soundfile", "av", "PIL"),
}
IMPORTED = {name.split(".")[0] for name in set(sys.modules) - BEFORE} & HEAVY

import numpy as np  # noqa: E402
from utils import compiled, make_data, make_model  # noqa: E402


def train(folder):
    """Trains from weights that do not depend on a backend's random numbers."""
    check(folder)
    x, y = make_data(64)
    model = compiled(make_model(), keras.optimizers.Adam(0.01))
    rng = np.random.default_rng(5)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    history = model.fit(
        x,
        y,
        batch_size=16,
        epochs=2,
        shuffle=False,
        validation_data=(x, y),
        verbose=0,
    )
    name = keras.backend.backend()
    model.save(folder / f"{name}.keras")
    np.save(folder / f"{name}.npy", model.predict(x, verbose=0))
    logs = {k: [float(i) for i in v] for k, v in history.history.items()}
    logs |= {"samples": 64, "imported": sorted(IMPORTED)}
    (folder / f"{name}.json").write_text(json.dumps(logs))


def check(folder):
    """Loads what the others saved, compares predictions, and trains on."""
    x, y = make_data(64)
    for path in sorted(folder.glob("*.keras")):
        if path.stem == keras.backend.backend():
            continue  # Other tests load what the same backend saved.
        model = keras.saving.load_model(path, safe_mode=True)
        expected = np.load(path.with_suffix(".npy"))
        np.testing.assert_allclose(
            model.predict(x, verbose=0), expected, atol=1e-5
        )
        assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 8
        losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
        assert losses[-1] < losses[0], path


if __name__ == "__main__":
    {"train": train, "check": check}[sys.argv[1]](pathlib.Path(sys.argv[2]))
