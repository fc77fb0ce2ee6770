"""Splits of a data set: given by name, drawn at random, or carved out."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_mla.datasets.listing.sample import Sample

SPLITS = ("train", "validation", "test")


def check_split(split: str, allowed: Sequence[str] = SPLITS) -> None:
    """Raises `ValueError` if there is no such split.

    Args:
        split: str. Name of a split.
        allowed: Sequence of str. The names that are allowed. Defaults to
            `"train"`, `"validation"` and `"test"`.

    Raises:
        ValueError: If `split` is not one of `allowed`.
    """
    if split not in allowed:
        raise ValueError(
            f"`split` must be one of {', '.join(allowed)}. "
            f"Received: split={split!r}"
        )


def partition(
    items: Sequence[Any], fractions: dict[str, float], seed: int
) -> dict[str, list[Any]]:
    """Divides items at random into named parts.

    Args:
        items: The items. The result depends on their order.
        fractions: dict of part name to float. Share of each part; all shares
            sum to 1. The first part takes what rounding leaves.
        seed: int. The same seed gives the same parts.

    Returns:
        A dict of lists that together hold every item once, each in the order
        of `items`.

    Raises:
        ValueError: If a share is negative or the sum is not 1.

    Example:
    >>> from keras_mla.datasets import listing
    >>> listing.partition("abcde", {"train": 0.8, "test": 0.2}, 0)["test"]
    ['c']
    """
    if abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        raise ValueError(
            "The fractions must not be negative and must sum to 1. "
            f"Received: fractions={fractions}"
        )
    order = np.random.default_rng(seed).permutation(len(items))
    parts: dict[str, list[Any]] = {}
    taken = 0
    first = next(iter(fractions))
    for name, fraction in fractions.items():
        if name != first:
            count = round(fraction * len(items))
            parts[name] = [items[i] for i in sorted(order[taken:][:count])]
            taken += count
    parts[first] = [items[i] for i in sorted(order[taken:])]
    return parts


def carve_validation(
    split: str,
    samples_of: Callable[[str], list[Sample]],
    share: float,
    seed: int,
) -> list[Sample]:
    """Takes a validation split out of the training list, seeded.

    Args:
        split: str. `"train"`, `"validation"` or `"test"`.
        samples_of: Returns the samples of the list file of a split.
        share: float. Share of the training list that becomes validation.
        seed: int. It chooses the samples of that share.

    Returns:
        The samples of the split.

    Raises:
        ValueError: If `share` is not within [0, 1), or it is 0 and `split` is
            `"validation"`.
    """
    if not 0 <= share < 1:
        raise ValueError(
            "`validation_share` must be at least 0 and below 1. "
            f"Received: validation_share={share}"
        )
    if split == "test" or (split == "train" and share == 0):
        return samples_of(split)
    if share == 0:
        raise ValueError(
            "This data set publishes no validation split: give "
            "`validation_share`, for example 0.1, the same for 'train' and "
            "'validation', to take one out of the training list."
        )
    parts = {"train": 1 - share, "validation": share}
    return partition(samples_of("train"), parts, seed)[split]
