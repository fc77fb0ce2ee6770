import os

import pytest

from keras_mla.datasets import listing


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


def test_folders_and_lists_that_do_not_exist(tmp_path):
    with pytest.raises(ValueError, match="no folder.*data_dir='/none'"):
        listing.data_folder("/none")
    with pytest.raises(ValueError, match="train.csv, train.txt"):
        listing.find_list(str(tmp_path), "train", None, "csv txt")
    with pytest.raises(ValueError, match="list_file='a.csv'"):
        listing.find_list(str(tmp_path), "train", "a.csv", "csv")
