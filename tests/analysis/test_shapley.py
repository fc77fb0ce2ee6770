import itertools

import numpy as np
import pytest

from keras_mla.analysis import shapley_values


def random_game(players, seed=0):
    rng = np.random.default_rng(seed)
    values = {
        some: rng.normal()
        for size in range(len(players) + 1)
        for some in itertools.combinations(players, size)
    }
    return values.__getitem__


def over_permutations(value, players):
    """The definition, by all orders of the players."""
    added = {player: [] for player in players}
    for order in itertools.permutations(players):
        for position, player in enumerate(order):
            before = [p for p in players if p in order[:position]]
            after = [p for p in players if p in order[: position + 1]]
            added[player].append(value(tuple(after)) - value(tuple(before)))
    return {player: np.mean(found) for player, found in added.items()}


def test_additive_game():
    worth = {"text": 1.5, "audio": -2.0, "image": 0.25}
    game = shapley_values(lambda s: sum(worth[p] for p in s) + 7, list(worth))
    assert game.shares == pytest.approx(worth)
    assert game.errors is None
    assert len(game.values) == 8


def test_dummy_and_symmetry():
    def value(players):  # "c" adds its own 3, "d" nothing.
        both = {"a", "b"} <= set(players)
        return (
            5.0 * both
            + ("a" in players)
            + ("b" in players)
            + (3.0 * ("c" in players))
        )

    shares = shapley_values(value, ["d", "b", "c", "a"]).shares
    assert shares["d"] == 0
    assert shares["c"] == pytest.approx(3)
    assert shares["a"] == pytest.approx(3.5)
    assert shares["a"] == pytest.approx(shares["b"])


def test_gloves_by_hand():
    def value(players):  # One left glove, two right ones.
        return float("left" in players and len(players) > 1)

    shares = shapley_values(value, ["left", "right", "other"]).shares
    assert shares == pytest.approx(
        {"left": 2 / 3, "right": 1 / 6, "other": 1 / 6}
    )


@pytest.mark.parametrize("count", [1, 2, 5])
def test_equals_the_mean_over_orders(count):
    players = ["text", "audio", "image", "touch", "depth"][:count]
    value = random_game(players, count)
    shares = shapley_values(value, players).shares
    assert shares == pytest.approx(over_permutations(value, players))
    total = value(tuple(players)) - value(())
    assert sum(shares.values()) == pytest.approx(total)


def test_sampled_values_are_close_and_add_up():
    players = list("fbdaec")
    value = random_game(players)
    exact = shapley_values(value, players).shares
    game = shapley_values(value, players, permutations=2000, seed=1)
    for player in players:
        error = game.errors[player]
        assert 0 < error < 0.05
        assert abs(game.shares[player] - exact[player]) < 4 * error
    total = value(tuple(players)) - value(())
    assert sum(game.shares.values()) == pytest.approx(total)
    again = shapley_values(value, players, permutations=2000, seed=1)
    assert again.shares == game.shares


def test_more_than_ten_players_are_sampled():
    players = [f"m{index}" for index in range(11)]
    asked = []

    def value(some):
        asked.append(some)
        return float(len(some))

    game = shapley_values(value, players)
    assert game.shares == pytest.approx(dict.fromkeys(players, 1.0))
    assert game.errors == pytest.approx(dict.fromkeys(players, 0.0))
    assert len(asked) == len(set(asked)) < 2**11
    assert shapley_values(value, players[:10]).errors is None


def test_refuses_what_is_no_game():
    with pytest.raises(ValueError, match="each given once"):
        shapley_values(len, ["a", "a"])
    with pytest.raises(ValueError, match="each given once"):
        shapley_values(len, [])
    with pytest.raises(ValueError, match="`permutations` must be at least 2"):
        shapley_values(len, ["a"], permutations=1)
