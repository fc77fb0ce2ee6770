import csv
import io
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mla.datasets import listing
from keras_mla.datasets.listing import Problems


def test_lines_are_numbered_and_limited(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\n\nb\n")
    assert list(listing.read_lines(str(path))) == [
        (f"{path}, line 1", "a"),
        (f"{path}, line 3", "b"),
    ]
    path.write_text("a\n" + "x" * 1_000_001)
    with pytest.raises(ValueError, match="line 2: longer than"):
        list(listing.read_lines(str(path)))


def test_rows(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('a,"b, c\nd"\n\ne,f "quoted" g\n"h",i')
    rows = list(listing.read_rows(str(path), "xy", Problems("raise")))
    assert rows == [
        (f"{path}, line 1", ["a", "b, c\nd"]),
        (f"{path}, line 4", ["e", 'f "quoted" g']),
        (f"{path}, line 5", ["h", "i"]),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\nc,"d\ne,f\n"g",h\n', "line 2: a quote never closes"),
        ('a,b\ne,f\ng,h\nc,"d', "line 4: a quote never closes"),
        ('a,b\nc,"' + "x" * 200_000 + '"\ne,f\ng,h', "line 2: a quote never"),
        ("a,b\nc,d,d\ne,f\ng,h", "line 2: expected the columns x, y"),
    ],
)
def test_a_wrong_row_costs_itself_alone(tmp_path, text, message):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        list(listing.read_rows(str(path), "xy", Problems("raise")))
    skip = Problems("skip")
    rows = [row for _, row in listing.read_rows(str(path), "xy", skip)]
    assert rows == [["a", "b"], ["e", "f"], ["g", "h"]]
    with pytest.warns(UserWarning, match=f"skipped 1 entries.*{message}"):
        skip.warn("list")


@pytest.mark.parametrize(
    "line", ["{", "[1]", '{"a": 1}', '{"a": 1, "b": null}', "[" * 9999]
)
def test_json_lines_in_the_wrong_form(tmp_path, line):
    path = tmp_path / "list.jsonl"
    path.write_text('{"a": "x", "b": 2}\n' + line + "\n")
    records = listing.read_json_lines(str(path), "ab", Problems("raise"))
    assert next(records)[1] == {"a": "x", "b": "2"}
    with pytest.raises(ValueError, match="line 2: expected a JSON object"):
        next(records)
    skip = Problems("skip")
    assert len(list(listing.read_json_lines(str(path), "ab", skip))) == 1
    with pytest.warns(UserWarning, match="skipped 1 entries.*line 2"):
        skip.warn("list")


def test_texts(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b" caf\xc3\xa9 \n")
    assert listing.read_text(str(path)) == "café"
    path.write_bytes(b" caf\xe9 \x80\n")
    assert listing.read_text(str(path)) == "café €"
    with pytest.raises(ValueError, match="longer than 3 bytes"):
        listing.read_text(str(path), 3)
    with pytest.raises(ValueError, match="Cannot read"):
        listing.read_text(str(tmp_path / "none"))
    path.write_bytes(b"\x89PNG\r\n\0")
    with pytest.raises(ValueError, match="a.txt' is no text"):
        listing.read_text(str(path))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_and_lines_end_as_they_like(tmp_path, end):
    path = tmp_path / "list.csv"
    text = 'a,"b ""c"" d"\ne "f",g \\"h\\"\ni,"j\nk"\nl,\n'
    path.write_bytes(text.replace("\n", end).encode())
    rows = listing.read_rows(str(path), "xy", Problems("raise"))
    assert [row for _, row in rows] == [
        ["a", 'b "c" d'],
        ['e "f"', 'g \\"h\\"'],
        ["i", f"j{end}k"],
        ["l", ""],
    ]
    numbered = [line for _, line in listing.read_lines(str(path))]
    assert numbered == text.splitlines()


def test_a_json_line_with_a_raw_line_break_costs_itself_alone(tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"a": "x\\ny \\"z\\""}\r\n'
        b'{"a": "x\ny"}\r\n{"a": "\\ud83d"}'
    )
    skip = Problems("skip")
    records = listing.read_json_lines(str(path), "a", skip)
    assert [record["a"] for _, record in records] == ['x\ny "z"', "\ufffd"]
    assert len(skip.entries) == 2 and "line 3" in skip.entries[1]


def test_many_open_quotes_take_no_time(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('a,"b\n' + '""\n' * 100_000 + "c,d\n")
    skip = Problems("skip")
    start = time.process_time()
    rows = list(listing.read_rows(str(path), "xy", skip))
    assert time.process_time() - start < 5
    assert rows[-1][1] == ["c", "d"]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            *[st.text(st.characters(exclude_categories=["Cs", "Cc"]))] * 2
        ),
        min_size=1,
    ),
    lost=st.integers(min_value=0),
)
def test_random_rows_around_an_open_quote(tmp_path_factory, rows, lost):
    path = tmp_path_factory.mktemp("rows") / "list.csv"
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    lines = stream.getvalue().split("\n")[:-1]
    lost %= len(lines) + 1
    lines.insert(lost, 'x,"y')
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    skip = Problems("skip")
    found = listing.read_rows(str(path), ("a", "b"), skip)
    assert [tuple(row) for _, row in found] == rows
    assert len(skip.entries) == 1
    assert f"line {lost + 1}: a quote never closes" in skip.entries[0]
