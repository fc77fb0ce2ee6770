"""What stands in the place of features of absent modalities."""

from typing import Any

import keras
from keras import ops

from keras_mla.backend import distribution, kernels
from keras_mla.core.batch import present_share

KINDS = ("zeros", "mean", "token")


@keras.saving.register_keras_serializable(package="keras_mla")
class Imputation(keras.layers.Layer):
    """Replaces the features of absent modalities by one vector for each.

    Args:
        kind: `"mean"`, a running mean of the modality's present features in
            training; or `"token"`, a learned vector.
        momentum: float in [0, 1). How much of the running mean a batch keeps.
            The first batches count equally. Defaults to `0.99`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        features: dict of modality to tensor `(batch, width)`.
        presence: Bool tensor `(batch, modalities)`, or `None` if all
            modalities are there.
        training: bool. Whether to move the running means.

    Returns:
        dict of modality to tensor `(batch, width)`.
    """

    def __init__(
        self, kind: str, momentum: float = 0.99, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.momentum = float(momentum)

    def build(self, features_shape: dict[str, tuple]) -> None:
        """Makes a vector for each modality."""
        learned = self.kind == "token"
        self.vectors = {
            name: self.add_weight(
                shape=(shape[-1],),
                initializer="random_normal" if learned else "zeros",
                trainable=learned,
                dtype=None if learned else "float32",
                autocast=learned,
                name=f"{name}_{self.kind}",
            )
            for name, shape in features_shape.items()
        }
        # Batches that have moved each mean.
        self.counts = {
            name: self.add_weight(
                shape=(),
                initializer="zeros",
                trainable=False,
                dtype="float32",
                autocast=False,
                name=f"{name}_count",
            )
            for name in ([] if learned else features_shape)
        }

    def call(
        self,
        features: dict[str, Any],
        presence: Any | None,
        training: bool | None = None,
    ) -> dict[str, Any]:
        """Replaces features of absent modalities, row by row."""
        done = {}
        for index, (name, feature) in enumerate(features.items()):
            present = None if presence is None else presence[:, index]
            if training and self.counts:
                self._move(name, feature, present)
            done[name] = feature
            if present is not None:
                vector = ops.cast(self.vectors[name], feature.dtype)
                done[name] = ops.where(present[:, None], feature, vector)
        return done

    def _move(self, name: str, feature: Any, present: Any | None) -> None:
        """Moves a running mean by the features that a batch has."""
        feature = ops.stop_gradient(ops.cast(feature, "float32"))
        mean = distribution.global_mean(feature, present)
        count = self.counts[name] + 1
        rate = ops.maximum(1 - self.momentum, 1 / count)
        seen = None if present is None else present_share(present) > 0
        vector = self.vectors[name]
        kernels.assign_where(seen, vector, vector + rate * (mean - vector))
        kernels.assign_where(seen, self.counts[name], count)

    def compute_output_shape(
        self, features_shape: dict[str, tuple], *args: Any
    ) -> dict[str, tuple]:
        """Returns the shapes of the features."""
        return features_shape

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "kind": self.kind,
            "momentum": self.momentum,
        }
