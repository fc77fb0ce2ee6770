import keras
import numpy as np
import pytest

import keras_mla


def data(sizes, **extra):
    return {
        name: (np.arange(size), np.arange(size) % 3, *extra.get(name, ()))
        for name, size in sizes.items()
    }


def epoch(dataset):
    return [dataset[i] for i in range(len(dataset))]


def test_an_epoch_sees_the_largest_modality_once():
    dataset = keras_mla.UnpairedDataset(data({"a": 23, "b": 5}), batch_size=4)
    assert len(dataset) == 6
    batches = epoch(dataset)
    a = np.concatenate([x["a"] for x, _ in batches])
    b = np.concatenate([x["b"] for x, _ in batches])
    np.testing.assert_array_equal(np.sort(a), np.arange(23))
    assert len(b) == 24
    # Each round of the smaller one is a new order of all of it.
    for start in (0, 5, 10, 15):
        np.testing.assert_array_equal(
            np.sort(b[start : start + 5]), np.arange(5)
        )
    for x, y in batches:
        np.testing.assert_array_equal(x["a"] % 3, y["a"])
        np.testing.assert_array_equal(x["b"] % 3, y["b"])


def test_orders_are_fixed_by_the_global_seed():
    orders = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        dataset = keras_mla.UnpairedDataset(data({"a": 50}), batch_size=50)
        orders.append(dataset[0][0]["a"].tolist())
    assert orders[0] == orders[1] != orders[2]
    first = dataset[0][0]["a"].tolist()
    dataset.on_epoch_begin()
    assert dataset[0][0]["a"].tolist() != first


def test_without_shuffling_and_with_sizes_by_modality():
    dataset = keras_mla.UnpairedDataset(
        data({"a": 6, "b": 3}), batch_size={"a": 3, "b": 1}, shuffle=False
    )
    assert len(dataset) == 3
    x, _ = dataset[1]
    assert x["a"].tolist() == [3, 4, 5]
    assert x["b"].tolist() == [1]
    with pytest.raises(IndexError):
        dataset[3]


def test_weights_and_nested_arrays():
    dataset = keras_mla.UnpairedDataset(
        {
            "text": (
                {"ids": np.arange(8).reshape(4, 2), "mask": np.ones((4, 2))},
                np.arange(4),
                np.arange(4) / 4,
            )
        },
        batch_size=2,
        shuffle=False,
    )
    x, y, weight = dataset[1]
    assert x["text"]["ids"].tolist() == [[4, 5], [6, 7]]
    assert weight["text"].tolist() == [0.5, 0.75]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": {"a": (np.arange(3), np.arange(2))}}, "'a' must be of one"),
        ({"data": {"a": (np.arange(0), np.arange(0))}}, "at least 1"),
        ({"data": data({"a": 3}), "batch_size": 0}, "batch_size=.*0"),
        (
            {"data": data({"a": 3, "b": 3}, a=(np.ones(3),))},
            "for each modality or for none.*a: 3 arrays, b: 2 arrays",
        ),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_mla.UnpairedDataset(**arguments)


def test_lists_of_numbers_and_texts():
    dataset = keras_mla.UnpairedDataset(
        {
            "image": (np.ones((3, 2)), [0, 1, 2]),
            "text": (["a", "b", "c"], [2, 1, 0]),
            "sound": ({"wave": [[0.0, 1.0]] * 3}, [0, 0, 1]),
        },
        batch_size=2,
        shuffle=False,
    )
    x, y = dataset[0]
    assert x["text"].tolist() == ["a", "b"]
    assert x["sound"]["wave"].shape == (2, 2)
    assert y["image"].tolist() == [0, 1]
