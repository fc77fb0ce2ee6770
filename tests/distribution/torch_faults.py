"""What goes wrong, or is special, in several processes of PyTorch.

    torchrun --nproc-per-node=2 tests/distribution/torch_faults.py MODE FOLDER

Each process prints a line: its rank, and what it got.
"""

import os
import signal
import sys
import time

os.environ["KERAS_BACKEND"] = "torch"
os.environ["OMP_NUM_THREADS"] = "1"

import device_cases as cases
import keras
import numpy as np
import torch

import keras_mla
from keras_mla import ProcessRows

RANK = int(os.environ["RANK"])


class Fewer(cases.Batches):
    """Batches of which the second process has fewer."""

    def __len__(self):
        return 3 - RANK


def more_batches(folder):
    cases.method().fit(Fewer("plain"), verbose=0)


def more_batches_of_validation(folder):
    data = cases.Batches("plain")
    cases.method().fit(data, validation_data=Fewer("plain"), verbose=0)


def other_modalities(folder):
    encoders = {
        f"{name}{RANK}": cases.encoder(width)
        for name, width in cases.WIDTHS.items()
    }
    model = keras_mla.MLA(encoders, cases.CLASSES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    x, y = cases.data()
    model.fit({f"{name}{RANK}": v for name, v in x.items()}, y, verbose=0)


def other_arrays(folder):
    x, y = cases.data(24 - RANK)
    cases.method().fit(x, y, verbose=0)


def presence_in_one(folder):
    data = cases.Batches("presence" if RANK else "plain")
    cases.method().fit(data, verbose=0)


def compiled(folder):
    cases.method(jit_compile=True).fit(cases.Batches("plain"), verbose=0)


def whole_batch(folder):
    encoders = {n: cases.encoder(w) for n, w in cases.WIDTHS.items()}
    model = keras_mla.models.TCMax(encoders, cases.CLASSES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    model.fit(cases.Batches("plain"), verbose=0)


def split_off(folder):
    x, y = cases.data()
    cases.method().fit(x, y, validation_split=0.5, verbose=0)


def stops_alone(folder):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = RANK == 1

    cases.method().fit(cases.Batches("plain"), verbose=0, callbacks=[Stop()])


def killed(folder):
    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if RANK == 1 and not os.path.exists(f"{folder}/killed"):
                open(f"{folder}/killed", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)

    cases.method().fit(cases.Batches("plain"), verbose=0, callbacks=[Kill()])


def resumed(folder):
    """Ends one process in the third epoch, unless it was ended before."""
    marker = f"{folder}/ended"
    # All processes look before one of them ends.
    again = os.path.exists(marker)
    torch.distributed.barrier()

    class End(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if RANK == 1 and epoch == 2 and not again:
                open(marker, "w").close()
                time.sleep(1)  # Let the others wait.
                os._exit(7)

    callbacks = [End(), keras_mla.callbacks.EpochSeed(5)]
    if RANK == 0:  # One process keeps the backup for all.
        callbacks.append(keras.callbacks.BackupAndRestore(f"{folder}/backup"))
    model = cases.method()
    history = model.fit(
        ProcessRows(cases.Batches("gap")),
        epochs=4,
        verbose=0,
        callbacks=callbacks,
    )
    total = sum(float(np.abs(w).sum()) for w in model.get_weights())
    return f"epochs {history.epoch} sum {total:.5f}"


def arrays(folder):
    """`fit` shares arrays out: the loss is that of one process."""
    x, y = cases.data(45)
    model = cases.method(seed=RANK)
    history = model.fit(
        x, y, 16, 2, verbose=0, shuffle=False, validation_data=(x, y)
    )
    result = model.evaluate(x, y, batch_size=16, verbose=0)
    found = [history.history["loss"][-1], history.history["val_loss"][-1]]
    return " ".join(f"{v:.6f}" for v in [*found, result[0]])


def shuffled(folder):
    """Each row is seen once, in an order that all processes share."""
    x, y = cases.data(45)
    model = cases.method(seed=RANK)
    history = model.fit(x, y, 16, 2, verbose=0)
    return f"{history.history['loss'][-1]:.6f}"


def on_batches(folder):
    x, y = cases.data(24)
    model = cases.method(seed=RANK)
    rows = slice(RANK, None, 2)
    mine = {k: v[rows] for k, v in x.items()}
    logs = [model.train_on_batch(mine, y[rows]) for _ in range(2)]
    return (
        f"{float(logs[-1][0]):.6f} {model.test_on_batch(mine, y[rows])[0]:.6f}"
    )


def loader(folder):
    """A `DataLoader` with a sampler of the process's rows."""
    x, y = cases.data(24)

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 24

        def __getitem__(self, index):
            return {k: v[index] for k, v in x.items()}, y[index]

    rows = Rows()
    sampler = torch.utils.data.DistributedSampler(rows, shuffle=False)
    data = torch.utils.data.DataLoader(rows, batch_size=6, sampler=sampler)
    model = cases.method(seed=RANK)
    history = model.fit(data, epochs=2, verbose=0, shuffle=False)
    return f"{history.history['loss'][-1]:.6f}"


def evaluates_alone(folder):
    x, y = cases.data(8)

    class Evaluate(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.evaluate(x, y, verbose=0)

    callbacks = [] if RANK else [Evaluate()]
    cases.method().fit(cases.Batches("plain"), verbose=0, callbacks=callbacks)


def half_normalized(folder):
    """The second process has no text, but NaN."""
    x, y = cases.data(8)
    x["presence"] = np.ones((8, 3), bool)
    x["presence"][1::2, 0] = False
    x["text"][1::2] = np.nan
    return normalized(folder, x, y, 8, "text")


def few_normalized(folder):
    """The second process has no row of the last batch."""
    return normalized(folder, *cases.data(9), 8, "text")


def normalized(folder, x=None, y=None, batch_size=24, name="audio"):
    """Statistics of batch normalization are means over processes."""
    if x is None:
        x, y = cases.data(24)
    keras.utils.set_random_seed(0)
    encoders = {
        name: keras.Sequential(
            [
                keras.Input((width,)),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(5),
            ]
        )
        for name, width in cases.WIDTHS.items()
    }
    model = keras_mla.MLA(encoders, cases.CLASSES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    model.fit(x, y, batch_size, verbose=0, shuffle=False)
    mean = model.encoders[name].layers[0].moving_mean
    return " ".join(f"{float(v):.5f}" for v in mean)


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    try:
        told = globals()[sys.argv[1]](sys.argv[2])
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        failed = True
    else:
        failed = False
    # In one write: processes share the output.
    os.write(1, f"rank {RANK} {' '.join(str(told).split())}\n".encode())
    time.sleep(0.5)  # So that the others say what they got, too.
    os._exit(int(failed))
