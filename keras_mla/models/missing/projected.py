"""The base class of methods that join projections of features."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_mla.core.joint import JointModel


class ProjectedModel(JointModel):
    """Base class of methods whose head takes projections side by side.

    A network for each modality follows its encoder. The projections of absent
    modalities are replaced as `impute` says, by default by zeros. The loss of
    the prediction trains the head alone: its gradient stops before the
    networks.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        **kwargs: Arguments of `JointModel`.

    Attributes:
        networks: dict of modality to its network, filled when the model is
            built.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        if len(self.modalities) < 2:
            raise ValueError(
                f"{type(self).__name__} correlates modalities and needs at "
                f"least two. Received: encoders for {list(self.modalities)}"
            )
        self.networks: dict[str, keras.layers.Layer] = {}
        self.sizes: dict[str, int] = {}

    # === What a method defines ===

    def network_sizes(self, widths: dict[str, int]) -> dict[str, int]:
        """Returns the width of each modality's projection."""
        raise NotImplementedError

    def make_network(
        self, name: str, inputs: int, outputs: int
    ) -> keras.layers.Layer:
        """Returns the network of a modality.

        Args:
            name: Name of the modality.
            inputs: int. Width of its features.
            outputs: int. Width of its projection.
        """
        raise NotImplementedError

    # === Implementation ===

    def build_head(self, widths: dict[str, int]) -> None:
        """Makes the networks, and builds the head for their outputs."""
        self.sizes = self.network_sizes(widths)
        self.networks = {
            name: self.make_network(name, inputs, self.sizes[name])
            for name, inputs in widths.items()
        }
        for name, inputs in widths.items():
            if not self.networks[name].built:
                self.networks[name].build((None, inputs))
        super().build_head(self.sizes)

    def variables_of(self, name: str) -> list:
        """Returns the variables of a modality's encoder and network."""
        network = self.networks.get(name)
        own = [] if network is None else network.variables
        return [*super().variables_of(name), *own]

    def project(
        self, features: dict[str, Any], training: bool | None
    ) -> tuple[Any, ...]:
        """Returns the projections of all modalities, in their order."""
        # Absent rows hold copies of present ones, so statistics are right.
        return tuple(
            self.networks[name](features[name], training=training)
            for name in self.modalities
        )

    def joined(
        self,
        features: dict[str, Any],
        presence: Any | None,
        training: bool | None,
    ) -> tuple[Any, Any]:
        """Returns the logits of the projections, and keeps the projections."""
        kept = self.project(features, training)
        stopped = map(ops.stop_gradient, kept)
        projections = dict(zip(self.modalities, stopped, strict=True))
        logits, _ = super().joined(projections, presence, training)
        return logits, kept

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Joins one modality's projection with zeros for all others."""
        projection = self.networks[name](feature, training=False)
        # Not `ops.zeros`: the size of the batch may be unknown.
        nothing = ops.zeros_like(projection[:, :1])
        projections = {
            other: projection
            if other == name
            else ops.repeat(nothing, size, axis=1)
            for other, size in self.sizes.items()
        }
        return self.join_one(projections), ()
