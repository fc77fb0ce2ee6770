from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mla.layers.fusion import AdditiveFusion
from keras_mla.models.batch import Batch
from keras_mla.models.late_fusion import SeparateHeads
from keras_mla.models.losses import MeanLoss
from keras_mla.models.trainer import Outputs, Update


@keras.saving.register_keras_serializable(package="keras_mla")
class MultiLossFusion(SeparateHeads):
    r"""Joint training with a loss for each modality beside the joint one.

    $$z_m = g_m(f_m), \qquad z = \sum_m z_m, \qquad
      L = \mathrm{CE}(z, y) + \sum_m \mathrm{CE}(z_m, y)$$

    A plain control: modalities learn together, and none can be lazy. The sum
    and the losses are over the modalities that a sample has.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits. The
            other modalities get one like it.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        **kwargs: Of `keras.Model`: `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Raises:
        ValueError: If encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.MultiLossFusion(encoders, head=3)
    >>> x = {"image": np.ones((2, 4)), "text": np.ones((2, 4))}
    >>> model.predict(x, verbose=0).shape
    (2, 3)

    Reference:
        Wang et al., "What Makes Training Multi-Modal Classification Networks
        Hard?", CVPR 2020, Eq. 3 with all weights 1.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        self.fusion = AdditiveFusion()
        self.build_if_possible()

    def updates(self) -> Sequence[Update]:
        """One update of everything, by a loss of the sum and of each part."""
        losses = ("fused", *self.modalities)
        return [Update(self.modalities, (self,), losses)]

    def update_losses(
        self,
        update: Update,
        outputs: Outputs,
        losses: dict[str, MeanLoss],
        batch: Batch,
    ) -> list[MeanLoss]:
        """Returns the loss of the sum and each modality's own."""
        return [self.fused_loss(outputs, batch), *losses.values()]
