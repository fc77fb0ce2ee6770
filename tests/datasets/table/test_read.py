import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mla.datasets import read_table
from keras_mla.datasets.table.read import as_frame

TEXT = "name;price\nCafé – “fin”;3.5\n;\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_and_separators(tmp_path, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes(TEXT.encode(encoding))
    frame = read_table(path)
    assert list(frame.columns) == ["name", "price"]
    assert frame["name"][0] == "Café – “fin”" and frame["price"][0] == 3.5
    assert frame.isna().iloc[1].all()
    assert frame.attrs["source"] == str(path)


def test_words_that_pandas_takes_for_missing_are_words(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("country,text\nNA,None\n,nan\n")
    frame = read_table(path)
    assert frame["country"][0] == "NA" and frame["text"].tolist() == [
        "None",
        "nan",
    ]
    assert pd.isna(frame["country"][1])


def test_parquet_and_json_lines(tmp_path):
    frame = pd.DataFrame({"a": [1.5, np.nan], "b": ["x", None]})
    frame.index = [7, 9]
    frame.to_parquet(tmp_path / "t.parquet")
    lines = [json.dumps({"a": 1.5, "b": "x"}), "", json.dumps({"a": None})]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    for name in ("t.parquet", "t.jsonl"):
        read = read_table(tmp_path / name)
        assert list(read.index) == [0, 1]
        assert read["a"][0] == 1.5 and read["b"][0] == "x"
        assert read.isna().iloc[1].all()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])),
            st.floats(-1e6, 1e6),
        ),
        min_size=1,
    )
)
def test_what_is_written_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    # A column of words, whatever they look like.
    rows = [("word " + text.replace(",", " "), value) for text, value in rows]
    pd.DataFrame(rows, columns=["text", "value"]).to_csv(path, index=False)
    read = read_table(path)
    assert read["text"].tolist() == [text for text, _ in rows]
    np.testing.assert_array_equal(read["value"], [v for _, v in rows])


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "no header"),
        (b"a,b\n", "no row"),
        (b"a,b\n1.5,x,3\n4.5,y\n", "row 1 .*saw 3 cells.*header has 2"),
        (b"a,b\n1.5,x\n4.5\n", "row 2 .*saw 1 cells.*header has 2"),
        (b"a,a\n1,2\n", "twice: 'a'"),
        (b"a,b\n1,2\n1,2,3\n", "line 3, saw 3.*header has 2"),
        (b'a,b\n1,2\n3,"x\n4,y\n', "quote that opens in row 2 never closes"),
        (
            b'a,b\n1,x\n2,"y\n3,z\n4,w" u\n5,v\n',
            "row 2, column 'b'.*never closes",
        ),
        (bytes(range(256)) * 20, "t.csv"),
        (b"a,b\n1,2,3\n4,5,6\n", "row 1 .*saw 3 cells.*header has 2"),
        (b"a,b\n\n1,2\n4\n", "row 2 .*ends in line 4, saw 1 cells"),
        (b'"a\nx",b,b\n1,2,3\n', "twice: 'b'"),
    ],
)
def test_bad_files(tmp_path, content, words):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        read_table(path)
    assert "t.csv" in str(error.value)


@pytest.mark.parametrize(
    "content, columns",
    [
        # A separator ends each row.
        ("a,b\n1,2,\n4,5,\n", {"a": [1, 4], "b": [2, 5]}),
        ("a,b\n007,01\n7,02\n", {"a": ["007", "7"], "b": ["01", "02"]}),
        ("a,b\n0,0.5\n10,00.5\n", {"a": [0, 10], "b": [0.5, 0.5]}),
        ("a,b\nTrue,1\nFalse,2\n", {"a": [True, False], "b": [1, 2]}),
        ("a,b\n1,x\n2," + "y" * 200_000, {"a": [1, 2]}),
        (f"a,b\n{10**30},1\n2,1\n", {"a": [10**30, 2]}),
    ],
)
def test_nothing_is_lost(tmp_path, content, columns):
    (tmp_path / "t.csv").write_text(content)
    frame = read_table(tmp_path / "t.csv")
    for name, cells in columns.items():
        assert list(map(type(cells[0]), frame[name])) == cells


def test_a_column_of_yes_and_no_has_an_empty_cell(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\nTrue,1\n,2\nFalse,3\n")
    cells = read_table(tmp_path / "t.csv")["a"].tolist()
    assert cells[0] is True and cells[2] is False and pd.isna(cells[1])


def test_a_few_wrong_bytes_are_replaced(tmp_path):
    lines = ["é,b", *["éàü,1"] * 50]
    wrong = "\n".join(lines).encode() + b"\ncaf\xe9,2\n"
    (tmp_path / "t.csv").write_bytes(wrong)
    with pytest.warns(UserWarning, match="wrong bytes"):
        frame = read_table(tmp_path / "t.csv")
    assert frame["é"].tolist()[-2:] == ["éàü", "caf\ufffd"]


def test_other_bad_files(tmp_path):
    with pytest.raises(ValueError, match="no table at"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="must be one character"):
        (tmp_path / "t.csv").write_text("a;;b\n1;;2\n")
        read_table(tmp_path / "t.csv", separator=";;")
    (tmp_path / "t.xyz").write_text("a\n1\n")
    with pytest.raises(ValueError, match="must be a .csv"):
        read_table(tmp_path / "t.xyz")
    (tmp_path / "t.parquet").write_text("a,b\n")
    with pytest.raises(ValueError, match="t.parquet"):
        read_table(tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n[1]\n')
    with pytest.raises(ValueError, match="t.jsonl, line 2"):
        read_table(tmp_path / "t.jsonl")


def test_rows_in_other_forms():
    frame = as_frame([{"a": 1}, {"b": "x"}], ["a", "b", "c"])
    assert list(frame.columns) == ["a", "b", "c"]
    assert frame["c"].isna().all() and frame["a"][0] == 1
    assert as_frame({"a": [1, 2]})["a"].tolist() == [1, 2]

    class Arrow:
        def to_pandas(self):
            return pd.DataFrame({"a": [3]})

    assert as_frame(Arrow())["a"].tolist() == [3]
    columns = {"a": pd.Series([1, 2], [0, 1]), "b": pd.Series([3, 4], [1, 2])}
    assert as_frame(columns)["b"].tolist() == [3, 4]
    with pytest.raises(TypeError, match="Received: int"):
        as_frame(3)
    with pytest.raises(ValueError, match="no row"):
        as_frame([])
    for rows in ({"a": 1}, {"a": [1], "b": [1, 2]}):
        with pytest.raises(ValueError, match="lists of one length"):
            as_frame(rows)
