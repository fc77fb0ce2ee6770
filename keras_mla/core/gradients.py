"""The pass of an update, and its gradients over the whole batch."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from keras_mla.backend import distribution, internals, kernels, step
from keras_mla.core import parts
from keras_mla.core.batch import Batch
from keras_mla.core.hooks import Hooks
from keras_mla.core.losses import MeanLoss
from keras_mla.core.record import RecordedModel
from keras_mla.core.update import Pass, Update


class DifferentiatedModel(RecordedModel):
    """The part of a multimodal model that differentiates an update's losses."""

    def _pass(self, update: Update, batch: Batch) -> Pass:
        """Makes an update's forward pass."""
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
        losses = [*self.update_losses(update, outputs, of_experts, batch)]
        self._check_names(update, "update_losses", len(losses), update.losses)
        logs = self.update_logs(update, outputs, batch)
        self._check_names(update, "update_logs", set(logs), set(update.logs))
        penalties = self._penalties(update, batch, losses[0].mean.dtype)
        return Pass(losses, of_experts, outputs, logs, penalties)

    def _check_names(
        self, update: Update, hook: str, found: Any, named: Any
    ) -> None:
        """Raises unless a hook has returned what the update names."""
        if found != (len(named) if isinstance(found, int) else named):
            raise ValueError(
                f"`{type(self).__name__}.{hook}` must return what the update "
                f"{update.name!r} names: {list(named)}. Received: "
                + (f"{found} losses" if isinstance(found, int) else f"{found}")
            )

    def _penalties(
        self, update: Update, batch: Batch, dtype: str
    ) -> list[MeanLoss]:
        """Returns the regularisers of an update's layers.

        With `presence`, the regularisers of each encoder's activities are one
        loss: where no row was present, its inputs may have made them NaN.
        Others, such as those of kernels, are another.
        """
        of_encoders = [
            (name, penalty)
            for name in (() if batch.presence is None else update.modalities)
            for penalty in self.encoders[name].losses
        ]
        owners = {id(penalty): name for name, penalty in of_encoders}
        sums: dict[str | None, list] = {}
        for layer in update.layers:
            for penalty in layer.losses:
                total = ops.cast(ops.sum(penalty), dtype)
                sums.setdefault(owners.get(id(penalty)), []).append(total)
        found = []
        for name, penalties in sums.items():
            mean = functools.reduce(ops.add, penalties)
            count = batch.size(update.modalities[0])
            if name is not None:
                filled = batch.filled(name)
                mean = kernels.zero_unless(filled, mean)
                count = ops.where(filled, count, 0)
            found.append(MeanLoss(mean, count))
        return found

    # === Gradients ===

    def _gradients(self, update: Update, batch: Batch) -> tuple[Pass, list]:
        """Differentiates an update's losses, over the whole batch.

        Each group of losses is differentiated by itself if the method combines
        gradients, else their sum.
        """
        combines = type(self).combine_gradients is not Hooks.combine_gradients
        split = batch.split(self.plan.micro_batches)
        if len(split) == 1 and distribution.num_replicas() == 1:
            result, gradients = self._at_once(update, batch, combines)
        else:
            result, gradients = self._in_parts(update, split, combines)
        if not combines:
            return result, _added(gradients)
        of_losses = gradients[: len(update.groups)]
        of_penalties = gradients[len(update.groups) :]
        combined = self.combine_gradients(
            update, of_losses, result.outputs, batch
        )
        return result, _added([combined, *of_penalties])

    def _at_once(
        self, update: Update, batch: Batch, combines: bool
    ) -> tuple[Pass, list[list]]:
        """Returns the gradient of each group of losses, on one device."""

        def objective() -> tuple[list, Pass]:
            result = self._pass(update, batch)
            groups = _groups(update, result, combines)
            # Not `sum`, which adds to a zero first.
            losses = [
                functools.reduce(ops.add, [loss.mean for loss in group])
                for group in groups
                if group
            ]
            return [self.optimizer.scale_loss(loss) for loss in losses], result

        gradients, result = step.value_and_grads(
            self, objective, update.variables
        )
        wanted = self.batch_means(update, result.outputs, batch)
        means = {
            name: distribution.global_mean(*mean)
            for name, mean in wanted.items()
        }
        outputs = result.outputs._replace(means=means)
        return result._replace(outputs=outputs), gradients

    def _in_parts(
        self, update: Update, split: Sequence[Batch], combines: bool
    ) -> tuple[Pass, list[list]]:
        """Returns the same for a batch of several devices or micro-batches."""
        first = update.modalities[0]
        filled = [part for part in split if not _is_empty(part.size(first))]
        split = filled or split[:1]
        regularisers = len(update.groups) if combines else 1
        groups: list[int] = []
        names: list[str] = []

        def compute(part: Batch) -> tuple[list, Pass]:
            size = part.size(first)
            statistics = []
            if not isinstance(size, int):  # There may be no row.
                moving = self._moving_variables(update)
                statistics = [(v, ops.copy(v.value)) for v in moving]

            def objective() -> tuple[list, tuple]:
                result = self._pass(update, part)
                apart = part.presence is not None
                grouped = _groups(update, result, combines, apart)
                pieces = parts.pieces_of(grouped)
                groups[:] = [piece.group for piece in pieces]
                counts = [ops.cast(p.count, "float32") for p in pieces]
                losses = [functools.reduce(ops.add, p.losses) for p in pieces]
                losses, weights = parts.shared(losses, counts)
                scaled = [self.optimizer.scale_loss(loss) for loss in losses]
                return scaled, (result, weights, counts)

            gradients, (result, weights, counts) = step.value_and_grads(
                self, objective, update.variables
            )
            gradients = [
                # Regularisers of kernels do not depend on inputs.
                of_piece
                if group == regularisers
                else self._where(update, of_piece, part, part.filled)
                for of_piece, group in zip(gradients, groups, strict=True)
            ]
            for variable, value in statistics:
                kernels.assign_where(size == 0, variable, value)
            found = list(zip(gradients, weights, counts, strict=True))
            wanted = self.batch_means(update, result.outputs, part)
            names[:] = wanted
            for values, counted in wanted.values():
                total, number = distribution.weighted_sum(values, counted)
                found.append(([total], None, number))
            return found, result

        if len(split) == 1:
            sums, result = compute(split[0])
        else:
            sums, passes = step.accumulate(self, compute, split)
            result = parts.merged(passes)
        moved = self._moved_alone(update, split)
        for variables, number in moved:
            sums.append(([v.value for v in variables], number, number))
        found = distribution.means(sums)
        after = len(found) - len(moved)
        for (variables, _), of_moved in zip(moved, found[after:], strict=True):
            for variable, mean in zip(variables, of_moved, strict=True):
                variable.assign(mean)
        of_pieces, of_names = found[: len(groups)], found[len(groups) : after]
        means = {n: mean for n, (mean,) in zip(names, of_names, strict=True)}
        gradients = [
            _added(
                [
                    of_piece
                    for of_piece, of in zip(of_pieces, groups, strict=True)
                    if of == group
                ]
            )
            for group in sorted(set(groups))
        ]
        outputs = result.outputs._replace(means=means)
        return result._replace(outputs=outputs), gradients

    def _moved_alone(
        self, update: Update, split: Sequence[Batch]
    ) -> list[tuple[list, Any]]:
        """Returns what a pass has moved in this process alone.

        Returns:
            A list of groups of variables, statistics of normalization, and of
            the number of this process's samples that have moved them.
        """
        if not distribution.moves_alone():
            return []
        owners = self._owners(update)
        found: dict[str | None, list] = {}
        for variable in self._moving_variables(update):
            if "float" in variable.dtype:
                name = owners.get(id(variable))
                found.setdefault(name, []).append(variable)
        groups = []
        for name, variables in found.items():
            number = 0
            for part in split:
                present = part.known() if name is None else part.present(name)
                number += (
                    part.size(name or update.modalities[0])
                    if present is None
                    else ops.sum(ops.cast(present, "float32"))
                )
            groups.append((variables, ops.cast(number, "float32")))
        return groups

    def _of_present(
        self, update: Update, gradients: list, batch: Batch
    ) -> list:
        """Replaces gradients of encoders that had no sample by zeros."""
        return self._where(
            update, gradients, batch, lambda name: batch.active([name])
        )

    def _where(
        self,
        update: Update,
        gradients: list,
        batch: Batch,
        condition: Callable[[str], Any],
    ) -> list:
        """Replaces gradients of some encoders by zeros.

        The encoders' inputs may have made the gradients NaN. An update of one
        modality is skipped as a whole instead.

        Args:
            update: The update.
            gradients: The gradients of the update's variables.
            batch: The batch.
            condition: Function of a modality that returns a bool scalar:
                whether its encoder's gradients are kept.
        """
        if batch.presence is None or len(update.modalities) == 1:
            return gradients
        owners = self._owners(update)
        kept = {name: condition(name) for name in update.modalities}
        return [
            kernels.zero_unless(kept[owners[id(v)]], g)
            if id(v) in owners
            else g
            for v, g in zip(update.variables, gradients, strict=True)
        ]

    def _moving_variables(self, update: Update) -> list:
        """Returns the variables that an update's pass itself moves."""
        if update.moving is None:
            update.moving = internals.moving_variables(update.layers, self)
        return update.moving

    def _owners(self, update: Update) -> dict[int, str]:
        """Returns the modality of each encoder variable of an update, by id."""
        if update.owners is None:
            update.owners = {
                id(variable): name
                for name in update.modalities
                for variable in self.variables_of(name)
            }
        return update.owners


def _groups(
    update: Update, result: Pass, combines: bool, apart: bool = False
) -> list[Sequence[MeanLoss]]:
    """Returns the losses that are differentiated together.

    Args:
        update: The update.
        result: The update's pass.
        combines: Whether the method combines the gradients of the update's
            groups of losses.
        apart: Whether regularisers are a last group in any case.
    """
    if combines:
        named = dict(zip(update.losses, result.losses, strict=True))
        groups = [[named[name] for name in group] for group in update.groups]
        return [*groups, result.penalties]
    if apart:
        return [result.losses, result.penalties]
    return [[*result.losses, *result.penalties]]


def _added(gradients: Sequence[list]) -> list:
    """Returns the sum of gradients of the same variables."""
    first, *others = gradients
    for other in others:
        first = [a + b for a, b in zip(first, other, strict=True)]
    return first


def _is_empty(size: Any) -> bool:
    """Returns whether it is known that there are no rows."""
    return isinstance(size, int) and size == 0
