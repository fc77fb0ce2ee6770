import dataset_layouts as layouts
import pytest

from keras_mla.datasets import image, mvsa

pytestmark = pytest.mark.filterwarnings("ignore:.*are published")
SMALL = image.ImageSettings(size=16)


def ids(samples):
    return [sample.id for sample in samples]


def test_mvsa_reconciles_labels():
    rule = {
        ("positive", "positive"): "positive",
        ("neutral", "negative"): "negative",
        ("positive", "neutral"): "positive",
        ("neutral", "neutral"): "neutral",
        ("positive", "negative"): None,
        ("negative", "positive"): None,
    }
    for pair, label in rule.items():
        assert mvsa.reconcile(*pair) == label
    with pytest.raises(ValueError, match="label='happy'"):
        mvsa.reconcile("happy", "neutral")


def test_mvsa_json_lists(tmp_path):
    layouts.mvsa(tmp_path)
    counts = {"train": 6, "validation": 2, "test": 2}
    for split, count in counts.items():
        with pytest.warns(UserWarning, match=f"found {count} samples"):
            found = mvsa.files(tmp_path, split)
        assert len(found) == count
    assert found[0].inputs["text"] == "t8"
    assert mvsa.class_names[found[0].label] == "neutral"
    x, y = next(iter(mvsa.load(tmp_path, "test", image=SMALL)))
    assert x["image"].shape == (2, 16, 16, 3)
    assert list(x["text"].numpy()) == [b"t8", b"t9"]


def test_mvsa_label_table(tmp_path):
    layouts.mvsa(tmp_path)
    # Of the ten pairs, 1 and 3 contradict each other.
    parts = {
        split: mvsa.files(tmp_path, split, protocol="random", seed=4)
        for split in ("train", "validation", "test")
    }
    assert {k: len(v) for k, v in parts.items()} == {
        "train": 6,
        "validation": 1,
        "test": 1,
    }
    together = sum(parts.values(), [])
    assert sorted(ids(together)) == list("02456789")
    named = {s.id: mvsa.class_names[s.label] for s in together}
    assert named["0"] == "positive" and named["2"] == "positive"
    assert named["4"] == "negative" and named["8"] == "neutral"
    texts = {s.id: s.inputs["text"] for s in together}
    assert texts["5"] == "salt no. 5 ÿ"


def test_mvsa_wrong_lines(tmp_path):
    layouts.mvsa(tmp_path)
    table = tmp_path / "labelResultAll.txt"
    good = table.read_text()
    for line, message in (
        ("5", "expected '<id><tab>"),
        ("../5\tneutral,neutral", "expected '<id><tab>"),
        ("5\tneutral,happy", "label='happy'"),
    ):
        table.write_text(good + line)
        with pytest.raises(ValueError, match=f"line 12: .*{message}"):
            mvsa.files(tmp_path, protocol="random")
    table.write_text(good)
    (tmp_path / "data/0.txt").write_text(" ")
    with pytest.raises(ValueError, match="line 2: the text of '0' is empty"):
        mvsa.files(tmp_path, protocol="random")
    with pytest.raises(ValueError, match="protocol='all'"):
        mvsa.files(tmp_path, protocol="all")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("my_train_mvsa.txt", "train"),
        ("my_dev_mvsa.txt", "validation"),
        ("my_val_mvsa.txt", "validation"),
        ("test.txt", "test"),
    ],
)
def test_mvsa_lists_of_pictures(tmp_path, name, split):
    layouts.mvsa(tmp_path)
    for path in tmp_path.glob("*.jsonl"):
        path.unlink()
    (tmp_path / name).write_bytes(b"7.jpg negative\r\ndata/3.jpg neutral\r\n")
    found = mvsa.files(tmp_path, split)
    assert ids(found) == ["7", "3"]
    assert [mvsa.class_names[s.label] for s in found] == ["negative", "neutral"]
    assert found[1].inputs["image"].endswith("data/3.jpg")
    assert found[1].inputs["text"] == "salt no. 3 ÿ"
    with open(tmp_path / name, "a") as file:
        file.write("../5.jpg neutral\n5.jpg happy\n5 neutral\n")
    with pytest.warns(UserWarning, match="skipped 2 entries.*line 4: expected"):
        # The name of a picture counts, not its folder.
        found = mvsa.files(tmp_path, split, on_error="skip")
    assert ids(found) == ["7", "3", "5"]
    assert found[2].inputs["image"].endswith("data/5.jpg")


def test_mvsa_the_owners_list_under_the_wrong_protocol(tmp_path):
    layouts.mvsa(tmp_path)
    with pytest.raises(ValueError, match='line 1: .*protocol="random"'):
        mvsa.files(tmp_path, list_file="labelResultAll.txt")
    jsonl = (tmp_path / "test.jsonl").read_bytes()
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbf" + jsonl)
    assert ids(mvsa.files(tmp_path, list_file="list")) == ["8", "9"]
