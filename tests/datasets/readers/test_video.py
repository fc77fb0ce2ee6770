import numpy as np
import pytest
from dataset_media import write_frames, write_jpeg, write_video

from keras_mla.datasets import video


def grey(frames):
    return frames.reshape(len(frames), -1).mean(axis=1)


def test_even_indices():
    assert video.even_indices(9, 3) == [1, 4, 7]
    assert video.even_indices(3, 3) == [0, 1, 2]
    assert video.even_indices(5, 1) == [2]
    assert video.even_indices(1, 3) == [0, 0, 0]


@pytest.mark.parametrize("suffix", [".mp4", ".flv", ".avi"])
@pytest.mark.parametrize("gop", [2, 12])
def test_frames_of_a_video(tmp_path, suffix, gop):
    path = write_video(tmp_path / f"a{suffix}", frames=12, gop=gop)
    found = video.frames(path, n=3)
    assert found.shape == (3, 32, 48, 3) and found.dtype == np.uint8
    np.testing.assert_allclose(grey(found), [40, 120, 200], atol=4)
    every = video.frames(path, n=12)
    np.testing.assert_allclose(grey(every), np.arange(12) * 20, atol=4)


def test_a_part_of_a_video(tmp_path):
    path = write_video(tmp_path / "a.avi", frames=12, sound=False)
    found = video.frames(path, n=1, span=(1.0, 2.25))  # frames 4 to 8
    np.testing.assert_allclose(grey(found), [120], atol=4)
    with pytest.raises(ValueError, match="no frames between 9.0 and 10.0 s"):
        video.frames(path, span=(9.0, 10.0))


def test_a_file_that_cannot_be_searched(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", frames=12, gop=2)
    expected = video.frames(path)
    import av

    class Forward:
        def __init__(self, container):
            self.container = container

        def __getattr__(self, name):
            return getattr(self.container, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.container.close()

        def seek(self, *args, **kwargs):
            raise av.PermissionError(1, "Operation not permitted")

    real = av.open
    monkeypatch.setattr(av, "open", lambda *a, **k: Forward(real(*a, **k)))
    np.testing.assert_array_equal(video.frames(path), expected)


def test_frames_of_a_folder_in_numeric_order(tmp_path):
    for i in range(12):
        write_jpeg(tmp_path / f"img_{i}.jpg", (20 * i, 20 * i, 0))
    found = video.frames(tmp_path, n=3)
    np.testing.assert_allclose(
        found[:, :, :, 0].mean(axis=(1, 2)), [40, 120, 200], atol=3
    )


def test_folders_that_will_not_do(tmp_path):
    with pytest.raises(ValueError, match="holds no images"):
        video.frames(tmp_path)
    write_frames(tmp_path / "a")
    with pytest.raises(ValueError, match="span=\\(0, 1\\)"):
        video.frames(tmp_path / "a", span=(0, 1))
    write_jpeg(tmp_path / "a" / "frame_00002.jpg", size=(20, 20))
    with pytest.raises(ValueError, match="differ in size"):
        video.frames(tmp_path / "a")
    (tmp_path / "a" / "frame_00002.jpg").unlink()
    write_jpeg(tmp_path / "secret.jpg")
    (tmp_path / "a" / "frame_00002.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(ValueError, match="leads out"):
        video.frames(tmp_path / "a")
    with pytest.raises(ValueError, match="n=0"):
        video.frames(tmp_path / "a", n=0)


def test_damaged_videos(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    content = path.read_bytes()
    for name, data in {
        "cut.mp4": content[: len(content) // 3],
        "empty.mp4": b"",
        "text.mp4": b"text " * 1000,
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=name):
            video.frames(tmp_path / name)
    with pytest.raises(ValueError, match="none.mp4"):
        video.frames(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="max_pixels=100"):
        video.frames(path, max_pixels=100)


def test_damaged_bytes_never_crash(tmp_path):
    rng = np.random.default_rng(0)
    for suffix in (".mp4", ".flv", ".avi"):
        content = write_video(tmp_path / f"a{suffix}").read_bytes()
        for trial in range(10):
            data = bytearray(content)
            for place in rng.integers(0, len(data), 30):
                data[place] = rng.integers(256)
            path = tmp_path / f"{trial}{suffix}"
            path.write_bytes(data)
            try:
                assert video.frames(path).shape[0] == 3
            except ValueError as error:
                assert str(path) in str(error)


def test_a_playlist_is_no_video(tmp_path):
    write_video(tmp_path / "a.mp4")
    lists = {
        "hls.mp4": "#EXTM3U\n#EXTINF:3,\na.mp4\n#EXT-X-ENDLIST\n",
        "concat.mp4": "ffconcat version 1.0\nfile a.mp4\n",
    }
    for name, content in lists.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match="Cannot open the video"):
            video.frames(tmp_path / name)


def test_a_sound_has_no_pictures(tmp_path):
    from dataset_media import write_wav

    with pytest.raises(ValueError, match="has no pictures"):
        video.frames(write_wav(tmp_path / "a.wav"))
