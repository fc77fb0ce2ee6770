"""The base class of methods that train one modality at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.core import building, heads
from keras_mla.core.batch import Batch
from keras_mla.core.model import MultimodalModel
from keras_mla.core.update import Outputs, Update
from keras_mla.layers import projected_dense
from keras_mla.layers.fusion import (
    EntropyFusion,
    Fusion,
    InverseVarianceFusion,
)
from keras_mla.layers.gradient_projector import GradientProjector


class _Within:
    """Where the model is called from; not a layer's attribute, for speed."""

    def __init__(self) -> None:
        self.step = False


class AlternatingModel(MultimodalModel):
    """Base class of methods that train one modality at a time, with one head.

    `keras_mla.MLA` says how.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. The order of the
            dict is the order in which modalities are trained.
        head: int, the number of classes, labels or targets; or a
            `keras.layers.Dense`; or a `keras.Sequential` that ends in one. It
            returns logits.
        feature_dim: int. If given, a linear projection per modality brings its
            features to this width.
        projector: `GradientProjector`. Each Dense kernel of the head gets a
            projector with its settings. `None` trains without projection.
            Defaults to `"auto"`, which means `GradientProjector()`.
        fusion: `Fusion` layer. Defaults to `EntropyFusion()`; for regression,
            to `InverseVarianceFusion()`.
        **kwargs: Arguments of `MultimodalModel`: `task`, `allow_nan`, `table`,
            `modality_dropout`, `name`, `dtype`.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        projector: GradientProjector | str | None = "auto",
        fusion: Fusion | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        # === Layers ===
        if projector == "auto":
            projector = GradientProjector()
        if not isinstance(projector, GradientProjector | None):
            raise TypeError(
                "`projector` must be a `keras_mla.layers.GradientProjector`, "
                f"'auto', or None. Received: projector={projector}"
            )
        self.make_fusion(fusion)
        # === Config ===
        # Only the config is kept: the given projector is a template.
        self.projector_config = (
            None
            if projector is None
            else keras.saving.serialize_keras_object(projector)
        )
        self._within = _Within()
        # One projector per Dense kernel of the head, in the head's order.
        self.projectors = [
            type(projector).from_config(
                {**projector.get_config(), "name": f"projector_{index}"}
            )
            for index, _ in enumerate(heads.dense_layers(self.head))
            if projector is not None
        ]

    def default_fusion(self, task: str) -> Fusion:
        """Returns `EntropyFusion`; for regression, `InverseVarianceFusion`."""
        if task == "regression":
            return InverseVarianceFusion()
        return EntropyFusion(task)

    def updates(self) -> Sequence[Update]:
        """Returns one update per modality, of its encoder and the shared head.

        Raises:
            ValueError: If the head has LoRA and a projector.
        """
        for dense in heads.dense_layers(self.head) if self.projectors else ():
            if dense.lora_enabled:
                raise ValueError(
                    "A head with LoRA cannot be projected: LoRA trains two "
                    "other matrices instead of the kernel. Enable LoRA in the "
                    "encoders alone, or make the model with `projector=None`. "
                    f"Received: LoRA in the layer {dense.name!r} of the head"
                )
        return [
            Update(
                (name,),
                (
                    self.encoders[name],
                    *(p for m, p in self.projections.items() if m == name),
                    self.head,
                ),
            )
            for name in self.modalities
        ]

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Applies the head, and keeps the input of each of its Dense layers."""
        if not self.head.built:
            self.head.build((None, feature.shape[1]))
        projectors = {}
        for projector, dense in zip(
            self.projectors, heads.dense_layers(self.head), strict=False
        ):
            if not projector.built:
                projector.build(dense.kernel.shape)
            projectors[id(dense)] = projector
        inputs = []
        for layer in heads.leaves(self.head):
            projector = projectors.get(id(layer))
            if isinstance(layer, keras.layers.Dense):
                inputs.append(feature)
            if projector is not None and self._projects(layer, projector):
                feature = projected_dense.call(layer, projector, feature)
            else:
                feature = layer(feature, training=training)
        return feature, inputs

    def _projects(
        self, dense: keras.layers.Dense, projector: GradientProjector
    ) -> bool:
        """Returns whether a pass projects the gradient of a head's kernel.

        Only in a training step: other gradients of the model stay as they are.
        """
        return (
            self._within.step
            and self._hooks_are_ours
            and projected_dense.can_project(dense, projector)
        )

    @property
    def _hooks_are_ours(self) -> bool:
        # Hooks of a user's subclass may need the gradients as they are, or
        # make losses of the head in another way.
        hooks = (
            "unimodal_pass",
            "update_losses",
            "combine_gradients",
            "batch_means",
            "modify_gradients",
        )
        return all(
            getattr(type(self), hook).__module__.startswith("keras_mla.")
            for hook in hooks
        )

    def train_step(self, *args: Any) -> Any:
        """Trains one batch."""
        self._within.step = True
        try:
            return super().train_step(*args)
        finally:
            self._within.step = False

    def batch_means(
        self, update: Update, outputs: Outputs, batch: Batch
    ) -> dict[str, tuple[Any, Any | None]]:
        """Asks for the mean input of each Dense kernel of the head."""
        name, *others = update.modalities
        if others:  # A subclass has added a joint update.
            return {}
        present, found = batch.present(name), outputs.extra.get(name, ())
        return {
            projector.name: (ops.cast(inputs, "float32"), present)
            for projector, inputs in zip(self.projectors, found, strict=False)
        }

    def modify_gradients(
        self, update: Update, gradients: list, outputs: Outputs, batch: Batch
    ) -> tuple[list, list]:
        """Projects the gradient of each Dense kernel of the head."""
        gradients, advances = list(gradients), []
        position = {id(v): i for i, v in enumerate(update.variables)}
        for projector, dense in zip(
            self.projectors, heads.dense_layers(self.head), strict=False
        ):
            index = position.get(id(dense.kernel))
            if index is None:  # The kernel is frozen.
                continue
            arguments = {}
            if self._projects(dense, projector):
                arguments["projected"] = True
            gradients[index], advance = projector.project(
                gradients[index], outputs.means[projector.name], **arguments
            )
            advances.append(advance)
        return gradients, advances

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "projector": building.plain(self.projector_config),
            "fusion": keras.saving.serialize_keras_object(self.fusion),
        }
