"""Cascades of autoencoders, against NumPy."""

import keras
import numpy as np
import pytest
import reconstruction_reference as ref
from methods_reference import numpy_of
from utils import to_numpy

from keras_mla.models.missing.cascade import CascadedAutoencoder


def draw(rows=5, width=6, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width))


@pytest.mark.every_case
@pytest.mark.parametrize("residual", ["none", "cumulative", "added"])
def test_against_numpy(residual):
    layer = CascadedAutoencoder((5, 3), 3, residual, slopes=(0.2, 0.1))
    layer.build((None, 6))
    p = numpy_of(ref.of_cascade("c", ref.shuffled(layer)))
    x, added = draw(), draw(seed=1)
    if residual == "cumulative":
        out, latents = ref.cumulative(p, "c", x, 3, (0.2, 0.1))
    else:
        plus = added if residual == "added" else 0
        out, latents = ref.chained(p, "c", x, 3, plus, (0.2, 0.1))
    if residual != "none":
        out = ref.transition(p, "c", out)
    given = [x, added] if residual == "added" else [x]
    found = layer(*(g.astype("float32") for g in given))
    assert latents.shape == (5, 9)
    np.testing.assert_allclose(to_numpy(found[0]), out, atol=1e-5)
    np.testing.assert_allclose(to_numpy(found[1]), latents, atol=1e-5)
    shapes = layer.compute_output_shape((None, 6))
    assert [s[1] for s in shapes] == [6, 9]


def test_it_is_made_again_from_its_config():
    layer = CascadedAutoencoder((5, 3), 2, "added", (0.3, 0.2))
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == layer.get_config()
    assert (again.widths, again.slopes) == ((5, 3), (0.3, 0.2))


@pytest.mark.parametrize(
    "wrong", [{"widths": ()}, {"blocks": 0}, {"residual": "sum"}]
)
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match="must be"):
        CascadedAutoencoder(**wrong)


def test_what_is_added_belongs_to_one_recurrence():
    x = draw().astype("float32")
    with pytest.raises(ValueError, match="which needs it"):
        CascadedAutoencoder((3,), 1, "added")(x)
    with pytest.raises(ValueError, match="added=a tensor"):
        CascadedAutoencoder((3,), 1)(x, x)
