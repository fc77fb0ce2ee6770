import json

import numpy as np
import pandas as pd
import pytest
from dataset_media import write_jpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mla.datasets import Table, image, presence_of
from keras_mla.datasets.table import Image, Text, Values

NAMES = ("words", "facts", "brand")


def make_table():
    return Table(
        {
            "words": Text("title", length=6),
            "facts": ["price", "weight"],
            "brand": Values("brand", {"brand": "category"}),
        },
        label="kind",
    )


def make_rows(count=40, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "title": rng.choice(["red shoe", "blue shirt", "old hat"], count),
            "price": rng.normal(size=count),
            "weight": rng.normal(size=count),
            "brand": rng.choice(["x", "y"], count),
            "kind": np.arange(count) % 2,
        }
    )


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
        min_size=1,
        max_size=40,
    )
)
def test_random_patterns_of_empty_cells(pattern):
    table = make_table().adapt(make_rows(), verbose=0)
    whole = make_rows(len(pattern))
    rows = whole.copy().astype(object)
    for row, kept in enumerate(pattern):
        for column, keep in zip(
            ("title", "price", "weight", "brand"), kept, strict=True
        ):
            if not keep:
                rows.loc[row, column] = [None, np.nan, "", " "][row % 4]
    held = np.array(pattern)
    expected = {
        "words": held[:, 0],
        "facts": held[:, 1] | held[:, 2],
        "brand": held[:, 3],
    }
    nothing = ~np.logical_or.reduce(list(expected.values()))
    if nothing.any():
        with pytest.raises(
            ValueError, match=f"index {nothing.argmax()}: the row has none"
        ):
            table.inputs(rows)
        return
    x, complete = table.inputs(rows), table.inputs(whole)
    assert ("presence" in x) == (not all(m.all() for m in expected.values()))
    for name in NAMES:
        mask = expected[name]
        if "presence" in x:
            np.testing.assert_array_equal(x["presence"][name], mask)
        sound = mask if name != "facts" else held[:, 1] & held[:, 2]
        for key in ("token_ids", "padding_mask") if name == "words" else (0,):
            found = x[name][key] if key else x[name]
            whole_ones = complete[name][key] if key else complete[name]
            np.testing.assert_array_equal(found[sound], whole_ones[sound])
            assert not found[~mask].any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 19), st.sampled_from(["title", "price", "brand", "kind"]))
def test_nothing_is_learned_from_other_rows(row, column):
    rows = make_rows()
    table = make_table()
    parts = table.split(rows, {"train": 0.5, "test": 0.5})
    config = table.adapt(parts["train"], verbose=0).get_config()
    changed = rows.astype(object)
    where = parts["test"].index[row]
    other = {"title": "new word", "price": 1e6, "brand": "z", "kind": 1}[column]
    changed.loc[where, column] = other
    again = make_table()
    again.adapt(changed.loc[parts["train"].index].infer_objects(), verbose=0)
    assert again.get_config() == config
    # A changed training row does change what is learned.
    if column != "kind":
        changed.loc[parts["train"].index[row % 20], column] = other
        again.adapt(changed.loc[parts["train"].index], verbose=0)
        assert again.get_config() != config


def test_what_is_learned_is_json_and_means_the_same(tmp_path):
    rows = make_rows()
    table = make_table().adapt(rows[:30], verbose=0)
    table.save(tmp_path / "table.json")
    again = Table.load(tmp_path / "table.json")
    assert again.get_config() == table.get_config()
    json.loads((tmp_path / "table.json").read_text())
    for name, value in table.inputs(rows[30:]).items():
        np.testing.assert_equal(again.inputs(rows[30:])[name], value)
    assert again.modalities == NAMES and again.classes == [0, 1]


def test_a_table_that_is_not_adapted():
    table = Table({"a": "c", "b": "d"}, "y", kinds={"c": "category"})
    again = Table.from_config(json.loads(json.dumps(table.get_config())))
    rows = {"c": [1, 2, 1, 3], "d": ["u", "v", "w", "a b"], "y": list("abab")}
    for one in (table, again):
        with pytest.raises(ValueError, match="not adapted"):
            one.inputs(rows)
        with pytest.raises(ValueError, match="not adapted"):
            one.units  # noqa: B018
        one.adapt(rows, verbose=0)
    assert again.get_config() == table.get_config()
    assert table.shapes["a"] == (3,)  # One for each category.


@pytest.mark.parametrize("engine", ["python", "tensorflow"])
def test_batches_hold_what_arrays_hold(tmp_path, engine):
    write_jpeg(tmp_path / "a.jpg")
    rows = make_rows(11).astype({"title": object})
    rows.loc[[2, 5], "title"] = None
    rows["photo"] = ["a.jpg", None] * 5 + ["a.jpg"]
    table = Table(
        {
            "words": Text("title", length=6),
            "picture": Image("photo", image.ImageSettings(size=8)),
            "facts": ["price", "brand"],
        },
        label="kind",
        root=tmp_path,
    ).adapt(rows, verbose=0)
    x, y = table.arrays(rows)
    batches = list(table.batches(rows, batch_size=4, engine=engine))
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), y)
    for name in ("picture", "facts"):
        joined = np.concatenate([np.asarray(b[0][name]) for b in batches])
        held = x["presence"][name]
        np.testing.assert_allclose(joined[held], x[name][held], atol=1e-6)
    for key in ("token_ids", "padding_mask"):
        joined = np.concatenate(
            [np.asarray(b[0]["words"][key]) for b in batches]
        )
        np.testing.assert_array_equal(joined, x["words"][key])
    for name in table.modalities:
        joined = np.concatenate(
            [np.asarray(b[0]["presence"][name]) for b in batches]
        )
        np.testing.assert_array_equal(joined, x["presence"][name])


def test_presence_is_what_presence_of_finds():
    rows = make_rows(6).astype(object)
    rows.loc[1, "title"] = " "
    rows.loc[2, "brand"] = np.nan
    table = make_table().adapt(make_rows(), verbose=0)
    found = presence_of({"words": rows["title"], "brand": rows["brand"]})
    x = table.inputs(rows)
    for name, mask in found.items():
        np.testing.assert_array_equal(x["presence"][name], mask)


def test_rows_as_a_server_gets_them():
    table = make_table().adapt(make_rows(), verbose=0)
    x = table.inputs([{"title": "red shoe", "price": "2.5"}, {"brand": "y"}])
    assert x["presence"]["words"].tolist() == [True, False]
    assert x["presence"]["facts"].tolist() == [True, False]
    assert x["presence"]["brand"].tolist() == [False, True]
    assert x["brand"].tolist() == [[0, 0], [0, 1]]
    with pytest.raises(ValueError, match="index 0: the row has none"):
        table.inputs([{"colour": "red"}])


def test_the_guess_is_told(capsys):
    rows = make_rows().assign(price=None)
    rows.loc[:9, "price"] = 1.0
    Table({"a": "price", "b": ["title"]}, "kind").adapt(
        rows[rows.index < 20].astype({"price": float})
    )
    assert capsys.readouterr().out == (
        "Table of 20 rows\n"
        "  a: a vector of 2 (price: number), absent in 50 %\n"
        "  b: a vector of 3 (title: 3 categories)\n"
        "  label: kind: 2 classes (int), single_label\n"
    )


def test_bad_input():
    rows = make_rows()
    table = make_table()
    with pytest.raises(ValueError, match="no column 'brand'.*'brand' needs"):
        table.adapt(rows.drop(columns="brand"))
    with pytest.raises(ValueError, match="no column 'kind', which the label"):
        table.adapt(rows.drop(columns="kind"))
    twice = pd.concat([rows, rows[["brand"]]], axis=1)
    with pytest.raises(ValueError, match="several columns 'brand'"):
        table.adapt(twice)
    table.adapt(rows, verbose=0)
    wrong = rows.assign(price=["a lot"] + [1.0] * 39)
    wrong.attrs["source"] = "mine.csv"
    with pytest.raises(
        ValueError, match="mine.csv, row 1, column 'price'.*'a lot'"
    ):
        table.inputs(wrong)
    dates = rows.assign(price=pd.Timestamp("2020-01-01"))
    with pytest.raises(ValueError, match="neither numbers nor words"):
        Table({"a": "price"}).adapt(dates)
    with pytest.raises(ValueError, match="'a' mixes columns of different"):
        Table({"a": ["price", "title"]}, kinds={"title": "text"}).adapt(rows)
    with pytest.raises(ValueError, match="no label"):
        Table({"a": "price"}).adapt(rows, verbose=0).labels(rows)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"modalities": {}}, "dict of modality name"),
        ({"modalities": ["a"]}, "dict of modality name"),
        ({"modalities": {1: "a"}}, "dict of modality name"),
        ({"modalities": {"m": 1}}, "name of a column"),
        ({"modalities": {"m": "a"}, "id": ["b"]}, "id"),
        ({"modalities": {"a": []}}, "name of a column"),
        ({"modalities": {"presence": "a"}}, "'presence' cannot"),
        ({"modalities": {"m": "a"}, "kinds": {"b": "text"}}, "kinds"),
        ({"modalities": {"m": "a"}, "kinds": {"a": "word"}}, "kinds"),
        ({"modalities": {"m": ["a", "y"]}, "label": "y"}, "read the answer"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        Table(**arguments)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '{"modalities": {"a": 1}}'])
def test_files_that_hold_no_table(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ValueError, match="table"):
        Table.load(tmp_path / "t.json")


LEARNED = {"mean": 0.0, "deviation": 1.0, "marks_empty": False}


@pytest.mark.parametrize(
    "name, learned",
    [
        ("words", []),
        ("words", {"tokenizer": 5, "length": 3}),
        ("words", {"tokenizer": "", "length": "3"}),
        ("words", {"tokenizer": "", "length": -3}),
        ("facts", "abc"),
        ("facts", {"price": LEARNED}),
        ("facts", {"price": LEARNED, "weight": {**LEARNED, "mean": "x"}}),
        ("facts", {"price": LEARNED, "weight": {**LEARNED, "deviation": 0.0}}),
        ("facts", {"price": LEARNED, "weight": {**LEARNED, "marks_empty": 9}}),
        ("brand", {"brand": {"categories": 5}}),
        ("brand", {"brand": {"categories": ["x", "x"]}}),
        ("brand", {"brand": {"categories": [["x"]]}}),
        ("label", "x"),
        ("label", {"x": 1}),
        ("label", {"task": "evil", "separator": None, "classes": ["a", "b"]}),
        ("label", {"task": "single_label", "separator": None, "classes": 3}),
        (
            "label",
            {"task": "single_label", "separator": None, "classes": [[1], {}]},
        ),
    ],
)
def test_a_config_of_what_no_table_learns(name, learned):
    table = make_table().adapt(make_rows(), verbose=0)
    config = json.loads(json.dumps(table.get_config()))
    part = {"label": config["label"]}.get(
        name, config["modalities"].get(name, {}).get("config")
    )
    part["learned"] = learned
    with pytest.raises(ValueError, match="cannot have taught this"):
        Table.from_config(config)


def test_an_error_leaves_the_table_as_it_was():
    table = Table({"a": Values("price")}, "kind").adapt(make_rows(), verbose=0)
    before = json.dumps(table.get_config())
    with pytest.raises(ValueError, match="one class only"):
        table.adapt(make_rows(seed=1).assign(kind=1))
    assert json.dumps(table.get_config()) == before


def test_arrays_have_all_rows(tmp_path):
    write_jpeg(tmp_path / "a.jpg")
    table = Table({"m": Image("p", image.ImageSettings(size=8))}, root=tmp_path)
    rows = {"p": ["none.jpg", "a.jpg"]}
    with pytest.raises(ValueError, match="on_error.*all rows.*'skip'"):
        table.adapt(rows, verbose=0).inputs(rows, on_error="skip")
    skipped = table.batches(rows, on_error="skip", engine="python")
    assert len(skipped[0][1]) == 1


def test_two_tables_share_nothing():
    field = Values("price")
    first = Table({"a": field}).adapt(make_rows(seed=1), verbose=0)
    second = Table({"a": field}).adapt(make_rows(seed=2), verbose=0)
    assert first.get_config() != second.get_config()
    assert field.learned is None
