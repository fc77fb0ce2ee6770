import itertools
import logging
import os

import dataset_layouts as layouts
import keras
import numpy as np
import pytest
from dataset_media import write_jpeg, write_wav

from keras_mla.datasets import audio, image, pipeline, text
from keras_mla.datasets.listing import Sample

# It has no wheels for Python 3.13.
pytest.importorskip("tensorflow_io")

FBANK = audio.Fbank(frames=40, mels=16)
MASKED = audio.Fbank(frames=40, mels=16, time_mask=20, freq_mask=8)
SMALL = image.ImageSettings(size=16)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root = tmp_path_factory.mktemp("samples")
    return [
        Sample(
            f"s{i}",
            i % 3,
            {
                "audio": str(write_wav(root / f"{i}.wav", 0.3, 16000, 200 + i)),
                "image": str(write_jpeg(root / f"{i}.jpg", (20 * i, 9, 9))),
                "text": f"salt {i}",
            },
            f"list.txt, line {i + 1}",
        )
        for i in range(10)
    ]


def readers(settings=FBANK):
    return {
        "audio": pipeline.audio_reader(settings),
        "image": pipeline.image_reader(SMALL),
        "text": pipeline.text_reader(),
    }


def collect(dataset):
    batches = list(dataset.as_numpy_iterator())
    x = {
        name: np.concatenate([batch[0][name] for batch in batches])
        for name in batches[0][0]
    }
    return x, np.concatenate([batch[1] for batch in batches])


def assert_same(found, expected):
    for name, value in expected[0].items():
        np.testing.assert_array_equal(found[0][name], value)
    np.testing.assert_array_equal(found[1], expected[1])


def test_evaluation_equals_the_parts(samples):
    dataset = pipeline.build(samples, readers(), batch_size=4)
    assert int(dataset.cardinality()) == 3
    x, y = collect(dataset)
    np.testing.assert_array_equal(y, [s.label for s in samples])
    assert y.dtype == np.int32
    for i, sample in enumerate(samples):
        wave = audio.decode(sample.inputs["audio"], seconds=FBANK.seconds)
        np.testing.assert_allclose(x["audio"][i], FBANK(wave), atol=1e-3)
        pixels = image.decode(sample.inputs["image"])
        expected = SMALL.normalize(SMALL.fit(pixels))
        np.testing.assert_allclose(x["image"][i], expected, atol=1e-5)
        assert x["text"][i].decode() == sample.inputs["text"]


def test_training_is_the_same_for_every_number_of_workers(samples):
    found = [
        collect(
            pipeline.build(
                samples,
                readers(MASKED),
                batch_size=3,
                training=True,
                seed=7,
                workers=workers,
            )
        )
        for workers in (1, 2, 5, None)
    ]
    for other in found[1:]:
        assert_same(other, found[0])
    assert (found[0][1] != [s.label for s in samples]).any()
    again = collect(
        pipeline.build(samples, readers(MASKED), training=True, seed=8)
    )
    assert (again[0]["text"] != found[0][0]["text"]).any()


def test_epochs_differ_and_follow_the_seed(samples):
    def epochs():
        dataset = pipeline.build(
            samples, readers(MASKED), training=True, seed=3, workers=4
        )
        return [collect(dataset) for _ in range(2)]

    first, second = epochs()
    assert sorted(first[0]["text"]) == sorted(second[0]["text"])
    assert (first[0]["text"] != second[0]["text"]).any()
    for found, expected in zip(epochs(), (first, second), strict=True):
        assert_same(found, expected)
    # The crops of a sample differ between epochs, not only the order.
    row, other = (list(e[0]["text"]).index(b"salt 3") for e in (first, second))
    for name in ("image", "audio"):
        assert (first[0][name][row] != second[0][name][other]).any()


def test_leaving_a_modality_out_changes_no_other(samples):
    whole = collect(pipeline.build(samples, readers(), training=True, seed=1))
    names = ("image", "text")
    part = collect(
        pipeline.build(
            samples,
            pipeline.choose(readers(), names),
            training=True,
            seed=1,
        )
    )
    for name in names:
        np.testing.assert_array_equal(part[0][name], whole[0][name])


def test_single_samples(samples):
    dataset = pipeline.build(samples, readers(), batch_size=None)
    x, y = next(iter(dataset))
    assert x["audio"].shape == (40, 16, 1) and y.shape == ()
    assert int(dataset.cardinality()) in (10, -2)


def test_cache(samples, tmp_path, monkeypatch):
    expected = collect(pipeline.build(samples, readers()))
    cached = pipeline.build(samples, readers(), cache_dir=tmp_path / "c")
    assert_same(collect(cached), expected)
    files = sorted((tmp_path / "c").rglob("*"))
    arrays = [f for f in files if f.suffix == ".npy"]
    assert len(arrays) == 20 and not any(".partial" in f.name for f in files)
    # A damaged file is made anew; nothing else is decoded again.
    arrays[0].write_bytes(b"damaged")
    calls = []
    for part, module in ((audio, audio.decode), (image, image.open_image)):

        def counted(*args, real=module, **kwargs):
            calls.append(args)
            return real(*args, **kwargs)

        monkeypatch.setattr(part, module.__name__, counted)
    again = pipeline.build(samples, readers(), cache_dir=tmp_path / "c")
    assert_same(collect(again), expected)
    assert len(calls) == 1
    # A changed file is noticed.
    path = samples[0].inputs["image"]
    before = os.stat(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    assert_same(collect(again), expected)
    assert len(calls) == 2


def damaged(samples, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    bad = dict(samples[4].inputs, image=str(broken))
    changed = list(samples)
    changed[4] = Sample("bad", 1, bad, "list.txt, line 5")
    return changed, broken


def test_a_damaged_file_raises_with_line_and_name(samples, tmp_path):
    import tensorflow as tf

    changed, broken = damaged(samples, tmp_path)
    dataset = pipeline.build(changed, readers())
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        collect(dataset)
    for part in ("list.txt, line 5", "'bad'", str(broken)):
        assert part in str(error.value)


def test_a_damaged_file_is_skipped_and_counted(samples, tmp_path, caplog):
    changed, broken = damaged(samples, tmp_path)
    dataset = pipeline.build(changed, readers(), on_error="skip", workers=3)
    with caplog.at_level(logging.WARNING, "keras_mla"):
        for _ in range(2):
            x, y = collect(dataset)
    rest = [s for s in changed if s.id != "bad"]
    np.testing.assert_array_equal(y, [s.label for s in rest])
    assert list(x["text"]) == [s.inputs["text"].encode() for s in rest]
    assert list(dataset.skipped) == ["bad"]
    assert str(broken) in dataset.skipped["bad"]
    assert len([r for r in caplog.records if r.name == "keras_mla"]) == 1


def test_presence_follows_the_samples_through_the_shuffle(samples):
    presence = np.random.default_rng(0).random((10, 3)) < 0.5
    presence[:, 2] = True  # Texts tell which sample it is.
    dataset = pipeline.build(
        samples, readers(), training=True, presence=presence
    )
    x, _ = collect(dataset)
    rows = [int(t.split()[1]) for t in x["text"]]
    assert rows != sorted(rows)
    np.testing.assert_array_equal(x["presence"], presence[rows])


def test_wrong_arguments(samples):
    with pytest.raises(ValueError, match="no samples"):
        pipeline.build([], readers())
    with pytest.raises(ValueError, match=r"\(10, 3\).*shape=\(9, 3\)"):
        pipeline.build(samples, readers(), presence=np.ones((9, 3)))
    with pytest.raises(ValueError, match="on_error='stop'"):
        pipeline.build(samples, readers(), on_error="stop")
    with pytest.raises(ValueError, match="some of audio, image, text.*sound"):
        pipeline.choose(readers(), ["sound"])


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept")
def test_fit_on_this_backend(samples, tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "salt"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    parts = readers()
    parts["text"] = pipeline.text_reader(text.bert(tmp_path, length=4))
    dataset = pipeline.build(samples, parts, batch_size=4, training=True)
    inputs = {
        "audio": keras.Input((40, 16, 1), name="audio"),
        "image": keras.Input((16, 16, 3), name="image"),
        "text": {
            "token_ids": keras.Input((4,), dtype="int32", name="token_ids"),
            "padding_mask": keras.Input(
                (4,), dtype="bool", name="padding_mask"
            ),
        },
    }
    mask = keras.ops.cast(inputs["text"]["padding_mask"], "float32")
    flat = [keras.layers.Flatten()(inputs[m]) for m in ("audio", "image")]
    ids = keras.ops.cast(inputs["text"]["token_ids"], "float32") * mask
    joined = keras.layers.Concatenate()([*flat, ids])
    model = keras.Model(inputs, keras.layers.Dense(3)(joined))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    history = model.fit(dataset, epochs=2, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert model.predict(dataset, verbose=0).shape == (10, 3)


def test_video_frames_and_folders(tmp_path):
    layouts.kinetics_sounds(tmp_path)
    folders = itertools.chain(
        sorted((tmp_path / "Image-01-FPS").iterdir())[:1],
        sorted((tmp_path / "videos").iterdir())[:1],
    )
    found = [
        Sample(str(i), 0, {"video": str(path)}, "line")
        for i, path in enumerate(folders)
    ]
    parts = {"video": pipeline.video_reader(SMALL, 3)}
    x, _ = collect(pipeline.build(found, parts, augment=True))
    assert x["video"].shape == (2, 3, 16, 16, 3)
