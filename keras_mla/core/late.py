"""The base classes of methods with a head for each modality."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mla.core.batch import Batch
from keras_mla.core.losses import MeanLoss
from keras_mla.core.model import MultimodalModel
from keras_mla.core.update import Outputs, Update
from keras_mla.layers.fusion import (
    AdditiveFusion,
    AverageFusion,
    Fusion,
    InverseVarianceFusion,
)


class LateModel(MultimodalModel):
    """Base class of methods with a head for each modality.

    The first modality has the given head; each other modality gets a new head
    like it, with its own weights. Widths of features may differ. Each modality
    has one update, of all its layers, unless a subclass defines other
    `updates`. A layer fuses the logits.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes, labels or targets; or a
            `keras.layers.Dense`; or a `keras.Sequential` that ends in one. It
            returns logits. Each other modality gets a new head like it.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        fusion: `Fusion` layer. Defaults to what `default_fusion` returns.
        **kwargs: Arguments of `MultimodalModel`: `task`, `allow_nan`, `table`,
            `modality_dropout`, `name`, `dtype`.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        fusion: Fusion | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        # === Layers ===
        self.heads = {
            name: self.head if index == 0 else self.head_like(f"{name}_head")
            for index, name in enumerate(encoders)
        }
        self.make_fusion(fusion)

    def default_fusion(self, task: str) -> Fusion:
        """Returns `AverageFusion`; for regression, `InverseVarianceFusion`."""
        regression = task == "regression"
        return InverseVarianceFusion() if regression else AverageFusion()

    def build_head(self, widths: dict[str, int]) -> None:
        """Builds each modality's head for its width."""
        for name, width in widths.items():
            if not self.heads[name].built:
                self.heads[name].build((None, width))

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Applies the modality's own head."""
        return self.heads[name](feature, training=training), ()

    def parts(self, name: str) -> tuple[keras.layers.Layer, ...]:
        """Returns the layers that belong to one modality.

        Args:
            name: str. Name of the modality.
        """
        projection = self.projections.get(name)
        return (
            self.encoders[name],
            *(() if projection is None else (projection,)),
            self.heads[name],
        )

    def updates(self) -> Sequence[Update]:
        """Returns one update per modality, of all its layers."""
        return [Update((name,), self.parts(name)) for name in self.modalities]

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "fusion": keras.saving.serialize_keras_object(self.fusion),
        }


class MultiLossModel(LateModel):
    """Base class of methods with a joint loss, and a loss for each modality.

    The joint loss is that of the fused logits, by default their sum. Arguments
    are those of `LateModel`.
    """

    def default_fusion(self, task: str) -> Fusion:
        """Returns `AdditiveFusion`; for regression, `InverseVarianceFusion`."""
        regression = task == "regression"
        return InverseVarianceFusion() if regression else AdditiveFusion()

    def updates(self) -> Sequence[Update]:
        """Returns one update of all layers, by fused and unimodal losses."""
        losses = ("fused", *self.modalities)
        return [Update(self.modalities, (self,), losses)]

    def update_losses(
        self,
        update: Update,
        outputs: Outputs,
        losses: dict[str, MeanLoss],
        batch: Batch,
    ) -> list[MeanLoss]:
        """Returns the fused loss and each modality's own loss."""
        return [self.fused_loss(outputs, batch), *losses.values()]
