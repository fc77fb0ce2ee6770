"""Encoders that compute their activations once more in the backward pass."""

import keras
import numpy as np
import pytest
import utils

import keras_mla

WIDTHS = utils.WIDTHS


def trained(remat):
    keras.utils.set_random_seed(0)

    def encoder(width):
        with keras.RematScope(mode="full" if remat else None):
            return keras.Sequential(
                [
                    keras.Input((width,)),
                    keras.layers.Dense(9, "tanh"),
                    keras.layers.Dense(6),
                ]
            )

    encoders = {name: encoder(width) for name, width in WIDTHS.items()}
    model = keras_mla.MLA(encoders, utils.CLASSES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, micro_batches=2)
    x, y = utils.make_data(8)
    presence = np.ones((8, len(WIDTHS)), bool)
    presence[:3, 0] = False
    model.fit({**x, "presence": presence}, y, epochs=2, verbose=0)
    return model.get_weights()


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow",
    reason="A RematScope fails in plain Keras on TensorFlow.",
)
def test_weights_are_the_same():
    for a, b in zip(trained(False), trained(True), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
