import json

import dataset_layouts as layouts
import numpy as np
import pytest

from keras_mla.datasets import food101, image

pytestmark = pytest.mark.filterwarnings("ignore:.*are published")
SMALL = image.ImageSettings(size=16)


def ids(samples):
    return [sample.id for sample in samples]


@pytest.mark.parametrize("layout", ["jsonl", "titles", "txt"])
def test_food101_layouts(tmp_path, layout):
    layouts.food101(tmp_path, layout)
    assert food101.class_names(tmp_path) == ("apple_pie", "waffles")
    train = food101.files(tmp_path, "train")
    assert ids(train) == ["apple_pie_0", "apple_pie_1"] + [
        "waffles_0",
        "waffles_1",
    ]
    assert [s.label for s in train] == [0, 0, 1, 1]
    assert train[3].inputs["text"] == "pinch, waffles"
    assert ids(food101.files(tmp_path, "test")) == ["apple_pie_2", "waffles_2"]
    held = food101.files(tmp_path, "validation", validation_share=0.25)
    kept = food101.files(tmp_path, "train", validation_share=0.25)
    assert len(held) == 1 and len(kept) == 3
    assert not set(ids(held)) & set(ids(kept))
    dataset = food101.load(tmp_path, "test", image=SMALL)
    x, y = next(iter(dataset))
    assert x["image"].shape == (2, 16, 16, 3)
    assert x["text"].numpy()[1] == b"of, waffles"
    np.testing.assert_array_equal(y, [0, 1])


def test_food101_dev_list_and_counts(tmp_path):
    layouts.food101(tmp_path)
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    (tmp_path / "train.jsonl").write_text("\n".join(lines[1:]))
    (tmp_path / "dev.jsonl").write_text(lines[0])
    with pytest.warns(UserWarning, match="1 samples where 5000"):
        assert ids(food101.files(tmp_path, "validation")) == ["apple_pie_0"]
    with pytest.warns(UserWarning, match="3 samples where 62970"):
        food101.files(tmp_path, "train")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"text": " \n"}, "line 5: the text of 'a' is empty"),
        ({"img": "../../a.jpg"}, "line 5: a path must be relative"),
        ({"img": "/etc/passwd"}, "line 5: a path must be relative"),
        ({"label": "soup"}, "line 5: the class is not.*class='soup'"),
        ({"text": None}, "line 5: expected a JSON object"),
    ],
)
def test_food101_wrong_lines(tmp_path, change, message):
    layouts.food101(tmp_path)
    good = {"id": "a", "label": "waffles", "text": "t", "img": "images/a.jpg"}
    with open(tmp_path / "train.jsonl", "a") as file:
        file.write(json.dumps({**good, **change}))
    with pytest.raises(ValueError, match=message):
        food101.files(tmp_path, "train")
    with pytest.warns(UserWarning, match=message):
        found = food101.files(tmp_path, "train", on_error="skip")
    assert len(found) == 4


def test_food101_wrong_rows(tmp_path):
    layouts.food101(tmp_path, "titles")
    path = tmp_path / "texts/train_titles.csv"
    path.write_text("a.jpg,apple_pie\n")
    with pytest.raises(ValueError, match="line 1: expected the columns"):
        food101.files(tmp_path, "train")
    layouts.food101(tmp_path / "b", "txt")
    (tmp_path / "b/train.txt").write_text("a.jpg\n")
    with pytest.raises(ValueError, match="line 1: expected '<picture>"):
        food101.files(tmp_path / "b", "train")


def test_food101_of_mla_with_the_texts_of_other_lists(tmp_path):
    layouts.food101(tmp_path, "titles")
    lines = ["waffles_0.jpg waffles", "apple_pie_1.jpg apple_pie", ""]
    (tmp_path / "my_train_food.txt").write_text("\r\n".join(lines))
    given = {"list_file": "my_train_food.txt"}
    found = food101.files(tmp_path, **given)
    assert ids(found) == ["waffles_0", "apple_pie_1"]
    assert [s.label for s in found] == [1, 0]
    assert found[0].inputs["text"] == "a, waffles"
    # The texts of the jsonl lists come first.
    layouts.food101(tmp_path, "jsonl")
    path = tmp_path / "train.jsonl"
    path.write_text(path.read_text().replace("a, waffles", "b"))
    assert food101.files(tmp_path, **given)[0].inputs["text"] == "b"
    for old in ("train.jsonl", "test.jsonl"):
        (tmp_path / old).unlink()
    for old in (tmp_path / "texts").iterdir():
        old.unlink()
    assert food101.class_names(tmp_path) == ("apple_pie", "waffles")
    with pytest.raises(ValueError, match="waffles_0.txt"):
        food101.files(tmp_path)


def test_food101_titles_with_a_header_in_windows_1252(tmp_path):
    layouts.food101(tmp_path, "titles")
    path = tmp_path / "texts/train_titles.csv"
    text = "image,title,label\r\n" + path.read_text()
    path.write_bytes(text.replace("a, waffles", "crème").encode("cp1252"))
    assert food101.files(tmp_path)[2].inputs["text"] == "crème"


def test_food101_ids_of_qmf(tmp_path):
    layouts.food101(tmp_path)
    record = {
        "id": "waffles_waffles_0.jpg",
        "label": "waffles",
        "text": "half a pair: \ud83d",
        "img": "images/train/waffles/waffles_0.jpg",
    }
    (tmp_path / "hard.jsonl").write_text(json.dumps(record))
    [sample] = food101.files(tmp_path, "test", list_file="hard.jsonl")
    assert sample.id == "waffles_0" and sample.label == 1
    assert sample.inputs["text"].encode()[-3:] == "\ufffd".encode()
