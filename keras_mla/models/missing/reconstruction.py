"""The base class of methods that reconstruct features of absent modalities."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.core.batch import Batch
from keras_mla.core.losses import MeanLoss
from keras_mla.core.update import Outputs
from keras_mla.models.missing.hiding import HidingModel
from keras_mla.models.missing.terms import (
    NOTHING,
    check_weight,
    counted_mean,
)


def reconstruction_loss(
    guesses: Mapping[str, Any],
    targets: Mapping[str, Any],
    counted: Any | None,
    modalities: Sequence[str],
) -> MeanLoss:
    """Returns the squared error of guessed features, over counted entries.

    It is the mean over a modality's features, and then over the counted
    entries of all samples and modalities. Entries that are not counted may
    hold anything, NaN included.

    Args:
        guesses: dict of each modality's guesses, `(batch, width)`.
        targets: dict of each modality's true features, `(batch, width)`.
        counted: Bool tensor of shape `(batch, modalities)`, or `None` to count
            all entries.
        modalities: Names of the modalities, in the order of `counted`.
    """
    errors = []
    for index, name in enumerate(modalities):
        guess = ops.cast(guesses[name], "float32")
        gap = guess - ops.cast(targets[name], "float32")
        if counted is not None:
            # Before the square: behind it, the gradient of NaN is NaN.
            gap = ops.where(
                counted[:, index][:, None], gap, ops.zeros_like(gap)
            )
        errors.append(ops.mean(ops.square(gap), axis=-1))
    far = ops.stack(errors, axis=1)
    if counted is None:
        return counted_mean(far, ops.ones_like(far))
    return counted_mean(far, ops.cast(counted, far.dtype))


class ReconstructionModel(HidingModel):
    r"""Base class of methods that reconstruct features of absent modalities.

    A subclass defines `joined`, which keeps guessed features by modality, a
    dict `{"guesses": ...}`. Their loss is

    $$R = \frac1{|H|} \sum_{(i, m) \in H} \frac1{d_m}
      \lVert \hat f_{i,m} - \mathrm{sg}(f_{i,m}) \rVert^2,$$

    with H the hidden entries of `HidingModel`, $\hat f$ the guesses, and
    $f_{i,m}$ the $d_m$ features of the true value. Their gradient is stopped.
    They are those that `true_features` has computed before the update, as
    `"features"`, unless a subclass overrides `targets_of`. With
    `targets="present"`, no reconstruction is a part of the loss of an
    evaluation.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`.
        head: int, the number of classes; or a layer, as for `JointModel`.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        reconstruction_weight: float >= 0. The weight of R in the loss.
            Defaults to `1.0`.
        **kwargs: Arguments of `HidingModel`.
    """

    terms_named: tuple[str, ...] = ("reconstruction",)

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        reconstruction_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        self.reconstruction_weight = check_weight(
            "reconstruction_weight", reconstruction_weight
        )

    def targets_of(self, outputs: Outputs, batch: Batch) -> dict[str, Any]:
        """Returns the true features by modality, without gradients.

        It is called if entries are hidden.
        """
        return batch.extra["features"]

    # === Parts of a pass ===

    def shown(
        self, features: dict[str, Any], presence: Any | None, training: Any
    ) -> dict[str, Any]:
        """Returns features to reconstruct from: zeros for absent modalities.

        `impute` may put other values in their place.
        """
        if presence is None:
            if training and self.imputation is not None:
                self.imputation(features, None, training=training)
            return features
        return self.complete(features, presence, training)[0]

    def split(self, joined: Any) -> dict[str, Any]:
        """Returns each modality's part of features side by side."""
        parts, start = {}, 0
        for name in self.modalities:
            parts[name] = joined[:, start : start + self.widths[name]]
            start += self.widths[name]
        return parts

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Returns the prediction with all other modalities absent."""
        features, presence = self.alone(name, feature)
        return self.joined(features, presence, False)[0], ()

    # === Losses ===

    def terms(
        self, outputs: Outputs, batch: Batch
    ) -> dict[str, tuple[float, MeanLoss]]:
        """Returns the weight and the value of each term in `terms_named`."""
        loss = NOTHING
        if batch.extra:
            loss = reconstruction_loss(
                outputs.kept["guesses"],
                self.targets_of(outputs, batch),
                batch.extra["hidden"],
                self.modalities,
            )
        return {"reconstruction": (self.reconstruction_weight, loss)}

    # === Prediction ===

    def imputed(
        self, x: dict[str, Any], batch_size: int | None = None
    ) -> dict[str, Any]:
        """Returns features, with guesses for absent modalities.

        Args:
            x: Inputs as for `predict`; `presence` may be among them.
            batch_size: int. Defaults to 32.

        Returns:
            dict keyed by modality, of NumPy arrays `(samples, features)`. If a
            sample lacks a modality, its features are what the method guesses
            from the modalities that the sample has.
        """
        return self.predict_view("imputed", x, batch_size)

    def view(self, what: str, outputs: Outputs, presence: Any | None) -> dict:
        """Returns what a further prediction consists of, by name."""
        if what != "imputed":
            return super().view(what, outputs, presence)
        if presence is None:
            return outputs.features
        guesses = outputs.kept["guesses"]
        return {
            name: ops.where(
                presence[:, index][:, None],
                outputs.features[name],
                ops.cast(guesses[name], outputs.features[name].dtype),
            )
            for index, name in enumerate(self.modalities)
        }

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "reconstruction_weight": self.reconstruction_weight,
        }
