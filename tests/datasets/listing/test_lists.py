import pytest

from keras_mla.datasets import listing
from keras_mla.datasets.listing import Problems


def test_lines_are_numbered_and_limited(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\n\n\xffb\n")
    assert list(listing.read_lines(str(path))) == [
        (f"{path}, line 1", "a"),
        (f"{path}, line 3", "\ufffdb"),
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
    path.write_bytes(b" caf\xc3\xa9 \xff\n")
    assert listing.read_text(str(path)) == "café \ufffd"
    with pytest.raises(ValueError, match="longer than 3 bytes"):
        listing.read_text(str(path), 3)
    with pytest.raises(ValueError, match="Cannot read"):
        listing.read_text(str(tmp_path / "none"))
