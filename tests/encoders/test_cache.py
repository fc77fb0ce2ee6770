import json

import keras
import numpy as np
import pytest
from utils import mainly_on

from keras_mla import MLA, encoders


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
    assert len(list((tmp_path / "a").glob("*.npy"))) == 3


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
    shard = tmp_path / "shard-00001.npy"
    shard.write_bytes(shard.read_bytes()[:-4] + b"\1\2\3\4")
    data = Counting(x)
    again = encoders.cache_features(encoder, data, tmp_path, **OPTIONS)
    assert data.reads == 2
    np.testing.assert_array_equal(again, features)


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
    assert len(index["checksums"]) == 3


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
    with pytest.raises(ValueError, match="batch_size=0"):
        encoders.cache_features(encoder, x, tmp_path / "a", batch_size=0)
    wide = keras.Sequential([keras.Input((6,)), keras.layers.Reshape((2, 3))])
    with pytest.raises(ValueError, match=r"features.shape=\(22, 2, 3\)"):
        encoders.cache_features(wide, x, tmp_path / "a", verbose=0)
