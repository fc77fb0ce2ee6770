import dataset_layouts as layouts
import numpy as np
import pytest
from dataset_media import write_frames, write_video, write_wav

from keras_mla.datasets import audio, crema_d, image

pytestmark = pytest.mark.filterwarnings("ignore:.*are published")
FBANK = audio.Fbank(frames=30, mels=16)
SMALL = image.ImageSettings(size=16)


def ids(samples):
    return [sample.id for sample in samples]


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


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "head", "line"),
    [
        ("test.csv", "", "{clip},{code}"),
        ("my_test_cre.txt", "", "{clip}.flv {word}"),
        (
            "SentenceFilenames.csv",
            '"Stimulus_Number","Filename"',
            '{i},"{clip}"',
        ),
        (
            "summaryTable.csv",
            '"","FileName","VoiceVote","VoiceLevel","FaceVote"',
            '"{i}","{clip}","N","69.1","A:F"',
        ),
    ],
)
def test_crema_d_published_lists(crema, name, head, line, end):
    root, _, test = crema
    words = {**layouts.EMOTIONS, "ANG": "Anger"}
    codes = [clip.split("_")[2] for clip in test]
    lines = [
        line.format(clip=clip, code=code, word=words[code], i=i)
        for i, (clip, code) in enumerate(zip(test, codes, strict=True), 1)
    ]
    (root / "test.csv").unlink()
    (root / name).write_bytes(end.join([head, *lines, ""]).encode())
    given = None if name.startswith(("my_", "test")) else name
    found = crema_d.files(root, "test", list_file=given)
    assert ids(found) == test
    assert [crema_d.class_names[s.label] for s in found] == codes
    by_actor = crema_d.files(root, protocol="actor", list_file=name)
    assert set(ids(by_actor)) <= set(test) and by_actor[0].source != test[0]
    with open(root / name, "a") as file:
        file.write("7,1001_XXX")
    with pytest.raises(ValueError, match=f"{name}, line .*expected a clip"):
        crema_d.files(root, "test", list_file=name)


def test_crema_d_the_clip_whose_sound_lacks_a_letter(crema):
    root, _, _ = crema
    clip = "1040_ITH_SAD_XX"
    write_wav(root / f"AudioWAV/{clip[:-1]}.wav", 0.1)
    write_frames(root / "Image-01-FPS" / clip)
    (root / "a.csv").write_text(f"{clip},SAD")
    [sample] = crema_d.files(root, list_file="a.csv")
    assert sample.inputs["audio"].endswith("AudioWAV/1040_ITH_SAD_X.wav")
    assert sample.inputs["video"].endswith(clip)
    parts = [
        crema_d.files(root, split, protocol="actor")
        for split in ("train", "validation", "test")
    ]
    assert clip in sum(map(ids, parts), [])


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
    pytest.importorskip("tensorflow_io")
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
