"""Missing modalities: which samples lack what, by the customary protocols."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_mla.datasets import extras

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "add_presence",
    "missing_presence",
    "pattern_presence",
    "presence_of",
]


def missing_presence(
    n: int,
    modalities: int | Sequence[str],
    rate: float | Mapping[str, float] | Sequence[float],
    seed: int = 0,
    keep_one: bool = True,
) -> np.ndarray:
    """Draws which modalities each sample has.

    With one rate for all modalities (the shared protocol), the missing rate is
    the share of missing entries among all `n * M`. Two draws are in use:

    - `keep_one=True`: each sample keeps one modality drawn at random, and
      entries are removed from the other modalities until the rate is reached.
      No sample is empty, so the rate is at most `(M - 1) / M`. A higher rate
      gives exactly one modality per sample, with a warning.
    - `keep_one=False`: any entry may be removed, each with probability
      `rate`. Some samples are then empty: with three modalities and a rate of
      0.7, about 34 %.

    Both remove exactly `round(rate * n * M)` entries. With a rate for each
    modality (the imbalanced protocol), exactly `round(rate * n)` samples lack
    a modality; if each sample keeps one, the rates must add up to at most
    `M - 1`. Draw once for each split, and keep the presence over all epochs.
    The splits may have other rates.

    Args:
        n: int. Number of samples.
        modalities: int, the number M of modalities; or a sequence of str, the
            names of modalities.
        rate: float in [0, 1], the share of missing entries; or a dict of
            modality to its own share, or a sequence of them in the order of
            modalities. Modalities that a dict leaves out are always there.
        seed: int. The same seed gives the same presence. Defaults to `0`.
        keep_one: bool. Whether each sample keeps a modality. Defaults to
            `True`.

    Returns:
        bool array `(n, M)`, `True` if the sample has the modality.

    Raises:
        ValueError: If `n` or `modalities` is not positive, a rate is not
            within [0, 1] or of no modality, or rates of modalities add up to
            more than `M - 1` where each sample keeps one.

    Example:
    >>> from keras_mla.datasets import missing
    >>> missing.missing_presence(3, ["audio", "text"], 0.5).sum(axis=1)
    array([1, 1, 1])
    >>> rates = {"text": 0.75}
    >>> missing.missing_presence(4, ["audio", "text"], rates).sum(axis=0)
    array([4, 1])

    Reference:
        Lian et al., "GCNet: Graph Completion Network for Incomplete
        Multimodal Learning in Conversation", TPAMI 2023 (`keep_one=True`);
        Zhang et al., "Multimodal Representation Learning by Alternating
        Unimodal Adaptation", CVPR 2024, section 4.3 (`keep_one=False`).
    """
    m = modalities if isinstance(modalities, int) else len(modalities)
    if n < 1 or m < 1:
        raise ValueError(
            "There must be at least one sample and one modality. "
            f"Received: n={n}, modalities={modalities!r}"
        )
    rng = np.random.default_rng(seed)
    if not isinstance(rate, int | float):
        rates = _rates_of(modalities, m, rate)
        return _draw_each(n, rates, rng, keep_one)
    _check_rates([rate], rate)
    absent = round(rate * n * m)
    presence: np.ndarray = np.ones((n, m), bool)
    removable = np.arange(n * m)
    if keep_one:
        kept = np.arange(n) * m + rng.integers(0, m, n)
        removable = np.delete(removable, kept)
        if absent > len(removable):
            warnings.warn(
                f"With {m} modalities and one kept in every sample, the "
                f"missing rate is at most {(m - 1) / m:.3f}, and that rate "
                f"is used. Received: rate={rate}",
                stacklevel=2,
            )
            absent = len(removable)
    chosen = rng.choice(removable, absent, replace=False)
    presence.flat[chosen] = False
    return presence


def _rates_of(
    modalities: int | Sequence[str], m: int, rate: Any
) -> list[float]:
    """Returns the rate of each modality."""
    if isinstance(rate, Mapping):
        names = [] if isinstance(modalities, int) else list(modalities)
        unknown = [name for name in rate if name not in names]
        if unknown:
            raise ValueError(
                f"`rate` must name modalities of {names}. "
                f"Received: {unknown[0]!r}"
            )
        rates = [float(rate.get(name, 0.0)) for name in names]
    else:
        rates = [float(value) for value in rate]
        if len(rates) != m:
            raise ValueError(
                f"There must be a rate for each of {m} modalities. "
                f"Received: rate={rate}"
            )
    _check_rates(rates, rate)
    return rates


def _check_rates(rates: Sequence[float], given: Any) -> None:
    if not all(0 <= rate <= 1 for rate in rates):
        raise ValueError(
            f"`rate` must be between 0 and 1. Received: rate={given}"
        )


def _draw_each(
    n: int, rates: Sequence[float], rng: np.random.Generator, keep_one: bool
) -> np.ndarray:
    """Draws `round(rate * n)` samples that lack a modality, for each."""
    presence: np.ndarray = np.ones((n, len(rates)), bool)
    for index, rate in enumerate(rates):
        absent = rng.choice(n, round(rate * n), replace=False)
        presence[absent, index] = False
    if not keep_one:
        return presence
    if presence.sum() < n:
        raise ValueError(
            "If each sample keeps a modality, the rates must add up to at "
            f"most {len(rates) - 1}. Received: rates={list(rates)}, "
            f"which add up to {sum(rates):g}"
        )
    # What samples have beside one modality may go to samples without any.
    chance = np.where(presence, rng.random(presence.shape), -1.0)
    spare = presence.copy()
    spare[np.arange(n), chance.argmax(axis=1)] = False
    empty = np.flatnonzero(~presence.any(axis=1))
    moved = rng.choice(np.flatnonzero(spare), len(empty), replace=False)
    presence.flat[moved] = False
    presence[empty, moved % len(rates)] = True
    return presence


def _shares(n: int, shares: np.ndarray) -> np.ndarray:
    """Returns whole numbers that add up to n, in the given proportions."""
    counts = np.floor(n * shares + 1e-9).astype(int)
    left = np.argsort(counts - n * shares, kind="stable")
    counts[left[: n - counts.sum()]] += 1
    return counts


def pattern_presence(
    n: int,
    modalities: Sequence[str],
    patterns: Mapping[str | Sequence[str], float],
    seed: int = 0,
) -> np.ndarray:
    """Draws which pattern of missing modalities each sample has.

    `{"text": 0.8}` says that 80 % of the samples lack the text, and
    `{("audio", "video"): 0.3}` that 30 % lack audio and video together. All
    other samples are complete. Counts are exact up to rounding.

    Args:
        n: int. Number of samples.
        modalities: sequence of str. Names of modalities, in the order of the
            model.
        patterns: dict of the missing modalities, one or several names, to the
            share of samples that lack them, and no others.
        seed: int. The same seed gives the same presence. Defaults to `0`.

    Returns:
        bool array `(n, M)`, `True` if the sample has the modality.

    Raises:
        ValueError: If `n` is not positive, a name is no modality, a pattern
            lacks all modalities or stands there twice, or shares are negative
            or add up to more than 1.

    Example:
    >>> from keras_mla.datasets import missing
    >>> patterns = {"text": 0.5, ("audio", "video"): 0.25}
    >>> names = ["video", "audio", "text"]
    >>> missing.pattern_presence(4, names, patterns).sum(axis=0)
    array([3, 3, 2])
    """
    names = list(modalities)
    lacking = {}
    for pattern, share in patterns.items():
        absent = frozenset([pattern] if isinstance(pattern, str) else pattern)
        unknown = absent - set(names)
        if unknown:
            raise ValueError(
                f"A pattern must name modalities of {names}. "
                f"Received: {sorted(unknown)[0]!r}"
            )
        if len(absent) == len(names):
            raise ValueError(
                "A sample must keep a modality. Received: a pattern without "
                f"any of {names}"
            )
        if absent in lacking:
            raise ValueError(
                f"A pattern must stand there once. Received: {pattern!r} again"
            )
        lacking[absent] = float(share)
    total = sum(lacking.values())
    if n < 1 or total > 1 + 1e-9 or any(s < 0 for s in lacking.values()):
        raise ValueError(
            "There must be samples, and shares of patterns that are positive "
            f"and add up to at most 1. Received: n={n}, patterns={patterns}"
        )
    kinds = [frozenset(), *lacking]
    shares = np.array([max(0.0, 1 - total), *lacking.values()])
    drawn: np.ndarray = np.repeat(np.arange(len(kinds)), _shares(n, shares))
    rows = np.array([[m not in absent for m in names] for absent in kinds])
    return rows[np.random.default_rng(seed).permutation(drawn)]


def presence_of(x: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Finds which samples have each modality, from NaN, None and empty texts.

    A sample lacks a modality if any of its values is NaN, if it is `None`, or
    if it is a text without a letter. The result goes to a model by name, as
    `x["presence"]`.

    Args:
        x: dict of modality name to array, list, Series, DataFrame, or a dict
            of them, of one value or row for each sample. The key `"presence"`
            is left out.

    Returns:
        dict of modality name to bool array `(samples,)`, `True` if the sample
        has the modality.

    Raises:
        ValueError: If modalities have different numbers of samples, or a value
            has no samples.

    Example:
    >>> x = {
    ...     "sensor": np.array([[0.1, 0.2], [np.nan, 0.3]]),
    ...     "text": ["a pinch of salt", ""],
    ... }
    >>> x["presence"] = keras_mla.datasets.presence_of(x)
    >>> x["presence"]["sensor"].tolist(), x["presence"]["text"].tolist()
    ([True, False], [True, False])
    """
    found = {
        name: _has_values(name, value)
        for name, value in x.items()
        if name != "presence"
    }
    counts = {name: len(mask) for name, mask in found.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            "All modalities must have the same samples. "
            f"Received: samples={counts}"
        )
    return found


def _has_values(name: str, value: Any) -> np.ndarray:
    if isinstance(value, Mapping):
        masks = [_has_values(name, part) for part in value.values()]
        return np.logical_and.reduce(masks)
    if hasattr(value, "to_numpy"):  # A Series or DataFrame.
        value = value.to_numpy()
    # Lists of texts and None stay as they are.
    array = value if hasattr(value, "shape") else np.asarray(value, object)
    array = np.asarray(array)
    if array.ndim == 0:
        raise ValueError(
            f"Modality {name!r} must have a value for each sample. "
            f"Received: a single value of type {type(value).__name__}"
        )
    rows = array.reshape(len(array), -1)
    if array.dtype.kind == "f":
        return ~np.isnan(rows).any(axis=1)
    if array.dtype.kind in "OUS":
        return np.array([not any(map(_is_empty, row)) for row in rows], bool)
    return np.ones(len(array), bool)


def _is_empty(value: Any) -> bool:
    if isinstance(value, str | bytes):
        return not value.strip()
    if isinstance(value, list | tuple | np.ndarray):
        return any(map(_is_empty, value))
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True  # Also pandas' own signs of a missing value.
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def add_presence(
    dataset: "tf.data.Dataset", presence: np.ndarray
) -> "tf.data.Dataset":
    """Adds `"presence"` to the inputs of a dataset of single samples.

    Row i of `presence` goes to the i-th sample: shuffle and batch afterwards.
    (The `load` functions take `presence=` and may shuffle.)

    Args:
        dataset: `tf.data.Dataset` of `({modality: x}, label)`, not batched,
            in the order of `presence`.
        presence: bool array `(samples, modalities)`, columns in the order of
            the model's modalities.

    Returns:
        `tf.data.Dataset` of `({modality: x, "presence": row}, label)`.

    Raises:
        ValueError: If the shapes do not fit. If the dataset does not know its
            number of samples before iterating, more samples than rows raise
            `tf.errors.InvalidArgumentError`.
        ImportError: If TensorFlow is not installed.

    Example:
    >>> import tensorflow as tf
    >>> from keras_mla.datasets import missing
    >>> x = {"audio": np.zeros((4, 9)), "text": np.zeros((4, 5))}
    >>> dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros(4)))
    >>> presence = missing.missing_presence(4, ["audio", "text"], rate=0.3)
    >>> dataset = missing.add_presence(dataset, presence).shuffle(4).batch(2)
    >>> sorted(dataset.element_spec[0])
    ['audio', 'presence', 'text']
    """
    tf = extras.need(
        "tensorflow",
        "add presence to a `tf.data.Dataset`",
        "pass `presence` to `load` or `pipeline.build`",
    )
    presence = np.asarray(presence, bool)
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or not isinstance(spec[0], Mapping):
        raise ValueError(
            "The dataset must give tuples of ({modality: x}, label). "
            f"Received: element_spec={spec}"
        )
    if presence.ndim != 2 or presence.shape[1] != len(spec[0]):
        raise ValueError(
            f"`presence` must have a column for each of "
            f"{', '.join(spec[0])}. Received: "
            f"presence.shape={presence.shape}"
        )
    count = int(dataset.cardinality())
    if count >= 0 and count != len(presence):
        raise ValueError(
            f"`presence` must have a row for each of the {count} samples (is "
            f"the dataset batched?). Received: "
            f"presence.shape={presence.shape}"
        )

    def add(i: Any, element: tuple) -> tuple[Any, ...]:
        check = tf.debugging.assert_less(
            i,
            tf.constant(len(presence), tf.int64),
            "The dataset has more samples than `presence` has rows.",
        )
        with tf.control_dependencies([check]):
            row = tf.gather(tf.constant(presence), i)
        x, *rest = element
        return ({**x, "presence": row}, *rest)

    return dataset.enumerate().map(add)
