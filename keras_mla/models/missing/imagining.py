"""The base class of methods that imagine the features of a teacher."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mla.models.missing.cascade import CascadedAutoencoder, dense_stack
from keras_mla.models.missing.reconstruction import ReconstructionModel
from keras_mla.models.missing.taught import TaughtModel


class ImaginingModel(TaughtModel, ReconstructionModel):
    r"""Base class of methods that imagine the features of a teacher.

    $$\hat h, l = A([\tilde f_1; \dots; \tilde f_M]), \qquad
      z = g(C(l)),$$

    with a cascade A, the latents l of its blocks, hidden layers C and the head
    g. The parts of $\hat h$ are compared with the features of the teacher.

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
        train_complete: bool. As for `HidingModel`. Defaults to `False`.
        **kwargs: Arguments of `ReconstructionModel`.
    """

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
            teacher,
            teacher_saved,
            train_complete=train_complete,
            **kwargs,
        )
        self.cascade = cascade or CascadedAutoencoder()
        self.classifier = tuple(classifier)
        self.dropout = float(dropout)
        self.hidden = dense_stack(
            self.classifier, "classifier", dropout=self.dropout
        )

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
            "widths": list(self.cascade.widths),
            "blocks": self.cascade.blocks,
            "classifier": list(self.classifier),
            "dropout": self.dropout,
        }
