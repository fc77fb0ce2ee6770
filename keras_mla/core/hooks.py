"""What a method defines: everything that a subclass may override."""

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
    """The hooks of a multimodal model, with what they do by default.

    Hooks may be given symbolic tensors of an unknown batch size. For the
    attributes see `MultimodalModel`.
    """

    # Names of the tasks that the method is for.
    tasks: tuple[str, ...] = tuple(tasks.TASKS)

    modalities: tuple[str, ...]
    encoders: Mapping[str, keras.layers.Layer]
    head: keras.layers.Layer
    widths: dict[str, int]
    fusion: Fusion | None
    task: Task
    given_task: str

    # === Features ===

    def check_features(self, name: str, feature: Any) -> None:
        """Raises unless an encoder returned what the method can use.

        Defaults to one tensor of shape `(batch, features)`. A method that
        overrides it may take any structure of tensors; it then overrides
        `width_of` and `unimodal_pass` too.

        Args:
            name: The modality.
            feature: What its encoder returned, symbolic when the model is
                built.
        """
        checks.check_features(name, feature)

    def width_of(self, feature: Any) -> int:
        """Returns the width of one modality's features."""
        # Under a tracer, a dimension may only act as an int.
        return int(feature.shape[1])

    def build_head(self, widths: dict[str, int]) -> None:
        """Checks features' widths, and builds or makes what takes features.

        Called once, when the model is built: layers and weights whose sizes
        depend on widths can be made here, others in the constructor. Defaults
        to what a shared head needs: that all widths are equal.

        Args:
            widths: The width of each modality's features.
        """
        checks.check_widths(widths)

    # === Updates ===

    def updates(self) -> Sequence[Update]:
        """The updates of one batch, in order. Defaults to one of everything."""
        return [Update(self.modalities, (self,))]

    def stages(self) -> Sequence[Stage]:
        """The stages of training, in order. Defaults to one.

        A stage says which updates batches make during some epochs. It changes
        neither what is trainable nor the optimizer's state.
        """
        return [Stage(self.updates())]

    def prepare_batch(self, batch: Batch) -> Batch:
        """Changes a batch before its updates. Called once for each batch.

        Use it for what concerns all updates, such as hiding values
        (`Batch.hide`). `batch.training` tells training from evaluation.
        Defaults to the batch as it is.
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

        There are as many as `update.losses` names, each with the number of
        samples that it is the mean of. Defaults to the losses of the update's
        experts, each over their number. Regularisers of the update's layers
        are added by the caller.

        Args:
            update: The update.
            outputs: What its forward pass yields.
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
        """Returns values to report beside the loss, as `update.logs` names.

        They appear in the history, in `evaluate` and in TensorBoard, as means
        over the samples that each counts. Defaults to none.

        Args:
            update: The update.
            outputs: What its forward pass yields.
            batch: The batch.
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

        A method that overrides this gets the gradient of each loss, from one
        forward pass. The gradient of regularisers is added afterwards. Under
        loss scaling all gradients are multiplied by one factor. A method that
        does not override it differentiates the sum of the losses.

        Args:
            update: The update.
            gradients: For each of `update.losses`, a list of tensors in the
                order of `update.variables`.
            outputs: What the forward pass yields.
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
            functions `advance(taken)` that move state of the method's own with
            the step. `taken` is `None`, or a bool scalar: false where no sample
            is present, and where loss scaling skips the step. Then nothing may
            change (`backend.kernels.assign_where`).
        """
        return gradients, []

    # === Predictions ===

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of what gives logits that are fused. Defaults to modalities.

        A method may add others after them, such as a joint head. Each is
        computed by `expert_pass`.
        """
        return self.modalities

    def expert_presence(self, presence: Any) -> Any:
        """Tells which experts each sample has.

        Args:
            presence: Bool tensor of shape `(batch, modalities)`.

        Returns:
            Bool tensor of shape `(batch, experts)`. An expert that is no
            modality needs any modality, unless a method overrides this.
        """
        others = len(self.experts) - len(self.modalities)
        if not others:
            return presence
        known = ops.any(presence, axis=1, keepdims=True)
        return ops.concatenate([presence, *[known] * others], axis=1)

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Maps one modality's feature to logits, and anything worth keeping.

        It may be given symbolic tensors of an unknown batch size.

        Args:
            name: The modality.
            feature: Tensor of shape `(batch, features)`.
            training: Whether layers behave as in training.

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
        """Maps all features to the logits of an expert that is no modality.

        Args:
            name: The expert.
            features: dict of each modality's features.
            training: Whether layers behave as in training.
            presence: Bool tensor of shape `(batch, modalities)`, or `None`.

        Returns:
            Logits `(batch, units)`, and anything worth keeping.
        """
        raise NotImplementedError

    def default_fusion(self, task: str) -> Fusion | None:
        """Returns the fusion layer for a task where the user gives none."""
        return None

    # === Around `fit` ===

    def adapt(self, data: Any, batch_size: int | None = None) -> None:
        """Fits what a method fits to data in closed form, before `fit`.

        Defaults to nothing: most methods have nothing to adapt.

        Args:
            data: `(x, y)`, or an iterable of such batches.
            batch_size: int. Of the passes that are made. Defaults to 32.
        """

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """Callbacks that a method adds to every `fit`. Defaults to none.

        They begin before the user's callbacks and end after them: what they
        restore at the end of training stays.
        """
        return []

    # === Of the library ===

    def forget_graphs(self) -> None:
        """Drops compiled functions that Keras does not know of."""
