import keras
import numpy as np
import pytest
from utils import (
    CLASSES,
    compiled,
    largest_difference,
    make_data,
    make_method,
    saved,
    to_numpy,
    weights_of,
)

from keras_mla.models import BiGated, UniPre


def norms():
    return [keras.layers.BatchNormalization()]


def fitted(method="LateFusion", **kwargs):
    x, y = make_data(24)
    model = compiled(make_method(method, layers=norms, **kwargs), "adam")
    model.fit(x, y, epochs=2, verbose=0)
    return model, x, y


@pytest.mark.parametrize("method", ["LateFusion", "MLA"])
def test_frozen_encoders_do_not_move_by_a_bit(method, tmp_path):
    first, x, y = fitted(method)
    before = weights_of(first)
    model = UniPre.from_fitted(first)
    assert type(model) is UniPre and model.modalities == first.modalities
    encoders = {m: weights_of(e) for m, e in model.encoders.items()}
    compiled(model, keras.optimizers.AdamW(0.1, weight_decay=0.5))
    head = to_numpy(model.head.kernel)
    model.fit(x, y, epochs=2, verbose=0)
    assert (to_numpy(model.head.kernel) != head).any()
    for m, encoder in model.encoders.items():
        assert largest_difference(encoders[m], weights_of(encoder)) == 0
        own = weights_of(first.encoders[m])
        assert largest_difference(own, weights_of(encoder)) == 0
    assert largest_difference(before, weights_of(first)) == 0
    # It needs the fitted model no more.
    again = saved(model, tmp_path)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    assert len(again.trainable_variables) == 2
    history = again.fit(x, y, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_another_joint_method_and_encoders_that_train_along():
    first, x, y = fitted(feature_dim=5)
    model = UniPre.from_fitted(first, "BiGated", frozen=False, feature_dim=3)
    assert type(model) is BiGated
    multiplier = dict.fromkeys(("text", "image"), 0.1) | {"audio": 0.0}
    compiled(model, "adam", learning_rate_multiplier=multiplier)
    model.fit(x, y, verbose=0)
    for m, encoder in model.encoders.items():
        kernels = (
            to_numpy(e.layers[0].kernel) for e in (encoder, first.encoders[m])
        )
        difference = largest_difference(*([k] for k in kernels))
        assert (difference == 0) == (m == "audio")
    assert tuple(model.projections["text"].kernel.shape) == (6, 3)


def test_a_head_of_its_own():
    first, x, _ = fitted()
    head = keras.Sequential(
        [keras.layers.Dense(7, "relu"), keras.layers.Dense(CLASSES)]
    )
    model = UniPre.from_fitted(first, head=head, modality_dropout=0.2)
    assert model.predict(x, verbose=0).shape == (24, CLASSES)
    assert model.modality_dropout == 0.2
    assert len(model.trainable_variables) == 4


def test_what_is_refused():
    first, _, _ = fitted()
    with pytest.raises(TypeError, match="fitted model of `keras_mla`"):
        UniPre.from_fitted(keras.Sequential())
    with pytest.raises(ValueError, match="call `fit` of the LateFusion"):
        UniPre.from_fitted(compiled(make_method("LateFusion")))
    for join in ("BiGate", "LateFusion", "EntropyFusion"):
        with pytest.raises(ValueError, match=f"join='{join}'"):
            UniPre.from_fitted(first, join)
