"""Both engines read the same, and in the same order."""

import logging
import os
import pickle
import signal
import sys

import keras
import numpy as np
import pytest
import soundfile
from dataset_media import write_frames, write_jpeg, write_video
from utils import compiled

import keras_mla
from keras_mla.datasets import audio, image, pipeline, text
from keras_mla.datasets.pipeline import order

pytest.importorskip("tensorflow_io")  # It has no wheels for Python 3.13.

ENGINES = ("tensorflow", "python")
SMALL = image.ImageSettings(size=12)
MASKED = audio.Fbank(frames=40, mels=16, time_mask=20, freq_mask=8)
SHIFTED = audio.STFT(seconds=0.4, n_fft=256, time_mask=20, freq_mask=90)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "salt", "no"]
COUNT = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def samples(folder):
    rng = np.random.default_rng(0)
    video = write_video(folder / "v.mp4", frames=6, sound=False)
    found = []
    for i in range(COUNT):
        colours = rng.integers(0, 255, (3, 3))
        pictures = [
            str(write_jpeg(folder / f"{i}_{j}.jpg", colour, (20 + 4 * j, 18)))
            for j, colour in enumerate(colours)
        ]
        wave = folder / f"{i}.wav"
        soundfile.write(wave, 0.1 * rng.standard_normal(4800), 16000)
        frames = write_frames(folder / f"frames{i}")
        inputs = {
            "fbank": str(wave),
            "stft": str(wave),
            "image": pictures[0],
            "views": tuple(pictures[: 1 + i % 3]),
            "video": str(frames if i % 2 else video),
            "frame": str(frames),
            "text": f"salt no {i}",
            "tokens": "no salt" * (i % 3),
        }
        found.append(pipeline.Sample(f"s{i}", i % 3, inputs, f"line {i + 1}"))
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return found


@pytest.fixture(scope="module")
def readers(folder, samples):
    return {
        "fbank": pipeline.audio_reader(MASKED, "fbank"),
        "stft": pipeline.audio_reader(SHIFTED, "stft"),
        "image": pipeline.image_reader(SMALL),
        "views": pipeline.image_reader(SMALL, "views", pictures=2),
        "video": pipeline.video_reader(SMALL),
        "frame": pipeline.video_reader(SMALL, None, "frame"),
        "text": pipeline.text_reader(),
        "tokens": pipeline.text_reader(text.bert(folder, 4), "tokens"),
    }


def batches(data):
    """The batches of one epoch, as arrays."""
    if hasattr(data, "as_numpy_iterator"):
        return list(data.as_numpy_iterator())
    return list(data)


def assert_equal(found, expected, exact=True):
    assert len(found) == len(expected)
    for (x, y), (other, labels) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(y, labels)
        assert y.dtype == labels.dtype and set(x) == set(other)
        keras.tree.assert_same_structure(x, other)
        for name in x:
            pairs = zip(
                keras.tree.flatten(x[name]),
                keras.tree.flatten(other[name]),
                strict=True,
            )
            for a, b in pairs:
                assert a.dtype == b.dtype and a.shape == b.shape
                if exact or name not in ("fbank", "stft"):
                    np.testing.assert_array_equal(a, b, err_msg=name)
                else:
                    # A bin of the STFT without sound is rounding alone.
                    heard = (b > -6) | (name == "fbank")
                    assert np.abs(a - b)[heard].max() < 1e-3, name
                    assert np.abs(np.exp(a) - np.exp(b)).max() < 1e-4, name


def texts(data):
    return [t for x, _ in batches(data) for t in x["text"]]


def close(found, expected, atol=1e-6):
    for (x, _), (other, _) in zip(found, expected, strict=True):
        for name in ("image", "views", "video", "frame"):
            np.testing.assert_allclose(x[name], other[name], atol=atol)
            x[name] = other[name]


@pytest.mark.parametrize("presence", [None, "array", "names"])
def test_engines_give_equal_arrays(samples, readers, presence):
    given = np.random.default_rng(0).random((COUNT, len(readers))) < 0.7
    if presence == "names":
        given = dict(zip(readers, given.T, strict=True))
    options = dict(batch_size=4, presence=None if presence is None else given)
    found = [
        batches(pipeline.build(samples, readers, engine=engine, **options))
        for engine in ENGINES
    ]
    close(*found)
    assert_equal(*found, exact=False)


def test_engines_draw_the_same_order_and_crops(samples, readers):
    options = dict(training=True, seed=5, batch_size=4)
    tf_data, python = (
        pipeline.build(samples, readers, engine=engine, **options)
        for engine in ENGINES
    )
    assert len(python) == int(tf_data.cardinality()) == 3
    orders = []
    for epoch in range(3):
        found, expected = batches(python), batches(tf_data)
        close(found, expected)
        # Masked bands are exactly zero.
        for (x, _), (other, _) in zip(found, expected, strict=True):
            for name in ("fbank", "stft"):
                np.testing.assert_array_equal(x[name] == 0, other[name] == 0)
                assert (x[name] == 0).any()
        assert_equal(found, expected, exact=False)
        orders.append([t for x, _ in found for t in x["text"]])
        drawn = order.permutation(5, epoch, COUNT)
        assert orders[-1] == [f"salt no {i}".encode() for i in drawn]
    assert orders[0] != orders[1] != orders[2]
    for data in (tf_data, python):
        data.set_epoch(1)
        assert texts(data) == orders[1]
        assert texts(data) == orders[2]
    # Batches by number belong to the epoch that comes next.
    python.set_epoch(1)
    for index in (2, 0, 1, 1):
        assert list(python[index][0]["text"]) == orders[1][4 * index :][:4]
    with pytest.raises(ValueError, match="epoch=-1"):
        python.set_epoch(-1)
    # A repetition is an epoch too.
    again = pipeline.build(
        samples, readers, engine="tensorflow", **options
    ).repeat(2)
    assert texts(again) == orders[0] + orders[1]


def test_workers_and_processes_change_nothing(samples, readers, tmp_path):
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no picture")
    inputs = {**samples[3].inputs, "image": str(damaged)}
    changed = [*samples, pipeline.Sample("bad", 1, inputs, "line 12")]
    found = [
        pipeline.build(
            changed,
            readers,
            training=True,
            batch_size=4,
            engine="python",
            on_error="absent",
            cache_dir=tmp_path / "cache",
            workers=workers,
            use_multiprocessing=processes,
        )
        for workers, processes in ((1, False), (5, False), (1, True))
    ]
    read = [[*batches(data), *batches(data)] for data in found]
    for other in read[1:]:
        assert_equal(read[0], other)
    for data in found:
        assert list(data.absent) == [("bad", "image")]
        assert "line 12" in data.absent["bad", "image"]
    # A worker dies.
    for process in list(found[2]._pools._readers._processes):
        os.kill(process, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="worker process died"):
        found[2][0]


def test_readers_pickle(readers):
    for name, reader in readers.items():
        assert pickle.loads(pickle.dumps(reader)).shape == reader.shape, name


def values(sample):
    """Decodes a number; some cannot be decoded."""
    value = sample.inputs["number"]
    if value < 0:
        raise ValueError(f"{value} is negative")
    return np.float64([value])  # Cast to the reader's type.


NUMBERS = {"number": pipeline.Reader(values, "float32", (1,))}


def numbered(*numbers, labels=None):
    labels = labels or [0] * len(numbers)
    return [
        pipeline.Sample(f"s{n}", label, {"number": n}, f"row {n}")
        for n, label in zip(numbers, labels, strict=True)
    ]


def read_numbers(data):
    return [x["number"][:, 0].astype(int).tolist() for x, _ in batches(data)]


def test_skipped_samples_leave_the_number_of_batches(caplog):
    rows = numbered(1, -2, 3, -4, -5, 6, 7)
    data = pipeline.build(
        rows, NUMBERS, batch_size=2, on_error="skip", engine="python"
    )
    with caplog.at_level(logging.WARNING, "keras_mla"):
        for _ in range(2):
            # The third batch has nothing of its own.
            assert read_numbers(data) == [[1], [3], [6], [7]]
    assert set(data.skipped) == {"s-2", "s-4", "s-5"}
    assert "row -4: sample 's-4': -4 is negative" in data.skipped["s-4"]
    assert len(caplog.records) == 3
    data = pipeline.build(
        numbered(1, 2, -3, -4),
        NUMBERS,
        batch_size=2,
        on_error="skip",
        engine="python",
    )
    assert read_numbers(data) == [[1, 2], [1]]
    data = pipeline.build(
        numbered(-1), NUMBERS, on_error="skip", engine="python"
    )
    with pytest.raises(ValueError, match="No sample can be decoded.*row -1"):
        data[0]


def test_what_cannot_be_decoded_raises_with_its_row():
    data = pipeline.build(
        numbered(1, -2, 3), NUMBERS, batch_size=1, engine="python"
    )
    assert data[0][0]["number"] == 1
    with pytest.raises(ValueError, match="row -2: sample 's-2': -2 is neg"):
        data[1]
    assert data[2][0]["number"] == 3
    with pytest.raises(IndexError):
        data[3]
    wrong = {"number": pipeline.Reader(values, "float32", (2,))}
    data = pipeline.build(numbered(1), wrong, engine="python")
    with pytest.raises(ValueError, match=r"row 1.*'number'.*\(2,\).*\(1,\)"):
        data[0]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "labels, dtype, shape",
    [
        ([0, np.int64(2)], "int32", (2,)),
        ([0.5, 2], "float32", (2,)),
        ([[0, 1, 1], np.array([1.0, 0, 0])], "float32", (2, 3)),
    ],
)
def test_labels(engine, labels, dtype, shape):
    rows = numbered(1, 2, labels=labels)
    [(_, y)] = batches(pipeline.build(rows, NUMBERS, engine=engine))
    assert y.dtype == dtype and y.shape == shape
    np.testing.assert_allclose(y, np.array([np.asarray(v) for v in labels]))


def test_wrong_arguments():
    rows = numbered(1, 2, labels=[[0, 1], [1, 0, 0]])
    with pytest.raises(ValueError, match="row 2: the label of sample 's2'"):
        pipeline.build(rows, NUMBERS)
    with pytest.raises(ValueError, match="label='dog'"):
        pipeline.build(numbered(1, labels=["dog"]), NUMBERS)
    rows = numbered(1, 2)
    for wrong in (
        {"engine": "grain"},
        {"engine": "python", "batch_size": None},
        {"batch_size": 0},
        {"workers": 0},
        {"seed": -1},
        {"engine": "tensorflow", "use_multiprocessing": True},
    ):
        with pytest.raises(ValueError, match="Received: "):
            pipeline.build(rows, NUMBERS, **wrong)


@pytest.mark.parametrize(
    "missing, name, engine",
    [
        ("tensorflow", "text", "python"),
        ("tensorflow_io", "fbank", "python"),
        ("tensorflow_io", "text", "tensorflow"),
    ],
)
def test_the_default_engine(
    samples, readers, monkeypatch, missing, name, engine
):
    monkeypatch.setitem(sys.modules, missing, None)
    data = pipeline.build(samples, {name: readers[name]})
    assert isinstance(data, pipeline.Batches) == (engine == "python")


@pytest.mark.parametrize("engine", ENGINES)
def test_several_pictures(engine, samples, folder):
    reader = pipeline.image_reader(SMALL, "views", pictures=2)
    views = [f"{folder}/0_{i}.jpg" for i in range(3)]
    rows = [
        pipeline.Sample(str(i), 0, {"views": paths}, "row")
        for i, paths in enumerate([views[:1], views, views[0]])
    ]
    [(x, _)] = batches(pipeline.build(rows, {"views": reader}, engine=engine))
    found = x["views"]
    each = [
        SMALL.normalize(SMALL.fit(image.open_image(path))) for path in views
    ]
    np.testing.assert_allclose(found[0], [each[0]] * 2, atol=1e-5)
    np.testing.assert_allclose(found[1], [each[0], each[2]], atol=1e-5)
    np.testing.assert_allclose(found[2], found[0])
    # In training, each picture has a crop of its own.
    data = pipeline.build(
        rows[:1], {"views": reader}, training=True, engine=engine
    )
    [(x, _)] = batches(data)
    assert np.abs(x["views"][0, 0] - x["views"][0, 1]).max() > 0.1


def test_lists_of_pictures_that_will_not_do(samples):
    one = {"views": pipeline.image_reader(SMALL, "views")}
    with pytest.raises(ValueError, match="number of `pictures`"):
        pipeline.build(samples, one, engine="python")[0]
    rows = [pipeline.Sample("a", 0, {"views": []}, "row 1")]
    two = {"views": pipeline.image_reader(SMALL, "views", pictures=2)}
    with pytest.raises(ValueError, match="row 1.*is empty"):
        pipeline.build(rows, two, engine="python")[0]
    with pytest.raises(ValueError, match="pictures=0"):
        pipeline.image_reader(pictures=0)


def test_a_tokenizer_of_ones_own_gets_str(samples):
    words = keras.layers.TextVectorization(output_mode="multi_hot")
    words.adapt(["salt", "no"])
    seen = []

    def tokenize(strings):
        seen.extend(strings)
        return {"ids": [[len(s)] for s in strings], "hot": words(strings)}

    reader = {"text": pipeline.text_reader(tokenize)}
    [(x, _)] = pipeline.build(samples, reader, engine="python")
    assert seen == [f"salt no {i}" for i in range(COUNT)]
    assert x["text"]["ids"].tolist() == [[len(s)] for s in seen]
    assert isinstance(x["text"]["hot"], np.ndarray)
    np.testing.assert_array_equal(
        x["text"]["hot"], keras.ops.convert_to_numpy(words(seen))
    )


# === Training ===


class Seen(keras.layers.Layer):
    """Notes the values that it is called with."""

    def __init__(self, log):
        super().__init__()
        self.log = lambda: log  # Keras would keep a copy of a list.
        self.dense = keras.layers.Dense(2)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        if not isinstance(x, keras.KerasTensor) and not x.is_meta:
            rows = keras.ops.convert_to_numpy(x).tolist()
            if rows not in self.log()[-1:]:
                self.log().append(rows)
        return self.dense(x)


def draw(value, rng):
    """Returns a sample's number beside a random one."""
    return np.array([value[0], 0 if rng is None else rng.random()])


class Killed(Exception):
    pass


def train(engine, log, folder, kill=None, initial_epoch=0):
    rows = numbered(*range(10), labels=[i % 2 for i in range(10)])
    reader = pipeline.Reader(values, "float32", (2,), finish=draw)
    readers = {"number": reader, "other": NUMBERS["number"]}
    rows = [
        pipeline.Sample(r.id, r.label, {**r.inputs, "other": 1}, r.source)
        for r in rows
    ]
    data, held = (
        pipeline.build(
            part, readers, batch_size=4, training=training, engine=engine
        )
        for part, training in ((rows, True), (rows[:4], False))
    )
    model = compiled(
        keras_mla.models.ConcatFusion(
            {
                "number": keras.Sequential([keras.Input((2,)), Seen(log)]),
                "other": keras.Sequential(
                    [keras.Input((1,)), keras.layers.Dense(2)]
                ),
            },
            head=2,
        )
    )
    model.build_for(held_inputs(data))
    start = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: log.clear()
    )
    callbacks = [start]
    if folder is not None:
        callbacks.append(keras.callbacks.BackupAndRestore(folder))
    if kill is not None:

        def end(epoch, logs):
            if epoch == kill:
                raise Killed

        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_begin=end))
    model.fit(
        data,
        epochs=4,
        initial_epoch=initial_epoch,
        validation_data=held,
        callbacks=callbacks,
        verbose=0,
    )
    return model, data


def held_inputs(data):
    x, _ = next(iter(data))
    return {name: np.asarray(value) for name, value in x.items()}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_resumed_run_reads_what_an_uninterrupted_one_reads(engine, tmp_path):
    whole, first, second, third = [], [], [], []
    train(engine, whole, None)
    # Three batches of training and one of validation in each epoch.
    assert len(whole) == 16
    epochs = [whole[i : i + 3] for i in range(0, 16, 4)]
    for epoch, rows in enumerate(epochs):
        ids = [int(row[0]) for batch in rows for row in batch]
        assert ids == order.permutation(0, epoch, 10).tolist()
    with pytest.raises(Killed):
        train(engine, first, tmp_path / "backup", kill=2)
    assert first == whole[:8]
    train(engine, second, tmp_path / "backup")
    assert second == whole[8:]
    train(engine, third, None, initial_epoch=3)
    assert third == whole[12:]


def test_keras_alone_begins_an_epoch_each_time():
    data = pipeline.build(
        numbered(*range(8)),
        NUMBERS,
        batch_size=4,
        training=True,
        engine="python",
    )
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.call = lambda x, **_: x["number"]
    epochs = [model.predict(data, verbose=0)[:, 0].tolist() for _ in range(2)]
    for epoch, rows in enumerate(epochs):
        assert rows == order.permutation(0, epoch, 8).tolist()


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("reader", ["text", "picture"])
def test_ids_are_indices_of_samples(folder, reader, on_error):
    def decode(sample):
        value = int(sample.inputs["x"])
        if value == 4 and on_error == "skip":
            raise ValueError("not four")
        return np.float32([value])

    features = (lambda value: value + 0) if reader == "picture" else None
    read = pipeline.Reader(decode, "float32", (1,), features=features)
    listed = [pipeline.Sample(f"s{i}", i, {"x": i}, "") for i in range(7)]
    for engine in ENGINES:
        data = pipeline.build(
            listed, {"x": read}, batch_size=3, training=True, seed=2,
            on_error=on_error, sample_ids=True, engine=engine,
        )  # fmt: skip
        found = [keras.tree.map_structure(np.asarray, batch) for batch in data]
        ids = np.concatenate([x["sample_id"] for x, _ in found])
        assert ids.dtype == np.int32
        kept = [i for i in range(7) if i != 4 or on_error == "raise"]
        assert sorted(ids) == kept
        np.testing.assert_array_equal(
            ids, np.concatenate([x["x"] for x, _ in found])[:, 0]
        )
