import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from utils import only_on

from keras_mla.comparison.metrics import METRICS, named
from keras_mla.comparison.statistics import compare_rows, holm, interval

pytest.importorskip("sklearn")
stats = pytest.importorskip("scipy.stats")

pytestmark = only_on("torch")  # They depend on no backend.


def logits(right, y, classes=3):
    """Logits that are right in these rows."""
    return np.eye(classes)[np.where(right, y, (y + 1) % classes)]


def test_interval_equals_scipy():
    values = [0.967, 0.971, 0.975, 0.982]
    found = interval(values, confidence=0.9)
    low, high = stats.t.interval(
        0.9, 3, loc=np.mean(values), scale=stats.sem(values)
    )
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert found.half_width == pytest.approx((high - low) / 2)
    assert found.count == 4


def test_interval_by_hand():
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.deviation) == (2, 1)
    assert found.half_width == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert found.text() == "2.0 ± 1.0"
    assert found.text(100, 2) == "200.00 ± 100.00"


def test_interval_of_one_value_has_no_deviation():
    found = interval([0.971])
    assert (found.deviation, found.half_width, found.count) == (None, None, 1)
    assert found.text(100) == "97.1"


def test_interval_of_what_is_not_defined():
    assert interval([np.nan, 1.0]).text() == "–"
    assert interval([0.5, 0.5]).text() == "0.5 ± 0.0"
    with pytest.raises(ValueError, match="at least one value"):
        interval([])
    with pytest.raises(ValueError, match="confidence=95"):
        interval([1, 2], confidence=95)


def test_holm_by_hand():
    # The example of "Holm-Bonferroni method" in Wikipedia.
    found = holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9, 0.6]), [1, 1, 1])
    np.testing.assert_allclose(holm([0.02]), [0.02])
    assert holm([]).shape == (0,)
    # A NaN is no test.
    np.testing.assert_allclose(holm([0.03, np.nan, 0.01]), [0.03, np.nan, 0.02])


@settings(max_examples=50, deadline=None, database=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_procedure_rejects(p):
    found = holm(p)
    assert ((found >= p) & (found <= 1)).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    for level in (0.01, 0.05, 0.3):
        # Holm's words: from the smallest, until one is not significant.
        rejected = set(
            itertools.takewhile(
                lambda i: (
                    p[i] * (len(p) - list(order).index(i)) <= level  # noqa: B023
                ),
                order,
            )
        )
        assert set(np.flatnonzero(found <= level)) == rejected


def test_bootstrap_of_accuracy_is_nearly_normal():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 1500)
    one, other = rng.random(1500) < 0.8, rng.random(1500) < 0.78
    other = np.where(rng.random(1500) < 0.7, one, other)  # Much in common.
    outputs = {"one": [logits(one, y)], "other": [logits(other, y)]}
    found = compare_rows(named("single_label"), y, outputs, "other")["one"]
    gap = one.astype(float) - other
    mean, error = gap.mean(), gap.std() / 1500**0.5
    assert found.mean == pytest.approx(mean, abs=1e-12)
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.1 * error)
    # Draws at 0 count for both sides: half of a step of 1 / 1500.
    expected = 2 * stats.norm.sf((abs(mean) - 0.5 / 1500) / error)
    assert found.p == pytest.approx(expected, rel=0.15)


def test_bootstrap_against_all_draws():
    # 4 rows have 256 draws, each as likely. Two seeds of one method.
    y = np.array([0, 1, 2, 0])
    one = [np.array([1, 1, 0, 1], bool), np.array([1, 0, 0, 1], bool)]
    other = np.array([0, 1, 1, 0], bool)
    gap = np.mean(one, axis=0) - other
    every = np.array(list(itertools.product(range(4), repeat=4)))
    means = gap[every].mean(axis=1)
    outputs = {"one": [logits(r, y) for r in one], "other": [logits(other, y)]}
    found = compare_rows(named("single_label"), y, outputs, "other", 100_000)
    found = found["one"]
    tail = min((means <= 0).mean(), (means >= 0).mean())
    assert found.mean == gap.mean()
    assert found.p == pytest.approx(min(1, 2 * tail), abs=0.01)
    low, high = np.percentile(means, [2.5, 97.5])
    assert (found.low, found.high) == (low, high)


def test_groups_against_all_draws():
    # 3 groups of 1, 2 and 3 rows have 27 draws, each as likely.
    y = np.zeros(6, int)
    groups = np.array(["b", "a", "c", "a", "c", "c"])
    one = np.array([1, 1, 0, 1, 1, 0], bool)
    other = np.array([0, 1, 1, 0, 1, 0], bool)
    rows = [np.flatnonzero(groups == group) for group in "abc"]
    means = []
    for draw in itertools.product(range(3), repeat=3):
        drawn = np.concatenate([rows[group] for group in draw])
        means.append(one[drawn].mean() - other[drawn].mean())
    means = np.repeat(means, 1000)  # Percentiles without interpolation.
    outputs = {"one": [logits(one, y)], "other": [logits(other, y)]}
    found = compare_rows(
        named("single_label"), y, outputs, "other", 20_000, groups=groups
    )["one"]
    assert found.mean == pytest.approx(1 / 6)
    low, high = np.percentile(means, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high))
    tail = min((means <= 1e-9).mean(), (means >= -1e-9).mean())
    assert found.p == pytest.approx(max(min(1, 2 * tail), 0.25), abs=0.02)


@pytest.mark.parametrize("name", ["accuracy", "auroc", "f1_macro"])
def test_groups_of_one_row_are_rows(name):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 70)
    outputs = {m: [rng.normal(size=(70, 3)) for _ in range(2)] for m in "ab"}
    metric = named("single_label", name)
    rows = compare_rows(metric, y, outputs, "a", draws=600)
    groups = rng.permutation(70) + 100
    assert compare_rows(metric, y, outputs, "a", 600, groups=groups) == rows


def test_groups_widen_what_their_rows_repeat():
    # Each sample ten times: as sure as one time each.
    rng = np.random.default_rng(0)
    y = np.zeros(40, int)
    right = {m: rng.random(40) < 0.7 for m in "ab"}
    once = {m: [logits(r, y)] for m, r in right.items()}
    often = {
        m: [logits(np.repeat(r, 10), y.repeat(10))] for m, r in right.items()
    }
    metric = named("single_label")
    expected = compare_rows(metric, y, once, "a")["b"]
    groups = np.repeat(np.arange(40), 10)
    found = compare_rows(metric, y.repeat(10), often, "a", groups=groups)["b"]
    assert (found.low, found.high) == pytest.approx(
        (expected.low, expected.high)
    )
    rows = compare_rows(metric, y.repeat(10), often, "a")["b"]
    assert rows.high - rows.low < 0.5 * (found.high - found.low)


def test_few_groups_are_never_sure():
    y = np.zeros(60, int)
    outputs = {"good": [logits(y == 0, y)], "bad": [logits(y == 1, y)]}
    metric = named("single_label")
    for count in (2, 3, 20):
        found = compare_rows(
            metric, y, outputs, "bad", 500, groups=np.arange(60) % count
        )["good"]
        assert found.low == found.high == 1
        assert found.p == max(2 / 501, 2.0 ** (1 - count))
    found = compare_rows(metric, y, outputs, "bad", 500, groups=0 * y)["good"]
    assert found.mean == 1 and np.isnan([found.low, found.p]).all()


def test_equal_methods_do_not_differ():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    runs = [rng.normal(size=(90, 3)) for _ in range(3)]
    outputs = {"one": runs, "again": runs, "other way": runs[::-1]}
    for metric in METRICS["single_label"].values():
        found = compare_rows(metric, y, outputs, "one", draws=200)
        assert list(found) == ["again", "other way"]
        for difference in found.values():
            assert difference.mean == difference.low == difference.high == 0
            assert difference.p == difference.p_holm == 1
            assert not difference.better


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("single_label", "accuracy"),
        ("single_label", "log_loss"),
        ("single_label", "auroc"),
        ("multi_label", "map"),
        ("regression", "mae"),
        ("regression", "r2"),
    ],
)
def test_a_clearly_better_method(task, name):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    target = np.eye(3)[y]
    if task != "single_label":
        y = target
    outputs = {
        "worse": [target + 1.5 * rng.normal(size=target.shape)],
        "better": [2 * target - 0.5 + 0.1 * rng.normal(size=target.shape)],
        "worst": [-3 * target],
    }
    if task == "regression":
        outputs["better"] = [target]
    metric = named(task, name)
    found = compare_rows(metric, y, outputs, "worse", draws=2000)
    assert found["better"].better and not found["worst"].better
    sign = 1 if metric.higher_is_better else -1
    for method, difference in found.items():
        one, other = (metric(y, outputs[m][0]) for m in (method, "worse"))
        assert difference.mean == pytest.approx(one - other)
        assert difference.low < difference.mean < difference.high
        assert difference.p < 0.01
        assert difference.p_holm == pytest.approx(2 / 2001 * 2)
    assert sign * found["better"].low > 0 > sign * found["worst"].high


def test_the_seed_decides():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 50)
    outputs = {m: [rng.normal(size=(50, 3))] for m in "abc"}
    metric = named("single_label", "log_loss")
    found = [
        compare_rows(metric, y, outputs, "a", draws=700, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2]
    # Other methods do not change the draws.
    alone = {m: outputs[m] for m in "ac"}
    again = compare_rows(metric, y, alone, "a", draws=700)["c"]
    assert (again.low, again.p) == (found[0]["c"].low, found[0]["c"].p)
    assert found[0]["c"].p_holm >= again.p_holm


def test_the_level_is_kept_for_equally_good_methods():
    # p-values below 0.1 in about a tenth of comparisons without difference.
    rng = np.random.default_rng(0)
    y = np.zeros(200, int)
    outputs = {f"{i}": [logits(rng.random(200) < 0.7, y)] for i in range(401)}
    rejected = []
    for i in range(0, 400, 2):
        pair = {"a": outputs[f"{i}"], "b": outputs[f"{i + 1}"]}
        found = compare_rows(named("single_label"), y, pair, "a", draws=300)
        rejected.append(found["b"].p < 0.1)
    assert 0.04 < np.mean(rejected) < 0.16


def test_draws_without_a_class_are_left_out():
    # Of the draws of two rows, one half has both classes; it is always right.
    y = np.array([0, 1])
    outputs = {"good": [np.eye(2)], "even": [np.zeros((2, 2))]}
    metric = named("single_label", "auroc")
    found = compare_rows(metric, y, outputs, "even", draws=1000)["good"]
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)
    assert 2 / 600 < found.p < 2 / 400
    found = compare_rows(metric, [1, 1], outputs, "even", draws=100)["good"]
    assert np.isnan([found.mean, found.low, found.p, found.p_holm]).all()
    assert not found.better


def test_a_method_that_diverged_does_not_count():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    outputs = {m: [rng.normal(size=(60, 3))] for m in "ab"}
    outputs["lost"] = [np.full((60, 3), np.nan)]
    found = compare_rows(named("single_label"), y, outputs, "a", draws=100)
    assert np.isnan(found["lost"].p_holm)
    assert found["b"].p_holm == found["b"].p


def test_errors():
    y, outputs = np.array([0, 1]), {"a": [np.eye(2)], "b": [np.eye(2)]}
    metric = named("single_label")
    with pytest.raises(ValueError, match=r"one of \['a', 'b'\].*'c'"):
        compare_rows(metric, y, outputs, "c")
    with pytest.raises(ValueError, match="none for 'c'"):
        compare_rows(metric, y, {**outputs, "c": []}, "a")
    with pytest.raises(ValueError, match="draws=0"):
        compare_rows(metric, y, outputs, "a", draws=0)
    with pytest.raises(ValueError, match=r"shape \(2,\).*shape \(3,\)"):
        compare_rows(metric, y, outputs, "a", groups=[0, 1, 2])


def test_needs_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(ImportError, match=r"SciPy.*keras-mla\[compare"):
        interval([1.0, 2.0])
