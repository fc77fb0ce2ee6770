"""What methods share that scale the gradients of encoders."""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_mla.core.batch import Batch
from keras_mla.core.model import MultimodalModel
from keras_mla.core.update import Outputs, Update


def likelihoods(
    model: MultimodalModel, outputs: Outputs, batch: Batch
) -> dict[str, tuple[Any, Any | None]]:
    """Returns the likelihood of the right labels by each modality.

    It is what `batch_means` returns for `scores_and_rivals`.
    """
    return {
        name: (
            ops.exp(
                model.task.log_likelihood(
                    batch.labels[name], outputs.logits[name]
                )
            ),
            batch.present(name),
        )
        for name in model.modalities
    }


def scores_and_rivals(
    model: MultimodalModel, outputs: Outputs, batch: Batch
) -> tuple[Any, Any, Any]:
    """Returns how right each modality is, and how right the others are.

    A modality's score is the mean likelihood of the right labels, over the
    samples that have it. A modality that no sample of the batch has is nobody's
    rival.

    Args:
        model: The model, which needs at least two modalities.
        outputs: Outputs of a pass, with the means of `likelihoods`.
        batch: The batch.

    Returns:
        Tensors of shape `(modalities,)`: the scores, float32; the mean scores
        of the other modalities, float32; and whether there are others, bool.
    """
    scores, seen = [], []
    for name in model.modalities:
        scores.append(outputs.means[name])
        active = batch.active([name])
        seen.append(ops.cast(True if active is None else active, "float32"))
    score, seen = ops.stack(scores), ops.stack(seen)
    rivals = ops.sum(seen) - seen
    others = (ops.sum(score) - score) / ops.maximum(rivals, 1)
    return score, others, rivals > 0


def for_encoders(
    model: MultimodalModel,
    update: Update,
    gradients: list,
    function: Callable[[int, Any], Any],
) -> list:
    """Changes the gradients of encoders and projections, and no others.

    Args:
        model: The model.
        update: The update.
        gradients: list of tensors in the order of `update.variables`.
        function: From the index of a modality and a gradient to a gradient.
    """
    owners = {
        id(variable): index
        for index, name in enumerate(model.modalities)
        for variable in model.variables_of(name)
    }
    return [
        function(owners[id(v)], g) if id(v) in owners else g
        for v, g in zip(update.variables, gradients, strict=True)
    ]


def check_several(model: MultimodalModel) -> None:
    """Raises unless there are modalities to compare."""
    if len(model.modalities) < 2:
        raise ValueError(
            f"{type(model).__name__} compares modalities and needs at least "
            f"two. Received: encoders for {list(model.modalities)}"
        )
