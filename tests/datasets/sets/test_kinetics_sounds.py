import dataset_layouts as layouts
import pytest

from keras_mla.datasets import audio, image, kinetics_sounds

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
