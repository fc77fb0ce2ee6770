"""Losses of a batch: means over the samples that count."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_mla.backend import distribution, kernels


class MeanLoss(NamedTuple):
    """A loss, and the number of samples that it is the mean of.

    Where replicas or micro-batches share a batch, both are of a part's own
    rows. The step makes the mean over the whole batch of them.

    Attributes:
        mean: Scalar tensor.
        count: int or scalar tensor.
    """

    mean: Any
    count: Any


def labelled(model: Any, y: np.ndarray) -> np.ndarray:
    """Returns which samples have a label that the loss does not ignore.

    Args:
        model: A model. If it is not compiled, all samples count.
        y: Labels of shape `(samples, ...)`.
    """
    ignored = getattr(getattr(model, "loss", None), "ignore_class", None)
    if ignored is None:
        return np.ones(len(y), bool)
    return y.reshape(len(y), -1)[:, 0] != ignored


class SampleLoss:
    """A compiled loss, as a mean over the samples that are present.

    Args:
        loss: `keras.losses.Loss`, or a function of labels and logits, or the
            name of one.
        in_parts: bool. Whether it computes parts of a batch. Defaults to
            `False`.
    """

    def __init__(self, loss: Any, in_parts: bool = False) -> None:
        self.in_parts = in_parts
        loss = keras.losses.get(loss)
        if not isinstance(loss, keras.losses.Loss):
            loss = _OfFunction(loss)
        self.loss = loss
        # Such losses can be summed, and divided by the samples that count.
        self._is_reduced_by_keras = (
            type(loss).__call__ is keras.losses.Loss.__call__
        )
        self._is_plain = self._is_reduced_by_keras and loss.reduction != "sum"
        self._summed = _with_reduction(loss, "sum")

    def __call__(
        self,
        labels: Any,
        logits: Any,
        sample_weight: Any | None,
        present: Any | None,
        size: Any,
    ) -> MeanLoss:
        """Returns the loss of a batch.

        Args:
            labels: Labels of the batch.
            logits: Tensor of shape `(batch, classes)`.
            sample_weight: Tensor of shape `(batch,)` or `(batch, 1)`, or
                `None`.
            present: Bool tensor of shape `(batch,)`: the samples that count;
                `None` for all.
            size: int or scalar tensor. Number of rows of the batch.
        """
        labels = kernels.safe_labels(self.loss, labels, logits)
        ignores = getattr(self.loss, "ignore_class", None) is not None
        shares = self.in_parts or distribution.num_replicas() > 1
        if present is None and ignores and shares:
            # Parts are weighed by the labels that count, not by rows.
            present = ops.ones_like(logits[:, 0], dtype="bool")
        if present is not None:
            return self._of_present(labels, logits, sample_weight, present)
        if sample_weight is not None:
            # On PyTorch, Keras multiplies weights by a mask in place, which
            # would change the next modality's weights.
            sample_weight = ops.copy(sample_weight)
            labels = self._of_counted(labels, sample_weight)
        if sample_weight is None and self._is_plain:
            return MeanLoss(
                kernels.reduced_loss(self.loss, labels, logits), size
            )
        found = self._reduced(self.loss, labels, logits, sample_weight)
        return MeanLoss(self._of_part(found, sample_weight, size), size)

    def _reduced(
        self, loss: Any, labels: Any, logits: Any, weight: Any | None
    ) -> Any:
        """Returns a loss as Keras reduces it, over the part's own rows."""
        value = loss(labels, logits, weight)
        if tuple(value.shape) == (0,):
            value = ops.sum(value)  # So Keras returns the mean of no rows.
        if self._is_reduced_by_keras and loss.reduction != "sum":
            value = kernels.unscaled(value)
        return value

    @property
    def reduction(self) -> str:
        """How the loss is reduced."""
        return self.loss.reduction

    @property
    def needs_whole_batch(self) -> bool:
        """Whether a part's loss depends on the other parts of its batch."""
        return self.reduction in ("sum", "mean_with_sample_weight")

    def _of_part(self, value: Any, weight: Any | None, count: Any) -> Any:
        """Returns a value whose mean over all replicas is the batch's loss.

        Args:
            value: Scalar: a sum, or a sum divided by a sum of weights.
            weight: Tensor: the weights of the replica's rows; or `None`.
            count: Scalar: the number of the replica's rows that count.
        """
        if distribution.num_replicas() == 1 or not self.needs_whole_batch:
            return value
        weight = 1 if weight is None else ops.sum(weight)
        weight, count = (ops.cast(n, value.dtype) for n in (weight, count))
        weights, counts = distribution.total([weight, count])
        share = 1.0
        if self.loss.reduction != "sum":
            share = weight / _or_one(weights)
        return value * share * counts / _or_one(count)

    def _of_counted(self, labels: Any, weight: Any) -> Any:
        """Replaces labels of samples with zero weight, which may be invalid.

        Labels of the loss's `ignore_class` stay, because the loss counts them.
        """
        labels = ops.convert_to_tensor(labels)
        counted = ops.reshape(
            ops.cast(weight, "bool"), (-1,) + (1,) * (len(labels.shape) - 1)
        )
        ignored = getattr(self.loss, "ignore_class", None)
        if ignored is not None:
            counted = ops.logical_or(counted, labels == ignored)
        return ops.where(counted, labels, ops.zeros_like(labels))

    def _of_present(
        self, labels: Any, logits: Any, sample_weight: Any | None, present: Any
    ) -> MeanLoss:
        counted = ops.cast(present, logits.dtype)
        if getattr(self.loss, "ignore_class", None) is not None:
            classes = ops.reshape(ops.cast(labels, "int32"), (-1,))
            known = classes != self.loss.ignore_class
            counted = counted * ops.cast(known, counted.dtype)
        weight = counted
        if sample_weight is not None:
            given = ops.reshape(ops.cast(sample_weight, weight.dtype), (-1,))
            weight = weight * given
        labels = self._of_counted(labels, weight)
        reduction = self.loss.reduction
        if not self._is_reduced_by_keras:
            # The loss divides by the size of the batch, or not at all.
            if reduction != "sum":
                weight = weight / _or_one(ops.mean(counted))
            mean = self._reduced(self.loss, labels, logits, weight)
        else:
            mean = self._reduced(self._summed, labels, logits, weight)
            if reduction != "sum":
                weighted = reduction == "mean_with_sample_weight"
                number = ops.sum(weight if weighted else counted)
                mean = mean / ops.cast(_or_one(number), mean.dtype)
        number = ops.sum(counted)
        return MeanLoss(self._of_part(mean, weight, number), number)


def _or_one(number: Any) -> Any:
    """Returns a number to divide by, which is 1 if nothing is counted."""
    return ops.where(number > 0, number, ops.ones_like(number))


def _with_reduction(
    loss: keras.losses.Loss, reduction: str
) -> keras.losses.Loss:
    """Returns the same loss with another reduction."""
    # Not `copy.copy`, for which Keras serializes the loss.
    other = object.__new__(type(loss))
    other.__dict__.update({**vars(loss), "reduction": reduction})
    return other


class _OfFunction(keras.losses.Loss):
    """The mean over samples of a function's values."""

    def __init__(self, function: Any) -> None:
        super().__init__(name=getattr(function, "__name__", "loss"))
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if len(y_true.shape) == 1 and y_pred.shape[-1] == 1:
            # As Keras does. Else `(batch,) - (batch, 1)` is `(batch, batch)`.
            y_true = y_true[:, None]
        return self.function(y_true, y_pred)


class UpdateLosses(keras.metrics.Metric):
    """The loss of an epoch: the mean over updates of each update's loss.

    Each update's losses are averaged over the samples that they count, in all
    batches, and then added. With `presence` the result therefore does not
    depend on the sizes of batches, if each loss is a mean over samples.
    (Without `presence`, a loss with `ignore_class` is weighted by rows, as in
    Keras.) Updates without any sample are left out, and so are updates that no
    batch makes.

    Args:
        sizes: dict of the number of losses of each update, by its name.
        name: Name of the metric. Defaults to `"loss"`.
        dtype: Dtype of the metric.
    """

    def __init__(
        self, sizes: dict[str, int], name: str = "loss", dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.sizes = dict(sizes)
        number = sum(self.sizes.values())
        self.total = self.add_variable((number,), "zeros", name="total")
        self.count = self.add_variable((number,), "zeros", name="count")
        # The number of labels that were not classes.
        self.strays = self.add_variable(
            (), "zeros", dtype="int32", name="strays"
        )

    def update_state(self, losses: dict[str, Sequence[MeanLoss]]) -> None:
        """Adds the losses of a batch, keyed by the name of the update."""
        nothing = MeanLoss(0.0, 0)
        parts = [
            loss
            for name, size in self.sizes.items()
            for loss in losses.get(name, [nothing] * size)
        ]
        means = kernels.vector([loss.mean for loss in parts], self.dtype)
        counts = [loss.count for loss in parts]
        count = counts[0]
        alike = all(isinstance(c, int) and c == count for c in counts)
        if not (alike and count):
            count = kernels.vector(counts, self.dtype)
            # `where`: a loss over no samples may be NaN.
            means = ops.where(count > 0, means, ops.zeros_like(means))
        kernels.add_to(self.total, means * count)
        kernels.add_to(self.count, count)

    def result(self) -> Any:
        """Returns the mean over updates."""
        sizes = tuple(self.sizes.values())
        return kernels.mean_of_groups(self.total, self.count, sizes)
