import keras
import numpy as np
import pytest

from keras_mla.metrics import ExpectedCalibrationError


def reference(z, y, weight, bins):
    p = np.exp(z - z.max(1, keepdims=True))
    p = p / p.sum(1, keepdims=True)
    confidence, right = p.max(1), p.argmax(1) == y
    edges = np.linspace(0, 1, bins + 1)
    error = 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        here = (confidence > low) & (confidence <= high)
        w = weight[here]
        if w.sum():
            accuracy = (w * right[here]).sum() / w.sum()
            mean = (w * confidence[here]).sum() / w.sum()
            error += w.sum() / weight.sum() * abs(accuracy - mean)
    return error


@pytest.mark.parametrize("one_hot", [False, True])
def test_batches_add_up_to_the_whole(one_hot):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 4)).astype("float32") * 2
    y = rng.integers(0, 4, 60)
    weight = rng.integers(0, 3, 60).astype("float32")
    metric = ExpectedCalibrationError(bins=7)
    labels = np.eye(4)[y] if one_hot else y
    for part in np.split(np.arange(60), 3):
        metric.update_state(labels[part], z[part], weight[part])
    expected = reference(z, y, weight, 7)
    np.testing.assert_allclose(float(metric.result()), expected, atol=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0
    again = ExpectedCalibrationError.from_config(metric.get_config())
    assert again.bins == 7


def test_certain_and_right_or_wrong():
    metric = ExpectedCalibrationError()
    certain = [[100.0, 0.0], [100.0, 0.0]]
    metric.update_state([0, 0], certain)
    assert float(metric.result()) == pytest.approx(0, abs=1e-6)
    metric.update_state([1, 1], certain)
    assert float(metric.result()) == pytest.approx(0.5, abs=1e-6)


def test_in_compile_it_is_watched_downwards():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[ExpectedCalibrationError()],
    )
    stopping = keras.callbacks.EarlyStopping(monitor="val_calibration_error")
    x, y = np.zeros((4, 2)), np.zeros(4, "int32")
    model.fit(x, y, validation_data=(x, y), callbacks=[stopping], verbose=0)
    assert stopping.monitor_op(1, 2) and not stopping.monitor_op(2, 1)


def test_bad_bins():
    with pytest.raises(ValueError, match="Received: bins=0"):
        ExpectedCalibrationError(bins=0)
