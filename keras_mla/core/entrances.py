"""Checks and callbacks around Keras's `fit`, `evaluate` and `predict`."""

import contextlib
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_mla import backend
from keras_mla.core import checks, interrupts, progress, sharing
from keras_mla.core.arrays import (
    check_no_nan,
    check_some_present,
    check_values,
    fill_none,
)
from keras_mla.core.batch import check_inputs, check_rows
from keras_mla.core.hooks import Hooks
from keras_mla.core.padding import fill_up
from keras_mla.presence import stack_presence

_LOG = logging.getLogger("keras_mla")
# Seconds after which a thread that waits says so.
_PATIENCE = 60.0


class CheckedModel(Hooks):
    """A model that checks data before Keras runs, and keeps its weights.

    Arrays are checked before the first step, in the user's terms. An error
    inside a step leaves the model with the weights that it had. Several threads
    may evaluate and predict; each waits its turn.
    """

    # Keras sets these attributes.
    train_function: Any
    test_function: Any
    predict_function: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of what uses metrics and moves weights, and of predictions.
        self._turns = threading.RLock(), threading.RLock()
        # Whether all processes have been given the same weights.
        self._begun = False

    def house_callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callbacks of the library itself."""
        return [_CheckLabels()]

    def check_data(self, x: Any, y: Any, sample_weight: Any = None) -> None:
        """Raises unless arrays can be trained on. Data sets are not checked."""
        raise NotImplementedError

    def prepare_inputs(self, x: Any, training: bool = False) -> Any:
        """Returns inputs with presence as an array; data sets stay as they are.

        Args:
            x: Inputs as users pass them. `x["presence"]` may be by name. In
                evaluation and prediction, a modality that is `None` is absent
                in all samples.
            training: bool. Whether the inputs are for training.

        Raises:
            ValueError: If inputs are not a dict of arrays keyed by modality,
                there is no sample, no sample has any modality, or values that
                are marked present hold NaN and `allow_nan` is false.
        """
        if isinstance(x, dict):
            if x.get("presence") is not None:
                presence = stack_presence(self.modalities, x["presence"])
                x = {**x, "presence": presence}
            if not training:
                blank = None if self._signature is None else self.blank_inputs
                x = fill_none(self.modalities, x, blank)
        if check_arrays(self.modalities, x):
            check_values(self.modalities, x)
            check_some_present(x)
            if not self.allow_nan:
                check_no_nan(self.modalities, x)
        return x

    def check_labels_seen(self) -> None:
        """Raises if a step has met labels that are not classes."""
        raise NotImplementedError

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains the model, as `keras.Model.fit` does.

        `class_weight` is not supported with unpaired data (`y` a dict).
        """
        call = inspect.signature(super().fit).bind(*args, **kwargs)
        given = call.arguments
        sharing.check_arguments(given)
        x, y = given.get("x"), given.get("y")
        if given.get("class_weight") is not None:
            checks.check_class_weight(given["class_weight"], peek_labels(x, y))
        given["x"] = x = self.prepare_inputs(x, training=True)
        self.check_data(x, y, given.get("sample_weight"))
        validation = given.get("validation_data")
        if isinstance(validation, tuple | list):
            first, *others = validation
            validation = (self.prepare_inputs(first), *others)
            self.check_data(*validation[:3])
            given["validation_data"] = validation
        x = sharing.share(given, shuffle=given.get("shuffle", True))
        more: list[keras.callbacks.Callback] = [
            interrupts.StopBetweenSteps(training=True)
        ]
        if hasattr(x, "set_epoch"):
            # Keras would shuffle the batches of a `PyDataset` once more, from
            # a generator that no epoch sets.
            given.setdefault("shuffle", False)
            if given.get("steps_per_epoch") is None:
                more.append(_SetEpoch(x))
        callbacks = self._with_own(given.get("callbacks"), more)
        callbacks = sharing.with_beginning(callbacks)
        verbose = given.get("verbose", "auto")
        given["callbacks"] = progress.with_short(callbacks, verbose)
        with self._running():
            return self._filled_up(super().fit)(*call.args, **call.kwargs)

    @contextlib.contextmanager
    def _taking_turns(self, measuring: bool = False) -> Iterator[None]:
        """Returns a context that one thread at a time can enter.

        Training and evaluation share metrics. Predictions do not, so they may
        run meanwhile, except on JAX: there, a model in training or evaluation
        has no weights to predict with.

        Args:
            measuring: bool. Whether the thread trains or evaluates the model.
        """
        turn = self._turns[not (measuring or backend.step.weights_leave())]
        while not turn.acquire(timeout=_PATIENCE):
            _LOG.warning(
                "A thread waits for another one that uses the model. If it is "
                "the data of `fit` that call the model in workers, it waits "
                "forever: let them use `model.serving_function()`."
            )
        try:
            yield
        finally:
            turn.release()

    def _filled_up(self, method: Callable) -> Callable:
        """Returns a method of Keras that takes batches of any number of rows.

        Devices that share a batch must divide it.
        """
        fill = functools.partial(fill_up, self.modalities)
        return backend.distribution.filled_up(method, fill)

    @contextlib.contextmanager
    def _running(self, measuring: bool = True) -> Iterator[None]:
        """Surrounds Keras's methods, so that an error leaves a usable model."""
        with (
            self._taking_turns(measuring),
            backend.step.keeping_weights(self),
            interrupts.between_steps(),
        ):
            backend.distribution.check_placed(self)
            try:
                yield
            except ValueError:
                # A function that TensorFlow traced in part is of no further
                # use.
                self.train_function = self.test_function = None
                raise
            except TypeError as error:
                # After an error Keras finds no weights to average, on JAX.
                lost = backend.step.weights_leave() and "NoneType" in str(error)
                if lost and isinstance(error.__context__, ValueError):
                    raise error.__context__ from None
                raise

    def _with_own(
        self, callbacks: Any, more: Sequence[keras.callbacks.Callback] = ()
    ) -> Any:
        """Puts the method's callbacks and `more` around the user's ones."""
        own = [*more, *self.house_callbacks(), *self.own_callbacks()]
        first, last = _Around(own, "begin"), _Around(own, "end")
        if isinstance(callbacks, keras.callbacks.CallbackList):
            # The list already has its model and parameters.
            for callback in (first, last):
                callback.set_model(self)
                callback.set_params(callbacks.params)
            callbacks.callbacks[:] = [
                first,
                *(c for c in callbacks.callbacks if not isinstance(c, _Around)),
                last,
            ]
            return callbacks
        callbacks = keras.tree.flatten(callbacks) if callbacks else []
        return [first, *callbacks, last]

    def evaluate(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Evaluates the model, as `keras.Model.evaluate` does."""
        call = inspect.signature(super().evaluate).bind(x, y, *args, **kwargs)
        if "_use_cached_eval_dataset" in kwargs:
            # `fit` calls this. It has checked arrays, and resets metrics later.
            self.check_labels_seen()
        else:
            call.arguments["x"] = x = self.prepare_inputs(x)
            self.check_data(x, y, call.arguments.get("sample_weight"))
            sharing.share(call.arguments)
            backend.distribution.begin(self)
            call.arguments["callbacks"] = progress.with_short(
                _interruptible(call.arguments.get("callbacks")),
                call.arguments.get("verbose", "auto"),
            )
        with self._running():
            evaluate = self._filled_up(super().evaluate)
            result = evaluate(*call.args, **call.kwargs)
            self.check_labels_seen()
        return result

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Predicts fused logits, as `keras.Model.predict` does."""
        call = inspect.signature(super().predict).bind(x, *args, **kwargs)
        given = call.arguments
        given["x"] = self.prepare_inputs(x)
        given["callbacks"] = _interruptible(given.get("callbacks"))
        with (
            self._running(measuring=False),
            backend.distribution.on_own_devices(self),
        ):
            predict = backend.distribution.predicting(super().predict)
            return predict(*call.args, **call.kwargs)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Trains one batch, as `keras.Model.train_on_batch` does."""
        checks.check_class_weight(class_weight, y)
        x = self.prepare_inputs(x, training=True)
        self.check_data(x, y, sample_weight)
        if not self._begun:  # `fit` does it each time.
            self._begun = True
            backend.distribution.begin(self)
        with self._running():
            result = self._filled_up(super().train_on_batch)(
                x, y, sample_weight, class_weight, return_dict
            )
            self.check_labels_seen()
        return result

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Evaluates one batch, as `keras.Model.test_on_batch` does."""
        x = self.prepare_inputs(x)
        self.check_data(x, y, sample_weight)
        with self._running():
            result = self._filled_up(super().test_on_batch)(
                x, y, sample_weight, return_dict
            )
            self.check_labels_seen()
        return result

    def predict_on_batch(self, x: Any) -> Any:
        """Predicts one batch, as `keras.Model.predict_on_batch` does."""
        x = self.prepare_inputs(x)
        with (
            self._running(measuring=False),
            backend.distribution.on_own_devices(self),
        ):
            return super().predict_on_batch(x)


def _interruptible(callbacks: Any) -> Any:
    """Adds the callback that lets Ctrl-C interrupt between steps."""
    own = interrupts.StopBetweenSteps
    if isinstance(callbacks, keras.callbacks.CallbackList):
        if not any(isinstance(c, own) for c in callbacks.callbacks):
            callbacks.append(own())
        return callbacks
    callbacks = keras.tree.flatten(callbacks) if callbacks else []
    return [own(), *callbacks]


class _Around(keras.callbacks.Callback):
    """Passes either the beginnings or the ends on to a method's callbacks.

    Args:
        callbacks: The method's callbacks.
        what: `"begin"` or `"end"`.
    """

    def __init__(
        self, callbacks: list[keras.callbacks.Callback], what: str
    ) -> None:
        super().__init__()
        self.callbacks = callbacks
        base = keras.callbacks.Callback
        for hook in dir(base):
            if not (hook.startswith("on_") and hook.endswith(what)):
                continue
            # Only hooks in use: Keras waits for each batch's logs if a callback
            # has hooks for batches.
            wanted = [
                getattr(callback, hook)
                for callback in callbacks
                if hook in vars(callback)
                or getattr(type(callback), hook) is not getattr(base, hook)
            ]
            if wanted:
                setattr(self, hook, _to_all(wanted))

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        for callback in self.callbacks:
            callback.set_model(model)

    def set_params(self, params: Any) -> None:
        super().set_params(params)
        for callback in self.callbacks:
            callback.set_params(params)


def _to_all(hooks: list[Callable]) -> Callable:
    def call(*args: Any, **kwargs: Any) -> None:
        for hook in hooks:
            hook(*args, **kwargs)

    return call


class _SetEpoch(keras.callbacks.Callback):
    """Tells the training data which epoch begins, also after a resumption.

    Args:
        data: What `fit` trains on, with a method `set_epoch`.
    """

    def __init__(self, data: Any) -> None:
        super().__init__()
        self.data = data

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.data.set_epoch(epoch)


class _CheckLabels(keras.callbacks.Callback):
    """Raises at the end of an epoch with labels that are not classes."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.model.check_labels_seen()


def check_arrays(modalities: Sequence[str], x: Any) -> bool:
    """Checks inputs if they are arrays, and returns whether they are.

    Raises:
        ValueError: If they are not a dict keyed by modality.
    """
    if not isinstance(x, dict):
        if hasattr(x, "shape") or isinstance(x, list | tuple):
            check_inputs(modalities, x)
        return False
    check_inputs(modalities, x)
    return True


def check_samples(modalities: Sequence[str], x: Any, y: Any) -> bool:
    """Checks data if they are arrays, and returns whether they are."""
    if not check_arrays(modalities, x):
        return False
    if not isinstance(y, dict):
        check_rows(modalities, x)
    return True


def peek_labels(x: Any, y: Any) -> Any:
    """Returns the labels of the first batch, if reading consumes nothing."""
    if y is not None:
        return y
    if isinstance(x, keras.utils.PyDataset):
        return keras.utils.unpack_x_y_sample_weight(x[0])[1]
    spec = getattr(x, "element_spec", None)  # A `tf.data.Dataset` has it.
    return keras.utils.unpack_x_y_sample_weight(spec)[1]
