"""The short way of updating and reading metrics gives what Keras's gives."""

import keras
import numpy as np
import pytest
from keras import ops
from utils import (
    CLASSES,
    FEATURES,
    WIDTHS,
    compiled,
    make_data,
    make_model,
    to_numpy,
)

from keras_mla.models import means

rng = np.random.default_rng(0)
LABELS = [rng.integers(0, 4, n) for n in (8, 5)]
LOGITS = [rng.normal(size=(n, 4)).astype("float32") for n in (8, 5)]
WEIGHTS = [rng.random(n).astype("float32") for n in (8, 5)]


@keras.saving.register_keras_serializable(package="tests")
class Doubled(keras.metrics.SparseCategoricalAccuracy):
    """One with a way of its own."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true, y_pred, sample_weight)
        super().update_state(y_true, y_pred, sample_weight)


@keras.saving.register_keras_serializable(package="tests")
class Two(keras.metrics.SparseCategoricalAccuracy):
    """One with two results."""

    def result(self):
        return {"first": super().result(), "second": self.count.value}


def each_logit(y, logits):
    """Values of two axes."""
    return logits


def one(y, logits):
    """No tensor at all."""
    return 1.0


METRICS = {
    "accuracy": keras.metrics.SparseCategoricalAccuracy,
    "top2": lambda: keras.metrics.SparseTopKCategoricalAccuracy(2),
    "cross-entropy": lambda: keras.metrics.SparseCategoricalCrossentropy(
        from_logits=True
    ),
    "two axes": lambda: keras.metrics.MeanMetricWrapper(each_logit),
    "a number": lambda: keras.metrics.MeanMetricWrapper(one),
    "a subclass": Doubled,
    "half": lambda: keras.metrics.SparseCategoricalAccuracy(dtype="float16"),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", METRICS)
def test_update_and_result_are_those_of_the_metric(name, weighted):
    if weighted and name == "a number":
        pytest.skip("Keras weighs no numbers.")
    ours, keras_own = METRICS[name](), METRICS[name]()
    for y, logits, weight in zip(LABELS, LOGITS, WEIGHTS, strict=True):
        y, logits = ops.convert_to_tensor(y), ops.convert_to_tensor(logits)
        weight = weight if weighted else None
        means.update_state(ours, y, logits, weight)
        keras_own.update_state(y, logits, weight)
    for a, b in zip(ours.variables, keras_own.variables, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-6)
    (result,) = means.results({"it": ours}, ()).values()
    np.testing.assert_allclose(
        to_numpy(result), to_numpy(keras_own.result()), rtol=1e-6
    )


def test_masked_samples_do_not_count():
    # Masking hides the rows that are all zero.
    logits = keras.layers.Masking()(np.eye(4, 3, dtype="float32"))
    metric = keras.metrics.SparseCategoricalAccuracy()
    means.update_state(metric, ops.arange(4), logits, None)
    assert float(metric.count.value) == 3
    assert float(metric.result()) == 1


def test_a_mean_of_nothing_is_zero():
    metrics = {"a": keras.metrics.Mean(), "b": keras.metrics.Mean()}
    means.add_to_mean(metrics["b"], ops.convert_to_tensor(3.0), 2)
    means.add_to_mean(
        metrics["b"], ops.convert_to_tensor(0.0), ops.convert_to_tensor(1.0)
    )
    results = {k: float(v) for k, v in means.results(metrics, ()).items()}
    assert results == {"a": 0.0, "b": 2.0}


def test_equal_names_and_several_results_in_logs():
    x, y = make_data()
    model = compiled(
        make_model(),
        metrics=["accuracy", Two(name="two")],
        weighted_metrics=["accuracy"],
    )
    weights = np.linspace(0.1, 1, len(y))
    logs = model.evaluate(
        x, y, sample_weight=weights, verbose=0, return_dict=True
    )
    hits = {"": model.predict(x, verbose=0).argmax(1) == y}
    for name in WIDTHS:
        logits = model.unimodal(name).predict(x[name], verbose=0)
        hits[f"{name}_"] = logits.argmax(1) == y
    for prefix, hit in hits.items():
        two = f"{prefix}two_" if prefix else ""
        expected = {
            f"{prefix}accuracy": hit.mean(),
            f"{prefix}weighted_accuracy": np.average(hit, weights=weights),
            f"{two}first": hit.mean(),
            f"{two}second": len(y),
        }
        for key, value in expected.items():
            np.testing.assert_allclose(logs[key], value, rtol=1e-5)


def test_a_scalar_keeps_its_name():
    x, y = make_data()
    metrics = [
        Two(name="two"),
        keras.metrics.SparseTopKCategoricalAccuracy(2, name="first"),
    ]
    model = compiled(make_model(), metrics=metrics)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    names = {"first", "second"}
    for name in WIDTHS:
        names |= {f"{name}_first", f"{name}_two_first", f"{name}_two_second"}
    losses = {"loss", *(f"{name}_loss" for name in WIDTHS)}
    assert set(logs) == names | losses


def test_unpaired_data_have_no_fused_results():
    x, y = make_data()
    model = compiled(make_model(), metrics=[Two(name="two"), "accuracy"])
    logs = model.evaluate(x, dict.fromkeys(x, y), verbose=0, return_dict=True)
    assert not {"accuracy", "first", "second"} & set(logs)
    assert logs["text_two_second"] == len(y)


def test_names_that_keras_mixes_up():
    # Keras reports two of these three, under "a" and "a_1".
    names = ("a", "a", "a_1")
    metrics = [keras.metrics.SparseCategoricalAccuracy(n) for n in names]
    x, y = make_data()
    model = compiled(make_model(), metrics=metrics)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    hits = model.predict(x, verbose=0).argmax(1) == y
    np.testing.assert_allclose(logs["a"], hits.mean(), rtol=1e-6)


def test_a_metric_that_makes_its_variables_late():
    x, y = make_data()
    one_hot = np.eye(CLASSES, dtype="float32")[y]
    model = make_model()
    model.compile(
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.F1Score(average="macro")],
    )
    logs = model.evaluate(x, one_hot, verbose=0, return_dict=True)
    for name in ("", *WIDTHS):
        part = model.unimodal(name) if name else model
        logits = part.predict(x[name] if name else x, verbose=0)
        alone = keras.metrics.F1Score(average="macro")
        alone.update_state(one_hot, logits)
        key = f"{name}_f1_score" if name else "f1_score"
        np.testing.assert_allclose(logs[key], float(alone.result()), rtol=1e-5)


def test_a_layer_with_a_metric_of_metrics():
    class Parts(keras.metrics.Mean):
        metrics = ()

    @keras.saving.register_keras_serializable(package="tests")
    class Watched(keras.layers.Dense):
        def build(self, input_shape):
            super().build(input_shape)
            self.seen = Parts(name="seen")

    model = compiled(make_model(("image",), layers=lambda: [Watched(FEATURES)]))
    x, y = make_data(modalities=("image",))
    assert "seen" in model.evaluate(x, y, verbose=0, return_dict=True)
