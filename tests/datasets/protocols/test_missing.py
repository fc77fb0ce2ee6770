import keras
import numpy as np
import pytest
from utils import in_process, mainly_on

from keras_mla.datasets import missing

NAMES = ("audio", "image", "text")


@pytest.mark.parametrize("keep_one", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
def test_rates_are_reached(rate, keep_one):
    found = missing.missing_presence(1107, NAMES, rate, keep_one=keep_one)
    assert found.shape == (1107, 3) and found.dtype == bool
    assert abs((1 - found.mean()) - rate) < 0.0005
    # No modality is preferred.
    assert np.abs(found.mean(axis=0) - (1 - rate)).max() < 0.05
    if keep_one:
        assert found.any(axis=1).all()


def test_beyond_the_highest_rate_one_modality_is_left():
    with pytest.warns(UserWarning, match="at most 0.667.*rate=0.7"):
        found = missing.missing_presence(300, 3, 0.7)
    assert (found.sum(axis=1) == 1).all()


def test_independent_masking_empties_the_expected_share_of_samples():
    found = missing.missing_presence(20000, 3, 0.7, keep_one=False)
    assert abs((~found.any(axis=1)).mean() - 0.7**3) < 0.01
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.02


def test_presence_is_seeded():
    first = missing.missing_presence(50, 2, 0.3, seed=1)
    second = missing.missing_presence(50, 2, 0.3, seed=1)
    np.testing.assert_array_equal(first, second)
    other = missing.missing_presence(50, 2, 0.3, seed=2)
    assert (first != other).any()


@pytest.mark.parametrize(
    "n, modalities, rate", [(0, 2, 0.1), (3, [], 0.1), (3, 2, 1.1)]
)
def test_wrong_arguments(n, modalities, rate):
    with pytest.raises(ValueError, match="Received"):
        missing.missing_presence(n, modalities, rate)


def pairs(n=7):
    import tensorflow as tf

    x = {"a": np.arange(n), "b": np.arange(n)[:, None] * 2.0}
    return tf.data.Dataset.from_tensor_slices((x, np.arange(n) % 2))


def test_add_presence_follows_the_samples():
    presence = missing.missing_presence(7, ("a", "b"), 0.4)
    dataset = missing.add_presence(pairs(), presence).shuffle(7, seed=0)
    seen = 0
    for x, y in dataset.batch(3):
        np.testing.assert_array_equal(x["presence"], presence[x["a"]])
        np.testing.assert_array_equal(y, x["a"] % 2)
        seen += len(y)
    assert seen == 7


def test_add_presence_that_does_not_fit():
    import tensorflow as tf

    good = np.ones((7, 2), bool)
    with pytest.raises(ValueError, match="each of the 3 samples"):
        missing.add_presence(pairs().batch(3), good)
    with pytest.raises(ValueError, match="column for each of a, b"):
        missing.add_presence(pairs(), good[:, :1])
    with pytest.raises(ValueError, match="tuples"):
        missing.add_presence(tf.data.Dataset.range(3), good)
    some = pairs().filter(lambda x, y: True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more samples"):
        list(missing.add_presence(some, good[:5]))


@mainly_on("torch")
@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="needs another backend"
)
def test_presence_needs_no_tensorflow():
    result = in_process(
        "-c",
        "from keras_mla.datasets import missing, listing, crema_d\n"
        "missing.missing_presence(4, 2, 0.5)",
    )
    assert result.returncode == 0, result.stderr


TRIO = ["video", "audio", "text"]


@pytest.mark.parametrize("keep_one", [True, False])
def test_a_rate_for_each_modality_is_reached(keep_one):
    rates = {"text": 0.8, "video": 0.31}
    presence = missing.missing_presence(200, TRIO, rates, 3, keep_one)
    np.testing.assert_array_equal((~presence).sum(axis=0), [62, 0, 160])
    again = missing.missing_presence(200, TRIO, [0.31, 0.0, 0.8], 3, keep_one)
    np.testing.assert_array_equal(presence, again)


def test_each_sample_keeps_a_modality_at_the_highest_rates():
    rates = [0.9, 0.6, 0.5]
    for seed in range(20):
        presence = missing.missing_presence(50, TRIO, rates, seed)
        assert (presence.sum(axis=1) == 1).all()
        np.testing.assert_array_equal((~presence).sum(axis=0), [45, 30, 25])
    with pytest.raises(ValueError, match="add up to at most 2. Received: rat"):
        missing.missing_presence(50, TRIO, [0.9, 0.6, 0.6])


def test_modalities_with_rates_of_their_own_go_missing_independently():
    presence = missing.missing_presence(20_000, TRIO, [0.5, 0.5, 0.0])
    both = (~presence[:, 0] & ~presence[:, 1]).mean()
    assert abs(both - 0.25) < 0.02
    rates = missing.missing_presence(20_000, TRIO, [0.5, 0.5, 0.5])
    # Each sample keeps one: 1/8 of all patterns cannot be.
    assert rates.any(axis=1).all()
    assert len(np.unique(rates, axis=0)) == 7


@pytest.mark.parametrize(
    "rate, message",
    [
        ({"sound": 0.1}, "Received: 'sound'"),
        ([0.1, 0.2], "a rate for each of 3"),
        ({"text": 1.5}, "between 0 and 1"),
        ([0.1, float("nan"), 0.1], "between 0 and 1"),
    ],
)
def test_wrong_rates_of_modalities(rate, message):
    with pytest.raises(ValueError, match=message):
        missing.missing_presence(9, TRIO, rate)


def test_patterns_have_their_shares():
    patterns = {"text": 0.25, ("audio", "video"): 0.5}
    presence = missing.pattern_presence(40, TRIO, patterns, seed=1)
    found, counts = np.unique(presence, axis=0, return_counts=True)
    assert found.tolist() == [
        [False, False, True],
        [True, True, False],
        [True, True, True],
    ]
    assert counts.tolist() == [20, 10, 10]
    again = missing.pattern_presence(40, TRIO, patterns, seed=2)
    assert (presence != again).any()
    whole = missing.pattern_presence(3, TRIO, {"text": 1.0})
    assert not whole[:, 2].any() and whole[:, :2].all()


@pytest.mark.parametrize(
    "patterns, message",
    [
        ({"sound": 0.1}, "Received: 'sound'"),
        ({("video", "audio", "text"): 0.1}, "must keep a modality"),
        ({"text": 0.6, "audio": 0.6}, "at most 1"),
        ({"text": -0.1}, "positive"),
        ({"text": 0.1, ("text",): 0.1}, "there once"),
    ],
)
def test_wrong_patterns(patterns, message):
    with pytest.raises(ValueError, match=message):
        missing.pattern_presence(9, TRIO, patterns)
