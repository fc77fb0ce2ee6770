"""One batch, from data to metrics: each update in turn."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.backend import distribution, internals, kernels, step
from keras_mla.core import optimizers, tasks
from keras_mla.core.batch import Batch
from keras_mla.core.compile import CompiledModel
from keras_mla.core.heads import number_of_units
from keras_mla.core.losses import MeanLoss
from keras_mla.core.update import Outputs, Pass, Step, Update


class TrainedModel(CompiledModel):
    """The part of a multimodal model that trains and evaluates batches.

    A batch is trained by the model's `updates()` in turn. Each encodes its
    modalities with the weights as they then are, and moves its own variables
    alone. See `MultimodalModel` for what a method defines.
    """

    # === What a method defines ===

    def prepare_batch(self, batch: Batch) -> Batch:
        """Returns the batch to use, once before its updates.

        For what concerns all updates, such as hiding values
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
        """Makes one gradient of those of an update's losses.

        A method that overrides it gets the gradient of each loss, by one
        forward pass. The gradient of regularisers is added afterwards.
        Without it, the sum of losses is differentiated.

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

    # === Losses ===

    def loss_of(
        self, logits: Any, batch: Batch, expert: str | None = None
    ) -> MeanLoss:
        """Returns the compiled loss of some logits.

        Args:
            logits: Tensor of shape `(batch, units)`.
            batch: The batch.
            expert: Name of a modality or another expert: the loss is one over
                the samples that have it, with its labels. `None` for the
                samples that have any modality.

        Returns:
            The loss, with the number of samples that it is the mean of.
        """
        name = expert if expert in batch.labels else self.modalities[0]
        labels = batch.labels[name]
        self.check_labels("" if batch.paired else name, labels, logits)
        return self.plan.loss(
            labels,
            logits,
            batch.sample_weight[name],
            self._present(batch, expert),
            batch.size(name),
        )

    def fused_loss(self, outputs: Outputs, batch: Batch) -> MeanLoss:
        """Returns the loss of the fused logits, for use in `update_losses`.

        It is one over the samples that have any modality.

        Raises:
            ValueError: If the batch is unpaired, so that nothing is fused.
        """
        if not batch.paired:
            raise ValueError(
                f"{type(self).__name__} trains on the fused prediction, which "
                "needs all modalities of the same samples: `y` must be one "
                "array, not a dict keyed by modality. For unpaired data use "
                "`keras_mla.MLA` or `LateFusion`."
            )
        return self.loss_of(self.fuse(outputs, batch.presence), batch)

    def _present(self, batch: Batch, expert: str | None) -> Any | None:
        """Bool `(batch,)`: the samples that have an expert; `None` for all."""
        if batch.presence is None:
            return None
        if expert is None:
            return batch.known()
        if expert in self.modalities:
            return batch.present(expert)
        presence = self.expert_presence(batch.presence)
        return presence[:, self.experts.index(expert)]

    # === Steps ===

    @step.stateful_step(
        "trainable_variables",
        "non_trainable_variables",
        "optimizer_variables",
        "metrics_variables",
    )
    def train_step(self, data: Any) -> dict:
        """Trains one batch: each update in turn, then the metrics."""
        batch = self._batch(data, training=True)
        if not self.optimizer.built:
            # On all variables, before the first update of some of them.
            self.optimizer.build(self.trainable_variables)
        updates = self._updates_of(batch)
        moving = [update for update in updates if update.variables]
        optimizers.check_average(self.optimizer, len(moving), batch.presence)
        # The optimizer counts batches, whatever the number of updates.
        iterations = self.optimizer.iterations
        start = ops.copy(iterations)
        steps: list[Step] = []
        for update in updates:
            if not update.variables:
                steps.append(self._frozen_update(update, batch))
                continue
            if any(made.update.variables for made in steps):
                iterations.assign(start)
            last = update is moving[-1]
            with optimizers.average_paused(self.optimizer, not last):
                steps.append(self._train_update(update, batch))
        taken = [made.taken for made in steps if made.taken is not None]
        if taken:
            any_taken = ops.any(ops.stack(taken))
            iterations.assign(start + ops.cast(any_taken, start.dtype))
        return self._record(batch, steps)

    @step.stateful_step(
        "trainable_variables", "non_trainable_variables", "metrics_variables"
    )
    def test_step(self, data: Any) -> dict:
        """Evaluates one batch: the losses of each update, and the metrics."""
        batch = self._batch(data, training=False)
        # A pass for each update, so that its penalties are its own.
        return self._record(
            batch,
            [
                Step(update, self._pass(update, batch)[0])
                for update in self._updates_of(batch)
            ],
        )

    def _batch(self, data: Any, training: bool) -> Batch:
        batch = Batch.from_data(self.modalities, data, training)
        self.build_for(batch.inputs)
        return self.prepare_batch(batch)

    def _updates_of(self, batch: Batch) -> Sequence[Update]:
        return [
            update
            for update in self.current_updates(batch.training)
            if batch.paired or not update.paired
        ]

    # === One update ===

    def _pass(self, update: Update, batch: Batch) -> tuple[Pass, list]:
        """Makes an update's forward pass.

        Returns:
            The pass, with regularisers in the first of its losses; and what
            to differentiate: the losses, then the regularisers if there are
            any.
        """
        outputs = self.forward_pass(
            update.modalities,
            batch.inputs,
            batch.training,
            batch.presence,
            update.experts,
        )
        of_experts = {
            name: self.loss_of(outputs.logits[name], batch, name)
            for name in update.experts
        }
        losses = self.update_losses(update, outputs, of_experts, batch)
        self._check_names(update, "update_losses", len(losses), update.losses)
        logs = self.update_logs(update, outputs, batch)
        self._check_names(update, "update_logs", set(logs), set(update.logs))
        first, *others = losses
        parts = [loss.mean for loss in losses]
        penalties = list(self._penalties(update, batch))
        if penalties:
            penalty = sum(ops.cast(p, first.mean.dtype) for p in penalties)
            first = first._replace(mean=first.mean + penalty)
            parts.append(penalty)
        return Pass([first, *others], of_experts, outputs, logs), parts

    def _check_names(
        self, update: Update, hook: str, found: Any, named: Any
    ) -> None:
        """Raises unless a hook returns what the update names."""
        if found != (len(named) if isinstance(found, int) else named):
            raise ValueError(
                f"`{type(self).__name__}.{hook}` must return what the update "
                f"{update.name!r} names: {list(named)}. Received: "
                + (f"{found} losses" if isinstance(found, int) else f"{found}")
            )

    def _penalties(self, update: Update, batch: Batch) -> Iterator[Any]:
        """Regularisers of an update's layers, a replica's part of each."""
        # Of an encoder that had no sample, what it was fed may make NaN.
        of_encoders = [
            (name, penalty)
            for name in (() if batch.presence is None else update.modalities)
            for penalty in self.encoders[name].losses
        ]
        owners = {id(penalty): name for name, penalty in of_encoders}
        for layer in update.layers:
            for penalty in layer.losses:
                total = ops.sum(penalty) / distribution.num_replicas()
                if id(penalty) in owners:
                    active = batch.active([owners[id(penalty)]])
                    total = kernels.zero_unless(active, total)
                yield total

    def _frozen_update(self, update: Update, batch: Batch) -> Step:
        """Makes the pass of an update that has nothing to move."""
        active = batch.active(update.modalities)
        before = self._moving(update, batch, active)
        result, _ = self._pass(update, batch)
        self._put_back(before)
        return Step(update, result)

    def _train_update(self, update: Update, batch: Batch) -> Step:
        """Makes the pass of an update, and an optimizer step."""
        active = batch.active(update.modalities)
        before = self._moving(update, batch, active)
        result, gradients = self._gradients(update, batch)
        gradients = self._of_present(update, gradients, batch)
        gradients, advances = self.modify_gradients(
            update, gradients, result.outputs, batch
        )
        taken = active
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            finite = self.optimizer.check_finite(gradients)
            taken = (
                finite if active is None else ops.logical_and(active, finite)
            )
        with optimizers.scaled_steps(update.variables, self._rate_factors()):
            step.apply_gradients(self, gradients, update.variables, active)
        for advance in advances:
            advance(taken)
        self._put_back(before)
        return Step(update, result, taken)

    def _gradients(self, update: Update, batch: Batch) -> tuple[Pass, list]:
        """Differentiates an update's losses, each or their sum."""
        combines = (
            type(self).combine_gradients is not TrainedModel.combine_gradients
        )

        def objective() -> tuple[list, Pass]:
            result, parts = self._pass(update, batch)
            # Not `sum`, which adds to a zero first.
            losses = parts if combines else [functools.reduce(ops.add, parts)]
            return [self.optimizer.scale_loss(loss) for loss in losses], result

        gradients, result = step.value_and_grads(
            self, objective, update.variables
        )
        if not combines:
            return result, gradients[0]
        of_losses = gradients[: len(update.losses)]
        of_penalties = gradients[len(update.losses) :]
        combined = self.combine_gradients(
            update, of_losses, result.outputs, batch
        )
        for of_penalty in of_penalties:
            combined = [
                a + b for a, b in zip(combined, of_penalty, strict=True)
            ]
        return result, combined

    def _of_present(
        self, update: Update, gradients: list, batch: Batch
    ) -> list:
        """Replaces gradients of encoders that had no sample by zeros.

        What they were fed may have made them NaN. Where an update has one
        modality, it is not made at all.
        """
        if batch.presence is None or len(update.modalities) == 1:
            return gradients
        owners = self._owners(update)
        active = {name: batch.active([name]) for name in update.modalities}
        return [
            kernels.zero_unless(active[owners[id(v)]], g)
            if id(v) in owners
            else g
            for v, g in zip(update.variables, gradients, strict=True)
        ]

    # === What a pass moves by itself ===

    def _moving(self, update: Update, batch: Batch, active: Any) -> list:
        """Variables that an update's pass moves by itself, as they are.

        Returns:
            A list of `(variable, copy, seen)`: whether any sample has the
            modality of the variable's encoder, or any of the update's. It is
            empty where no modality is missing.
        """
        if active is None:
            return []
        if update.moving is None:
            update.moving = internals.moving_variables(update.layers, self)
        owners = self._owners(update) if update.moving else {}
        return [
            (
                v,
                ops.copy(v.value),
                batch.active([owners[id(v)]]) if id(v) in owners else active,
            )
            for v in update.moving
        ]

    def _owners(self, update: Update) -> dict[int, str]:
        """Tells the modality of each variable of an update's encoders."""
        if update.owners is None:
            update.owners = {
                id(variable): name
                for name in update.modalities
                for variable in self.variables_of(name)
            }
        return update.owners

    def _put_back(self, before: list) -> None:
        """Undoes what a pass moved for modalities that had no sample."""
        for variable, value, seen in before:
            kernels.assign_where(ops.logical_not(seen), variable, value)

    def _rate_factors(self) -> Any:
        """Returns a function: the factor to a variable's learning rate."""
        multiplier = self.plan.multiplier
        if not multiplier:
            return lambda variable: 1
        owners = {
            id(v): name
            for name in self.modalities
            for v in self.encoders[name].trainable_variables
        }
        return lambda variable: multiplier.get(
            owners.get(id(variable), "head"), 1.0
        )

    # === The record of a batch ===

    def _record(self, batch: Batch, steps: list[Step]) -> dict:
        """Adds a batch's results to the metrics and returns these."""
        losses: dict[str, MeanLoss] = {}
        for made in steps:
            losses.update(made.result.experts)
            for name, value in made.result.logs.items():
                self.plan.metrics.add(name, _whole(value))
        self._loss_tracker.update_state(
            {
                made.update.name: [_whole(loss) for loss in made.result.losses]
                for made in steps
            }
        )
        outputs = _merged([made.result.outputs for made in steps])
        outputs = self._completed(outputs, losses, batch)
        for name, loss in losses.items():
            of_modality = name if name in batch.labels else self.modalities[0]
            self.plan.metrics.update(
                name,
                batch.labels[of_modality],
                outputs.logits[name],
                _whole(loss),
                self._present(batch, name),
                batch.sample_weight[of_modality],
            )
        self._count_strays(batch)
        if not batch.paired:
            self._build_metrics(batch, outputs.logits[self.modalities[0]])
            return self.unpaired_results()
        fused = self.fuse(outputs, batch.presence)
        self.plan.metrics.add("fused_loss", _whole(self.loss_of(fused, batch)))
        self._update_fused_metrics(batch, fused)
        return self.get_metrics_result()

    def _completed(
        self, outputs: Outputs, losses: dict[str, MeanLoss], batch: Batch
    ) -> Outputs:
        """Adds the experts that no update of the current stage reports."""
        experts = self.experts if batch.paired else self.modalities
        left = tuple(name for name in experts if name not in outputs.logits)
        if not left:
            return outputs
        # Of all, where a fused prediction is wanted.
        others = self.forward_pass(
            self.modalities if batch.paired else left,
            batch.inputs,
            False,
            batch.presence,
        )
        for name in left:
            losses[name] = self.loss_of(others.logits[name], batch, name)
        return _merged([others, outputs])

    def _build_metrics(self, batch: Batch, logits: Any) -> None:
        """Builds the metrics of what unpaired data do not have.

        These stay out of the logs.
        """
        labels = batch.labels[self.modalities[0]]
        for name in self.experts:
            if name not in self.modalities:
                self.plan.metrics.build(name, labels, logits)
        metrics = self._compile_metrics
        if metrics is not None and not metrics.built:
            metrics.build(labels, logits)

    def _update_fused_metrics(self, batch: Batch, fused: Any) -> None:
        if self._compile_metrics is None:
            return
        name = self.modalities[0]
        labels, weight = batch.labels[name], batch.sample_weight[name]
        if weight is None and self._compile_metrics.built:
            for metric in self._compile_metrics.metrics:
                kernels.update_metric(metric, labels, fused, None)
        else:
            self._compile_metrics.update_state(labels, fused, weight)

    def _count_strays(self, batch: Batch) -> None:
        """Counts labels that are no classes, if the backend takes them."""
        if kernels.refuses_labels() or not tasks.wants_classes(self.loss):
            return
        classes = number_of_units(self.head)
        ignored = getattr(self.loss, "ignore_class", None)
        for name in self.modalities[:1] if batch.paired else self.modalities:
            labels = ops.reshape(batch.labels[name], (-1,))
            labels = ops.cast(labels, "int32")  # Which no class overflows.
            stray = ops.logical_or(labels < 0, labels >= classes)
            if ignored is not None:
                stray = ops.logical_and(stray, labels != ignored)
            for counted in (batch.known(), batch.sample_weight[name]):
                if counted is not None:
                    counted = ops.cast(ops.reshape(counted, (-1,)), "bool")
                    stray = ops.logical_and(stray, counted)
            kernels.add_to(
                self._loss_tracker.strays, ops.sum(ops.cast(stray, "int32"))
            )


def _merged(outputs: list[Outputs]) -> Outputs:
    """Returns what several passes yield; of two of one name, the later."""
    features: dict[str, Any] = {}
    logits: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    fused, kept = None, ()
    for one in outputs:
        features.update(one.features)
        logits.update(one.logits)
        extra.update(one.extra)
        fused = one.fused if one.fused is not None else fused
        kept = one.kept
    return Outputs(features, logits, extra, fused, kept)


def _whole(loss: MeanLoss) -> MeanLoss:
    """Returns the loss of a batch, of which a replica computes a part."""
    replicas = distribution.num_replicas()
    return loss if replicas == 1 else loss._replace(mean=replicas * loss.mean)
