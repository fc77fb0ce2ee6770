"""The task of a loss."""

import functools
from typing import Any

import keras

from keras_mla.core.tasks.multi_label import MultiLabel
from keras_mla.core.tasks.regression import Regression
from keras_mla.core.tasks.single_label import SingleLabel
from keras_mla.core.tasks.task import Task

TASKS: dict[str, Task] = {
    task.name: task for task in (SingleLabel(), MultiLabel(), Regression())
}


# Losses of Keras that are for one task only: class and function.
_OF_LOSS = {
    "multi_label": {
        "BinaryCrossentropy": "binary_crossentropy",
        "BinaryFocalCrossentropy": "binary_focal_crossentropy",
    },
    "regression": {
        "MeanSquaredError": "mean_squared_error",
        "MeanAbsoluteError": "mean_absolute_error",
        "MeanAbsolutePercentageError": "mean_absolute_percentage_error",
        "MeanSquaredLogarithmicError": "mean_squared_logarithmic_error",
        "Huber": "huber",
        "LogCosh": "log_cosh",
        "CosineSimilarity": "cosine_similarity",
    },
    "single_label": {
        "SparseCategoricalCrossentropy": "sparse_categorical_crossentropy",
        "CategoricalCrossentropy": "categorical_crossentropy",
        "CategoricalFocalCrossentropy": "categorical_focal_crossentropy",
        "CategoricalHinge": "categorical_hinge",
    },
}


def check_task(task: Any) -> str:
    """Returns the name of a task or `"auto"`, or raises if it is unknown."""
    if task != "auto" and task not in TASKS:
        raise ValueError(
            f"`task` must be 'auto' or one of {list(TASKS)}. "
            f"Received: task={task!r}"
        )
    return task


def task_of(loss: Any, given: str) -> Task:
    """Returns the task of a loss, or the given task.

    Args:
        loss: A loss, a function, or the name of a loss.
        given: Name of a task, or `"auto"`.

    Raises:
        ValueError: If both are known and do not agree.
    """
    loss = keras.losses.get(loss)
    while isinstance(loss, functools.partial):
        loss = loss.func
    for name, losses in _OF_LOSS.items():
        for cls, function in losses.items():
            if isinstance(loss, getattr(keras.losses, cls)) or (
                loss is getattr(keras.losses, function)
            ):
                return _agreed(name, given, cls)
    return TASKS["single_label" if given == "auto" else given]


def _agreed(found: str, given: str, loss: str) -> Task:
    # With one-hot labels, a loss of labels or targets also serves classes.
    one_hot = given == "single_label" or (found, given) == (
        "regression",
        "multi_label",
    )
    if given not in ("auto", found) and not one_hot:
        raise ValueError(
            f"The loss {loss} is for the task {found!r}, but the model was "
            f"made with task={given!r}. Make the model with task='auto', or "
            "choose another loss."
        )
    return TASKS[found if given == "auto" else given]
