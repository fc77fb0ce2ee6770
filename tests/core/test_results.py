"""Results of metrics: names and values."""

import keras
import numpy as np
from utils import CLASSES, FEATURES, WIDTHS, compiled, make_data, make_model

from keras_mla.core.losses import MeanLoss
from keras_mla.core.metrics import ExpertMetrics, results


@keras.saving.register_keras_serializable(package="tests")
class Two(keras.metrics.SparseCategoricalAccuracy):
    """A metric with two results."""

    def result(self):
        return {"first": super().result(), "second": self.count.value}


def test_a_mean_of_nothing_is_zero():
    metrics = ExpertMetrics(("a", "b"), (), None, None)
    metrics.add("b_loss", MeanLoss(keras.ops.convert_to_tensor(3.0), 2))
    one = keras.ops.convert_to_tensor(1.0)
    metrics.add("b_loss", MeanLoss(0 * one, one))
    found = results(metrics.means, ())
    assert {k: float(v) for k, v in found.items()} == {
        "a_loss": 0.0,
        "b_loss": 2.0,
    }


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
    losses = {"loss", "fused_loss", *(f"{name}_loss" for name in WIDTHS)}
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
