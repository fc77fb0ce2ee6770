import copy
import pickle
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from utils import only_on

from keras_mla.comparison import metrics
from keras_mla.comparison.metrics import METRICS, named
from keras_mla.metrics import ExpectedCalibrationError

sk = pytest.importorskip("sklearn.metrics")

pytestmark = only_on("torch")  # They depend on no backend.

ALL = [(task, name) for task, table in METRICS.items() for name in table]


def case(task, rng, rows=200, units=4, ties=False):
    """Labels and outputs; with ties, many outputs are equal."""
    outputs = rng.normal(size=(rows, units)) * 2
    if ties:
        outputs = np.round(outputs)
    if task == "single_label":
        return rng.integers(0, units, rows), outputs
    y = rng.normal(size=(rows, units))
    if task == "multi_label":
        return (y > 0.5).astype("int32"), outputs
    return (np.round(y) if ties else y), outputs


def softmax(z):
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return np.round(p, 14)  # Equal logits in another order are ties.


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


EXPECTED = {
    ("single_label", "accuracy"): lambda y, z: sk.accuracy_score(
        y, z.argmax(1)
    ),
    ("single_label", "balanced_accuracy"): lambda y, z: (
        sk.balanced_accuracy_score(y, z.argmax(1))
    ),
    ("single_label", "f1_macro"): lambda y, z: sk.f1_score(
        y, z.argmax(1), average="macro"
    ),
    ("single_label", "f1_weighted"): lambda y, z: sk.f1_score(
        y, z.argmax(1), average="weighted"
    ),
    ("single_label", "auroc"): lambda y, z: sk.roc_auc_score(
        y, softmax(z), multi_class="ovr"
    ),
    ("single_label", "log_loss"): lambda y, z: sk.log_loss(y, softmax(z)),
    ("multi_label", "map"): sk.average_precision_score,
    ("multi_label", "f1_macro"): lambda y, z: sk.f1_score(
        y, z > 0, average="macro"
    ),
    ("multi_label", "f1_micro"): lambda y, z: sk.f1_score(
        y, z > 0, average="micro"
    ),
    ("multi_label", "exact_match"): lambda y, z: sk.accuracy_score(y, z > 0),
    ("multi_label", "log_loss"): lambda y, z: np.mean(
        [sk.log_loss(a, sigmoid(b)) for a, b in zip(y.T, z.T, strict=True)]
    ),
    ("regression", "mae"): lambda y, z: np.abs(y - z).mean(),
    ("regression", "rmse"): lambda y, z: np.sqrt(((y - z) ** 2).mean(0)).mean(),
    ("regression", "r2"): sk.r2_score,
}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("key", EXPECTED, ids="-".join)
def test_equals_scikit_learn(key, ties):
    y, outputs = case(key[0], np.random.default_rng(0), ties=ties)
    found = named(*key)(y, outputs)
    assert isinstance(found, float)
    assert found == pytest.approx(EXPECTED[key](y, outputs), rel=1e-9)


def test_every_metric_is_tested():
    assert {*EXPECTED, ("single_label", "ece")} == set(ALL)


@pytest.mark.parametrize("units", [2, 5])
def test_calibration_error_equals_that_of_keras(units):
    rng = np.random.default_rng(0)
    y, logits = case("single_label", rng, rows=500, units=units)
    other = ExpectedCalibrationError()
    other.update_state(y, logits.astype("float32"))
    found = named("single_label", "ece")(y, logits)
    assert found == pytest.approx(float(other.result()), abs=1e-5)


def test_calibration_error_by_hand():
    # Confidences 0.5, right and wrong; 0.9 in another bin, wrong.
    high = np.log(9.0)
    logits = [[0.0, 0.0], [0.0, 0.0], [high, 0.0]]
    found = named("single_label", "ece")([0, 1, 1], logits)
    assert found == pytest.approx(0.9 / 3)


def test_binary_auroc_is_the_ordinary_one():
    y, logits = case("single_label", np.random.default_rng(0), units=2)
    margin = logits[:, 1] - logits[:, 0]
    found = named("single_label", "auroc")(y, logits)
    assert found == pytest.approx(sk.roc_auc_score(y, margin), rel=1e-12)


@pytest.mark.parametrize("units", [2, 3])
def test_auroc_tells_sure_rows_apart(units):
    # All probabilities of class 1 round to 1.
    logits = np.full((4, units), -200.0)
    logits[:, 1] = [50, 60, 70, 80]
    logits[:, 0] = 0
    metric = named("single_label", "auroc")
    y = np.array([0, 0, 1, 1])
    assert metric(y, logits) == 1
    assert metric(y[::-1], logits) == 0
    assert metric.resampled(y, logits, [[1, 1, 1, 1]]) == 1


def test_auroc_averages_over_classes_that_occur():
    rng = np.random.default_rng(0)
    y, logits = case("single_label", rng, units=5)
    y = np.where(y == 3, 1, y)
    p = softmax(logits)
    expected = [sk.roc_auc_score(y == c, p[:, c]) for c in (0, 1, 2, 4)]
    found = named("single_label", "auroc")(y, logits)
    assert found == pytest.approx(np.mean(expected))


def test_map_averages_over_labels_with_a_positive():
    y, logits = case("multi_label", np.random.default_rng(0))
    expected = sk.average_precision_score(y[:, :2], logits[:, :2])
    y[:, 2:] = 0
    assert named("multi_label")(y, logits) == pytest.approx(expected)


def test_r2_averages_over_targets_that_vary():
    y, outputs = case("regression", np.random.default_rng(0))
    expected = sk.r2_score(y[:, :2], outputs[:, :2])
    y[:, 2:] = 0.1
    metric = named("regression", "r2")
    assert metric(y, outputs) == pytest.approx(expected)
    ones = np.ones((1, len(y)), int)
    assert metric.resampled(y, outputs, ones) == pytest.approx(expected)


def test_r2_of_draws_with_nearly_equal_labels():
    # One label is far from the others, and most of its square is lost.
    rng = np.random.default_rng(0)
    y = np.append(rng.normal(size=30) * 1e-3, 1e6)
    outputs = y + rng.normal(size=31) * 1e-3
    counts = rng.multinomial(31, np.full(31, 1 / 31), size=40)
    counts[:20, -1] = 0
    metric = named("regression", "r2")
    expected = [
        metric(np.repeat(y, c), np.repeat(outputs, c)[:, None]) for c in counts
    ]
    found = metric.resampled(y, outputs[:, None], counts)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("single_label", "auroc"),
        ("multi_label", "map"),
        ("regression", "r2"),
    ],
)
def test_undefined_is_nan(task, name):
    metric = named(task, name)
    outputs = np.random.default_rng(0).normal(size=(5, 3))
    y = np.zeros(5 if task == "single_label" else (5, 3), int)
    assert np.isnan(metric(y, outputs))
    counts = [[1] * 5, [5, 0, 0, 0, 0]]
    assert np.isnan(metric.resampled(y, outputs, counts)).all()


@pytest.mark.parametrize(("task", "name"), ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, None])
def test_nothing_and_outputs_that_are_not_finite_are_nan(task, name, bad):
    metric = named(task, name)
    y, outputs = case(task, np.random.default_rng(0), rows=6)
    if bad is None:
        assert np.isnan(metric(y[:0], outputs[:0]))
        assert np.isnan(metric.resampled(y, outputs, np.zeros((2, 6)))).all()
        assert metric.resampled(y, outputs, np.zeros((0, 6))).shape == (0,)
        return
    outputs[2, 1] = bad
    assert np.isnan(metric(y, outputs))
    assert np.isnan(metric.resampled(y, outputs, np.ones((2, 6)))).all()


@pytest.mark.parametrize("task", METRICS)
@settings(max_examples=40, deadline=None, database=None)
@given(data=st.data())
def test_resampled_equals_the_metric_of_repeated_rows(task, data):
    # Few rows and draws: classes vanish, and many scores are equal.
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, units = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    units = max(units, 2) if task == "single_label" else units
    ties = data.draw(st.booleans())
    y, outputs = case(task, rng, rows, units, ties=ties)
    counts = rng.integers(0, data.draw(st.integers(2, 4)), (3, rows))
    for metric in METRICS[task].values():
        found = metric.resampled(y, outputs, counts)
        expected = [
            metric(np.repeat(y, c, axis=0), np.repeat(outputs, c, axis=0))
            for c in counts
        ]
        np.testing.assert_allclose(
            found, expected, rtol=1e-9, atol=1e-12, err_msg=metric.name
        )


@pytest.mark.parametrize(("task", "name"), ALL)
@pytest.mark.parametrize("units", [2, 10])
def test_resampled_in_blocks(task, name, units, monkeypatch):
    monkeypatch.setattr(metrics, "ELEMENTS", 1000)  # 2 or 3 draws a block.
    rng = np.random.default_rng(1)
    y, outputs = case(task, rng, 300, units)
    counts = rng.multinomial(300, np.full(300, 1 / 300), size=7)
    metric = named(task, name)
    found = metric.resampled(y, outputs.astype("float32"), counts)
    expected = [
        metric(
            np.repeat(y, c, axis=0),
            np.repeat(outputs.astype("float32"), c, axis=0),
        )
        for c in counts
    ]
    assert found.dtype == "float64"
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_resampled_takes_little_memory():
    rng = np.random.default_rng(0)
    for task, name in [("single_label", "auroc"), ("multi_label", "f1_macro")]:
        y, outputs = case(task, rng, 20_000, 6)
        counts = np.ones((120, 20_000), "int8")
        metric = named(task, name)
        metric.resampled(y[:9], outputs[:9], counts[:1, :9])  # It imports.
        tracemalloc.start()
        metric.resampled(y, outputs, counts)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200e6


def test_labels_of_one_column_equal_labels_without():
    rng = np.random.default_rng(0)
    for task, units in [("single_label", 3), ("regression", 1)]:
        y, outputs = case(task, rng, 20, units)
        for metric in METRICS[task].values():
            expected = metric(y.reshape(20), outputs)
            assert metric(y.reshape(20, 1), outputs) == expected


def test_named():
    assert named("single_label").name == "accuracy"
    assert named("multi_label").name == "map"
    assert named("regression").name == "mae"
    assert named("multi_label", "mAP") is METRICS["multi_label"]["map"]
    for name in ("Balanced Accuracy", "balanced-accuracy"):
        assert named("single_label", name).title == "Balanced accuracy"
    with pytest.raises(ValueError, match="'f1_weighted'.*mean 'f1_macro'"):
        named("single_label", "macro_f1")
    with pytest.raises(ValueError, match="Did you mean 'accuracy'"):
        named("single_label", "acuracy")
    with pytest.raises(ValueError, match=r"\['mae', 'rmse', 'r2'\]. Received"):
        named("regression", "zzz")
    with pytest.raises(ValueError, match="'regression', 'single_label'"):
        named("ranking")


def test_text():
    accuracy, mae = named("single_label"), named("regression")
    assert accuracy.text(0.9714) == "97.1"
    assert accuracy.text(float("nan")) == "–"
    assert mae.text(12.34567) == "12.346"
    assert named("regression", "r2").text(-1e-9) == "0.000"


def test_directions():
    lower = {"log_loss", "ece", "mae", "rmse"}
    for task, name in ALL:
        metric = METRICS[task][name]
        assert (metric.task, metric.name) == (task, name)
        assert metric.higher_is_better == (name not in lower)


def test_metrics_are_copied_and_pickled():
    metric = named("single_label", "auroc")
    assert pickle.loads(pickle.dumps(metric)) == metric
    assert copy.deepcopy(metric) == metric


@pytest.mark.parametrize(
    ("task", "y", "shape", "message"),
    [
        ("single_label", [0, 1, 3], (3, 3), "from 0 to 2. Received.*0 to 3"),
        ("single_label", [0, -1, 1], (3, 3), "from -1 to 1"),
        ("single_label", [0, 0.5, 1], (3, 3), "classes from 0 to 2"),
        ("single_label", np.eye(3), (3, 3), "at least 2 classes"),
        ("single_label", [0, 1, 0], (3, 1), "at least 2 classes"),
        ("single_label", [0, 1], (3, 3), "a row for each label"),
        ("multi_label", [[0, 2], [1, 0]], (2, 2), "must be 0 or 1"),
        ("multi_label", [0, 1], (2, 2), "shape of the outputs"),
        ("regression", [[0, 1], [1, 0]], (2, 1), "shape of the outputs"),
    ],
)
def test_labels_that_do_not_fit(task, y, shape, message):
    for metric in METRICS[task].values():
        with pytest.raises(ValueError, match=message):
            metric(y, np.zeros(shape))


def test_counts_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(draws, 3\).*\(3, 2\)"):
        named("single_label").resampled([0, 1, 0], np.eye(3), np.ones((3, 2)))


def test_needs_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(ImportError, match=r"scikit-learn.*keras-mla\[compare"):
        named("single_label")([0, 1], np.eye(2))


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for task, name in ALL:
            y, outputs = case(task, np.random.default_rng(0), 3)
            named(task, name)(y[:1], 1000 * outputs[:1])
            named(task, name).resampled(y, 1000 * outputs, np.eye(3, dtype=int))
