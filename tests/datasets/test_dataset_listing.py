import os

import pytest

from keras_mla.datasets import listing
from keras_mla.datasets.listing import Problems, Sample


@pytest.mark.parametrize(
    "name",
    ["../a", "a/../../b", "/etc/passwd", "", "a\0b", "C:\\a", "..\\a", "\\a"],
)
def test_paths_that_leave_the_folder(tmp_path, name):
    with pytest.raises(ValueError, match="train.csv, line 3: a path must"):
        listing.safe_path(tmp_path, name, "train.csv, line 3")


def test_links(tmp_path):
    root, outside = tmp_path / "data", tmp_path / "outside"
    outside.mkdir()
    (root / "in").mkdir(parents=True)
    (outside / "secret").write_text("s")
    (root / "in" / "real").write_text("r")
    (root / "file").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    (root / "fine").symlink_to(root / "in" / "real")
    for name in ("file", "folder/secret", "folder/none"):
        with pytest.raises(ValueError, match="symbolic link that leads out"):
            listing.safe_path(root, name)
    expected = os.path.realpath(root / "in" / "real")
    assert listing.safe_path(root, "fine") == expected
    assert listing.safe_path(root, "in/./real") == expected
    # The data folder itself may be a link.
    (tmp_path / "link").symlink_to(root)
    assert listing.safe_path(tmp_path / "link", "in/real") == expected


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
    path.write_text('a,"b, c\nd"\n\ne,f\n')
    rows = list(listing.read_rows(str(path)))
    assert rows[0] == (f"{path}, line 2", ["a", "b, c\nd"])
    assert rows[1] == (f"{path}, line 4", ["e", "f"])
    path.write_text('a,"' + "x" * 200_000 + '"')
    with pytest.raises(ValueError, match="line 1: field larger"):
        list(listing.read_rows(str(path)))


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


def test_partition_is_disjoint_complete_and_seeded():
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    items = list(range(5531))
    parts = listing.partition(items, shares, seed=1)
    assert [len(part) for part in parts.values()] == [1106, 1106, 3319]
    assert sorted(sum(parts.values(), [])) == items
    assert listing.partition(items, shares, seed=1) == parts
    assert listing.partition(items, shares, seed=2) != parts
    with pytest.raises(ValueError, match="sum to 1"):
        listing.partition(items, {"a": 0.5}, seed=0)


def test_validation_is_carved_out_of_training():
    def samples_of(split):
        return [Sample(f"{split}{i}", 0, {}, "") for i in range(10)]

    def ids(split, share):
        found = listing.carve_validation(split, samples_of, share, seed=0)
        return {sample.id for sample in found}

    train, held = ids("train", 0.3), ids("validation", 0.3)
    assert len(train) == 7 and len(held) == 3 and not train & held
    assert len(ids("train", 0)) == 10 and len(ids("test", 0.3)) == 10
    with pytest.raises(ValueError, match="give `validation_share`"):
        ids("validation", 0)
    with pytest.raises(ValueError, match="validation_share=1"):
        ids("train", 1)


def test_folders_and_lists_that_do_not_exist(tmp_path):
    with pytest.raises(ValueError, match="no folder.*data_dir='/none'"):
        listing.data_folder("/none")
    with pytest.raises(ValueError, match="train.csv, train.txt"):
        listing.find_list(str(tmp_path), "train", None, "csv txt")
    with pytest.raises(ValueError, match="list_file='a.csv'"):
        listing.find_list(str(tmp_path), "train", "a.csv", "csv")
    with pytest.raises(ValueError, match="on_error='ignore'"):
        Problems("ignore")
