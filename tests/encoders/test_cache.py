import collections
import errno
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
import signal
import time

import keras
import numpy as np
import pytest
from utils import mainly_on, only_on

from keras_mla import MLA, encoders
from keras_mla.encoders.feature_store import FeatureStore


def make_encoder(seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4, activation="relu")]
    )
    model.add(keras.layers.BatchNormalization())
    return model


class Counting:
    """Stands for an array and counts the rows that are read."""

    def __init__(self, array, fail_after=None):
        self.array, self.shape = array, array.shape
        self.reads, self.fail_after = 0, fail_after

    def __getitem__(self, rows):
        if self.fail_after is not None and self.reads >= self.fail_after:
            raise KeyboardInterrupt
        self.reads += 1
        return self.array[rows]


@pytest.fixture
def x():
    return np.random.default_rng(0).random((22, 6)).astype("float32")


OPTIONS = {"batch_size": 4, "batches_per_shard": 2, "verbose": 0}


def test_features_are_computed_once(tmp_path, x):
    encoder = make_encoder()
    expected = encoder.predict(x, verbose=0)
    data = Counting(x)
    features = encoders.cache_features(encoder, data, tmp_path / "a", **OPTIONS)
    np.testing.assert_allclose(features, expected, atol=1e-6)
    assert features.dtype == "float32" and data.reads == 6
    again = encoders.cache_features(encoder, data, tmp_path / "a", **OPTIONS)
    np.testing.assert_array_equal(again, features)
    assert data.reads == 6
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "features.npy",
        "index.json",
    ]


def test_it_resumes_after_a_kill_and_repairs_a_damaged_shard(tmp_path, x):
    encoder = make_encoder()
    with pytest.raises(KeyboardInterrupt):
        encoders.cache_features(
            encoder, Counting(x, fail_after=3), tmp_path, **OPTIONS
        )
    assert len(list(tmp_path.glob("*.npy"))) == 1
    data = Counting(x)
    features = encoders.cache_features(encoder, data, tmp_path, **OPTIONS)
    assert data.reads == 4
    np.testing.assert_allclose(
        features, encoder.predict(x, verbose=0), atol=1e-6
    )
    expected = np.array(features)
    joined = tmp_path / "features.npy"
    whole = joined.read_bytes()
    # A number of the second shard; a copy, which has another time; the tail.
    row = len(whole) - 22 * 16 + 9 * 16
    for content, reads in (
        (whole[:row] + b"\1\2\3\4" + whole[row + 4 :], 2),
        (whole, 0),
        (whole[:-4], 6),
        (b"", 6),
    ):
        joined.write_bytes(content)
        data = Counting(x)
        again = encoders.cache_features(encoder, data, tmp_path, **OPTIONS)
        assert data.reads == reads
        np.testing.assert_array_equal(again, expected)
        data = Counting(x)
        encoders.cache_features(encoder, data, tmp_path, **OPTIONS)
        assert data.reads == 0


def test_the_features_are_mapped_and_read_only(tmp_path, x):
    features = encoders.cache_features(make_encoder(), x, tmp_path, **OPTIONS)
    assert isinstance(features, np.memmap) and features.shape == (22, 4)
    with pytest.raises(ValueError, match="read-only"):
        features[0] = 0
    other = np.array(features)
    other[0] = 0


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@mainly_on("torch")
def test_a_kill_at_any_moment_costs_one_shard_at_most(tmp_path, x, monkeypatch):
    encoder = make_encoder()
    predict = encoder.predict_on_batch
    expected = predict(x)
    encoded, calls = [], []
    monkeypatch.setattr(
        encoder,
        "predict_on_batch",
        lambda batch: encoded.append(batch) or predict(batch),
    )

    def cache(rows, folder):
        stream = (x[i : i + 4] for i in range(0, rows, 4))
        return encoders.cache_features(encoder, stream, folder, **OPTIONS)

    def dying(call):
        def wrapped(*args, **kwargs):
            calls.append(call)
            if len(calls) == moment:
                raise Killed
            return call(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(os, "replace", dying(os.replace))
    monkeypatch.setattr(pathlib.Path, "unlink", dying(pathlib.Path.unlink))
    for moment in itertools.count(1):
        folder = tmp_path / str(moment)
        encoded.clear()
        calls.clear()
        try:
            cache(16, folder)  # These features have one copy, the joined one.
            cache(22, folder)
            break
        except Killed:
            pass
        features = cache(22, folder)
        assert len(encoded) <= 6 + 2
        np.testing.assert_allclose(features, expected, atol=1e-6)
        left = {p.name for p in folder.iterdir() if p.suffix != ".part"}
        assert left == {"features.npy", "index.json"}
    assert moment > 15


def test_a_directory_of_version_0_1_0(tmp_path, x):
    encoder = make_encoder()
    made = encoders.cache_features(encoder, x, tmp_path / "new", **OPTIONS)
    index = json.loads((tmp_path / "new/index.json").read_text())
    del index["features"]
    old = tmp_path / "old"
    old.mkdir()
    for number in range(3):
        path = old / f"shard-{number:05d}.npy"
        np.save(path, made[8 * number : 8 * number + 8] + 1)
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        index["checksums"][path.name] = checksum
    (old / "index.json").write_text(json.dumps(index))
    (old / "shard-00002.part").write_bytes(b"killed")
    data = Counting(x)
    worker = {**OPTIONS, "worker": (0, 2)}
    assert encoders.cache_features(encoder, data, old, **worker) is None
    for _ in range(2):
        features = encoders.cache_features(encoder, data, old, **OPTIONS)
        np.testing.assert_array_equal(features, made + 1)
    assert data.reads == 0


def test_a_full_disk_costs_memory_alone(tmp_path, x, monkeypatch):
    encoder = make_encoder()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    for reads in (6, 0):
        data = Counting(x)
        with pytest.warns(UserWarning, match="into memory: .*No space"):
            features = encoders.cache_features(
                encoder, data, tmp_path, **OPTIONS
            )
        assert data.reads == reads and not isinstance(features, np.memmap)
    monkeypatch.undo()
    mapped = encoders.cache_features(encoder, data, tmp_path, **OPTIONS)
    assert isinstance(mapped, np.memmap) and data.reads == 0
    np.testing.assert_array_equal(mapped, features)


@pytest.mark.parametrize("kind", ["array", "PyDataset", "stream"])
def test_workers_share_the_work(tmp_path, x, kind, monkeypatch):
    encoder = make_encoder()
    encoded = []
    predict = encoder.predict_on_batch
    monkeypatch.setattr(
        encoder,
        "predict_on_batch",
        lambda batch: encoded.append(batch[0, 0].item()) or predict(batch),
    )
    firsts = [x[i, 0].item() for i in range(0, 22, 4)]
    data = Counting(x)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return data[index * 4 : index * 4 + 4]

    def call(**options):
        inputs = {
            "array": lambda: data,
            "PyDataset": Batches,
            "stream": lambda: (data[i : i + 4] for i in range(0, 22, 4)),
        }[kind]()
        options = {**OPTIONS, **options}
        encoded.clear()
        data.reads = 0
        return encoders.cache_features(encoder, inputs, tmp_path, **options)

    assert call(worker=(1, 2)) is None
    assert encoded == firsts[2:4]
    assert data.reads == (6 if kind == "stream" else 2)
    assert call(worker=(1, 2)) is None and not encoded
    # Another number of workers uses what is there.
    assert call(worker=(0, 3)) is None and encoded == firsts[:2]
    assert call(worker=(1, 3)) is None and not encoded
    assert not (tmp_path / "index.json").exists()
    with pytest.raises(ValueError, match="else: preprocessing changed"):
        call(worker=(2, 3), preprocessing="other")
    # A call without a worker does what is left.
    features = call()
    assert encoded == firsts[4:]
    np.testing.assert_allclose(features, predict(x), atol=1e-6)
    assert len(list(tmp_path.iterdir())) == 2
    assert call(worker=(0, 2)) is None and not encoded
    np.testing.assert_array_equal(call(), features)


def work(folder, x, worker, start, log, deaths):
    """Runs in a process of its own, which dies in its n-th batch."""
    encoder = make_encoder()
    predict = encoder.predict_on_batch

    def logging(batch):
        if deaths == log.stat().st_size:
            os.kill(os.getpid(), signal.SIGKILL)
        with log.open("ab") as file:
            file.write(bytes([round(batch[0, 0] * 100)]))
        time.sleep(0.01)  # Lets the others run at the same time.
        return predict(batch)

    encoder.predict_on_batch = logging
    start.wait()
    encoders.cache_features(encoder, x, folder, **OPTIONS, worker=worker)
    os._exit(0)


@only_on("torch")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_at_the_same_time(tmp_path):
    x = np.random.default_rng(0).random((120, 6)).astype("float32")
    x[:, 0] = np.arange(120) / 100
    context = multiprocessing.get_context("fork")
    folder, start = tmp_path / "cache", context.Barrier(3)
    logs = [tmp_path / f"log{i}" for i in range(3)]
    processes = []
    for i, log in enumerate(logs):
        log.touch()
        deaths = 3 if i == 1 else None
        args = (folder, x, (i, 3), start, log, deaths)
        processes.append(context.Process(target=work, args=args))
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, -signal.SIGKILL, 0]
    # The killed one is started again.
    args = (folder, x, (1, 3), context.Barrier(1), logs[1], None)
    process = context.Process(target=work, args=args)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    counts = collections.Counter(b"".join(log.read_bytes() for log in logs))
    # It died in the second batch of a shard, and does the first one again.
    twice = [batch for batch, count in counts.items() if count > 1]
    assert set(counts) == set(range(0, 120, 4)) and len(twice) == 1
    assert max(counts.values()) == 2
    data = Counting(x)
    features = encoders.cache_features(make_encoder(), data, folder, **OPTIONS)
    assert data.reads == 0
    np.testing.assert_allclose(
        features, make_encoder().predict_on_batch(x), atol=1e-6
    )


def test_of_two_workers_that_differ_one_is_refused(tmp_path, x, monkeypatch):
    claim = FeatureStore._changed
    begun = []

    def at_once(store, found):
        # The other worker begins between the look and the own index.
        if not begun:
            begun.append(True)
            options = {**OPTIONS, "worker": (1, 2), "preprocessing": "other"}
            encoders.cache_features(make_encoder(), x, tmp_path, **options)
        return claim(store, found)

    monkeypatch.setattr(FeatureStore, "_changed", at_once)
    with pytest.raises(ValueError, match="else: preprocessing changed"):
        encoders.cache_features(
            make_encoder(), x, tmp_path, worker=(0, 2), **OPTIONS
        )
    assert not (tmp_path / "index-0-of-2.json").exists()
    features = encoders.cache_features(
        make_encoder(), x, tmp_path, preprocessing="other", **OPTIONS
    )
    assert features.shape == (22, 4)


def test_the_same_encoder_made_anew_is_the_same(tmp_path, x):
    def functional():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        hidden = keras.layers.Dense(4, activation="relu")(inputs)
        return keras.Model(inputs, keras.layers.Dense(3)(hidden))

    for i, make in enumerate((make_encoder, functional)):
        data = Counting(x)
        for _ in range(2):
            encoders.cache_features(make(), data, tmp_path / str(i), **OPTIONS)
        assert data.reads == 6


def test_an_encoder_that_is_not_built_has_weights_of_its_own(tmp_path, x):
    def unbuilt(seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.layers.Dense(3)])

    first = unbuilt(0)
    features = encoders.cache_features(first, x, tmp_path, **OPTIONS)
    again = encoders.cache_features(first, x, tmp_path, **OPTIONS)
    np.testing.assert_array_equal(again, features)
    again = encoders.cache_features(unbuilt(0), x, tmp_path, **OPTIONS)
    np.testing.assert_array_equal(again, features)
    with pytest.raises(ValueError, match="features of something else"):
        encoders.cache_features(unbuilt(1), x, tmp_path, **OPTIONS)


def test_it_resumes_wherever_the_kill_came(tmp_path, x):
    encoder = make_encoder()
    # While the first index was written; while old features were deleted.
    (tmp_path / "index.json.part").write_text("{")
    (tmp_path / "shard-00000.npy").write_bytes(b"old")
    (tmp_path / "shard-00001.part").write_bytes(b"")
    features = encoders.cache_features(encoder, x, tmp_path, **OPTIONS)
    np.testing.assert_allclose(
        features, encoder.predict(x, verbose=0), atol=1e-6
    )


def test_overwriting_spares_other_files(tmp_path, x):
    encoders.cache_features(make_encoder(), x, tmp_path, **OPTIONS)
    (tmp_path / "notes.txt").write_text("mine")
    encoders.cache_features(
        make_encoder(), x[:3], tmp_path, overwrite=True, **OPTIONS
    )
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_a_change_is_noticed(tmp_path, x):
    encoder = make_encoder()
    encoders.cache_features(encoder, x, tmp_path, **OPTIONS)
    other = make_encoder(seed=1)
    with pytest.raises(ValueError, match="else: encoder changed"):
        encoders.cache_features(other, x, tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match="else: preprocessing changed"):
        encoders.cache_features(
            encoder, x, tmp_path, preprocessing="resize", **OPTIONS
        )
    with pytest.raises(ValueError, match="batches, samples changed"):
        encoders.cache_features(encoder, x[:3], tmp_path, **OPTIONS)
    features = encoders.cache_features(
        other, x, tmp_path, overwrite=True, **OPTIONS
    )
    np.testing.assert_allclose(features, other.predict(x, verbose=0), atol=1e-6)
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["features"]["rows"] == [8, 8, 6]


@mainly_on("torch")
def test_dicts_and_datasets(tmp_path):
    encoder = encoders.M3AE("text", width=8, depth=1, num_heads=2)
    ids = np.random.default_rng(0).integers(0, 99, (5, 4))
    text = {"token_ids": ids, "padding_mask": np.ones((5, 4), "bool")}
    options = {**OPTIONS, "preprocessing": "bert"}
    features = encoders.cache_features(encoder, text, tmp_path / "a", **options)
    expected = encoder.predict(text, verbose=0)
    np.testing.assert_allclose(features, expected, atol=1e-5)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return {k: v[index * 3 : index * 3 + 3] for k, v in text.items()}

    features = encoders.cache_features(
        encoder, Batches(), tmp_path / "b", **options
    )
    np.testing.assert_allclose(features, expected, atol=1e-5)


def batches_of(x, size=4, fail_after=None):
    """Yields batches and labels; may fail, as a machine that is killed."""
    for index, start in enumerate(range(0, len(x), size)):
        if index == fail_after:
            raise KeyboardInterrupt
        yield x[start : start + size], np.arange(len(x[start : start + size]))


def generator(x):
    return batches_of(x)


def tensorflow_data(x):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(x).batch(4)


def torch_loader(x):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(
        torch.from_numpy(x), torch.arange(len(x))
    )
    return torch.utils.data.DataLoader(data, batch_size=4)


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("make", [generator, tensorflow_data, torch_loader])
def test_streams(tmp_path, x, make, built):
    keras.utils.set_random_seed(0)
    encoder = make_encoder()
    if not built:
        encoder = keras.Sequential([keras.layers.Dense(3)])
    features = encoders.cache_features(encoder, make(x), tmp_path, **OPTIONS)
    expected = encoder.predict(x, verbose=0)
    np.testing.assert_allclose(features, expected, atol=1e-6)
    again = encoders.cache_features(encoder, make(x), tmp_path, **OPTIONS)
    np.testing.assert_array_equal(again, features)


@pytest.mark.parametrize("kind", ["MapDataset", "IterDataset"])
def test_streams_of_grain(tmp_path, x, kind):
    grain = pytest.importorskip("grain")
    encoder = make_encoder()
    data = grain.MapDataset.source(x).batch(4)
    if kind == "IterDataset":
        data = data.to_iter_dataset()
    features = encoders.cache_features(encoder, data, tmp_path, **OPTIONS)
    expected = encoder.predict(x, verbose=0)
    np.testing.assert_allclose(features, expected, atol=1e-6)
    again = encoders.cache_features(encoder, data, tmp_path, **OPTIONS)
    np.testing.assert_array_equal(again, features)
    endless = grain.MapDataset.source(x).repeat().batch(4)
    if kind == "MapDataset":
        with pytest.raises(ValueError, match="never ends"):
            encoders.cache_features(encoder, endless, tmp_path, **OPTIONS)


def test_a_stream_resumes_after_a_kill(tmp_path, x, monkeypatch):
    encoder = make_encoder()
    with pytest.raises(KeyboardInterrupt):
        encoders.cache_features(
            encoder, batches_of(x, fail_after=5), tmp_path, **OPTIONS
        )
    encoded = []
    predict = encoder.predict_on_batch
    monkeypatch.setattr(
        encoder,
        "predict_on_batch",
        lambda batch: encoded.append(len(batch)) or predict(batch),
    )
    features = encoders.cache_features(
        encoder, batches_of(x), tmp_path, **OPTIONS
    )
    # Of six batches in three shards, two shards were there.
    assert encoded == [4, 2]
    np.testing.assert_allclose(
        features, encoder.predict(x, verbose=0), atol=1e-6
    )
    # Other batches are not those of the shards.
    encoded.clear()
    shorter = encoders.cache_features(
        encoder, batches_of(x[:21]), tmp_path, **OPTIONS
    )
    assert encoded == [4, 1]
    # The last batch is smaller: its matrix product may be another one.
    np.testing.assert_allclose(shorter, features[:21], atol=1e-6)


def test_a_stream_that_never_ends_is_refused(tmp_path, x):
    with pytest.raises(ValueError, match="never ends"):
        encoders.cache_features(
            make_encoder(), tensorflow_data(x).repeat(), tmp_path, **OPTIONS
        )


def test_mla_trains_on_cached_features(tmp_path, x):
    features = {
        name: encoders.cache_features(
            make_encoder(seed), x, tmp_path / name, **OPTIONS
        )
        for seed, name in enumerate(("image", "text"))
    }
    model = MLA(
        encoders={
            name: keras.Sequential([keras.Input((4,)), keras.layers.Identity()])
            for name in features
        },
        head=3,
    )
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    labels = np.arange(22) % 3
    history = model.fit(features, labels, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_errors(tmp_path, x):
    encoder = make_encoder()
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="no index.json"):
        encoders.cache_features(encoder, x, tmp_path)
    with pytest.raises(TypeError, match="Received: int"):
        encoders.cache_features(encoder, 3, tmp_path / "a")
    with pytest.raises(ValueError, match="no samples"):
        encoders.cache_features(encoder, iter(()), tmp_path / "b")
    with pytest.raises(ValueError, match=r"lengths=\[3, 22\]"):
        encoders.cache_features(encoder, {"a": x, "b": x[:3]}, tmp_path / "a")
    with pytest.raises(ValueError, match="no samples"):
        encoders.cache_features(encoder, x[:0], tmp_path / "a")
    for worker in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=rf"worker=\({worker[0]}, "):
            encoders.cache_features(encoder, x, tmp_path / "a", worker=worker)
    with pytest.raises(ValueError, match="A worker cannot overwrite"):
        encoders.cache_features(
            encoder, x, tmp_path / "a", worker=(0, 2), overwrite=True
        )
    strange = tmp_path / "strange"
    strange.mkdir()
    np.save(strange / "features.npy", x)
    with pytest.raises(ValueError, match="no index.json"):
        encoders.cache_features(encoder, x, strange)
    encoders.cache_features(encoder, x, tmp_path / "c", **OPTIONS)
    (tmp_path / "c/index.json").write_text("{")
    with pytest.raises(ValueError, match="index.json is damaged"):
        encoders.cache_features(encoder, x, tmp_path / "c", **OPTIONS)
    encoders.cache_features(
        encoder, x, tmp_path / "c", overwrite=True, **OPTIONS
    )
    with pytest.raises(ValueError, match="batch_size=0"):
        encoders.cache_features(encoder, x, tmp_path / "a", batch_size=0)
    wide = keras.Sequential([keras.Input((6,)), keras.layers.Reshape((2, 3))])
    with pytest.raises(ValueError, match=r"features.shape=\(22, 2, 3\)"):
        encoders.cache_features(wide, x, tmp_path / "a", verbose=0)
