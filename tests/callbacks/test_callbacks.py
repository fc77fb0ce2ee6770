import keras
import numpy as np
import pytest
from utils import (
    compiled,
    largest_difference,
    mainly_on,
    make_data,
    make_model,
    to_numpy,
    weights_of,
)

import keras_mla
from keras_mla.callbacks import EpochSeed, ProjectorReset, ProjectorTrace

NAMES = ("image", "text")
EPOCHS = 4


class Killed(Exception):
    """Represents the end of a process."""


class KillBefore(keras.callbacks.Callback):
    """Ends training as an epoch begins."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed


def random_model():
    keras.utils.set_random_seed(1)
    model = make_model(
        NAMES,
        layers=lambda: [
            keras.layers.Dropout(0.3),
            keras.layers.BatchNormalization(),
        ],
    )
    return compiled(model, "adam")


def train(model, *callbacks, **kwargs):
    x, y = make_data(40, NAMES)
    model.fit(
        x,
        y,
        batch_size=8,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[EpochSeed(5), *callbacks],
        **kwargs,
    )
    return weights_of(model)


@pytest.fixture(scope="module")
def uninterrupted():
    return train(random_model())


@pytest.mark.parametrize("killed_at", [1, 3])
def test_backup_and_restore_is_exact(tmp_path, uninterrupted, killed_at):
    def backup():
        return keras.callbacks.BackupAndRestore(
            tmp_path / "backup", double_checkpoint=True
        )

    with pytest.raises(Killed):
        train(random_model(), backup(), KillBefore(killed_at))
    np.random.seed(99)  # A new process starts elsewhere.
    resumed = train(random_model(), backup())
    assert largest_difference(uninterrupted, resumed) == 0


@mainly_on("torch")
def test_a_loaded_model_goes_on_exactly(tmp_path, uninterrupted):
    model = random_model()
    with pytest.raises(Killed):
        train(model, KillBefore(2))
    model.save(tmp_path / "model.keras")
    np.random.seed(99)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    resumed = train(loaded, initial_epoch=2)
    assert largest_difference(uninterrupted, resumed) == 0


@mainly_on("torch")
def test_unpaired_data_resume_exactly(tmp_path):
    def run(*callbacks, **kwargs):
        model = (
            compiled(make_model(NAMES), "adam")
            if not kwargs
            else kwargs.pop("model")
        )
        dataset = keras_mla.UnpairedDataset(
            {
                n: (
                    make_data(20 + 9 * i, NAMES, i)[0][n],
                    make_data(20 + 9 * i, NAMES, i)[1],
                )
                for i, n in enumerate(NAMES)
            },
            batch_size=8,
        )
        seed = EpochSeed(3)
        model.fit(
            dataset, epochs=3, verbose=0, callbacks=[seed, *callbacks], **kwargs
        )
        return model

    keras.utils.set_random_seed(2)
    whole = weights_of(run())
    keras.utils.set_random_seed(2)
    model = compiled(make_model(NAMES), "adam")
    with pytest.raises(Killed):
        run(KillBefore(2), model=model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    resumed = weights_of(run(model=loaded, initial_epoch=2))
    assert largest_difference(whole, resumed) == 0


def test_seeds_differ_by_epoch_and_seed():
    model = random_model()
    states = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        callback = EpochSeed(seed)
        callback.set_model(model)
        callback.on_epoch_begin(epoch)
        states.append(
            (
                np.random.random(),
                [
                    to_numpy(v).tolist()
                    for v in model.variables
                    if "seed_generator" in v.path
                ],
            )
        )
    assert states[0] == states[3]
    assert states[0] != states[1] != states[2]
    assert len(states[0][1]) == 2
    assert states[0][1][0] != states[0][1][1]


def test_trace_is_logged():
    model = compiled(make_model(NAMES))
    x, y = make_data(40, NAMES)
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=[ProjectorTrace()])
    trace = history.history["projector_trace"]
    assert len(trace) == 3
    assert 6 > trace[0] > trace[1] > trace[2] > 0
    np.testing.assert_allclose(
        trace[-1], np.trace(to_numpy(model.projectors[0].P)), rtol=1e-6
    )


def test_traces_of_a_deep_head():
    head = keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(4)])
    model = compiled(make_model(NAMES, head=head))
    x, y = make_data(16, NAMES)
    history = model.fit(x, y, verbose=0, callbacks=[ProjectorTrace()])
    assert {"projector_0_trace", "projector_1_trace"} <= set(history.history)


def test_reset_opens_directions():
    model = compiled(make_model(NAMES))
    x, y = make_data(40, NAMES)
    history = model.fit(
        x,
        y,
        epochs=4,
        verbose=0,
        callbacks=[ProjectorReset(every=2), ProjectorTrace()],
    )
    trace = history.history["projector_trace"]
    assert trace[1] < trace[0]
    assert trace[2] > trace[1]


def test_callbacks_say_what_they_need():
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        ProjectorReset(every=0)
    model = compiled(make_model(NAMES, projector=None))
    x, y = make_data(8, NAMES)
    with pytest.raises(ValueError, match="needs a model with gradient proj"):
        model.fit(x, y, verbose=0, callbacks=[ProjectorTrace()])
    with pytest.raises(ValueError, match="needs a model with gradient proj"):
        model.fit(x, y, verbose=0, callbacks=[ProjectorReset(every=5)])
    # Both raise before the first step.
    assert int(to_numpy(model.optimizer.iterations)) == 0
