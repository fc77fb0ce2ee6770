"""Ctrl-C in training, evaluation and prediction."""

import os
import signal
import threading

import keras
import numpy as np
import pytest
from utils import CLASSES, WIDTHS, encoder, in_process, mainly_on, make_data

import keras_mla

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(autouse=True)
def python_s_own_handler():
    """Processes in the background may ignore Ctrl-C from their start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def made():
    keras.utils.set_random_seed(0)
    model = keras_mla.MLA({n: encoder(w) for n, w in WIDTHS.items()}, CLASSES)
    model.compile(keras.optimizers.Adam(0.01), LOSS)
    return model


class Press(keras.callbacks.Callback):
    """Presses Ctrl-C while a step runs, or as near to it as a callback is."""

    def __init__(self, epoch, batch, times=1):
        super().__init__()
        self.at = epoch, batch
        self.times = times

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


class Weights(keras.callbacks.Callback):
    """Keeps the weights after each step."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def on_train_batch_end(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        self.kept.append(self.model.get_weights())


def interrupted(epoch, batch):
    model, (x, y) = made(), make_data(32)
    with pytest.raises(KeyboardInterrupt) as error:
        model.fit(
            x,
            y,
            batch_size=8,
            epochs=3,
            shuffle=False,
            verbose=0,
            callbacks=[Press(epoch, batch)],
        )
    return model, str(error.value)


def test_training_ends_with_the_weights_of_the_step(capfd):
    x, y = make_data(32)
    whole, weights = made(), Weights()
    whole.fit(
        x,
        y,
        batch_size=8,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[weights],
    )
    # Asked for in step 3 of epoch 2: the step is finished.
    model, told = interrupted(1, 2)
    assert told == "The model has its weights after step 3 of epoch 2."
    for found, wanted in zip(model.get_weights(), weights.kept[6], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)
    assert "Press it again to stop at once" in capfd.readouterr().err
    # It goes on.
    model.fit(x, y, batch_size=8, verbose=0)
    assert np.isfinite(model.predict(x, verbose=0)).all()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@mainly_on("jax")
def test_the_last_step_of_an_epoch():
    _, told = interrupted(0, 3)
    assert told == "The model has its weights after epoch 1."


@mainly_on("jax")
def test_a_second_one_does_not_wait():
    model, (x, y) = made(), make_data(32)
    with pytest.raises(KeyboardInterrupt) as error:
        model.fit(x, y, 8, 2, verbose=0, callbacks=[Press(0, 1, times=2)])
    assert "after step" not in str(error.value)
    assert np.isfinite(model.predict(x, verbose=0)).all()


@mainly_on("jax")
@pytest.mark.parametrize("what", ["evaluate", "predict"])
def test_evaluation_and_prediction(what):
    class AtOnce(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch, logs=None):
            os.kill(os.getpid(), signal.SIGINT)

        on_predict_batch_begin = on_test_batch_begin

    model, (x, y) = made(), make_data(32)
    expected = model.predict(x, verbose=0)
    arguments = (x, y) if what == "evaluate" else (x,)
    with pytest.raises(KeyboardInterrupt):
        getattr(model, what)(
            *arguments, batch_size=8, verbose=0, callbacks=[AtOnce()]
        )
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


@mainly_on("torch")
def test_handlers_of_others_and_other_threads_stay():
    model, (x, y) = made(), make_data(16)
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append("mine"))
    try:
        model.fit(x, y, 8, 2, verbose=0, callbacks=[Press(0, 1)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == ["mine"]
    thread = threading.Thread(
        target=lambda: seen.append(model.fit(x, y, 8, verbose=0))
    )
    thread.start()
    thread.join()
    assert len(seen) == 2


class Forked(keras.utils.PyDataset):
    """Data that a worker process reads, which gets Ctrl-C as well."""

    def __init__(self, x, y):
        super().__init__(workers=1, use_multiprocessing=True)
        self.x, self.y = x, y

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return self.x, self.y


@mainly_on("torch")
@pytest.mark.filterwarnings("ignore")
def test_forked_workers_go_on():
    model, (x, y) = made(), make_data(8)
    model.fit(Forked(x, y), verbose=0)
    with pytest.raises(KeyboardInterrupt) as error:
        model.fit(Forked(x, y), epochs=2, verbose=0, callbacks=[Press(0, 1)])
    assert "of epoch 1" in str(error.value)


SCRIPT = """
import os, signal, sys, threading, time
sys.path.insert(0, sys.argv[1])
import numpy as np
from test_interrupts import made, make_data
signal.signal(signal.SIGINT, signal.default_int_handler)
model, (x, y) = made(), make_data(32)
model.fit(x, y, batch_size=8, verbose=0)
rng = np.random.default_rng(int(sys.argv[2]))
for _ in range(40):
    wait = rng.uniform(0.01, 0.06)
    def press():
        time.sleep(wait)
        os.kill(os.getpid(), signal.SIGINT)
    try:
        threading.Thread(target=press).start()
        model.fit(x, y, batch_size=8, epochs=1000, verbose=0)
    except KeyboardInterrupt:
        pass
    assert np.isfinite(model.predict(x, verbose=0)).all()
print("kept")
"""


@mainly_on("jax")
def test_no_moment_loses_the_weights():
    folder = os.path.dirname(__file__)
    result = in_process("-c", SCRIPT, folder, 0)
    assert result.stdout == "kept\n", result.stderr[-2000:]
