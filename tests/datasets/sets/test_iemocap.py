import dataset_layouts as layouts
import numpy as np
import pytest
from dataset_media import write_frames, write_video, write_wav

from keras_mla.datasets import audio, iemocap, image

pytestmark = pytest.mark.filterwarnings("ignore:.*are published")
FBANK = audio.Fbank(frames=30, mels=16)
SMALL = image.ImageSettings(size=16)


def ids(samples):
    return [sample.id for sample in samples]


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


SIGN = " [split|sign] "


def test_iemocap_lists_of_mla(tmp_path):
    layouts.iemocap(tmp_path)
    keys = ("Ses03F_impro01_M001", "Ses01F_impro01_F000")
    lines = [
        SIGN.join([f"{keys[0]}.mp4", "Well,  a café.", "Happy"]),
        SIGN.join([f"{keys[1]}.mp4", "Oh", "Angry"]),
        SIGN.join([f"{keys[1]}.mp4", "Oh", "Surprise"]),
    ]
    path = tmp_path / "my_train_iemo.txt"
    path.write_bytes("\n".join(lines[:2]).encode("cp1252"))
    found = iemocap.files(tmp_path, protocol="list")
    assert ids(found) == list(keys)
    assert [iemocap.class_names(4)[s.label] for s in found] == ["hap", "ang"]
    assert found[0].inputs["text"] == "Well, a café."
    assert found[0].span == (0.25, 1.0)
    assert found[0].inputs["image"].endswith("DivX/Ses03F_impro01.avi")
    assert found[0].inputs["audio"].endswith(f"{keys[0]}.wav")
    given = {"protocol": "list", "list_file": "my_train_iemo.txt"}
    assert iemocap.files(tmp_path, "test", **given) == found
    share = {**given, "validation_share": 0.5}
    held = iemocap.files(tmp_path, "validation", **share)
    assert len(held) == 1
    dataset = iemocap.load(tmp_path, "test", audio=FBANK, image=SMALL, **given)
    x, _ = next(iter(dataset))
    assert x["image"].shape == (2, 16, 16, 3)
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="iemo.txt, line 3: expected"):
        iemocap.files(tmp_path, protocol="list")
    with pytest.raises(ValueError, match="belongs to"):
        iemocap.files(tmp_path, list_file="my_train_iemo.txt")
    with pytest.raises(ValueError, match="none of my_dev_iemo.txt"):
        iemocap.files(tmp_path, "validation", protocol="list")


def test_iemocap_lists_of_amst_and_clips_cut_out(tmp_path):
    key = "Ses02M_script01_1_F003"
    line = f"{key}, exc, 6.7700, 8.4600 ### Next. "
    (tmp_path / "iemocap_test.txt").write_text(
        line + f"\n{key}, xxx, 1, 2 ### a"
    )
    write_wav(tmp_path / f"subaudio/{key}.wav", 0.1)
    write_video(tmp_path / f"subvideo/{key}.mp4", 4)
    options = {"split": "test", "protocol": "list", "classes": 6}
    [sample] = iemocap.files(tmp_path, **options)
    assert iemocap.class_names(6)[sample.label] == "exc"
    assert sample.span is None and sample.inputs["text"] == "Next."
    assert sample.inputs["audio"].endswith(f"subaudio/{key}.wav")
    assert sample.inputs["image"].endswith(f"subvideo/{key}.mp4")
    # With the dialog's video, the times of the list cut it out.
    name = tmp_path / "Session2/dialog/avi/DivX/Ses02M_script01_1.avi"
    write_video(name, 4, sound=False)
    [sample] = iemocap.files(tmp_path, **options)
    assert sample.span == (6.77, 8.46)
    assert sample.inputs["image"].endswith("Ses02M_script01_1.avi")
    # Without times, the dialog's video is of no use.
    (tmp_path / f"subvideo/{key}.mp4").unlink()
    (tmp_path / "iemocap_test.txt").write_text(SIGN.join([key, "a", "exc"]))
    with pytest.raises(ValueError, match="the times of"):
        iemocap.files(tmp_path, **options)
    [sample] = iemocap.files(tmp_path, **options, on_error="absent")
    assert set(sample.inputs) == {"audio", "text"}
