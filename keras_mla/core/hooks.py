"""The hooks of a method: everything that a subclass may override."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.core import checks, tasks
from keras_mla.core.batch import Batch
from keras_mla.core.losses import MeanLoss
from keras_mla.core.tasks import Task
from keras_mla.core.update import Outputs, Stage, Update
from keras_mla.layers.fusion import Fusion


class Hooks(keras.Model):
    """The hooks of a multimodal model, with their defaults.

    Hooks may get symbolic tensors of an unknown batch size. `MultimodalModel`
    documents the attributes.
    """

    # Names of the tasks that the method supports.
    tasks: tuple[str, ...] = tuple(tasks.TASKS)
    # Why a method needs all rows of a batch at once, so that neither several
    # devices nor micro-batches can share it: "its loss compares samples".
    # Empty if each loss is a mean over rows.
    whole_batch: str = ""

    modalities: tuple[str, ...]
    encoders: Mapping[str, keras.layers.Layer]
    head: keras.layers.Layer
    projections: Mapping[str, keras.layers.Layer]
    widths: dict[str, int]
    fusion: Fusion | None
    task: Task
    given_task: str
    modality_dropout: float
    dropout_seed: keras.random.SeedGenerator

    # === Features ===

    def check_features(self, name: str, feature: Any) -> None:
        """Raises unless the method can use what an encoder has returned.

        By default, a method needs one tensor of shape `(batch, features)`. A
        method that overrides this hook may take any structure of tensors; it
        must then override `width_of` too, and `unimodal_pass`, or `join` and
        `join_one` if it joins features.

        Args:
            name: Name of the modality.
            feature: Output of the modality's encoder; symbolic when the model
                is built.
        """
        checks.check_features(name, feature)

    def width_of(self, feature: Any) -> int:
        """Returns the width of one modality's features."""
        # Under a tracer, a size may be an object that only acts as an int.
        return int(feature.shape[1])

    def project_features(self, name: str, feature: Any) -> Any:
        """Brings one modality's features to `feature_dim`, if it is given.

        A method whose features are a structure overrides it.

        Args:
            name: Name of the modality.
            feature: What its encoder has returned.
        """
        if self.projections:
            feature = self.projections[name](feature)
        return feature

    def build_head(self, widths: dict[str, int]) -> None:
        """Checks widths of features, and builds or makes the layers for them.

        It is called once, when the model is built. Layers and weights whose
        sizes depend on widths can be made here, all others in the constructor.
        By default, it raises unless all widths are equal, as a shared head
        needs.

        Args:
            widths: dict of the width of each modality's features.
        """
        checks.check_widths(widths)

    # === Updates ===

    def updates(self) -> Sequence[Update]:
        """Returns the updates of a batch, in order.

        Defaults to one update of all layers.
        """
        return [Update(self.modalities, (self,))]

    def stages(self) -> Sequence[Stage]:
        """Returns the stages of training, in order. Defaults to one stage.

        A stage says which updates batches make during some epochs. It changes
        neither which variables are trainable nor the optimizer's state.
        """
        return [Stage(self.updates())]

    def prepare_batch(self, batch: Batch) -> Batch:
        """Changes a batch before its updates, once for each batch.

        Use it for changes that concern all updates, such as hiding values
        (`Batch.hide`), and for what losses need without gradients
        (`Batch.extra`). `batch.training` tells training from evaluation. By
        default, the batch is unchanged.
        """
        return batch

    def update_losses(
        self,
        update: Update,
        outputs: Outputs,
        losses: dict[str, MeanLoss],
        batch: Batch,
    ) -> list[MeanLoss]:
        """Returns the losses whose sum an update minimises.

        There is one loss for each name in `update.losses`, with the number of
        samples that it is the mean of. Defaults to the losses of the update's
        experts, each divided by the number of experts. The caller adds the
        regularisers of the update's layers.

        Args:
            update: The update.
            outputs: Outputs of the update's forward pass.
            losses: dict of each expert's own loss.
            batch: The batch.
        """
        return [
            loss._replace(mean=loss.mean / len(losses))
            if len(losses) > 1
            else loss
            for loss in losses.values()
        ]

    def update_logs(
        self, update: Update, outputs: Outputs, batch: Batch
    ) -> dict[str, MeanLoss]:
        """Returns the values in `update.logs`, reported besides the loss.

        The values appear in the history, in `evaluate` and in TensorBoard, as
        means over the samples that each value counts. Defaults to none.

        Args:
            update: The update.
            outputs: Outputs of the update's forward pass.
            batch: The batch.
        """
        return {}

    def batch_means(
        self, update: Update, outputs: Outputs, batch: Batch
    ) -> dict[str, tuple[Any, Any | None]]:
        """Returns values whose means over the batch change gradients.

        `combine_gradients` and `modify_gradients` find the means in
        `outputs.means`. They are over the whole batch, where `outputs` may be
        those of one of several devices. Defaults to none.

        Args:
            update: The update.
            outputs: Outputs of the update's forward pass.
            batch: The batch.

        Returns:
            dict of name to values, float32 of shape `(batch, ...)`, and which
            rows count, bool of shape `(batch,)` or `None` for all.
        """
        return {}

    def combine_gradients(
        self,
        update: Update,
        gradients: list[list],
        outputs: Outputs,
        batch: Batch,
    ) -> list:
        """Combines the gradients of an update's losses into one.

        A method that overrides this hook gets the gradient of each loss, or of
        each of `update.groups`, from one forward pass. The gradient of
        regularisers is added afterwards. Under loss scaling all gradients are
        multiplied by one factor. For other methods the sum of the losses is
        differentiated.

        Args:
            update: The update.
            gradients: For each of `update.groups`, a list of tensors in the
                order of `update.variables`.
            outputs: Outputs of the forward pass.
            batch: The batch.

        Returns:
            A list of tensors, in the order of `update.variables`.
        """
        return [sum(of_one) for of_one in zip(*gradients, strict=True)]

    def modify_gradients(
        self, update: Update, gradients: list, outputs: Outputs, batch: Batch
    ) -> tuple[list, list]:
        """Changes an update's gradients before they are applied.

        Returns:
            The gradients, in the order of `update.variables`, and a list of
            functions `advance(taken)` that update the method's own state after
            the step. `taken` is `None` if the step is always taken, or a bool
            scalar: false if no sample is present or loss scaling skips the
            step. If it is false, the state must not change
            (`backend.kernels.assign_where`).
        """
        return gradients, []

    # === Predictions ===

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts, whose logits are fused. Defaults to modalities.

        A method may add other experts after the modalities, such as a joint
        head. `expert_pass` computes the logits of each added expert.
        """
        return self.modalities

    def expert_presence(self, presence: Any) -> Any:
        """Returns which experts each sample has.

        Args:
            presence: Bool tensor of shape `(batch, modalities)`.

        Returns:
            Bool tensor of shape `(batch, experts)`. By default, a sample with
            any modality has all experts that are not modalities.
        """
        others = len(self.experts) - len(self.modalities)
        if not others:
            return presence
        known = ops.any(presence, axis=1, keepdims=True)
        return ops.concatenate([presence, *[known] * others], axis=1)

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Maps one modality's features to logits, and keeps other tensors.

        It may be given symbolic tensors of an unknown batch size.

        Args:
            name: Name of the modality.
            feature: Tensor of shape `(batch, features)`.
            training: bool. Whether layers behave as in training.

        Returns:
            Logits `(batch, units)`, and a structure of tensors that
            `modify_gradients` finds in `Outputs.extra[name]`.
        """
        return self.head(feature, training=training), ()

    def expert_pass(
        self,
        name: str,
        features: dict[str, Any],
        training: bool | None,
        presence: Any | None,
    ) -> tuple[Any, Any]:
        """Maps all features to the logits of an expert that is not a modality.

        Args:
            name: Name of the expert.
            features: dict of each modality's features.
            training: bool. Whether layers behave as in training.
            presence: Bool tensor of shape `(batch, modalities)`, or `None`.

        Returns:
            Logits `(batch, units)`, and a structure of tensors to keep.
        """
        raise NotImplementedError

    def default_fusion(self, task: str) -> Fusion | None:
        """Returns the fusion layer for a task, if the user gives none."""
        return None

    # === Around `fit` ===

    def adapt(self, data: Any, batch_size: int | None = None) -> None:
        """Fits parts of a method to data in closed form, before `fit`.

        By default, it does nothing: most methods have nothing to adapt.

        Args:
            data: `(x, y)`, or an iterable of such batches.
            batch_size: int. Batch size of forward passes. Defaults to 32.
        """

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callbacks that a method adds to `fit`. Defaults to none.

        The callbacks begin before the user's callbacks and end after them, so
        that weights which they restore at the end of training stay.
        """
        return []

    # === Of the library ===

    def forget_graphs(self) -> None:
        """Drops compiled functions that Keras does not know about."""
