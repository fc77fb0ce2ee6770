"""CCA against scikit-learn, and its filling, batches and errors."""

import keras
import numpy as np
import pytest
from incomplete_data import NAMES, at_rate, untrained
from sklearn.cross_decomposition import CCA as Oracle
from utils import WIDTHS, compiled, encoder, mainly_on, make_data, to_numpy

from keras_mla.models import CCA


def make(names=NAMES, **kwargs):
    return CCA(untrained(names), 4, **{"width": 2, **kwargs})


def projected(model, x):
    """Projections in float64: of each modality, k for each other one."""
    return {
        name: (x[name].astype("float64") - to_numpy(network.mean))
        @ to_numpy(network.kernel)
        for name, network in model.networks.items()
    }


def correlations(first, second):
    return [
        np.corrcoef(a, b)[0, 1] for a, b in zip(first.T, second.T, strict=True)
    ]


def test_projections_of_each_pair_against_scikit_learn():
    x, y = make_data(60, NAMES)
    # The library makes a pair's columns in the order of the modalities.
    model = make(ridge=1e-9)
    model.adapt((x, y))
    z = projected(model, x)
    columns = {name: [n for n in NAMES if n != name] for name in NAMES}
    for i, j in ((0, 1), (0, 2), (1, 2)):
        pair = NAMES[i], NAMES[j]
        own = []
        for name, other in (pair, pair[::-1]):
            start = 2 * columns[name].index(other)
            own.append(z[name][:, start : start + 2])
        oracle = Oracle(2, scale=False, max_iter=10_000, tol=1e-12)
        theirs = oracle.fit_transform(x[pair[0]], x[pair[1]])
        expected = correlations(*theirs)
        assert 0.2 < expected[1] < expected[0] < 1
        np.testing.assert_allclose(correlations(*own), expected, atol=1e-4)
        for values in own:  # Whitened.
            np.testing.assert_allclose(np.cov(values.T), np.eye(2), atol=1e-4)
        # The same directions, but for their signs.
        for values, scores in zip(own, theirs, strict=True):
            same = np.corrcoef(values.T, scores.T)[:2, 2:]
            np.testing.assert_allclose(np.abs(same), np.eye(2), atol=2e-3)


def test_absent_values_count_as_the_mean_of_present_ones():
    x, y = at_rate(50, 0.4)
    present = x["presence"]
    assert not present.any(axis=1).all()  # Some samples have nothing.
    model = make(ridge=1e-3)
    model.adapt((x, y))
    known = present.any(axis=1)
    filled, means = {}, {}
    for m, name in enumerate(NAMES):
        means[name] = np.nanmean(x[name].astype("float64"), axis=0)
        shown = np.where(present[:, m, None], x[name], means[name])
        filled[name] = shown[known]
        mean = to_numpy(model.networks[name].mean)
        np.testing.assert_allclose(mean, means[name], atol=1e-6)
    first, second = (filled[n] - means[n] for n in NAMES[:2])

    def root(values):
        s = values.T @ values / (len(values) - 1)
        found, vectors = np.linalg.eigh(s + 1e-3 * np.eye(len(s)))
        return vectors / np.sqrt(found) @ vectors.T

    cross = first.T @ second / (len(first) - 1)
    expected = np.linalg.svd(
        root(first) @ cross @ root(second), compute_uv=False
    )[:2]
    a = to_numpy(model.networks["text"].kernel)[:, :2].astype("float64")
    b = to_numpy(model.networks["audio"].kernel)[:, :2].astype("float64")
    np.testing.assert_allclose(a.T @ cross @ b, np.diag(expected), atol=1e-5)
    # The head sees zeros in place of absent projections.
    logits = model.predict(x, verbose=0)
    z = projected(model, x)
    beside = np.concatenate(
        [np.where(present[:, [m]], z[n], 0) for m, n in enumerate(NAMES)], 1
    )
    by_hand = beside @ to_numpy(model.head.kernel)
    np.testing.assert_allclose(logits, by_hand, atol=1e-4)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(16 * index, 16 * index + 16)
        return {n: v[part] for n, v in self.x.items()}, self.y[part]


@mainly_on("torch")
def test_batches_are_adapted_to_as_one():
    x, y = at_rate(48, 0.3)
    for name in NAMES:
        x[name] += 1000  # Sums of squares would lose digits of covariances.
    data = Batches(x, y)
    found = []
    for given in ((x, y), data, [data[i] for i in range(3)]):
        model = make()
        model.adapt(given)
        # Signs of singular vectors are free.
        kernels = [to_numpy(n.kernel) for n in model.networks.values()]
        found.append([to_numpy(n.mean) for n in model.networks.values()])
        found[-1] += [np.abs(kernel) for kernel in kernels]
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


@mainly_on("torch")
def test_only_the_head_trains_and_files_hold_the_projections(tmp_path):
    x, y = at_rate(32, 0.7)
    model = compiled(make(), keras.optimizers.Adam(0.1))
    model.adapt((x, y))
    assert {v.path.split("/")[-2] for v in model.trainable_variables} == {
        "head"
    }
    before = [to_numpy(v) for n in model.networks.values() for v in n.weights]
    logs = model.fit(x, y, batch_size=16, epochs=2, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    assert logs["loss"][1] < logs["loss"][0]
    after = [to_numpy(v) for n in model.networks.values() for v in n.weights]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert (again.width, again.ridge) == (2, 1e-4)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    again.fit(x, y, verbose=0)  # It is adapted.


@mainly_on("torch")
def test_no_more_projections_than_features():
    model = make(width=7)
    sizes = {n: network.units for n, network in model.networks.items()}
    assert sizes == {"text": 3 + 3, "audio": 3 + 5, "image": 3 + 5}
    x, y = make_data(40, NAMES)
    model.adapt((x, y))
    assert model.predict(x, verbose=0).shape == (40, 4)


@mainly_on("torch")
def test_a_trainable_encoder_is_refused():
    parts = {name: encoder(WIDTHS[name]) for name in NAMES}
    parts["text"].trainable = False
    with pytest.raises(ValueError, match="'audio' is trainable.*= False"):
        CCA(parts, 4)
    for part in parts.values():
        part.trainable = False
    model = CCA(parts, 4, width=2, feature_dim=3)
    assert len(model.trainable_variables) == 2  # Those of the head.
    model.encoders["image"].trainable = True
    with pytest.raises(ValueError, match="'image' is trainable"):
        compiled(model)


def test_fit_without_adapt_is_refused():
    x, y = make_data(8, NAMES)
    model = compiled(make())
    for train in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match="call `model.adapt"):
            train(x, y)


@mainly_on("torch")
def test_bad_arguments():
    x, y = make_data(8, NAMES)
    with pytest.raises(ValueError, match="Received: width=0"):
        make(width=0)
    with pytest.raises(ValueError, match="at least two"):
        make(["text"])
    x["presence"] = np.ones((8, 3), bool)
    x["presence"][:, 1] = False
    with pytest.raises(ValueError, match="8 samples, 0 of them with 'audio'"):
        make().adapt((x, y))
