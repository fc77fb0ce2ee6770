"""Training and evaluation of one batch, from data to metrics."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.backend import distribution, kernels, step
from keras_mla.core import checks, optimizers
from keras_mla.core.batch import Batch
from keras_mla.core.gradients import DifferentiatedModel
from keras_mla.core.update import Step, Update


class TrainedModel(DifferentiatedModel):
    """The part of a multimodal model that trains and evaluates batches.

    A batch makes the model's `updates()` in turn. Each update encodes its
    modalities with the current weights, and moves only its own variables.
    `MultimodalModel` says what a method defines.
    """

    # === Steps ===

    @step.stateful_step(
        "trainable_variables",
        "non_trainable_variables",
        "optimizer_variables",
        "metrics_variables",
    )
    def train_step(self, data: Any) -> dict:
        """Trains one batch: each update in turn, then the metrics."""
        if distribution.num_replicas() > 1:
            checks.check_shared(self, distribution.num_replicas(), 1)
        batch = self._batch(data, training=True)
        if not self.optimizer.built:
            # For all variables, before an update moves some of them.
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
        return self.record(batch, steps)

    @step.stateful_step(
        "trainable_variables", "non_trainable_variables", "metrics_variables"
    )
    def test_step(self, data: Any) -> dict:
        """Evaluates one batch: the losses of each update, and the metrics."""
        batch = self._batch(data, training=False)
        # A pass for each update, so that each has its own penalties.
        return self.record(
            batch,
            [
                Step(update, self._pass(update, batch))
                for update in self._updates_of(batch)
            ],
        )

    def _batch(self, data: Any, training: bool) -> Batch:
        batch = Batch.from_data(self.modalities, data, training)
        distribution.meet(
            f"a batch of {'training' if training else 'evaluation'}",
            presence=batch.presence is not None,
            unpaired_labels=not batch.paired,
        )
        self.build_for(batch.inputs)
        if training and self.modality_dropout and batch.paired:
            batch = batch.drop(self.modality_dropout, self.dropout_seed)
        return self.prepare_batch(batch).with_seen()

    def _updates_of(self, batch: Batch) -> Sequence[Update]:
        return [
            update
            for update in self.current_updates(batch.training)
            if batch.paired or not update.paired
        ]

    # === One update ===

    def _frozen_update(self, update: Update, batch: Batch) -> Step:
        """Makes only the pass of an update without variables to move."""
        active = batch.active(update.modalities)
        before = self._moving(update, batch, active)
        result = self._pass(update, batch)
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

    # === Variables that a pass itself moves ===

    def _moving(self, update: Update, batch: Batch, active: Any) -> list:
        """Copies the variables that an update's pass itself moves.

        Returns:
            A list of `(variable, copy, seen)`. `seen` says whether any sample
            has the modality of the variable's encoder, or, outside of
            encoders, any modality of the update. The list is empty if no
            modality is missing and each replica has rows.
        """
        alone = distribution.moves_alone()  # Then the gradients' step means.
        if distribution.num_replicas() > 1 and not alone:
            rows = batch.size(update.modalities[0]) > 0
            active = rows if active is None else ops.logical_and(active, rows)
        if active is None:
            return []
        moving = self._moving_variables(update)
        owners = self._owners(update) if moving else {}
        return [
            (
                v,
                ops.copy(v.value),
                batch.active([owners[id(v)]])
                if id(v) in owners and batch.presence is not None
                else active,
            )
            for v in moving
        ]

    def _put_back(self, before: list) -> None:
        """Undoes what a pass moved for modalities that had no sample."""
        for variable, value, seen in before:
            kernels.assign_where(ops.logical_not(seen), variable, value)

    def _rate_factors(self) -> Any:
        """Returns a function from a variable to its learning-rate factor."""
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
