import logging
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from dataset_media import write_frames, write_jpeg, write_video, write_wav

from keras_mla.datasets import audio, image, read_table, video
from keras_mla.datasets.table import Image, Sound, Table, Video

SMALL = image.ImageSettings(size=8)
FBANK = audio.Fbank(frames=30, mels=16)


@pytest.fixture
def folder(tmp_path):
    write_jpeg(tmp_path / "pics/a.jpg", (200, 30, 60))
    write_jpeg(tmp_path / "pics/b.jpg", (0, 90, 60))
    write_wav(tmp_path / "a.wav")
    write_video(tmp_path / "a.mp4")
    write_frames(tmp_path / "frames")
    return tmp_path


def adapted(modalities, root, **rows):
    table = Table({**modalities, "n": "n"}, root=root)
    size = len(next(iter(rows.values())))
    return table.adapt({**rows, "n": list(range(size))}, verbose=0)


def inputs(table, on_error="raise", **rows):
    size = len(next(iter(rows.values())))
    return table.inputs({**rows, "n": [0] * size}, on_error=on_error)


def test_each_kind_of_file_is_read(folder):
    table = adapted(
        {
            "picture": Image("p", SMALL),
            "sound": Sound("s", FBANK),
            "film": Video("v", SMALL, frames=2),
        },
        folder,
        p=["pics/a.jpg"],
        s=["a.wav"],
        v=["a.mp4"],
    )
    x = inputs(
        table,
        p=["pics/b.jpg", None],
        s=["", "a.mp4"],
        v=["frames", str(folder / "a.mp4")],
    )
    pixels = SMALL.fit(image.decode(folder / "pics/b.jpg"))
    np.testing.assert_allclose(
        x["picture"][0], SMALL.normalize(pixels), atol=1e-6
    )
    seconds = FBANK.seconds
    wave = audio.decode(folder / "a.mp4", 16000, seconds=seconds)
    np.testing.assert_allclose(x["sound"][1], FBANK(wave), atol=1e-5)
    clip = SMALL.fit(video.frames(folder / "frames", 2))
    np.testing.assert_allclose(x["film"][0], SMALL.normalize(clip), atol=1e-6)
    assert x["presence"]["picture"].tolist() == [True, False]
    assert x["presence"]["sound"].tolist() == [False, True]
    assert x["presence"]["film"].all() and not x["picture"][1].any()
    del x["presence"]
    shapes = {name: value.shape[1:] for name, value in x.items()}
    assert shapes == table.shapes


@pytest.mark.parametrize(
    "cells, kind", [(["a.JPG", "x/b.png"], Image), (["a.wav"], Sound)]
)
def test_kinds_are_guessed_by_endings(cells, kind):
    table = adapted({"m": "c"}, ".", c=cells)
    assert type(table.fields["m"]) is kind
    assert type(adapted({"m": "c"}, ".", c=["b.mp4", ""]).fields["m"]) is Video


def test_several_pictures_of_a_row(folder):
    table = adapted(
        {"photos": Image(["p", "q"], SMALL)}, folder, p=["x"], q=["y"]
    )
    x = inputs(
        table,
        p=["pics/a.jpg", None, None],
        q=["pics/b.jpg", "pics/b.jpg", " "],
    )
    assert x["photos"].shape == (3, 2, 8, 8, 3)
    assert x["presence"]["photos"].tolist() == [True, True, False]
    # No black picture stands for one that is not there.
    np.testing.assert_array_equal(x["photos"][1, 0], x["photos"][0, 1])
    np.testing.assert_array_equal(x["photos"][1, 1], x["photos"][0, 1])


def test_the_table_s_folder_is_the_root(folder):
    (folder / "t.csv").write_text("p,n\npics/a.jpg,1\n,2\n")
    table = Table({"m": Image("p", SMALL), "n": "n"})
    x = table.adapt(folder / "t.csv", verbose=0).inputs(folder / "t.csv")
    assert x["m"].shape == (2, 8, 8, 3)
    rows = read_table(folder / "t.csv")
    np.testing.assert_array_equal(table.inputs(rows)["m"], x["m"])
    with pytest.raises(ValueError, match="root="):
        table.inputs(rows.copy().assign(n=1).to_dict("records"))
    # The folder of one machine is no part of the table.
    assert str(folder) not in str(table.get_config())


def test_no_path_leaves_the_root(folder):
    root = folder / "pics"
    table = adapted({"m": Image("p", SMALL)}, root, p=["a.jpg"])
    shutil.copy(root / "a.jpg", folder / "out.jpg")
    os.symlink(folder / "out.jpg", root / "link.jpg")
    assert inputs(table, p=[str(root / "a.jpg")])["m"].any()
    for path, words in [
        ("../out.jpg", "stay inside the data folder"),
        (str(folder / "out.jpg"), "not under the root"),
        ("link.jpg", "leads out"),
        (str(root / "link.jpg"), "not under the root"),
        ("a\0.jpg", "stay inside"),
        (str(root / "a\0.jpg"), "stay inside"),
    ]:
        with pytest.raises(ValueError, match=words) as error:
            inputs(table, p=["a.jpg", path])
        assert "index 1, column 'p'" in str(error.value)


def test_files_that_cannot_be_decoded(folder, caplog):
    (folder / "bad.jpg").write_bytes(b"no picture")
    table = adapted({"m": Image("p", SMALL)}, folder, p=["x.jpg"])
    cells = ["pics/a.jpg", "bad.jpg", "gone.jpg"]
    for cell in cells[1:]:
        with pytest.raises(ValueError, match=f"index 1.*{cell}"):
            inputs(table, p=["pics/a.jpg", cell])
    with caplog.at_level(logging.WARNING, "keras_mla"):
        x = inputs(table, "absent", p=cells)
    assert x["presence"]["m"].tolist() == [True, False, False]
    assert len(caplog.records) == 2
    assert not x["m"][1:].any()
    alone = Table({"m": Image("p", SMALL)}, root=folder)
    alone.adapt({"p": cells}, verbose=0)
    with pytest.raises(ValueError, match="index 1: the row has none of"):
        alone.inputs({"p": cells}, on_error="absent")


def test_rows_that_share_an_index_are_told_apart(folder):
    table = adapted({"m": Image("p", SMALL)}, folder, p=["pics/a.jpg"])
    rows = pd.DataFrame({"p": ["x.jpg", "y.jpg"], "n": 0}, index=["k", "k"])
    with pytest.raises(ValueError, match="'k' in position 0.*x.jpg"):
        table.inputs(rows)
    batches = table.batches(rows, on_error="absent", engine="python")
    list(batches)
    assert list(batches.absent) == [("0", "m"), ("1", "m")]


def test_too_much_for_the_memory_is_told(folder):
    table = adapted({"m": "p"}, folder, p=["pics/a.jpg"])
    with pytest.raises(ValueError, match="GiB.*batches"):
        inputs(table, p=["pics/a.jpg"] * 10_000)


def test_two_files_for_one_modality():
    with pytest.raises(ValueError, match="'m' has two files.*Image"):
        adapted({"m": ["p", "q"]}, ".", p=["a.jpg"], q=["b.jpg"])
    with pytest.raises(ValueError, match="one column of files"):
        Sound(["a", "b"])
    with pytest.raises(ValueError, match="frames=0"):
        Video("a", frames=0)
    with pytest.raises(ValueError, match="mixes columns"):
        adapted({"m": ["p", "q"]}, ".", p=["a.jpg"], q=["b.wav"])


def test_settings_are_saved():
    settings = image.ImageSettings(size=9, crop=True, scale=(0.5, 1.0))
    stft = audio.STFT(seconds=1.0)
    table = adapted(
        {
            "p": Image("p", settings),
            "s": Sound("s", stft),
            "f": Sound("s2", FBANK),
            "v": Video("v", settings, frames=None),
        },
        ".",
        p=["a"],
        s=["a"],
        s2=["a"],
        v=["a"],
    )
    fields = Table.from_config(table.get_config()).fields
    assert fields["p"].settings == fields["v"].settings == settings
    assert fields["s"].settings == stft and fields["f"].settings == FBANK
    assert fields["v"].frames is None
