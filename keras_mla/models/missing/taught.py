"""The base class of methods whose teacher says what to reconstruct."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mla.core import building
from keras_mla.core.heads import number_of_units
from keras_mla.core.model import MultimodalModel
from keras_mla.core.teacher import Teacher
from keras_mla.models.missing.cascade import CascadedAutoencoder, dense_stack
from keras_mla.models.missing.reconstruction import ReconstructionModel


class TaughtModel(ReconstructionModel):
    r"""Base class of methods whose teacher says what to reconstruct.

    $$\hat h, l = A([\tilde f_1; \dots; \tilde f_M]), \qquad
      z = g(C(l)),$$

    with a cascade A, the latents l of its blocks, hidden layers C and the head
    g. The parts of $\hat h$ are compared with the features of the teacher.

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
        cascade: `CascadedAutoencoder`, not built.
        classifier: Sequence of int. Widths of the hidden layers before the
            head. Defaults to `(128, 128)`.
        dropout: float. Rate behind each hidden layer. Defaults to `0.3`.
        train_complete: bool. As for `ReconstructionModel`. Defaults to
            `False`.
        **kwargs: Arguments of `ReconstructionModel`.
    """

    # What a teacher is, for errors.
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
        cascade: CascadedAutoencoder | None = None,
        classifier: Sequence[int] = (128, 128),
        dropout: float = 0.3,
        train_complete: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            encoders,
            head,
            feature_dim,
            train_complete=train_complete,
            **kwargs,
        )
        if not isinstance(teacher, Teacher):
            self.check_teacher(teacher)
        elif teacher.known:
            self.check_teacher(teacher.model)
        self.taught_by = Teacher.of(teacher, teacher_saved)
        self.cascade = cascade or CascadedAutoencoder()
        self.classifier = tuple(classifier)
        self.dropout = float(dropout)
        self.hidden = dense_stack(
            self.classifier, "classifier", dropout=self.dropout
        )
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

    def build_head(self, widths: dict[str, int]) -> None:
        """Builds the cascade, the hidden layers and the head.

        Raises:
            ValueError: If the teacher's features have other widths.
        """
        if self.taught_by.known:
            theirs = {m: self.taught_by.model.widths[m] for m in widths}
            if theirs != widths:
                raise ValueError(
                    "The teacher's features are to be reconstructed, so they "
                    "must be as wide as those of the model. Received: a "
                    f"teacher with features of width {theirs}, and encoders "
                    f"with features of width {widths}"
                )
        self.cascade.build((None, sum(widths.values())))
        latents = self.cascade.blocks * self.cascade.widths[-1]
        self.hidden.build((None, latents))
        if not self.head.built:
            self.head.build((None, (latents, *self.classifier)[-1]))

    def classify(self, latents: Any, training: bool | None) -> Any:
        """Returns the logits of the latents of all blocks."""
        hidden = self.hidden(latents, training=training)
        return self.head(hidden, training=training)

    def true_features(self, values: dict[str, Any], known: Any) -> dict:
        """Returns the features that the teacher computes from true values."""
        return self.taught_by.compute(
            lambda teacher: {
                "features": {
                    name: teacher.encode(
                        name, values[name], False, known[:, index]
                    )
                    for index, name in enumerate(self.modalities)
                }
            }
        )

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "teacher": keras.saving.serialize_keras_object(self.taught_by),
            "teacher_saved": self.taught_by.saved,
            "widths": list(self.cascade.widths),
            "blocks": self.cascade.blocks,
            "classifier": list(self.classifier),
            "dropout": self.dropout,
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
