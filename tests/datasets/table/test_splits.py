import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mla.datasets.table import Table

TABLE = Table({"n": "n"}, "y", id="id")


def make(count=120, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(count)],
            "n": np.arange(count),
            "y": np.arange(count) % 3,
            "person": rng.integers(0, 12, count),
            "part": np.array(["train", "val", "Test"])[
                np.arange(count) // 3 % 5 % 3
            ],
        }
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([None, "person"]))
def test_each_row_is_in_one_split(seed, group):
    rows = make()
    parts = TABLE.split(rows, group=group, seed=seed, missing_classes=True)
    assert list(parts) == ["train", "validation", "test"]
    found = np.concatenate([part["n"] for part in parts.values()])
    assert sorted(found) == list(range(120))
    if group:
        persons = [set(part["person"]) for part in parts.values()]
        assert sum(map(len, persons)) == len(set.union(*persons))
    else:
        assert [len(part) for part in parts.values()] == [96, 12, 12]
        # Classes are as frequent in each split.
        for part in parts.values():
            assert set(part["y"].value_counts()) == {len(part) // 3}
    again = TABLE.split(rows, group=group, seed=seed, missing_classes=True)
    assert all(again[name].equals(parts[name]) for name in parts)


def test_splits_differ_by_seed_and_keep_order():
    first, second = (TABLE.split(make(), seed=seed) for seed in (0, 1))
    assert not first["test"].equals(second["test"])
    assert first["train"].index.is_monotonic_increasing


def test_by_a_column():
    parts = TABLE.split(make(), column="part")
    assert list(parts) == ["train", "validation", "test"]
    assert set(parts["validation"]["part"]) == {"val"}
    rows = make().assign(part=["train"] * 60 + ["mine"] * 60)
    assert list(TABLE.split(rows, column="part")) == ["train", "mine"]


@pytest.mark.parametrize("group", [None, "person"])
def test_folds(group):
    rows = make()
    folds = TABLE.folds(rows, 4, group=group)
    assert len(folds) == 4
    held = np.concatenate([held["n"] for _, held in folds])
    assert sorted(held) == list(range(120))
    for train, held in folds:
        assert not set(train["n"]) & set(held["n"])
        if group:
            assert not set(train[group]) & set(held[group])
        else:
            assert set(held["y"].value_counts()) == {10}


def test_other_labels_are_not_stratified():
    rows = make().assign(y=np.linspace(0, 1, 120))
    parts = TABLE.split(rows, {"a": 0.5, "b": 0.25, "c": 0.25})
    assert [len(part) for part in parts.values()] == [60, 30, 30]
    assert len(TABLE.folds(rows, 3)) == 3


def test_bad_input():
    rows = make()
    for change, arguments, words in [
        ({}, {"column": "none"}, "no column 'none', which the split"),
        ({}, {"group": "none"}, "no column 'none', which the group"),
        (
            {"part": ["train", None] * 60},
            {"column": "part"},
            "index 1, column 'part': the cell names no split",
        ),
        ({"part": ["a", "b"] * 60}, {"column": "part"}, "no training split"),
        (
            {"person": [None, 1] * 60},
            {"group": "person"},
            "index 0, column 'person': the group is empty",
        ),
        (
            {"person": [1] * 120},
            {"column": "part", "group": "person"},
            "the group '1' is in the split",
        ),
        (
            {
                "y": ["a", "b"] * 59 + ["a", "c"],
                "part": ["train"] * 119 + ["x"],
            },
            {"column": "part"},
            "The split 'train' lacks 1 of the 3 classes of the column 'y': c",
        ),
        ({"y": ["a"] * 119 + ["b"]}, {}, "cannot be split.*least populated"),
        ({}, {"fractions": {"a": 0.5, "b": 0.6}}, "sum to 1"),
        ({}, {"fractions": {"a": float("nan"), "b": 0.5}}, "sum to 1"),
        ({}, {"fractions": {"a": 1.0}}, "at least two"),
        ({}, {"fractions": {"a": 0.5, "b": 0.5}, "column": "part"}, "both"),
        (
            {"id": ["a"] * 120},
            {},
            "index 1, column 'id': the id 'a' is that of the row with index 0",
        ),
        ({"id": [None] * 120}, {}, "index 0, column 'id': the id is empty"),
        ({"y": [None] * 120}, {}, "index 0, column 'y': the label is empty"),
    ]:
        with pytest.raises(ValueError, match=words):
            TABLE.split(rows.assign(**change), **arguments)
    for count, change in ((1, {}), (50, {})):
        with pytest.raises(ValueError, match="rows of each class"):
            TABLE.folds(rows.assign(**change), count)
    lonely = rows.assign(y=[1] * 119 + [2], person=list(range(119)) + [500])
    with pytest.raises(ValueError, match="training rows of fold . lack.*2"):
        TABLE.folds(lonely, 3, group="person", stratify=False)
    with pytest.raises(ValueError, match="cannot be split"):
        TABLE.folds(rows.assign(person=1), 3, group="person")
