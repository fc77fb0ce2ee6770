"""Frozen parts: nothing to train, and Keras's rule of `compile`."""

import keras
import numpy as np
import pytest
from utils import CLASSES, WIDTHS, compiled, encoder, make_data, some, to_numpy

import keras_mla
from keras_mla import backend, models
from keras_mla.models import Update

NAMES = tuple(WIDTHS)


def make(method="MLA", layers=()):
    return getattr(models, method)(
        {name: encoder(WIDTHS[name], layers=layers) for name in NAMES}, CLASSES
    )


def kernel(model, name):
    return to_numpy(model.encoders[name].layers[0].kernel)


@pytest.mark.parametrize("presence", some([False, True], True))
@pytest.mark.parametrize("frozen", some(NAMES, NAMES[0], NAMES[-1]))
@pytest.mark.parametrize("method", ["LateFusion", "MLA"])
def test_an_update_with_nothing_to_train(method, frozen, presence):
    model = make(method)
    parts = (
        model.parts(frozen)
        if method == "LateFusion"
        else (model.head, model.encoders[frozen])
    )
    for part in parts:
        part.trainable = False
    compiled(model, "adam")
    x, y = make_data(16)
    if presence:
        x["presence"] = np.ones((16, 3), bool)
    before = {name: kernel(model, name) for name in NAMES}
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0).history
    assert int(to_numpy(model.optimizer.iterations)) == 4
    for name in NAMES:
        moved = (kernel(model, name) != before[name]).any()
        assert moved == (name != frozen)
        assert history[f"{name}_loss"][0] > 0


def test_a_model_with_nothing_to_train():
    model = make()
    model.trainable = False
    compiled(model)
    x, y = make_data(8)
    before = [to_numpy(v) for v in model.weights]
    history = model.fit(x, y, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for value, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(value, to_numpy(variable))


@pytest.mark.parametrize("method", some(["MLA", "SumFusion"], "MLA"))
def test_what_is_frozen_after_fit_counts_after_compile(method):
    model = compiled(make(method), "adam")
    x, y = make_data(16)
    model.fit(x, y, verbose=0)
    model.encoders["audio"].trainable = False
    before = kernel(model, "audio")
    model.fit(x, y, verbose=0)
    assert (kernel(model, "audio") != before).any()
    compiled(model, "adam")
    before = kernel(model, "audio")
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(kernel(model, "audio"), before)
    model.encoders["audio"].trainable = True
    image = kernel(model, "image")
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(kernel(model, "audio"), before)
    assert (kernel(model, "image") != image).any()
    compiled(model, "adam")
    model.fit(x, y, verbose=0)
    assert (kernel(model, "audio") != before).any()


def test_an_optimizer_that_does_not_know_what_is_trained():
    model = make()
    model.encoders["audio"].trainable = False
    compiled(model, "adam")
    x, y = make_data(8)
    model.fit(x, y, verbose=0)
    model.encoders["audio"].trainable = True
    compiled(model, model.optimizer)
    with pytest.raises(ValueError, match="new optimizer"):
        model.fit(x, y, verbose=0)


def test_a_part_frozen_after_loading_stays(tmp_path):
    model = compiled(make(), "adam")
    x, y = make_data(8)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.encoders["audio"].trainable = False
    before = kernel(loaded, "audio"), kernel(loaded, "image")
    loaded.fit(x, y, verbose=0)
    np.testing.assert_array_equal(kernel(loaded, "audio"), before[0])
    assert (kernel(loaded, "image") != before[1]).any()


def test_only_what_a_pass_moves_is_kept():
    frozen = keras.Sequential(
        [
            keras.layers.Dense(3),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
        ]
    )
    free = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    model = keras_mla.MLA({"text": encoder(3, 3, [frozen, *free])}, CLASSES)
    frozen.trainable = False
    (update,) = model.updates()
    moving = backend.internals.moving_variables(update.layers, model)
    names = sorted(v.path.split("/")[-1] for v in moving)
    assert names == [
        "moving_mean",
        "moving_variance",
        "seed_generator_state",
        "seed_generator_state",
    ]
    assert {id(v) for v in free[0].non_trainable_variables} <= {
        id(v) for v in moving
    }


def test_an_update_names_its_losses():
    model = make()
    assert Update(("text",), (model.head,)).losses == ("text",)
    assert make("SumFusion").updates()[0].losses == ("fused",)
    assert make("MultiLossFusion").updates()[0].losses == ("fused", *NAMES)


class Doubles(keras.layers.Layer):
    """Doubles its inputs in training, and only then."""

    def call(self, inputs, training=None):
        return 2 * inputs if training else inputs


def test_a_frozen_update_passes_as_in_training():
    x, y = make_data(8)
    first = make("LateFusion", [Doubles()])
    second = make("LateFusion", [Doubles()])
    second.set_weights(first.get_weights())
    second.trainable = False
    expected, found = (
        compiled(model).train_on_batch(x, y, return_dict=True)
        for model in (first, second)
    )
    for name in NAMES:
        key = f"{name}_loss"
        assert float(found[key]) == pytest.approx(float(expected[key]), 1e-5)
    tested = second.test_on_batch(x, y, return_dict=True)
    assert abs(float(tested["loss"]) - float(found["loss"])) > 1e-3
