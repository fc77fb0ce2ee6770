import codecs
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mla.datasets import listing
from keras_mla.datasets.listing import Problems, encodings

ONE_BYTE = ("cp1252", "latin-1")
MARKS = (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")
CHARACTERS = (
    st.characters(exclude_categories=["Cs", "Cc"]),
    st.sampled_from(" aZ9,€–“” éüßÿÃ©Â¤ð"),
)
TEXT = "Smörgås, 10 € – “naïve”"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"", "utf-8"),
        (b"plain", "utf-8"),
        (TEXT.encode(), "utf-8"),
        (codecs.BOM_UTF8 + TEXT.encode(), "utf-8-sig"),
        (TEXT.encode("utf-16"), "utf-16"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "utf-16"),
        (TEXT.encode("utf-32"), "utf-32"),
        (TEXT.encode("cp1252"), "cp1252"),
        ("Smörgås".encode("latin-1"), "cp1252"),
        # A character of GBK, as a text of MVSA-Single has it.
        (b"#\x8d\xb9 http", "latin-1"),
    ],
)
def test_encodings(tmp_path, data, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert listing.encoding_of(path) == encoding
    text = data.decode(encoding)
    assert listing.read_text(str(path)) == text
    lines = [line for _, line in listing.read_lines(str(path))]
    assert lines == ([text] if text else [])
    if encoding in ("utf-8-sig", "utf-16", "utf-32", "cp1252"):
        path.write_bytes(("a,b\n" + text.replace(",", ";")).encode(encoding))
        rows = listing.read_rows(str(path), "xy", Problems("skip"))
        assert [row for _, row in rows] == [["a", "b"]]
        path.write_bytes(f'{{"a": "{text}"}}'.encode(encoding))
        [(_, record)] = listing.read_json_lines(
            str(path), "a", Problems("skip")
        )
        assert record == {"a": text}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\0b", "holds NUL bytes"),
        ("a\0b".encode("utf-16"), "holds NUL"),
        (bytes(range(1, 256)), "control characters"),
        (codecs.BOM_UTF8 + b"a\xff", "begins as utf-8-sig"),
        (codecs.BOM_UTF16_LE + b"a", "begins as utf-16"),
        (codecs.BOM_UTF16_LE + b"\0\xd8a\0", "begins as utf-16"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, data, message):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    for read in (
        listing.encoding_of,
        listing.read_text,
        lambda path: list(listing.read_lines(path)),
        lambda path: list(listing.read_rows(path, "xy", Problems("skip"))),
        lambda path: list(listing.read_json_lines(path, "a", Problems("skip"))),
    ):
        with pytest.raises(ValueError, match=f"a.txt'.*{message}"):
            read(str(path))


def test_one_encoding_for_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(encodings, "_BLOCK", 3)  # Cuts characters.
    path = tmp_path / "a.txt"
    path.write_bytes("aé\nb\n€uro\n".encode())
    assert listing.encoding_of(path) == "utf-8"
    # The first two lines would be UTF-8 for themselves.
    path.write_bytes(b"a\nb\nna\xefve\n")
    assert [line for _, line in listing.read_lines(str(path))][2] == "naïve"
    # UTF-8 that somebody cut or mixed stays UTF-8, and the line is named.
    for end, line in ((b"\xff\n", 3), (b"\xe2\x82", 3)):
        path.write_bytes(("é" * 9 + "\n€\n").encode() + end)
        with pytest.warns(UserWarning, match=f"first in line {line}"):
            lines = [line for _, line in listing.read_lines(str(path))]
        assert lines == ["é" * 9, "€", "\ufffd"]
    # A Russian word of MVSA-Single in GBK, mostly UTF-8 by chance.
    path.write_bytes("#хлебивино …\n".encode("gbk"))
    assert listing.encoding_of(path) == "cp1252"


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(),
    encoding=st.sampled_from(
        ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1"]
    ),
)
def test_random_texts_round_trip(tmp_path_factory, data, encoding):
    text = data.draw(st.text(CHARACTERS[encoding in ONE_BYTE]))
    text = text.encode(encoding, "ignore").decode(encoding)
    raw = text.encode(encoding)
    path = tmp_path_factory.mktemp("texts") / "a.txt"
    path.write_bytes(raw)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        decoded = listing.read_text(str(path))
    try:
        # Bytes of another encoding that are UTF-8 by chance.
        expected = raw.decode("utf-8-sig") if encoding in ONE_BYTE else text
    except UnicodeDecodeError:
        expected = text
    if not found and not raw.startswith(MARKS):
        assert decoded == expected.strip()
    elif encoding not in ONE_BYTE:
        assert decoded == text.strip() and not found
