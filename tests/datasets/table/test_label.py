import json

import numpy as np
import pandas as pd
import pytest

from keras_mla.datasets.table import Label, Table, Values


def adapted(label, column, name="y"):
    rows = {name: column, "n": np.arange(len(column))}
    return Table({"n": "n"}, label).adapt(rows, verbose=0), rows


@pytest.mark.parametrize(
    "column, task, classes, expected",
    [
        (["b", "a", " b"], "single_label", ["a", "b"], [1, 0, 1]),
        ([7, 3, 7], "single_label", [3, 7], [1, 0, 1]),
        (pd.Categorical([7, 3, 7]), "single_label", [3, 7], [1, 0, 1]),
        (pd.Categorical(["b", "a"]), "single_label", ["a", "b"], [1, 0]),
        ([True, False, True], "single_label", [False, True], [1, 0, 1]),
        ([1.5, 2.0, 3.0], "regression", None, [1.5, 2.0, 3.0]),
        (
            ["x|y", "y", "z| x"],
            "multi_label",
            ["x", "y", "z"],
            [[1, 1, 0], [0, 1, 0], [1, 0, 1]],
        ),
        (["b, a", "c", "d;e"], "multi_label", ["b, a", "c", "d", "e"], None),
    ],
)
def test_the_task_is_guessed(column, task, classes, expected):
    table, rows = adapted("y", column)
    assert table.task == task and table.classes == classes
    y = table.labels(rows)
    assert y.dtype == (np.int32 if task == "single_label" else np.float32)
    if expected is not None:
        np.testing.assert_array_equal(y, expected)
    # What was learned is plain JSON, and means the same afterwards.
    config = json.loads(json.dumps(table.get_config()))
    again = Table.from_config(config)
    np.testing.assert_array_equal(again.labels(rows), y)
    assert again.classes == classes


def test_an_argument_overrides_the_guess():
    table, rows = adapted(Label("y", task="regression"), [3, 1, 2])
    assert table.task == "regression" and table.units == 1
    np.testing.assert_array_equal(table.labels(rows), [3, 1, 2])
    table, rows = adapted(Label("y", task="single_label"), [1.0, 2.0, 1.0])
    assert table.classes == [1, 2]
    table, rows = adapted(Label("y", task="single_label"), ["a|b", "c"])
    assert table.classes == ["a|b", "c"]
    table, rows = adapted(Label("y", separator=","), ["b, a", "", "a"])
    np.testing.assert_array_equal(table.labels(rows), [[1, 1], [0, 0], [1, 0]])
    table, rows = adapted(Label("y", classes=["c", "b", "a"]), ["a", "b"])
    np.testing.assert_array_equal(table.labels(rows), [2, 1])
    table, rows = adapted(Label("y", classes=[2.5, 1.5]), [1.5, 2.5])
    np.testing.assert_array_equal(table.labels(rows), [1, 0])
    table, rows = adapted(Label("y", classes=np.array([2, 1])), [1, 2])
    assert json.loads(json.dumps(table.get_config()))["label"]["classes"] == [
        2,
        1,
    ]


def test_one_name_in_two_spellings_is_one_class():
    composed, apart = "caf\u00e9", "cafe\u0301"
    rows = {"n": [0, 1, 2], "y": [composed, "tea", apart], "c": [apart] * 3}
    table = Table({"n": "n", "c": Values("c", {"c": "category"})}, "y")
    table.adapt(rows, verbose=0)
    assert table.labels(rows).tolist() == [0, 1, 0]
    assert table.inputs({"n": [0], "c": [composed]})["c"].tolist() == [[1]]


def test_outputs_that_are_no_numbers():
    table, _ = adapted("y", ["a", "b"])
    with pytest.raises(ValueError, match="NaN in 1 rows.*row 1"):
        table.decode_predictions([[0.0, 1.0], [np.nan, 0.0]])


def test_several_columns():
    rows = {"n": [0, 1], "p": [1, 0], "q": [1, 1]}
    table = Table({"n": "n"}, ["q", "p"]).adapt(rows, verbose=0)
    assert table.task == "multi_label" and table.classes == ["q", "p"]
    np.testing.assert_array_equal(table.labels(rows), [[1, 1], [1, 0]])
    with pytest.raises(ValueError, match="index 1, column 'p'.*0 or 1"):
        table.labels({**rows, "p": [1, 2]})
    rows["q"] = [1.5, 2.5]
    table = Table({"n": "n"}, ["q", "p"]).adapt(rows, verbose=0)
    assert table.task == "regression" and table.units == 2
    np.testing.assert_array_equal(table.labels(rows), [[1.5, 1], [2.5, 0]])
    np.testing.assert_array_equal(
        table.decode_predictions([[1.0, 2.0]]), [[1.0, 2.0]]
    )


def test_predictions_get_their_names_back():
    table, _ = adapted("y", ["dog", "cat", "ant"])
    logits = np.eye(3)[[2, 0, 1]]
    assert table.decode_predictions(logits) == ["dog", "ant", "cat"]
    table, _ = adapted("y", [30, 10, 20])
    assert table.decode_predictions(logits) == [30, 10, 20]
    table, _ = adapted("y", ["x|y", "y"])
    assert table.decode_predictions([[1, -1], [-1, -1], [0.1, 2]]) == [
        ["x"],
        [],
        ["x", "y"],
    ]
    table, _ = adapted("y", [0.5, 1.5])
    assert table.decode_predictions([[2.5]]).tolist() == [2.5]
    with pytest.raises(ValueError, match=r"\(rows, 1\)"):
        table.decode_predictions([[1.0, 2.0]])


def test_classes_that_are_read_in_another_type_are_the_same():
    table, _ = adapted("y", ["1", "2", "1"])
    rows = {"n": [0, 0], "y": [2.0, 1.0]}
    assert table.labels(rows).tolist() == [1, 0]
    table, _ = adapted("y", [1, 2])
    assert table.labels({**rows, "y": ["2", " 1"]}).tolist() == [1, 0]


@pytest.mark.parametrize(
    "label, column, words",
    [
        ("y", ["a", None, "b"], "index 1, column 'y': the label is empty"),
        ("y", ["a", " ", "b"], "index 1, column 'y': the label is empty"),
        ("y", ["a|b", "", "b"], "index 1, column 'y': the label is empty"),
        ("y", [1.5, np.nan], "index 1, column 'y': the label is empty"),
        ("y", [1.5, np.inf], "index 1, column 'y': expected a finite"),
        ("y", ["a", "a"], "one class only"),
        (Label("y", classes=["a", "b"]), ["a", "c"], "not one of the 2.*'c'"),
        (Label("y", classes=["a", "a"]), ["a", "a"], "named twice"),
        (Label("y", classes=[1, 1.0]), [1, 1], "named twice"),
        (Label("y", separator="|"), ["", ""], "holds no label"),
        ("y", [["a", "b"], ["a"]], "index 0, column 'y': expected a word"),
        ("y", [1.5, 1e39], "index 1, column 'y': expected a finite"),
        ("y", list(range(3000)), "3,000 different integers"),
        (Label("y", task="multi_label"), ["a", "b"], "separator="),
        (Label("y", task="regression"), ["a", "b"], "finite number.*'a'"),
    ],
)
def test_bad_labels(label, column, words):
    with pytest.raises(ValueError, match=words):
        adapted(label, column)


def test_labels_that_training_rows_do_not_have():
    table, _ = adapted("y", ["a", "b"])
    rows = pd.DataFrame({"n": [0, 0], "y": ["b", "c"]}, index=[8, 9])
    rows.attrs["source"] = "mine.csv"
    with pytest.raises(ValueError, match="mine.csv, row 10, column 'y'.*'c'"):
        table.labels(rows)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"columns": []}, "name of a column"),
        ({"columns": ["a", "a"]}, "different names"),
        ({"columns": 3}, "name of a column"),
        ({"columns": "a", "task": "ranking"}, "task"),
        ({"columns": "a", "classes": []}, "classes"),
        ({"columns": "a", "classes": "ab"}, "classes"),
        ({"columns": ["a", "b"], "classes": ["a", "b"]}, "classes"),
        (
            {"columns": "a", "classes": ["a", "b"], "task": "regression"},
            "classes",
        ),
        ({"columns": "a", "separator": ""}, "separator"),
        ({"columns": ["a", "b"], "separator": ","}, "separator"),
        (
            {"columns": "a", "separator": ",", "task": "regression"},
            "separator",
        ),
        ({"columns": ["a", "b"], "task": "single_label"}, "one column"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        Label(**arguments)
