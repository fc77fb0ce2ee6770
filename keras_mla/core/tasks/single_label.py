"""One class for each sample."""

import inspect
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.core.tasks.task import UNLABELLED, Task, wants_classes


class SingleLabel(Task):
    """One class of several for each sample."""

    name = "single_label"

    def check_units(self, units: int) -> None:
        """Raises unless there are at least two logits, one for each class."""
        if units < 2:
            raise ValueError(
                "The number of classes must be at least 2: the head has a "
                "logit for each class, even if there are two, and `y` says "
                "which class is right. For a yes or no, use a head of 2 and "
                "`SparseCategoricalCrossentropy(from_logits=True)`. "
                f"Received: a head with {units} unit(s)"
            )

    def check_labels(self, where: str, y: Any, units: int, loss: Any) -> None:
        """Raises unless labels are classes or one-hot, as the loss needs."""
        shape = tuple(y.shape)
        sparse = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
        one_hot = len(shape) == 2 and shape[1] == units
        if not sparse and not one_hot:
            raise ValueError(
                f"Labels{where} must have the shape (batch,), with a class in "
                f"each, or (batch, {units}), one-hot. For several labels or "
                "targets with a loss of your own, pass task='multi_label' or "
                f"task='regression' to the model. Received: shape {shape}"
            )
        if isinstance(loss, str):
            loss = keras.losses.get(loss)
        of_keras = (loss if inspect.isfunction(loss) else type(loss)).__module__
        if of_keras.partition(".")[0] != "keras":
            return  # A user's own loss may take any labels.
        if not (sparse if wants_classes(loss) else one_hot):
            raise ValueError(
                f"Labels{where} of shape {shape} do not fit the loss "
                f"{getattr(loss, '__name__', type(loss).__name__)}: integer "
                "classes of shape (batch,) go with "
                "SparseCategoricalCrossentropy, one-hot labels of shape "
                f"(batch, {units}) with the others."
            )

    def strays(self, labels: np.ndarray, units: int, loss: Any) -> Any:
        """Returns which rows hold a class that the head does not have."""
        if not wants_classes(loss) or labels.size != len(labels):
            return None
        labels = labels.reshape(-1)
        # Keras would round half a class down without a word.
        stray = (labels < 0) | (labels >= units) | (labels % 1 != 0)
        if loss.ignore_class is not None:
            stray &= labels != loss.ignore_class
        return stray

    def rule(self, units: int) -> str:
        """States which classes there are."""
        return (
            f"must be classes from 0 to {units - 1}: the head has {units} "
            f"units. Labels counted from 1 must be lowered by 1. {UNLABELLED}"
        )

    def log_likelihood(self, labels: Any, logits: Any) -> Any:
        """Returns the log-probability of the right class, `(batch,)`.

        Labels are classes `(batch,)` or `(batch, 1)`, or one-hot labels or
        probabilities `(batch, classes)`.
        """
        classes = logits.shape[-1]
        if len(labels.shape) != 2 or labels.shape[1] != classes:
            labels = ops.one_hot(
                ops.cast(ops.reshape(labels, (-1,)), "int32"), classes
            )
        log_p = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
        return ops.sum(ops.cast(labels, "float32") * log_p, axis=-1)

    def probabilities(self, logits: Any) -> Any:
        """Returns the softmax of logits."""
        return ops.softmax(logits, axis=-1)

    def labels_of(self, y: Any, units: int) -> np.ndarray:
        """Returns classes, int of shape `(samples,)`."""
        if y.ndim == 2 and y.shape[1] == units:
            y = y.argmax(axis=1)
        y = y.reshape(-1)
        outside = y[~((y >= 0) & (y < units))]  # NaN is neither.
        if outside.size:
            raise ValueError(
                f"Labels must lie between 0 and {units - 1}. "
                f"Received: {outside[0]}"
            )
        return y.astype(int)

    def unseen(self, y: np.ndarray, units: int) -> np.ndarray:
        """Returns the classes that no sample has."""
        return np.setdiff1d(np.arange(units), y)

    def losses_and_slopes(
        self, logits: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns cross-entropies, and probabilities less 1 for the right."""
        logits = logits.astype("float64")
        logits -= logits.max(axis=1, keepdims=True)
        rows = np.arange(len(y))
        right = logits[rows, y]
        slopes = np.exp(logits, out=logits)
        total = slopes.sum(axis=1)
        slopes /= total[:, None]
        slopes[rows, y] -= 1
        return np.log(total) - right, slopes
