import json

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from keras_mla.datasets.table import Table, Values


def adapted(field, rows):
    return Table({"m": field}).adapt(rows, verbose=0)


def test_equals_scikit_learn():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "z": rng.normal(3, 5, 50),
            "brand": rng.choice(["b", "a", "ç"], 50),
            "k": rng.integers(0, 9, 50),
        }
    )
    train, other = rows[:40], rows[40:]
    table = adapted(["z", "brand", "k"], train)
    encoder = OneHotEncoder(sparse_output=False).fit(train[["brand"]])
    expected = np.concatenate(
        [
            StandardScaler().fit(train[["z"]]).transform(other[["z"]]),
            encoder.transform(other[["brand"]]),
            StandardScaler().fit(train[["k"]]).transform(other[["k"]]),
        ],
        axis=1,
    )
    found = table.inputs(other)
    assert found["m"].dtype == np.float32 and "presence" not in found
    np.testing.assert_allclose(found["m"], expected, rtol=1e-6, atol=1e-6)


def test_empty_cells_by_hand():
    train = {"n": ["1", "NA", "3", ""], "c": ["x", "y", None, "x"]}
    table = adapted(Values(["n", "c"], {"c": "category"}), train)
    # Mean 2, deviation 1; the second value marks an empty cell.
    x = table.inputs({"n": ["5", None, "2"], "c": ["new", "y", None]})
    np.testing.assert_array_equal(
        x["m"], [[3, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    )
    assert "presence" not in x


def test_a_row_without_any_cell_lacks_the_modality():
    table = Table({"b": Values(["n", "c"], {"c": "category"}), "a": "k"})
    rows = {"n": [1.0, None], "c": ["x", " "], "k": [1, 2]}
    x = table.adapt(rows, verbose=0).inputs(rows)
    assert x["presence"]["b"].tolist() == [True, False]
    assert x["presence"]["a"].tolist() == [True, True]
    np.testing.assert_array_equal(x["b"][1], 0)


def test_constant_columns_and_scale():
    rows = {"a": [0.1] * 7, "b": [1, 2, 3, 4, 5, 6, 7]}
    table = adapted(["a", "b"], rows)
    np.testing.assert_array_equal(table.inputs(rows)["m"][:, 0], 0)
    table = adapted(Values(["a", "b"], scale=False), rows)
    np.testing.assert_allclose(table.inputs(rows)["m"][:, 1], rows["b"])


def test_rare_categories_are_as_unknown_ones():
    rows = {"c": ["a"] * 3 + ["d"] * 2 + ["b"] * 2 + ["c"]}
    table = adapted(Values("c", max_categories=2), rows)
    assert table.fields["m"].learned["c"]["categories"] == ["a", "b"]
    assert table.inputs({"c": ["c", "d", "b"]})["m"].tolist() == [
        [0, 0],
        [0, 0],
        [0, 1],
    ]


def test_whole_numbers_are_one_category_however_they_are_read():
    rows = {"c": pd.Series([3, 4, 3, 4]), "n": [1.0, 2.0, 3.0, 4.0]}
    table = adapted(Values(["c", "n"], {"c": "category"}), rows)
    for cells in ([3, 4], [3.0, 4.0], ["3", " 4 "], pd.array([3, 4], "Int64")):
        x = table.inputs({"c": cells, "n": [0, 0]})["m"]
        np.testing.assert_array_equal(x[:, :2], np.eye(2))
    cells = pd.array([3, None], "Int64")
    x = table.inputs({"c": cells, "n": [0, 0]})["m"]
    np.testing.assert_array_equal(x[:, :2], [[1, 0], [0, 0]])


@pytest.mark.parametrize(
    "cells, words",
    [
        (["1", "x"], "index 1, column 'n': expected a finite number.*'x'"),
        ([1.0, np.inf], "index 1, column 'n'.*inf"),
        (["1", "3,5"], "'3,5'"),
        ([1, 1e39], "index 1.*at most 3.4e.38"),
        ([1, 10**400], "index 1.*at most 3.4e.38"),
        ([1, np.array([1, 2])], "index 1.*array"),
    ],
)
def test_cells_that_are_no_numbers(cells, words):
    table = adapted("n", {"n": [1, 2, 3]})
    with pytest.raises(ValueError, match=words):
        table.inputs({"n": cells})


def test_a_cell_without_a_number_is_empty():
    table = Table({"m": "n", "k": "k"})
    rows = {"n": ["1", "NA", "3", None], "k": [1, 2, 3, 4]}
    x = table.adapt(rows, verbose=0).inputs(rows)
    assert x["presence"]["m"].tolist() == [True, False, True, False]
    assert not x["m"][1::2].any()


def test_very_small_numbers():
    rows = {"n": [1e-200, 2e-200]}
    assert np.isfinite(adapted("n", rows).inputs(rows)["m"]).all()
    table = adapted("n", {"n": [1e-30, 2e-30]})
    with pytest.raises(ValueError, match="index 0, column 'n'.*too far"):
        table.inputs({"n": [1e10]})


def test_the_order_of_values_is_that_of_columns():
    rows = {"z": [1.0, 2.0, 3.0], "a": [1.0, 1.0, 4.0]}
    table = adapted(["z", "a"], rows)
    config = json.loads(json.dumps(table.get_config(), sort_keys=True))
    again = Table.from_config(config)
    np.testing.assert_array_equal(
        again.inputs(rows)["m"], table.inputs(rows)["m"]
    )


@pytest.mark.parametrize("cell", [["x"], {"x": 1}, b"x", np.array(["x", "y"])])
def test_a_cell_of_several_values_is_no_word(cell):
    rows = {"c": ["x", "y"] * 4, "n": range(8)}
    table = Table({"m": "c", "n": "n"}).adapt(rows, verbose=0)
    with pytest.raises(
        ValueError, match="index 1, column 'c': expected a word"
    ):
        table.inputs([{"c": "x", "n": 1}, {"c": cell, "n": 1}])


def test_wrong_arguments():
    with pytest.raises(ValueError, match="kinds"):
        Values("a", {"b": "number"})
    with pytest.raises(ValueError, match="kinds"):
        Values("a", {"a": "text"})
    with pytest.raises(ValueError, match="max_categories"):
        Values("a", max_categories=0)
    with pytest.raises(ValueError, match="empty in all training rows"):
        adapted(Values("a", {"a": "number"}), {"a": [None, "", "NA"]})
    with pytest.raises(ValueError, match="empty in all training rows"):
        adapted("a", {"a": pd.Categorical([None, None]), "b": [1, 2]})
    with pytest.raises(ValueError, match="complex"):
        adapted("a", {"a": [1j, 2]})
