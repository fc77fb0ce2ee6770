import numpy as np
import pytest

from keras_mla.datasets import unpaired


def numbered(n, offset=0):
    import tensorflow as tf

    values = np.arange(offset, offset + n)
    return tf.data.Dataset.from_tensor_slices((values[:, None], values % 3))


def collect(dataset, name):
    batches = [(np.asarray(x[name]), np.asarray(y[name])) for x, y in dataset]
    xs, ys = zip(*batches, strict=True)
    np.testing.assert_array_equal(
        np.concatenate(xs)[:, 0] % 3, np.concatenate(ys)
    )
    return np.concatenate(xs)[:, 0], [len(y) for y in ys]


def test_unpaired_goes_once_through_the_longest():
    dataset = unpaired.unpaired({"a": numbered(10), "b": numbered(4)}, 4)
    a, sizes = collect(dataset, "a")
    np.testing.assert_array_equal(a, np.arange(10))
    assert sizes == [4, 4, 2]
    b, sizes = collect(dataset, "b")
    np.testing.assert_array_equal(b, np.tile(np.arange(4), 3))
    assert sizes == [4, 4, 4] and int(dataset.cardinality()) == 3


def test_unpaired_shortest_and_shuffled_anew():
    dataset = unpaired.unpaired(
        {"a": numbered(10), "b": numbered(5)}, 2, length="shortest"
    )
    a, sizes = collect(dataset, "a")
    np.testing.assert_array_equal(a, np.arange(6))
    b, sizes = collect(dataset, "b")
    assert sizes == [2, 2, 1]
    shuffled = unpaired.unpaired(
        {"a": numbered(40), "b": numbered(20).shuffle(20, seed=0)}, 4
    )
    b, _ = collect(shuffled, "b")
    assert sorted(b[:20]) == sorted(b[20:]) == list(range(20))
    assert (b[:20] != b[20:]).any()


def test_unpaired_takes_the_inputs_of_load():
    data = numbered(4).map(lambda x, y: ({"a": x}, y))
    x, y = next(iter(unpaired.unpaired({"a": data}, 2)))
    assert x["a"].shape == (2, 1) and y["a"].shape == (2,)


def test_unpaired_wrong_arguments():
    data = numbered(4)
    with pytest.raises(ValueError, match="at least one modality"):
        unpaired.unpaired({})
    with pytest.raises(ValueError, match="length='both'"):
        unpaired.unpaired({"a": data}, length="both")
    with pytest.raises(ValueError, match="'a'.*finite"):
        unpaired.unpaired({"a": data.repeat()})
    with pytest.raises(ValueError, match="'a'.*finite"):
        unpaired.unpaired({"a": data.filter(lambda x, y: False)})
    with pytest.raises(ValueError, match=r"'a' must give tuples \(x, y\)"):
        unpaired.unpaired({"a": data.map(lambda x, y: x)})
