import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np


@dataclasses.dataclass
class Shapley:
    """The Shapley values of a game.

    Attributes:
        shares: dict from each player to its Shapley value.
        errors: dict from each player to the standard error of its sampled
            value; `None` if the values are exact.
        values: dict from each coalition that was asked for, a tuple in the
            order of the players, to its value.
    """

    shares: dict[str, float]
    errors: dict[str, float] | None
    values: dict[tuple[str, ...], float]


def shapley_values(
    value: Callable[[tuple[str, ...]], float],
    players: Sequence[str],
    permutations: int | None = None,
    seed: int = 0,
) -> Shapley:
    r"""Computes the Shapley values of a game, exactly or by sampling.

    The Shapley value of a player is what the player adds to the coalition of
    the players before it, averaged over all orders of the players:

    $$\phi_i = \sum_{S \not\ni i} \frac{|S|!\,(n - |S| - 1)!}{n!}
    \bigl(v(S \cup \{i\}) - v(S)\bigr).$$

    The values add up to $v(\text{all}) - v(\emptyset)$, also if they are
    sampled.

    Args:
        value: Function from a coalition, a tuple of players in the order of
            `players`, to a number. It is called once for each coalition:
            $2^n$ times if the values are exact.
        players: Names of the players, each once.
        permutations: int. The number of orders of the players to sample.
            Defaults to `None`, which is exact up to ten players and samples
            200 orders of more players.
        seed: int. The seed of the sampled orders. Defaults to `0`.

    Returns:
        A `Shapley`.

    Raises:
        ValueError: If there is no player, a player is named twice, or
            `permutations` is less than 2.

    Example:
    >>> from keras_mla.analysis import shapley_values
    >>> def gloves(players):  # One left glove, and two right ones.
    ...     return float("left" in players and len(players) > 1)
    >>> game = shapley_values(gloves, ["left", "right", "other"])
    >>> [round(share, 3) for share in game.shares.values()]
    [0.667, 0.167, 0.167]

    Reference:
        Shapley, "A Value for n-Person Games", 1953. Castro et al.,
        "Polynomial calculation of the Shapley value based on sampling",
        Computers and Operations Research, 2009.
    """
    players = tuple(players)
    if not players or len(set(players)) < len(players):
        raise ValueError(
            "`players` must be at least one name, each given once. "
            f"Received: players={list(players)}"
        )
    if permutations is not None and permutations < 2:
        raise ValueError(
            "`permutations` must be at least 2, because one order has no "
            f"standard error. Received: permutations={permutations}"
        )
    values: dict[tuple[str, ...], float] = {}

    def of(coalition: set[str]) -> float:
        key = tuple(player for player in players if player in coalition)
        if key not in values:
            values[key] = float(value(key))
        return values[key]

    if permutations is None and len(players) <= 10:
        return Shapley(_exact(of, players), None, values)
    rng = np.random.default_rng(seed)
    added = np.zeros((permutations or 200, len(players)))
    for row in added:
        before, coalition = of(set()), set()
        for index in rng.permutation(len(players)):
            coalition.add(players[index])
            after = of(coalition)
            row[index] = after - before
            before = after
    errors = added.std(axis=0, ddof=1) / math.sqrt(len(added))
    return Shapley(
        dict(zip(players, added.mean(axis=0).tolist(), strict=True)),
        dict(zip(players, errors.tolist(), strict=True)),
        values,
    )


def _exact(
    of: Callable[[set[str]], float], players: tuple[str, ...]
) -> dict[str, float]:
    shares = {}
    for player in players:
        others = [other for other in players if other != player]
        shares[player] = math.fsum(
            (of({*some, player}) - of(set(some)))
            / (len(players) * math.comb(len(others), size))
            for size in range(len(players))
            for some in itertools.combinations(others, size)
        )
    return shares
