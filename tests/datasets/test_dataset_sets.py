"""The five data sets on small folders in their published layouts."""

import json

import dataset_layouts as layouts
import numpy as np
import pytest
from dataset_media import write_frames, write_video

from keras_mla.datasets import (
    audio,
    crema_d,
    food101,
    iemocap,
    image,
    kinetics_sounds,
    mvsa,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*are published")
FBANK = audio.Fbank(frames=30, mels=16)
SMALL = image.ImageSettings(size=16)


def ids(samples):
    return [sample.id for sample in samples]


# CREMA-D


@pytest.fixture
def crema(tmp_path):
    return tmp_path, *layouts.crema_d(tmp_path)


def test_crema_d_lists(crema):
    root, train, test = crema
    found = crema_d.files(root, "train")
    assert ids(found) == train and ids(crema_d.files(root, "test")) == test
    for sample in found:
        emotion = sample.id.split("_")[2]
        assert crema_d.class_names[sample.label] == emotion
        assert sample.inputs["audio"].endswith(f"AudioWAV/{sample.id}.wav")
        assert sample.inputs["video"].endswith(f"Image-01-FPS/{sample.id}")
    assert found[1].source == f"{root.resolve() / 'train.txt'}, line 2"
    own = crema_d.files(root, "test", list_file=root / "train.txt")
    assert ids(own) == train


def test_crema_d_validation_and_counts(crema):
    root, train, test = crema
    with pytest.warns(UserWarning, match="13 samples where 6698 are publ"):
        part = crema_d.files(root, "train", validation_share=0.3)
    held = crema_d.files(root, "validation", validation_share=0.3)
    assert sorted(ids(part) + ids(held)) == sorted(train) and len(held) == 4


def test_crema_d_by_actor(crema):
    root, train, test = crema
    parts = {
        split: crema_d.files(root, split, protocol="actor", seed=1)
        for split in ("train", "validation", "test")
    }
    actors = {k: {i[:4] for i in ids(v)} for k, v in parts.items()}
    assert sum(map(len, actors.values())) == 6
    assert len(set().union(*actors.values())) == 6
    assert sorted(sum(map(ids, parts.values()), [])) == sorted(train + test)
    again = crema_d.files(root, "test", protocol="actor", seed=1)
    assert again == parts["test"]
    seeds = {
        tuple(ids(crema_d.files(root, "test", protocol="actor", seed=s)))
        for s in range(6)
    }
    assert len(seeds) > 1


def test_crema_d_missing_files(crema):
    root, train, _ = crema
    (root / f"AudioWAV/{train[2]}.wav").unlink()
    with pytest.warns(UserWarning, match=f"1 of 13 .*{train[2]}.wav"):
        found = crema_d.files(root, "train")
    assert train[2] not in ids(found) and len(found) == 12


@pytest.mark.parametrize(
    "line",
    [
        "1001_DFA_ANG_XX.flv",
        "1001_DFA_ANG_XX.flv Happy",
        "../../1001_DFA_ANG_XX.flv Angry",
        "1001_DFA_XYZ_XX,XYZ",
        "\0,\0",
    ],
)
def test_crema_d_wrong_lines(crema, line):
    root, train, _ = crema
    lines = (root / "train.txt").read_text()
    (root / "train.txt").write_text(lines + line + "\n")
    with pytest.raises(ValueError, match="train.txt, line 14: expected"):
        crema_d.files(root, "train")
    with pytest.warns(UserWarning, match="skipped 1 entries.*line 14"):
        assert ids(crema_d.files(root, "train", on_error="skip")) == train


def test_crema_d_links_out_of_the_folder(crema, tmp_path_factory):
    root, train, _ = crema
    outside = tmp_path_factory.mktemp("outside") / "a.wav"
    path = root / f"AudioWAV/{train[0]}.wav"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(ValueError, match="line 1: .*leads out"):
        crema_d.files(root, "train")


def test_crema_d_load(crema):
    root, train, _ = crema
    dataset = crema_d.load(
        root, "test", audio=FBANK, image=SMALL, frames=2, batch_size=3
    )
    x, y = next(iter(dataset))
    assert x["audio"].shape == (3, 30, 16, 1)
    assert x["video"].shape == (3, 2, 16, 16, 3)
    expected = [s.label for s in crema_d.files(root, "test")]
    np.testing.assert_array_equal(
        np.concatenate([y for _, y in dataset]), expected
    )
    only = crema_d.load(
        root, "train", modalities=["audio"], audio=FBANK, seed=2
    )
    assert list(only.element_spec[0]) == ["audio"]


def test_crema_d_from_the_published_videos_alone(tmp_path):
    clip = "1001_DFA_ANG_XX"
    write_video(tmp_path / f"VideoFlash/{clip}.flv")
    (tmp_path / "train.csv").write_text(f"{clip},ANG\n")
    dataset = crema_d.load(tmp_path, "train", audio=FBANK, image=SMALL)
    x, y = next(iter(dataset))
    assert x["audio"].shape == (1, 30, 16, 1)
    assert x["video"].shape == (1, 3, 16, 16, 3)
    np.testing.assert_array_equal(y, [5])


def test_crema_d_wrong_arguments(crema):
    root = crema[0]
    with pytest.raises(ValueError, match="split='dev'"):
        crema_d.files(root, "dev")
    with pytest.raises(ValueError, match="protocol='speaker'"):
        crema_d.files(root, protocol="speaker")
    with pytest.raises(TypeError, match="batchsize"):
        crema_d.load(root, batchsize=3)


# Kinetics-Sounds


def test_kinetics_sounds(tmp_path):
    layouts.kinetics_sounds(tmp_path)
    names = ("bowling", "playing piano", "tap dancing")
    assert kinetics_sounds.class_names(tmp_path) == names
    with pytest.warns(UserWarning, match="found 3 samples where 31"):
        train = kinetics_sounds.files(tmp_path, "train")
    assert [s.label for s in train] == [0, 1, 2, 0, 1]
    assert [s.label for s in kinetics_sounds.files(tmp_path, "test")] == [2]
    assert train[0].inputs["audio"].endswith(".wav")
    assert train[1].inputs["audio"].endswith(".mp4")
    dataset = kinetics_sounds.load(
        tmp_path, "train", audio=FBANK, image=SMALL, batch_size=5
    )
    x, y = next(iter(dataset))
    assert x["audio"].shape == (5, 30, 16, 1)
    assert x["video"].shape == (5, 3, 16, 16, 3)


def test_kinetics_sounds_with_numbers_and_wrong_lines(tmp_path):
    layouts.kinetics_sounds(tmp_path)
    lines = (tmp_path / "train.csv").read_text().splitlines()
    numbered = [f"{a.rsplit(',', 1)[0]},{i}" for i, a in enumerate(lines)]
    (tmp_path / "train.csv").write_text("\n".join(numbered))
    assert kinetics_sounds.class_names(tmp_path) == tuple("01234")
    found = kinetics_sounds.files(tmp_path, "train")
    assert [s.label for s in found] == [0, 1, 2, 3, 4]
    for line, message in (
        ("../../etc_1_2,10,bowling", "expected"),
        ("abc,10,bowling", "expected"),
        ("a_1_2,10", "expected"),
        ("a_000001_000002,10,surfing", "class='surfing'"),
    ):
        (tmp_path / "test.csv").write_text(f"{lines[0]}\n{line}\n")
        with pytest.raises(ValueError, match=f"test.csv, line [12].*{message}"):
            kinetics_sounds.files(
                tmp_path, "test", classes=["bowling", "playing piano"]
            )


# Food-101


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


# MVSA-Single


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
    assert texts["5"] == "salt no. 5 \ufffd"


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


# IEMOCAP


def test_iemocap_classes(tmp_path):
    layouts.iemocap(tmp_path)
    splits = ("train", "validation", "test")
    four = sum((iemocap.files(tmp_path, s) for s in splits), [])
    names = iemocap.class_names(4)
    by_id = {s.id: names[s.label] for s in four}
    assert len(by_id) == len(four) == 25
    first = [
        by_id.get(f"Ses01F_impro01_{'FM'[i % 2]}{i:03d}") for i in range(7)
    ]
    assert first == ["ang", "hap", "hap", "neu", "sad", None, None]
    six = sum((iemocap.files(tmp_path, s, classes=6) for s in splits), [])
    assert len(six) == 30
    assert {iemocap.class_names(6)[s.label] for s in six} == set(
        iemocap.class_names(6)
    )
    sample = next(s for s in four if s.id == "Ses03F_impro01_M001")
    assert sample.span == (0.25, 1.0)
    assert sample.inputs["text"] == "Salt exc."
    assert sample.inputs["audio"].endswith(
        "Session3/sentences/wav/Ses03F_impro01/Ses03F_impro01_M001.wav"
    )
    assert sample.inputs["image"].endswith("DivX/Ses03F_impro01.avi")
    with pytest.warns(UserWarning, match="25 samples where 5531"):
        iemocap.files(tmp_path)
    with pytest.warns(UserWarning, match="30 samples where 7380"):
        iemocap.files(tmp_path, classes=6)
    with pytest.raises(ValueError, match="classes=5"):
        iemocap.files(tmp_path, classes=5)


def test_iemocap_splits(tmp_path):
    layouts.iemocap(tmp_path)
    splits = ("train", "validation", "test")
    parts = [ids(iemocap.files(tmp_path, s, seed=3)) for s in splits]
    assert [len(p) for p in parts] == [15, 5, 5]
    assert len(set(sum(parts, []))) == 25
    share = {"protocol": "session", "session": 2, "validation_share": 0.25}
    train, held, test = (
        ids(iemocap.files(tmp_path, s, **share)) for s in splits
    )
    assert {i[:5] for i in test} == {"Ses02"} and len(test) == 5
    assert {i[:5] for i in train + held} == {"Ses01", "Ses03", "Ses04", "Ses05"}
    assert len(held) == 5 and not set(train) & set(held)
    with pytest.raises(ValueError, match="session=6"):
        iemocap.files(tmp_path, session=6)


def test_iemocap_load(tmp_path):
    layouts.iemocap(tmp_path)
    samples = iemocap.files(tmp_path, "test")
    presence = np.ones((len(samples), 3), bool)
    dataset = iemocap.load(
        tmp_path, "test", audio=FBANK, image=SMALL, presence=presence
    )
    x, y = next(iter(dataset))
    assert x["audio"].shape == (5, 30, 16, 1) and x["presence"].shape == (5, 3)
    # The middle of three frames from (start, end) on: frame i + 1.
    pixels = np.asarray(x["image"]) * image.IMAGENET_STD + image.IMAGENET_MEAN
    for sample, picture in zip(samples, pixels, strict=True):
        turn = int(sample.id[-3:])
        assert abs(picture.mean() * 255 - 20 * (turn + 1)) < 5
    write_frames(tmp_path / "Image-01-FPS" / samples[0].id)
    again = iemocap.files(tmp_path, "test")
    assert again[0].inputs["image"].endswith(samples[0].id)


def test_iemocap_wrong_files(tmp_path):
    with pytest.raises(ValueError, match="Found no utterances"):
        iemocap.files(tmp_path)
    layouts.iemocap(tmp_path)
    folder = tmp_path / "Session1/dialog"
    spoken = folder / "transcriptions/Ses01F_impro01.txt"
    spoken.write_text(spoken.read_text().replace("Salt neu.", ""))
    with pytest.raises(ValueError, match="text of 'Ses01F_impro01_M003'"):
        iemocap.files(tmp_path)
    with pytest.warns(UserWarning, match="skipped 1 entries.*M003"):
        iemocap.files(tmp_path, on_error="skip")
    labels = folder / "EmoEvaluation/Ses01F_impro01.txt"
    for line, message in (
        ("[1.0 - 2.0]\tSes01F_../a_F000\tang\t[1]", "expected"),
        ("[1.0 - 2.0]\tSes02F_impro01_F000\tang\t[1]", "expected"),
        ("[2.0 - 1.0]\tSes01F_impro01_F000\tang\t[1]", "end after the start"),
        ("[1.0.1 - 2]\tSes01F_impro01_F000\tang\t[1]", "end after the start"),
    ):
        labels.write_text(line)
        with pytest.raises(ValueError, match=f"txt, line 1: .*{message}"):
            iemocap.files(tmp_path)
