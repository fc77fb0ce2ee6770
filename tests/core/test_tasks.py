"""Several labels, and regression."""

import keras
import numpy as np
import pytest
import utils
from keras import ops
from utils import (
    WIDTHS,
    compiled,
    make_data,
    make_method,
    to_numpy,
)

import keras_mla
from keras_mla.core.tasks import TASKS, task_of
from keras_mla.layers import (
    AverageFusion,
    EnergyFusion,
    EntropyFusion,
    InverseVarianceFusion,
)
from keras_mla.metrics import ExpectedCalibrationError
from keras_mla.models import METHODS

NAMES = tuple(WIDTHS)
LABELS = 4
BCE = keras.losses.BinaryCrossentropy(from_logits=True)


def make(method="MLA", head=LABELS, **kwargs):
    return make_method(method, head, **kwargs)


def draw(kind, samples=24, units=LABELS):
    x, y = make_data(samples)
    x["sample_id"] = np.arange(samples)
    rng = np.random.default_rng(1)
    if kind == "multi_label":
        y = (rng.random((samples, units)) < 0.4).astype("float32")
    else:
        # What each modality tells, with a noise of its own.
        y = rng.normal(size=(samples, units)).astype("float32")
    x["presence"] = presence = rng.random((samples, 3)) < 0.7
    for m, name in enumerate(NAMES):
        x[name][~presence[:, m]] = np.nan
    return x, y, presence


# === The loss determines the task ===


@pytest.mark.parametrize(
    ("loss", "task"),
    [
        ("mse", "regression"),
        (keras.losses.Huber(), "regression"),
        (keras.losses.mean_absolute_error, "regression"),
        (BCE, "multi_label"),
        (
            keras.losses.BinaryFocalCrossentropy(from_logits=True),
            "multi_label",
        ),
        (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "single_label",
        ),
        (
            keras.losses.CategoricalCrossentropy(from_logits=True),
            "single_label",
        ),
        ("categorical_hinge", "single_label"),
        (lambda y, z: ops.mean(z, axis=-1), "single_label"),
    ],
)
def test_the_loss_tells_the_task(loss, task):
    assert task_of(loss, "auto").name == task
    assert task_of(loss, task).name == task


def test_a_loss_of_another_task_is_refused():
    with pytest.raises(ValueError, match="is for the task 'multi_label'"):
        compiled(make(task="regression"), loss=BCE, metrics=None)
    with pytest.raises(ValueError, match="is for the task 'single_label'"):
        compiled(make(task="regression"), metrics=None)
    with pytest.raises(ValueError, match="must be 'auto' or one of"):
        make(task="ranking")


# === Training ===


@pytest.mark.filterwarnings("ignore:`calibrate` ended at a bound")
@pytest.mark.parametrize(
    "method", [m for m in METHODS if "multi_label" in METHODS[m].tasks]
)
def test_several_labels(method, tmp_path):
    x, y, presence = draw("multi_label")
    model = compiled(make(method), loss=BCE)
    model.adapt((x, y))
    logs = model.fit(x, y, epochs=2, validation_data=(x, y), verbose=0).history
    assert np.isfinite([v for values in logs.values() for v in values]).all()
    scores = model.evaluate(x, y, verbose=0, return_dict=True)
    logits = model.predict(x, verbose=0)
    assert scores["accuracy"] == pytest.approx(
        ((logits > 0) == (y > 0.5)).mean(), rel=1e-5
    )
    found = model.predict_modalities(x)
    for m, name in enumerate(NAMES):
        here = presence[:, m]
        z, t = found[name]["logits"][here], y[here]
        own = (np.logaddexp(0, z) - t * z).mean()
        assert scores[f"{name}_loss"] == pytest.approx(own, rel=1e-4)
        hits = ((z > 0) == (t > 0.5)).mean()
        assert scores[f"{name}_accuracy"] == pytest.approx(hits, rel=1e-5)
    assert model.task.name == "multi_label"
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert again.task.name == "multi_label"
    np.testing.assert_array_equal(again.predict(x, verbose=0), logits)
    if model.fusion is not None:
        fitted = model.calibrate((x, y))
        assert 0.01 < fitted["scale"] < 100


@pytest.mark.parametrize(
    "method, units",
    [
        (m, units)
        for m in METHODS
        for units in (1, 2)
        if "regression" in METHODS[m].tasks
        # What several targets are differs with the base class alone.
        and (units == 1 or utils.LONG or m in ("MLA", "MMIN", "SumFusion"))
    ],
)
def test_regression(method, units, tmp_path):
    x, y, presence = draw("regression", units=units)
    model = compiled(make(method, units), loss="mse", metrics=["mae"])
    given = y[:, 0] if units == 1 else y
    model.adapt((x, given))
    model.fit(x, given, epochs=2, verbose=0)
    scores = model.evaluate(x, given, verbose=0, return_dict=True)
    found = model.predict_modalities(x)
    known = presence.any(1)
    fused = ((found["fused"] - y) ** 2)[known].mean()
    assert scores["fused_loss"] == pytest.approx(fused, rel=1e-4)
    for m, name in enumerate(NAMES):
        here = presence[:, m]
        own = ((found[name]["logits"] - y)[here] ** 2).mean()
        assert scores[f"{name}_loss"] == pytest.approx(own, rel=1e-4)
        far = np.abs(found[name]["logits"] - y)[here].mean()
        assert scores[f"{name}_mae"] == pytest.approx(far, rel=1e-4)
    if model.fusion is not None:
        _check_inverse_variances(model, x, y, presence)
    predicted = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(again.predict(x, verbose=0), predicted)
    assert type(again.fusion) is type(model.fusion)


def _check_inverse_variances(model, x, y, presence):
    found = model.predict_modalities(x)
    # A sample with any modality has the experts that are no modalities.
    others = len(model.experts) - len(NAMES)
    known = np.repeat(presence.any(1, keepdims=True), others, 1)
    presence = np.concatenate([presence, known], 1)
    z = np.stack([found[name]["logits"] for name in model.experts], 1)
    z = np.where(presence[..., None], z, 0)
    counts = np.maximum(presence.sum(1), 1)[:, None]
    np.testing.assert_allclose(found["fused"], z.sum(1) / counts, atol=1e-5)
    fitted = model.calibrate((x, y))["variance"]
    precision = []
    for m, name in enumerate(model.experts):
        own = ((z[:, m] - y)[presence[:, m]] ** 2).mean()
        assert fitted[name] == pytest.approx(own, rel=1e-5)
        precision.append(presence[:, m] / own)
    weights = np.stack(precision, 1)
    weights = weights / np.maximum(weights.sum(1, keepdims=True), 1e-30)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), (weights[..., None] * z).sum(1), atol=1e-5
    )


def test_methods_that_need_classes_refuse_regression():
    for method in ("OGMGE", "QMF"):
        with pytest.raises(ValueError, match="for the tasks .*regression"):
            compiled(make(method), loss="mse", metrics=None)
        with pytest.raises(ValueError, match="for the tasks .*regression"):
            make(method, task="regression")


@pytest.mark.parametrize("cls", [EntropyFusion, EnergyFusion])
def test_fusions_by_certainty_refuse_regression(cls):
    with pytest.raises(ValueError, match="InverseVarianceFusion"):
        compiled(make(fusion=cls()), loss="mse", metrics=None)
    with pytest.raises(ValueError, match="InverseVarianceFusion"):
        make(fusion=cls(), task="regression")
    with pytest.raises(ValueError, match="InverseVarianceFusion"):
        cls(task="regression")


def test_an_average_has_nothing_to_calibrate_in_regression():
    x, y, _ = draw("regression")
    model = compiled(make(fusion=AverageFusion()), loss="mse", metrics=None)
    with pytest.raises(ValueError, match="InverseVarianceFusion"):
        model.calibrate((x, y))


def test_the_default_fusion_follows_the_task_until_it_is_saved():
    model = make()
    assert type(model.fusion) is EntropyFusion
    compiled(model, loss="mse", metrics=None)
    assert type(model.fusion) is InverseVarianceFusion
    paths = [v.path for v in model.fusion.variables]
    assert [v.path for v in model.weights if "fusion" in v.path] == paths
    compiled(model)
    assert type(model.fusion) is EntropyFusion
    x, y = make_data(8)
    model.fit(x, y, verbose=0)
    assert type(make(task="regression").fusion) is InverseVarianceFusion


# === Fusion and likelihood of several labels ===


def test_the_entropy_and_energy_of_several_labels():
    rng = np.random.default_rng(0)
    z = (10 * rng.normal(size=(5, 3, LABELS))).astype("float32")
    z[0, 0] = [1e4, -1e4, 0, 0]
    with np.errstate(all="ignore"):
        p = 1 / (1 + np.exp(-np.float64(z)))
        entropies = -np.nan_to_num(p * np.log(p)) - np.nan_to_num(
            (1 - p) * np.log1p(-p)
        )
    e = entropies.mean(-1)
    expected = np.exp(-e) / np.exp(-e).sum(1, keepdims=True)
    found = EntropyFusion(task="multi_label").weights_of(z)
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-5)
    energy = np.logaddexp(0, np.float64(z)).sum(-1) / 10
    found = EnergyFusion(task="multi_label").weights_of(z)
    np.testing.assert_allclose(to_numpy(found), energy, rtol=1e-5)


@pytest.mark.parametrize("units", [1, 3])
def test_the_likelihood_of_numbers_is_gaussian(units):
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    y, z = rng.normal(size=(2, 5, units))
    expected = norm.logpdf(y, z).mean(axis=1) + np.log(2 * np.pi) / 2
    found = TASKS["regression"].log_likelihood(
        y.astype("float32"), ops.convert_to_tensor(z, "float32")
    )
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-5)
    weight = np.arange(5.0)
    nll = TASKS["regression"].negative_log_likelihood(z, y, weight)
    assert nll == pytest.approx(-np.average(expected, weights=weight))


def test_one_label_is_two_classes():
    # A logit for yes is the difference of those of two classes.
    z = np.linspace(-3, 3, 6).reshape(2, 3, 1).astype("float32")
    two = np.concatenate([np.zeros_like(z), z], axis=-1)
    one = EntropyFusion(task="multi_label").weights_of(z)
    both = EntropyFusion().weights_of(two)
    np.testing.assert_allclose(to_numpy(one), to_numpy(both), atol=1e-6)
    y = np.array([[1.0], [0.0]], "float32")
    np.testing.assert_allclose(
        to_numpy(TASKS["multi_label"].log_likelihood(y, z[:, 0])),
        to_numpy(TASKS["single_label"].log_likelihood(y[:, 0], two[:, 0])),
        rtol=1e-5,
    )


# === Labels and metrics that do not fit ===


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        (BCE, np.zeros(8, "int32"), r"\(batch, 4\), with 1 for each label"),
        (BCE, np.full((8, 4), 2.0), "must be 1 for each label"),
        ("mse", np.zeros((8, 3)), r"\(batch, 4\), as many as the head"),
        ("mse", np.full((8, 4), np.nan), "must be finite numbers"),
    ],
)
def test_labels_that_do_not_fit(loss, y, message):
    x, _ = make_data(8)
    model = compiled(make(), loss=loss, metrics=None)
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, verbose=0)


def test_targets_of_samples_that_do_not_count_may_be_anything():
    x, y, presence = draw("regression")
    presence[0] = False
    y[0] = np.nan
    model = compiled(make(), loss="mse", metrics=None)
    model.fit(x, y, verbose=0)
    weight = np.ones(len(y))
    weight[0] = 0
    x.pop("presence")
    for name in NAMES:
        x[name] = np.nan_to_num(x[name])
    logs = model.fit(x, y, sample_weight=weight, verbose=0).history
    assert np.isfinite(logs["loss"]).all()


@pytest.mark.parametrize(
    ("loss", "metric"),
    [
        ("mse", "accuracy"),
        ("mse", keras.metrics.BinaryAccuracy(threshold=0.0)),
        ("mse", keras.metrics.F1Score()),
        ("mse", keras.metrics.AUC(from_logits=True)),
        ("mse", keras.metrics.BinaryCrossentropy(from_logits=True)),
        ("mse", ExpectedCalibrationError()),
        (BCE, keras.metrics.F1Score()),
        (BCE, keras.metrics.CategoricalAccuracy()),
        (BCE, ExpectedCalibrationError()),
    ],
)
def test_metrics_of_another_task_are_refused(loss, metric):
    with pytest.raises(ValueError, match="says nothing about the task"):
        compiled(make(), loss=loss, metrics=[metric])


def test_a_metric_of_ones_own_may_be_called_as_one_likes():
    def accuracy_within_one(targets, outputs):
        return ops.abs(targets - outputs) < 1

    x, y, _ = draw("regression")
    model = compiled(make(), loss="mse", metrics=[accuracy_within_one])
    logs = model.fit(x, y, verbose=0).history
    assert 0 < logs["accuracy_within_one"][0] < 1


@pytest.mark.parametrize(
    ("first", "second"), [("mse", BCE), (BCE, "mse"), (BCE, None)]
)
def test_a_loaded_model_takes_the_task_of_its_new_loss(first, second, tmp_path):
    second = second or keras.losses.SparseCategoricalCrossentropy(
        from_logits=True
    )
    kinds = [
        {"multi_label": "multi_label", "regression": "regression"}.get(
            task_of(loss, "auto").name
        )
        for loss in (first, second)
    ]
    x, y, _ = draw(kinds[0])
    metrics = dict(metrics=None)
    model = compiled(make(), loss=first, **metrics)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    for compile in (False, True):
        loaded = keras.saving.load_model(
            tmp_path / "model.keras", compile=compile
        )
        assert loaded.task.name == model.task.name
        np.testing.assert_allclose(
            loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
        )
        fresh = compiled(make(), loss=second, **metrics)
        compiled(loaded, loss=second, **metrics)
        assert loaded.task.name == fresh.task.name
        assert type(loaded.fusion) is type(fresh.fusion)
        assert loaded.fusion.task == fresh.fusion.task
    clone = keras.models.clone_model(make())
    compiled(clone, loss="mse", **metrics)
    assert type(clone.fusion) is InverseVarianceFusion
    given = keras.models.clone_model(make(fusion=EntropyFusion()))
    with pytest.raises(ValueError, match="EntropyFusion"):
        compiled(given, loss="mse", **metrics)


def test_a_threshold_for_probabilities_is_refused():
    with pytest.raises(ValueError, match="threshold=0.0"):
        compiled(make(), loss=BCE, metrics=[keras.metrics.BinaryAccuracy()])


@pytest.mark.parametrize("absent", [False, True])
def test_a_function_of_targets_gets_them_in_the_shape_of_outputs(absent):
    x, y, presence = draw("regression", units=1)
    if not absent:
        del x["presence"]
        x = {name: np.nan_to_num(value) for name, value in x.items()}

    def squares(targets, outputs):
        return ops.mean(ops.square(targets - outputs), axis=-1)

    model = make("LateFusion", 1, task="regression")
    compiled(model, loss=squares, metrics=None)
    logs = model.evaluate(x, y[:, 0], verbose=0, return_dict=True)
    far = (model.predict(x, verbose=0) - y) ** 2
    known = presence.any(1) if absent else slice(None)
    assert logs["fused_loss"] == pytest.approx(far[known].mean(), rel=1e-4)


def test_one_unit_is_one_label_or_one_target():
    x, _, _ = draw("regression")
    y = np.arange(24) % 2
    for loss in (BCE, "mse"):
        model = compiled(make(head=1), loss=loss, metrics=None)
        model.fit(x, y, verbose=0)
        assert model.predict(x, verbose=0).shape == (24, 1)
    with pytest.raises(ValueError, match="at least 2"):
        compiled(make(head=1))
    assert keras_mla.MLA is type(make(head=1))
