import types
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mla.backend import internals


@keras.saving.register_keras_serializable(package="keras_mla")
class Teacher(keras.layers.Layer):
    """A fitted, frozen model as a part of another model.

    The teacher is a copy without the optimizer. It always behaves as in
    prediction, no gradient passes through it, and no variable of it is
    trained.

    Args:
        model: The fitted, built `keras.Model`, or `None` for a teacher that
            was left out of a file: a method can then predict, but not train.
        saved: bool. Whether the teacher is saved with the model that it is a
            part of. A teacher that is left out makes the file smaller.
            Defaults to `True`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Inputs of the model.

    Returns:
        What the model returns, without gradients.

    Raises:
        ValueError: If the model is not built, or a teacher that was left out
            of a file is called.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> teacher = keras_mla.core.Teacher(model)
    >>> teacher.trainable_variables
    []
    >>> tuple(teacher(np.ones((2, 4))).shape)
    (2, 3)
    """

    def __init__(
        self, model: keras.Model | None, saved: bool = True, **kwargs: Any
    ) -> None:
        kwargs.pop("trainable", None)
        super().__init__(trainable=False, **kwargs)
        self.saved = bool(saved)
        copy = None
        if model is not None:
            if not model.built:
                raise ValueError(
                    "A teacher must be fitted, but the given model has no "
                    "weights yet: it is not built. "
                    f"Received: model={model.name!r}"
                )
            copy = copy_of(model)
            for layer in internals.sublayers(copy):
                # Each by itself: on TensorFlow, a model that is frozen already
                # passes nothing on to its layers.
                layer.trainable = False
                # What the teacher's features cost is no loss of the student.
                layer.activity_regularizer = None
        # Keras saves the layers that it tracks, and does not look into
        # namespaces.
        self._kept = copy if self.saved else None
        self._left_out = types.SimpleNamespace(model=copy)
        self.built = True

    @property
    def trainable(self) -> bool:
        """Is `False`, even if the model around the teacher is unfrozen."""
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        pass

    @classmethod
    def of(
        cls, model: "keras.Model | Teacher", saved: bool = True
    ) -> "Teacher":
        """Returns a teacher unchanged, or makes a teacher from a model.

        Call it in a constructor, which gets a model from its user and a
        teacher from a file.

        Args:
            model: A fitted, built `keras.Model`, or a `Teacher`.
            saved: bool. Whether a teacher that is made here is saved with the
                model that it is a part of. Defaults to `True`.
        """
        return model if isinstance(model, Teacher) else cls(model, saved)

    @property
    def known(self) -> bool:
        """Whether there is a model: a file may have left it out."""
        return self._left_out.model is not None

    @property
    def model(self) -> keras.Model:
        """The frozen copy.

        Raises:
            ValueError: If the teacher was left out of a file.
        """
        model = self._left_out.model
        if model is None:
            raise ValueError(
                "The teacher was left out of the file that this model was "
                "loaded from, and training needs it. Make the model again with "
                "its teacher, and load the weights."
            )
        return model

    def call(self, inputs: Any) -> Any:
        """Returns what the model returns, without gradients."""
        return self.compute(lambda model: model(inputs, training=False))

    def compute(self, function: Callable) -> Any:
        """Returns what a function returns for the model, without gradients.

        Use it for results other than the model's own output, such as the
        results of `encode` and `forward_pass`.

        Args:
            function: Function of the model that returns a structure of tensors.
        """
        found = keras.tree.map_structure(
            ops.stop_gradient, function(self.model)
        )
        # The losses that its layers add are no losses of the student.
        internals.clear_losses(self.model)
        return found

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        model = self._kept
        return {
            **super().get_config(),
            "model": None
            if model is None
            else keras.saving.serialize_keras_object(model),
            "saved": self.saved,
        }

    @classmethod
    def from_config(cls, config: dict) -> "Teacher":
        """Makes a teacher from its config."""
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(**{**config, "model": model})


def copy_of(model: keras.Model) -> keras.Model:
    """Returns a copy of a model with the same weights, not compiled."""
    config = keras.saving.serialize_keras_object(model)
    config = {k: v for k, v in config.items() if k != "compile_config"}
    copy = keras.saving.deserialize_keras_object(config)
    copy.set_weights(model.get_weights())
    return copy
