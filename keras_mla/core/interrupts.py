"""Ctrl-C between two steps, where the model is whole."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import keras

# Whether the user has asked for an interruption that is still to come.
_asked = threading.Event()
_SAID = b"\nCtrl-C: stopping after this step. Press it again to stop at once.\n"


@contextlib.contextmanager
def between_steps() -> Iterator[None]:
    """Lets Ctrl-C wait for the end of a step; a second one does not wait.

    Inside a step a part of the weights has moved. On JAX they are nowhere
    meanwhile: the step has consumed the old ones. `StopBetweenSteps` raises
    what was asked for. Other handlers of the signal stay as they are.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return

    owner = os.getpid()

    def ask(number: int, frame: Any) -> None:
        if os.getpid() != owner:
            return  # A forked worker, which the step still needs.
        if _asked.is_set():
            signal.default_int_handler(number, frame)
        _asked.set()
        os.write(2, _SAID)  # `print` may be what was interrupted.

    signal.signal(signal.SIGINT, ask)
    try:
        yield
        raise_if_asked("What it was to interrupt is done.")
    finally:
        if signal.getsignal(signal.SIGINT) is ask:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _asked.clear()


def raise_if_asked(message: str) -> None:
    """Raises `KeyboardInterrupt` if the user has asked for it."""
    if _asked.is_set():
        if threading.current_thread() is threading.main_thread():
            _asked.clear()
            raise KeyboardInterrupt(message)


class StopBetweenSteps(keras.callbacks.Callback):
    """Raises an interruption that the user has asked for, and says when.

    Args:
        training: bool. Whether the weights move. Defaults to `False`.
    """

    def __init__(self, training: bool = False) -> None:
        super().__init__()
        self.weights = "from before" if training else ""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Interrupts before the epoch."""
        self.epoch = epoch + 1
        self._stop()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Interrupts before the step."""
        if batch:
            self.weights = f"after step {batch} of epoch {self.epoch}"
        self._stop()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Interrupts after the epoch."""
        self.weights = f"after epoch {self.epoch}"
        self._stop()

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Interrupts before the step."""
        if self.weights:  # In the validation of `fit`.
            self.weights = f"after epoch {self.epoch}"
        self._stop()

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Interrupts before the step."""
        self._stop()

    def _stop(self) -> None:
        told = f"The model has its weights {self.weights}."
        raise_if_asked(told if self.weights else "")
