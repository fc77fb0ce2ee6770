"""Models train on, and predict from, features that stay on disk."""

import keras
import numpy as np
from utils import WIDTHS, make_method

from keras_mla import encoders


def test_fit_and_predict(tmp_path):
    rng = np.random.default_rng(0)
    x = {}
    for name, width in WIDTHS.items():
        given = rng.normal(size=(22, 3)).astype("float32")
        encoder = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(width)]
        )
        x[name] = encoders.cache_features(
            encoder, given, tmp_path / name, batch_size=4, verbose=0
        )
        assert isinstance(x[name], np.memmap)
    model = make_method("MLA")
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(x, np.arange(22) % 4, batch_size=8, epochs=2, verbose=0)
    in_memory = {name: np.array(values) for name, values in x.items()}
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), model.predict(in_memory, verbose=0)
    )
