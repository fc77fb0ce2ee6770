"""The base class of methods whose teacher knows what is hidden."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_mla.core import building
from keras_mla.core.heads import number_of_units
from keras_mla.core.model import MultimodalModel
from keras_mla.core.teacher import Teacher
from keras_mla.models.missing.hiding import HidingModel


class ModelOrTeacher:
    """Is the class of teachers in a method's class, and a model's teacher.

    `IFMMIN.teacher(...)` makes the model to fit, and `model.teacher` is the
    `Teacher` that a model has.
    """

    def __get__(self, model: Any, cls: Any) -> Any:
        """Returns the class, or the teacher of a model."""
        return cls.teacher_class if model is None else model.taught_by


class TaughtModel(HidingModel):
    """Base class of methods whose teacher knows what is hidden.

    An encoder starts from the weights of the teacher's encoder if both have
    weights of the same shapes; else it keeps its own. The projection of
    `feature_dim` does so too. An encoder that is not built yet is built for
    the teacher's inputs.

    Args:
        encoders: dict of modality name to Keras layer or model.
        head: int, the number of classes; or a layer, as for `JointModel`.
        feature_dim: int. If given, the width of projected features.
        teacher: The fitted model, or its `Teacher`.
        teacher_saved: bool. Whether the teacher is saved with the model.
            Defaults to `True`.
        **kwargs: Arguments of `HidingModel`.
    """

    # What a teacher is, and what makes one, for errors.
    teacher_class: type = MultimodalModel
    example = "keras_mla.models.ConcatFusion"
    # The layer is not called `teacher`: on PyTorch it could then not stand
    # beside an attribute of the class.
    taught_by: Teacher

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        teacher: Any = None,
        teacher_saved: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        if not isinstance(teacher, Teacher):
            self.check_teacher(teacher)
        elif teacher.known:
            self.check_teacher(teacher.model)
        self.taught_by = Teacher.of(teacher, teacher_saved)
        if self.taught_by.known:
            self.start_from(self.taught_by.model)

    def check_teacher(self, teacher: Any) -> None:
        """Raises unless a model can be the teacher."""
        if not isinstance(teacher, MultimodalModel):
            raise ValueError(
                f"{type(self).__name__} needs a teacher: pass "
                f"`teacher=model`, a fitted model such as a `{self.example}` "
                "of the same modalities. "
                f"Received: teacher={teacher!r}"
            )
        if set(teacher.modalities) != set(self.modalities):
            raise ValueError(
                "The teacher must have the modalities of the model. Received: "
                f"a teacher with {list(teacher.modalities)}, and encoders for "
                f"{list(self.modalities)}"
            )
        theirs, own = map(number_of_units, (teacher.head, self.head))
        if theirs != own:
            raise ValueError(
                "The teacher must have the classes of the model. Received: a "
                f"teacher with {theirs}, and a head with {own}"
            )
        if not isinstance(teacher, self.teacher_class):
            raise ValueError(
                f"The teacher of {type(self).__name__} must be of the class "
                f"`{self.teacher_class.__name__}`, which `{self.example}` "
                "makes. Received: a teacher of type "
                f"{type(teacher).__name__}"
            )

    def start_from(self, teacher: MultimodalModel) -> None:
        """Copies the weights of a teacher's encoders, where shapes are equal.

        Args:
            teacher: The teacher's model.
        """
        signature = (teacher.get_build_config() or {})["signature"]
        for name, encoder in self.encoders.items():
            if not encoder.built:
                building.encode_symbolically(encoder, signature[name])
            if not copy_weights(teacher.encoders[name], encoder):
                continue
            if self.projections and teacher.projections:
                projection = self.projections[name]
                theirs = teacher.projections[name]
                projection.build((None, theirs.kernel.shape[0]))
                copy_weights(theirs, projection)

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "teacher": keras.saving.serialize_keras_object(self.taught_by),
            "teacher_saved": self.taught_by.saved,
        }


def copy_weights(
    source: keras.layers.Layer, target: keras.layers.Layer
) -> bool:
    """Copies weights if both layers have the same shapes of them.

    Returns:
        Whether weights were copied.
    """
    shapes = [[tuple(v.shape) for v in one.weights] for one in (source, target)]
    if shapes[0] != shapes[1]:
        return False
    target.set_weights(source.get_weights())
    return True
