import keras
import methods_reference as ref
import numpy as np
import pytest
from keras import ops
from utils import mainly_on

from keras_mla import MLA
from keras_mla.layers import AverageFusion, EntropyFusion
from keras_mla.models import QMF, LateFusion, MultiLossFusion, SumFusion

METHODS = {
    "average": (LateFusion, {"fusion": AverageFusion}),
    "entropy": (LateFusion, {"fusion": EntropyFusion}),
    "multi-loss": (MultiLossFusion, {}),
    "qmf": (QMF, {"num_samples": 400}),
}


def overconfident(method, presence=False):
    """A model whose second modality is three times too certain."""
    rng = np.random.default_rng(0)
    samples = 400
    x, y = {}, rng.integers(0, 3, samples)
    for name in "ab":
        # The posterior of such inputs is the softmax of themselves.
        x[name] = np.eye(3)[y] + rng.normal(size=(samples, 3))
    make, arguments = METHODS[method]
    if "fusion" in arguments:  # A new layer for each test: it is fitted.
        arguments = {"fusion": arguments["fusion"]()}
    model = make(
        {
            m: keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
            for m in "ab"
        },
        head=3,
        **arguments,
    )
    for m, factor in (("a", 1.0), ("b", 3.0)):
        model.encoders[m].layers[-1].kernel.assign(np.eye(3))
        model.heads[m].kernel.assign(np.eye(3) * factor)
    if presence:
        present = rng.random((samples, 2)) > 0.3
        x["presence"] = present
        for index, m in enumerate("ab"):
            x[m][~present[:, index]] = np.nan
    return model, x, y


@mainly_on("torch")
def test_samples_count_as_in_training():
    results = []
    model, x, y = overconfident("entropy")
    kept = np.arange(400) % 3 > 0
    loss = keras.losses.SparseCategoricalCrossentropy
    ignored = np.where(kept, y, -1)
    for ignore, data in (
        (None, ({name: v[kept] for name, v in x.items()}, y[kept])),
        (None, (x, ignored, kept.astype("float32"))),
        (-1, (x, ignored)),
    ):
        model.compile("sgd", loss(from_logits=True, ignore_class=ignore))
        results.append(model.calibrate(data))
    weighted = model.calibrate((x, y, 1.0 + kept))
    twice = np.concatenate([np.arange(400), np.flatnonzero(kept)])
    repeated = model.calibrate(({n: v[twice] for n, v in x.items()}, y[twice]))
    for found, expected in (
        *((r, results[0]) for r in results[1:]),
        (weighted, repeated),
    ):
        # Weights of 1 and 2 say less than as many samples: the ridge is larger.
        rel = 1e-2 if found is weighted else 1e-3
        assert found["scale"] == pytest.approx(expected["scale"], rel=rel)
        for m in "ab":
            assert found["temperature"][m] == pytest.approx(
                expected["temperature"][m], rel=rel
            )


def nll(z, y):
    return ref.cross_entropy(np.asarray(z, "float64"), y)


def with_ridge(z, y, temperature):
    # As one sample would, it draws the temperature to 1.
    return nll(z / temperature, y) + np.log(temperature) ** 2 / (2 * len(y))


@pytest.mark.parametrize("method", ["temperature", "joint"])
def test_without_an_error_on_validation_data_temperatures_stay_finite(method):
    # Predictions that are right on all of few samples may be wrong on others.
    model, x, _ = overconfident("average")
    found = model.predict_modalities(x)
    classes = {m: found[m]["logits"].argmax(axis=1) for m in "ab"}
    few = np.flatnonzero(classes["a"] == classes["b"])[:30]
    assert len(few) == 30
    data = {name: v[few] for name, v in x.items()}
    fitted = model.calibrate((data, classes["a"][few]), method=method)
    assert fitted["after"]["negative_log_likelihood"] < 0.1
    fused = model.predict(x, verbose=0)
    ratio = abs(fused).mean() / abs(found["fused"]).mean()
    assert 1 < ratio < 30


@mainly_on("torch")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("presence", [False, True])
def test_temperatures_minimise_each_likelihood(method, presence, tmp_path):
    model, x, y = overconfident(method, presence)
    before = model.predict(x, verbose=0)
    unimodal = {
        m: model.unimodal(m).predict(np.nan_to_num(x[m]), verbose=0)
        for m in "ab"
    }
    fitted = model.calibrate((x, y))
    # The data's own temperatures are 1 and 3.
    assert fitted["temperature"]["a"] == pytest.approx(1, rel=0.2)
    assert fitted["temperature"]["b"] == pytest.approx(3, rel=0.2)
    for index, m in enumerate("ab"):
        here = x["presence"][:, index] if presence else slice(None)
        z, labels = unimodal[m][here], y[here]
        t = fitted["temperature"][m]
        best = with_ridge(z, labels, t)
        assert best <= with_ridge(z, labels, 1.02 * t)
        assert best <= with_ridge(z, labels, 0.98 * t)
    after = model.predict(x, verbose=0)
    known = x["presence"].any(1) if presence else slice(None)
    assert nll(after[known], y[known]) < nll(before[known], y[known])
    # Unimodal parts stay, and the fitted weights are saved.
    np.testing.assert_allclose(
        model.unimodal("b").predict(np.nan_to_num(x["b"]), verbose=0),
        unimodal["b"],
        atol=1e-6,
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), after, atol=1e-6)


def test_the_fused_logits_are_the_formula():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 2, 3)).astype("float32")
    fusion = EntropyFusion()
    exact = ops.convert_to_numpy(fusion(logits))
    log_p = ref.log_softmax(logits.astype("float64"))
    w = np.exp((np.exp(log_p) * log_p).sum(-1))
    w /= w.sum(1, keepdims=True)
    np.testing.assert_allclose(exact, (w[..., None] * logits).sum(1), atol=1e-6)
    fusion.temperature.assign([2.0, 0.5])
    fusion.sharpness.assign(3.0)
    fusion.scale.assign(1.5)
    z = logits / np.array([2.0, 0.5])[:, None]
    log_p = ref.log_softmax(z.astype("float64"))
    w = np.exp(3 * (np.exp(log_p) * log_p).sum(-1))
    w /= w.sum(1, keepdims=True)
    np.testing.assert_allclose(
        ops.convert_to_numpy(fusion(logits)),
        1.5 * (w[..., None] * z).sum(1),
        atol=1e-5,
    )


def test_batches_do_as_well_as_arrays():
    model, x, y = overconfident("average")
    whole = model.calibrate((x, y))
    parts = [
        ({m: v[rows] for m, v in x.items()}, np.eye(3)[y[rows]])
        for rows in np.split(np.arange(len(y)), 4)
    ]

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return len(parts)

        def __getitem__(self, index):
            return parts[index % len(parts)]

    for batches in (parts, Batches()):
        again = model.calibrate(batches)
        assert again["temperature"]["b"] == pytest.approx(
            whole["temperature"]["b"], rel=1e-3
        )


def test_mla_fits_all_that_there_is():
    _, x, y = overconfident("average")
    encoders = {
        m: keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
        for m in "ab"
    }
    for encoder in encoders.values():
        encoder.layers[-1].kernel.assign(np.eye(3))
    model = MLA(encoders, head=3)
    model.head.kernel.assign(2 * np.eye(3))
    fitted = model.calibrate((x, y))
    assert fitted["sharpness"] >= 0
    told = {"temperature", "sharpness", "scale", "before", "after"}
    assert set(fitted) == told
    before, after = fitted["before"], fitted["after"]
    assert set(before) == {"negative_log_likelihood", "calibration_error"}
    assert after["negative_log_likelihood"] < before["negative_log_likelihood"]


def test_what_cannot_be_calibrated():
    x, y, _ = ref.data("ab")
    with pytest.raises(ValueError, match="SumFusion joins features"):
        SumFusion(ref.encoders("ab"), head=3).calibrate((x, y))
    with pytest.raises(ValueError, match="between 0 and 2. Received: 3"):
        MLA(ref.encoders("ab"), head=3).calibrate((x, y + 3 * (y == 0)))
    with pytest.raises(ValueError, match="`y` must be one array"):
        MLA(ref.encoders("ab"), head=3).calibrate((x, {"a": y, "b": y}))
    x["presence"] = np.array([[True, False]] * len(y))
    with pytest.raises(ValueError, match="no sample of 'b'"):
        MLA(ref.encoders("ab"), head=3).calibrate((x, y))
    with pytest.raises(ValueError, match="has no samples"):
        MLA(ref.encoders("ab"), head=3).calibrate([])


def test_labels_of_samples_without_modalities_may_be_anything():
    fitted = []
    for label in (0, -1):
        model, x, y = overconfident("entropy", presence=True)
        y[~x["presence"].any(axis=1)] = label
        assert not x["presence"].any(axis=1).all()
        fitted.append(model.calibrate((x, y)))
    assert fitted[0] == fitted[1]
