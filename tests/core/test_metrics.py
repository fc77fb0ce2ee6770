"""Metrics and logs per modality, where Keras users look for them."""

import keras
import numpy as np
import pytest
from keras import ops
from utils import CLASSES, WIDTHS, compiled, mainly_on, make_data, make_model

NAMES = {
    "loss",
    "fused_loss",
    "accuracy",
    *(f"{n}_{k}" for n in WIDTHS for k in ("loss", "accuracy")),
}


@mainly_on("torch")
def test_history_evaluate_and_validation_share_names():
    x, y = make_data()
    model = compiled(make_model())
    history = model.fit(x, y, validation_split=0.25, epochs=2, verbose=0)
    assert set(history.history) == NAMES | {f"val_{n}" for n in NAMES}
    scores = model.evaluate(x, y, verbose=0, return_dict=True)
    assert set(scores) == NAMES
    as_list = model.evaluate(x, y, verbose=0)
    assert len(as_list) == len(NAMES)
    np.testing.assert_allclose(as_list[0], scores["loss"], rtol=1e-6)
    losses = [scores[f"{n}_loss"] for n in WIDTHS]
    np.testing.assert_allclose(scores["loss"], np.mean(losses), rtol=1e-5)


def test_metrics_of_each_modality_are_their_own():
    x, y = make_data(200)
    model = compiled(
        make_model(),
        metrics=[
            "accuracy",
            keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2"),
        ],
        weighted_metrics=["accuracy"],
    )
    model.fit(x, y, epochs=3, verbose=0)
    weights = np.random.default_rng(0).random(200)
    scores = model.evaluate(
        x, y, sample_weight=weights, verbose=0, return_dict=True
    )
    for name in WIDTHS:
        logits = model.unimodal(name).predict(x[name], verbose=0)
        hits = logits.argmax(1) == y
        top2 = (np.argsort(-logits)[:, :2] == y[:, None]).any(1)
        expected = {
            "accuracy": hits.mean(),
            "top2": top2.mean(),
            "weighted_accuracy": np.average(hits, weights=weights),
        }
        for key, value in expected.items():
            np.testing.assert_allclose(
                scores[f"{name}_{key}"], value, rtol=1e-5, err_msg=key
            )
    hits = model.predict(x, verbose=0).argmax(1) == y
    np.testing.assert_allclose(scores["accuracy"], hits.mean(), rtol=1e-5)
    np.testing.assert_allclose(
        scores["weighted_accuracy"],
        np.average(hits, weights=weights),
        rtol=1e-5,
    )


def test_early_stopping_finds_the_direction_of_a_modality():
    x, y = make_data()
    model = compiled(make_model())
    stopping = keras.callbacks.EarlyStopping("val_text_accuracy", patience=50)
    model.fit(
        x, y, validation_data=(x, y), epochs=2, verbose=0, callbacks=[stopping]
    )
    assert stopping.monitor_op(2, 1)  # Larger is better.
    by_loss = keras.callbacks.EarlyStopping("val_text_loss", mode="min")
    model.fit(
        x, y, validation_data=(x, y), epochs=2, verbose=0, callbacks=[by_loss]
    )


@mainly_on("torch")
def test_without_metrics_and_compiled_again():
    x, y = make_data()
    model = compiled(make_model(), metrics=None)
    history = model.fit(x, y, verbose=0)
    assert set(history.history) == {n for n in NAMES if "accuracy" not in n}
    compiled(model)
    history = model.fit(x, y, verbose=0)
    assert set(history.history) == NAMES


def test_tensorboard_gets_them(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    pytest.importorskip("tensorflow")
    x, y = make_data()
    model = compiled(make_model())
    model.fit(
        x, y, verbose=0, callbacks=[keras.callbacks.TensorBoard(tmp_path)]
    )
    events = event_accumulator.EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    tags = set(events.Tags()["tensors"]) | set(events.Tags()["scalars"])
    assert {f"epoch_{name}" for name in NAMES} <= tags


def test_metric_objects_are_not_shared():
    metric = keras.metrics.SparseCategoricalAccuracy(name="hit")
    model = compiled(make_model(), metrics=[metric])
    x, y = make_data()
    scores = model.evaluate(x, y, verbose=0, return_dict=True)
    assert {"hit", "audio_hit", "image_hit", "text_hit"} <= set(scores)
    assert metric.name == "hit"


class Doubled(keras.losses.SparseCategoricalCrossentropy):
    """Changes what calling a loss does, not what it computes per sample."""

    def __call__(self, *args, **kwargs):
        return 2.0 * super().__call__(*args, **kwargs)


class ByHand(keras.losses.Loss):
    """Relies on labels that are floats."""

    def call(self, y_true, y_pred):
        target = ops.one_hot(ops.cast(y_true, "int32"), CLASSES)
        squares = ops.sum(ops.square(target - y_pred), axis=-1)
        return squares * (0.5 + y_true)


@pytest.mark.parametrize(
    "loss, one_hot",
    [
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), False),
        (
            keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=0.2
            ),
            True,
        ),
        (keras.losses.CategoricalFocalCrossentropy(from_logits=True), True),
        (
            keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="sum"
            ),
            False,
        ),
        (
            keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, ignore_class=1
            ),
            False,
        ),
        (Doubled(from_logits=True), False),
        (ByHand(), False),
    ],
)
def test_losses_are_what_keras_computes(loss, one_hot):
    x, y = make_data(12)
    y = np.eye(CLASSES, dtype="int32")[y] if one_hot else y
    model = compiled(make_model(), keras.optimizers.SGD(0.0), loss=loss)
    logs = model.train_on_batch(x, y, return_dict=True)
    for name in model.modalities:
        logits = model.predict_modalities(x)[name]["logits"]
        expected = float(loss(y, ops.convert_to_tensor(logits)))
        assert logs[f"{name}_loss"] == pytest.approx(expected, rel=1e-5)
