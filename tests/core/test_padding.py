"""Rows that fill a batch up count nowhere."""

import keras
import numpy as np
import pytest
from test_presence import draw_presence, with_presence
from utils import compiled, make_data, make_model, to_numpy

from keras_mla.core.padding import fill_up


@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_counts_the_same(weighted):
    x, y = make_data(13)
    if weighted:
        x = with_presence(x, draw_presence(13))
    weight = np.random.default_rng(0).random(13).astype("float32")
    data = (x, y, weight) if weighted else (x, y)
    model = compiled(make_model(), weighted_metrics=["accuracy"])
    filled = fill_up(model.modalities, data, 8)
    rows = {len(leaf) for leaf in keras.tree.flatten(filled[0])}
    assert rows == {16}
    assert not filled[0]["presence"][13:].any()
    expected = model.test_on_batch(*data, return_dict=True)
    found = model.test_on_batch(*filled, return_dict=True)
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)
    states = []
    initial = model.get_weights()
    for batch in (data, filled):
        model.set_weights(initial)
        model.train_on_batch(*batch)
        states.append([to_numpy(v) for v in model.weights])
    for first, second in zip(*states, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_what_parts_divide_stays():
    x, y = make_data(16)
    data = (x, y)
    assert fill_up(tuple(x), data, 8) is data
    data = (x, {name: y for name in x})
    assert fill_up(tuple(x), data, 8) is data


def test_unpaired_data_are_refused():
    x, y = make_data(12)
    with pytest.raises(ValueError, match="multiple of 8 in unpaired data"):
        fill_up(tuple(x), (x, {name: y for name in x}), 8)


def test_presence_may_be_by_name():
    x, y = make_data(3)
    x["presence"] = {"audio": np.array([True, False, True])}
    filled, *_ = fill_up(("text", "audio", "image"), (x, y), 2)
    np.testing.assert_array_equal(
        filled["presence"],
        [[1, 1, 1], [1, 0, 1], [1, 1, 1], [0, 0, 0]],
    )
