import json

import dataset_layouts as layouts
import pytest
from dataset_media import write_frames, write_wav

from keras_mla.datasets import audio, image, kinetics_sounds
from keras_mla.datasets.sets import kinetics_lists

pytestmark = pytest.mark.filterwarnings("ignore:.*are published")
FBANK = audio.Fbank(frames=30, mels=16)
SMALL = image.ImageSettings(size=16)


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


def test_a_test_list_needs_the_classes(tmp_path):
    layouts.kinetics_sounds(tmp_path)
    (tmp_path / "test.csv").rename(tmp_path / "my_test.csv")
    (tmp_path / "train.csv").rename(tmp_path / "my_train.csv")
    with pytest.raises(ValueError, match="Pass `classes`, such as"):
        kinetics_sounds.files(tmp_path, "test", list_file="my_test.csv")
    names = kinetics_sounds.class_names(tmp_path, "my_train.csv")
    with pytest.warns(UserWarning):
        found = kinetics_sounds.files(
            tmp_path, "test", list_file="my_test.csv", classes=names
        )
    assert [sample.label for sample in found] == [2]


ID = "-x_y000_01{}"


@pytest.fixture
def clips(tmp_path):
    """Two clips with full names, one with the short name on disk."""
    names = [f"{ID.format(i)}_000007_000017" for i in range(2)]
    for name in [*names, f"{ID.format(2)}_7"]:
        write_wav(tmp_path / f"audio/{name}.wav", 0.1)
        write_frames(tmp_path / "Image-01-FPS" / name, 1)
    return tmp_path


def listed(root, name, text, split="train", **options):
    (root / name).write_bytes(text.encode())
    found = kinetics_sounds.files(root, split, **options)
    return [(sample.id, sample.label) for sample in found]


def test_kinetics_sounds_of_ogm_ge(clips):
    long, short = (f"{ID.format(0)}_000007_000017", f"{ID.format(1)}_7")
    assert listed(clips, "my_train.txt", f"{long},10,30\r\n") == [(long, 30)]
    # The test list has no ends; numbers need no list of the classes.
    text = f"{short},10,30\r\n{ID.format(2)}_7,10,2\r\n"
    expected = [(short, 30), (f"{ID.format(2)}_7", 2)]
    given = {"split": "test", "list_file": "my_test.txt"}
    assert listed(clips, "my_test.txt", text, **given) == expected
    (clips / "my_train.txt").unlink()
    assert listed(clips, "my_test.txt", text, **given) == expected
    named = {**given, "classes": kinetics_lists.SOUNDS}
    assert listed(clips, "my_test.txt", text, **named) == expected
    found = kinetics_sounds.files(clips, **given)
    assert (
        found[0].inputs["audio"].endswith(f"{ID.format(1)}_000007_000017.wav")
    )
    assert found[1].inputs["audio"].endswith(f"{ID.format(2)}_7.wav")


def test_kinetics_sounds_of_mla(clips):
    clip = f"{ID.format(0)}_000007_000017"
    text = f"{clip}.mp4 tap dancing\n"
    assert listed(clips, "my_train_ks.txt", text) == [(clip, 0)]
    assert kinetics_sounds.class_names(clips) == ("tap dancing",)


def test_kinetics_sounds_of_bml(clips):
    labels = [name.replace(" ", "_") for name in kinetics_lists.SOUNDS]
    splits = ("training", "validation", "testing")
    names = [f"{ID.format(0)}_000007_000017", f"{ID.format(1)}_7"]
    names.append(f"{ID.format(2)}_7")
    database = {
        name: {"subset": subset, "label": "tap_dancing"}
        for name, subset in zip(names, splits, strict=True)
    }
    content = {"labels": labels, "database": database}
    text = json.dumps(content)
    for split, name in zip(("train", "validation", "test"), names, strict=True):
        found = listed(clips, "KS_train_val.json", text, split)
        assert found == [(name, 27)]
    given = {"list_file": "KS_train_val.json", "split": "validation"}
    assert listed(clips, "KS_train_val.json", text, **given) == [(names[1], 27)]
    assert kinetics_sounds.class_names(clips) == tuple(labels)
    for wrong in ("[1]", "{", '{"labels": [1], "database": {}}', "[" * 99_999):
        with pytest.raises(ValueError, match="KS_train_val.json"):
            listed(clips, "KS_train_val.json", wrong)
    database["a"] = 3
    database[names[0]] = {"subset": "training"}
    with pytest.raises(ValueError, match="KS_train_val.json, '-x_y.*expected"):
        listed(clips, "KS_train_val.json", json.dumps(content))


def test_kinetics_sounds_of_the_owners(clips):
    head = "label,youtube_id,time_start,time_end,split,is_cc\n"
    rows = [f"abseiling,{ID.format(1)},7,17,train,0"]
    rows.append(f'"tap dancing",{ID.format(0)},7,17,train,0')
    clip = f"{ID.format(0)}_000007_000017"
    text = head + "\n".join(rows)
    assert listed(clips, "train.csv", text) == [(clip, 0)]
    assert kinetics_sounds.class_names(clips) == ("tap dancing",)
    own = listed(clips, "train.csv", text, classes=("abseiling",))
    assert own == [(f"{ID.format(1)}_000007_000017", 0)]
    with pytest.raises(ValueError, match="line 4: expected"):
        listed(clips, "train.csv", text + '\n"tap dancing",a,b,c')
    with pytest.raises(ValueError, match="has no labels"):
        listed(clips, "train.csv", "youtube_id,time_start,time_end,split\n")


def test_a_number_that_is_no_class(clips):
    clip = f"{ID.format(0)}_000007_000017"
    with pytest.raises(ValueError, match="class='31'"):
        listed(
            clips,
            "a.txt",
            f"{clip},10,31",
            list_file="a.txt",
            classes=kinetics_lists.SOUNDS,
        )
    huge = f"{clip},10,99999999999"
    assert listed(clips, "train.csv", huge) == [(clip, 0)]
