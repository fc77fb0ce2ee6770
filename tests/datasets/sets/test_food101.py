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
    with pytest.warns(UserWarning, match="3 samples where 57970"):
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
