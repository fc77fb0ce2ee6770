from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.core.batch import Batch
from keras_mla.core.joint import JointModel
from keras_mla.core.losses import MeanLoss
from keras_mla.core.update import Outputs, Update


@keras.saving.register_keras_serializable(package="keras_mla")
class DGL(JointModel):
    r"""Disentangled gradient learning.

    One head takes all features side by side. The joint loss moves the head
    alone, and the loss of each modality moves its encoder alone:

    $$L_g = \mathrm{CE}(g([\mathrm{sg}(f_1); \dots; \mathrm{sg}(f_M)]), y),
      \qquad
      L_m = \alpha\, \mathrm{CE}(g([0; \dots; f_m; \dots; 0]), y),$$

    with $\mathrm{sg}$ a stopped gradient. So no modality holds another one's
    encoder back, and the encoders' losses do not move the head, which need not
    serve features with zeros beside them. Losses are over the modalities that
    a sample has; the features of absent modalities are zeros in the joint
    prediction, unless `impute` says otherwise.

    Its scores of a modality are those that it trains on, with the whole bias of
    the head.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width. It trains with the encoder.
        alpha: float > 0. Weight of the encoders' losses. Defaults to `2.0`;
            the paper takes 2 to 5.
        **kwargs: `impute`, as for `keras_mla.core.JointModel`; `task`,
            `allow_nan`, `table` and `modality_dropout`, as for
            `MultimodalModel`; `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Logits, float32 of shape `(batch, classes)`.

    Raises:
        TypeError: If an encoder is not a Keras layer.
        ValueError: If `alpha` is out of its range, or encoders, head or inputs
            do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.DGL(encoders, head=3)
    >>> x = {"image": np.ones((2, 4)), "text": np.ones((2, 4))}
    >>> model.predict(x, verbose=0).shape
    (2, 3)

    Reference:
        Wei et al., "Boosting Multimodal Learning via Disentangled Gradient
        Learning", ICCV 2025, section 3.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        alpha: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        if not alpha > 0:
            raise ValueError(
                f"`alpha` must be greater than 0. Received: alpha={alpha}"
            )
        self.alpha = float(alpha)

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Applies the head to one modality's features beside zeros."""
        features, _ = self.alone(name, feature)
        return self.join(features, training), ()

    def joined(
        self,
        features: dict[str, Any],
        presence: Any | None,
        training: bool | None,
    ) -> tuple[Any, Any]:
        """Returns the joint logits, without gradients for the encoders."""
        stopped = {n: ops.stop_gradient(f) for n, f in features.items()}
        return super().joined(stopped, presence, training)

    def updates(self) -> Sequence[Update]:
        """Returns one update of all layers, by joint and unimodal losses."""
        losses = ("fused", *self.modalities)
        groups = (("fused",), self.modalities)
        return [Update(self.modalities, (self,), losses, groups=groups)]

    def update_losses(
        self,
        update: Update,
        outputs: Outputs,
        losses: dict[str, MeanLoss],
        batch: Batch,
    ) -> list[MeanLoss]:
        """Returns the joint loss, and each modality's own, weighted."""
        own = [
            loss._replace(mean=self.alpha * loss.mean)
            for loss in losses.values()
        ]
        return [self.fused_loss(outputs, batch), *own]

    def combine_gradients(
        self,
        update: Update,
        gradients: list[list],
        outputs: Outputs,
        batch: Batch,
    ) -> list:
        """Returns the encoders' own gradients, and the joint loss's others."""
        joint, own = gradients
        of_encoders = {
            id(variable)
            for name in self.modalities
            for variable in self.variables_of(name)
        }
        return [
            of_own if id(variable) in of_encoders else of_joint
            for variable, of_joint, of_own in zip(
                update.variables, joint, own, strict=True
            )
        ]

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {**super().get_config(), "alpha": self.alpha}
