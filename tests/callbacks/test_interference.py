import keras
import numpy as np
import pytest
from utils import (
    CLASSES,
    METHODS,
    WIDTHS,
    compiled,
    encoder,
    half_presence,
    largest_difference,
    long,
    long_on,
    mainly_on,
    make_data,
    make_method,
    make_model,
    to_numpy,
    weights_of,
)

from keras_mla import models
from keras_mla.callbacks import EpochSeed, Interference
from keras_mla.core import Stage
from keras_mla.core.rehearsal import Rehearsal

NAMES = list(WIDTHS)


def random_layers():
    return [keras.layers.Dropout(0.3), keras.layers.BatchNormalization()]


def state_of(model):
    metrics = [to_numpy(v) for v in model.metrics_variables]
    optimizer = [to_numpy(v) for v in model.optimizer.variables]
    seeds = [to_numpy(v) for v in model.variables if "seed" in v.path]
    return [*weights_of(model), *optimizer, *metrics, *seeds]


@pytest.mark.parametrize("presence", [False, True])
def test_leaves_training_as_it_is(presence):
    x, y = make_data(24)
    if presence:
        x["presence"] = half_presence(24)
    probe = {name: value[:12] for name, value in x.items()}
    states, histories = [], []
    for measured in (False, True):
        keras.utils.set_random_seed(3)
        model = compiled(make_model(layers=random_layers), "adam")
        callback = Interference(probe, y[:12], every=2)
        history = model.fit(
            x,
            y,
            batch_size=8,
            epochs=2,
            verbose=0,
            validation_data=(x, y),
            callbacks=[EpochSeed(4), *([callback] if measured else [])],
        )
        states.append(state_of(model))
        histories.append(history.history)
    assert largest_difference(*states) == 0
    assert histories[0] == histories[1]
    assert callback.history["batch"] == [0, 2, 4]
    for change in callback.history["change"]:
        assert list(change) == NAMES
        assert all(list(of_update) == NAMES for of_update in change.values())
    # A step for a modality moves the head that all share, not its encoder.
    assert callback.mean_change["text"]["audio"] != 0


class TextFirst(models.LateFusion):
    """Trains the first modality in the first epoch, then all."""

    def stages(self):
        updates = list(self.updates())
        return [Stage(updates[:1], 1), Stage(updates)]


@long_on("tensorflow")
def test_follows_the_stages_of_a_method():
    x, y = make_data(24)
    states = []
    for measured in (False, True):
        keras.utils.set_random_seed(3)
        encoders = {name: encoder(width) for name, width in WIDTHS.items()}
        model = compiled(TextFirst(encoders, CLASSES), "adam")
        callback = Interference(x, y, every=3)
        callbacks = [callback] if measured else []
        model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
        states.append(state_of(model))
    assert largest_difference(*states) == 0
    assert [list(c) for c in callback.history["change"]] == [["text"], NAMES]


@mainly_on("torch")
def test_updates_follow_each_other_as_in_a_step():
    x, y = make_data(16)
    model = compiled(make_model(), "adam")
    model.train_on_batch(x, y)
    start = state_of(model)
    rehearsal = Rehearsal(model)
    with rehearsal.undone() as updates:
        losses = [rehearsal.losses(x, y)]
        for update in updates:
            rehearsal.make(update, x, y)
            losses.append(rehearsal.losses(x, y))
        rehearsed = weights_of(model), to_numpy(model.optimizer.iterations)
    assert largest_difference(start, state_of(model)) == 0
    model.train_on_batch(x, y)
    assert largest_difference(rehearsed[0], weights_of(model)) == 0
    assert rehearsed[1] == to_numpy(model.optimizer.iterations)
    after = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    for name in NAMES:
        np.testing.assert_allclose(
            losses[-1][name], after[f"{name}_loss"], rtol=1e-6
        )


@mainly_on("torch")
def test_forgetting_is_the_sum_of_the_others_steps():
    x, y = make_data(24)
    callback = Interference(x, y, batch=(x, y), every=1)
    model = compiled(make_model())
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[callback])
    for index, change in enumerate(callback.history["change"]):
        expected = change["text"]["audio"] + change["image"]["audio"]
        assert callback.forgetting["audio"][index] == pytest.approx(expected)
    mean = np.mean([c["image"]["text"] for c in callback.history["change"]])
    assert callback.mean_change["image"]["text"] == pytest.approx(mean)


@mainly_on("torch")
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_as_without_it(method):
    x, y = make_data(16)
    x["sample_id"] = np.arange(16)
    states = []
    for measured in (False, True):
        keras.utils.set_random_seed(3)
        model = compiled(make_method(method, layers=random_layers), "adam")
        model.adapt((x, y))
        callback = Interference(x, y, every=2)
        model.fit(
            x,
            y,
            batch_size=8,
            epochs=2,
            verbose=0,
            callbacks=[callback] if measured else [],
        )
        states.append(state_of(model))
    assert largest_difference(*states) == 0
    assert np.isfinite(list(callback.history["loss"][1].values())).all()
    if method == "ConcatFusion":  # One update for all.
        assert list(callback.mean_change) == ["joint"]
        assert callback.forgetting == {name: [0.0, 0.0] for name in NAMES}


@mainly_on("torch")
def test_unpaired_data_loss_scaling_and_averages():
    optimizer = keras.optimizers.Adam(
        0.01, use_ema=True, ema_overwrite_frequency=2
    )
    x, y = make_data(16)
    unpaired = dict.fromkeys(NAMES, y)
    states = []
    for measured in (False, True):
        keras.utils.set_random_seed(3)
        scaled = keras.optimizers.LossScaleOptimizer(
            type(optimizer).from_config(optimizer.get_config())
        )
        model = compiled(make_model(), scaled)
        callback = Interference(x, unpaired, every=1)
        model.fit(
            x, y, batch_size=8, verbose=0, callbacks=[callback] * measured
        )
        states.append(state_of(model))
    assert largest_difference(*states) == 0
    assert list(callback.mean_change) == NAMES


@long()
def test_works_on_a_compiled_step():
    x, y = make_data(16)
    states, changes = [], []
    for jit, measured in ((False, True), (True, False), (True, True)):
        keras.utils.set_random_seed(3)
        callback = Interference(x, y, every=2)
        model = compiled(make_model(), jit_compile=jit)
        model.fit(
            x, y, batch_size=8, verbose=0, callbacks=[callback] * measured
        )
        states.append(state_of(model))
        if measured:
            changes.append(callback.mean_change["text"]["image"])
    assert largest_difference(*states[1:]) == 0
    np.testing.assert_allclose(*changes, rtol=1e-3)


@pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="PyTorch makes one step at a time.",
)
@long_on("tensorflow")
def test_several_steps_at_a_time():
    x, y = make_data(32)
    states = []
    for measured in (False, True):
        keras.utils.set_random_seed(3)
        model = compiled(make_model(), steps_per_execution=2)
        callback = Interference(x, y, every=2)
        model.fit(
            x, y, batch_size=8, verbose=0, callbacks=[callback] * measured
        )
        states.append(state_of(model))
    assert largest_difference(*states) == 0
    assert callback.history["batch"] == [0, 2]


@mainly_on("torch")
def test_says_what_it_needs():
    x, y = make_data(8)
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        Interference(x, y, every=0)
    presence = np.ones((8, 3), bool)
    presence[:, 1] = False
    callback = Interference({**x, "presence": presence}, y)
    with pytest.raises(ValueError, match="no sample with 'audio'"):
        compiled(make_model()).fit(x, y, verbose=0, callbacks=[callback])
