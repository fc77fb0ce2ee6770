"""CPM-Net: loss, latents and predictions against NumPy in float64."""

import keras
import numpy as np
import pytest
from incomplete_data import NAMES, at_rate, untrained
from utils import (
    WIDTHS,
    compiled,
    encoder,
    mainly_on,
    make_data,
    some,
    to_numpy,
)

from keras_mla.models import CPMNet

BCE = keras.losses.BinaryCrossentropy(from_logits=True)


def make(num_samples=10, **kwargs):
    kwargs = {"width": 4, "margin_weight": 2.0, **kwargs}
    return CPMNet(untrained(), 4, num_samples, **kwargs)


def started(model, seed=0):
    """Gives decoders and latents values that are not their initial ones."""
    rng = np.random.default_rng(seed)
    decoders = [v for v in model.trainable_variables]
    for v in (*decoders, model.latents):
        v.assign(rng.normal(size=v.shape))
    return model


def data(samples=6, missing=True):
    x, y = make_data(samples, NAMES)
    y[:6] = [0, 0, 1, 1, 0, 2]
    present = np.ones((samples, 3), bool)
    if missing:
        present[0, 1], present[1], present[2, 1:] = False, False, False
        for m, name in enumerate(NAMES):
            x[name][~present[:, m]] = np.nan
        x["presence"] = present
    x["sample_id"] = np.array([7, 2, 5, 0, 3, 9])[:samples]
    return x, y, present


def parts_of(model):
    """Kernels and biases of the decoders, latents, in float64."""
    decoders = {
        name: [to_numpy(v).astype("float64") for v in layer.weights]
        for name, layer in model.latent.decoders.items()
    }
    return decoders, to_numpy(model.latents).astype("float64")[:-1]


def losses_of(decoders, latents, others, classes, x, y, present, weight=2.0):
    """The loss of each row, from the latents of all samples."""
    found = np.zeros(len(y))
    for i, sample in enumerate(x["sample_id"]):
        h = latents[i]
        for m, name in enumerate(NAMES):
            if present[i, m]:
                kernel, bias = decoders[name]
                found[i] += ((h @ kernel + bias - x[name][i]) ** 2).sum()
        similar = {}
        for c in range(4):
            members = [j for j in np.flatnonzero(classes == c) if j != sample]
            if members:
                similar[c] = np.mean([h @ others[j] for j in members])
        if y[i] in similar:
            best = max(similar, key=similar.get)
            theta = 0.0 if best == y[i] else 1.0
            margin = theta + similar[best] - similar[y[i]]
            found[i] += weight * max(0.0, margin)
    return found


def seen(x, y, present, start=None):
    """The classes of all samples after a batch."""
    classes = np.full(10, 4) if start is None else start.copy()
    counted = present.any(axis=1)
    classes[x["sample_id"][counted]] = y[counted]
    return classes


@pytest.mark.parametrize("missing", some([False, True], True))
def test_loss_decoders_and_latents(missing):
    model = started(make(latent_steps=3, latent_rate=0.05))
    compiled(model, keras.optimizers.SGD(0.01))
    x, y, present = data(missing=missing)
    # Samples of earlier batches count in the means of classes.
    earlier = np.full(11, 4, "int32")
    earlier[[1, 4, 6, 8]] = [0, 1, 1, 3]
    model.classes.assign(earlier)
    classes = seen(x, y, present, earlier[:-1])
    decoders, latents = parts_of(model)
    rows = latents[x["sample_id"]]
    known = present.any(axis=1)
    args = latents, classes, x, y, present
    losses = losses_of(decoders, rows, *args)
    reconstruction = losses_of(decoders, rows, *args, weight=0.0)
    assert (losses > reconstruction + 1).any()  # Some margins count.
    alone = y.tolist().index(2)  # It is alone in its class.
    assert losses[alone] == reconstruction[alone]

    logs = model.train_on_batch(x, y, return_dict=True)
    assert float(logs["loss"]) == pytest.approx(losses[known].mean(), rel=1e-5)

    # One step of gradient descent on the decoders.
    moved, after = parts_of(model)
    for m, name in enumerate(NAMES):
        here = present[:, m]
        kernel, bias = decoders[name]
        error = rows[here] @ kernel + bias - x[name][here]
        slopes = 2 * rows[here].T @ error, 2 * error.sum(0)
        for old, new, slope in zip(
            decoders[name], moved[name], slopes, strict=True
        ):
            expected = old - 0.01 * slope / known.sum()
            np.testing.assert_allclose(new, expected, rtol=1e-4, atol=1e-5)

    # Then three steps of Adam on the batch's latents, others being constant.
    h, first, second = rows.copy(), 0.0, 0.0
    for number in range(1, 4):
        gradient = np.zeros_like(h)
        for index in np.ndindex(h.shape):
            ends = []
            for sign in (1, -1):
                changed = h.copy()
                changed[index] += sign * 1e-6
                ends.append(losses_of(moved, changed, *args)[index[0]])
            gradient[index] = (ends[0] - ends[1]) / 2e-6
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        mean = first / (1 - 0.9**number)
        spread = np.sqrt(second / (1 - 0.999**number)) + 1e-7
        h = h - 0.05 * mean / spread
    ids = x["sample_id"]
    np.testing.assert_allclose(after[ids[known]], h[known], atol=1e-4)

    # The means of classes are those of the moved latents.
    for c in range(4):
        members = classes == c
        mean = after[members].mean(0) if members.any() else np.zeros(4)
        np.testing.assert_allclose(
            to_numpy(model.head.kernel)[:, c], mean, atol=1e-5
        )


def test_idle_latents_do_not_move_by_a_bit():
    model = compiled(started(make()), keras.optimizers.AdamW(0.1))
    x, y, present = data()
    state = [model.latents, *model.moments, model.steps, model.classes]
    model.train_on_batch(x, y)
    x["sample_id"] = np.array([1, 4, 6, 8, 3, 9])
    before = [to_numpy(v)[:-1] for v in state]
    model.train_on_batch(x, y)
    after = [to_numpy(v)[:-1] for v in state]
    moved = x["sample_id"][present.any(axis=1)]
    idle = np.setdiff1d(np.arange(10), moved)
    assert 4 in idle and len(idle) == 5  # A sample without any modality.
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[idle], new[idle])
    for old, new in zip(before[:4], after[:4], strict=True):
        assert (old[moved] != new[moved]).reshape(5, -1).any(axis=1).all()
    # Each latent counts its own steps.
    np.testing.assert_array_equal(after[3][[7, 3, 1, 2]], [5, 10, 5, 0])


@mainly_on("torch")
def test_rows_of_one_sample_move_as_one():
    x, y, _ = data(missing=False)
    x["sample_id"] = np.array([7, 7, 5, 0, 3, 9])
    y[:2] = 0
    twice = started(make(margin_weight=0.0))
    compiled(twice, keras.optimizers.SGD(0.0)).train_on_batch(x, y)
    decoders, _ = parts_of(twice)
    start = to_numpy(started(make(margin_weight=0.0)).latents)[7]
    h, first, second = start.astype("float64"), 0.0, 0.0
    for number in range(1, 6):
        gradient = sum(
            2 * (h @ w + b - x[name][row]) @ w.T
            for name, (w, b) in decoders.items()
            for row in (0, 1)
        )
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        h = h - 0.01 * (first / (1 - 0.9**number)) / (
            np.sqrt(second / (1 - 0.999**number)) + 1e-7
        )
    np.testing.assert_allclose(to_numpy(twice.latents)[7], h, atol=1e-5)


def test_it_is_not_for_onnx(tmp_path):
    with pytest.raises(ValueError, match="Export a TensorFlow SavedModel"):
        make().export(tmp_path / "model.onnx", format="onnx")


def test_predictions_solve_for_the_latent():
    model = started(make(ridge=0.01))
    rng = np.random.default_rng(1)
    model.head.kernel.assign(rng.normal(size=(4, 4)))
    x, _, present = data()
    decoders, _ = parts_of(model)
    means = to_numpy(model.head.kernel).astype("float64")
    logits = model.predict(x, verbose=0)
    found = model.predict_modalities(x)
    shown = {name: present[:, m] for m, name in enumerate(NAMES)}

    def latent(row, names):
        # Least squares of the errors, and of the latent itself.
        left = [decoders[n][0].T for n in names] + [0.1 * np.eye(4)]
        right = [x[n][row] - decoders[n][1] for n in names] + [np.zeros(4)]
        return np.linalg.lstsq(
            np.concatenate(left), np.concatenate(right), rcond=None
        )[0]

    for row in range(6):
        names = [n for n in NAMES if shown[n][row]]
        expected = latent(row, names) @ means if names else np.zeros(4)
        np.testing.assert_allclose(logits[row], expected, atol=2e-4)
        for name in names:
            np.testing.assert_allclose(
                found[name]["logits"][row],
                latent(row, [name]) @ means,
                atol=2e-4,
            )


@mainly_on("torch")
def test_it_learns_from_incomplete_samples(tmp_path):
    x, y = at_rate(64, 0.5)
    x["sample_id"] = np.arange(64)
    model = compiled(make(64, width=8), keras.optimizers.Adam(0.02))
    history = model.fit(x, y, batch_size=16, epochs=15, verbose=0).history
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    assert history["accuracy"][-1] > 0.5
    logs = model.evaluate(
        {n: v for n, v in x.items() if n != "sample_id"},
        y,
        verbose=0,
        return_dict=True,
    )
    assert np.isfinite(list(logs.values())).all()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert (again.width, again.margin_weight, again.num_samples) == (8, 2, 64)
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@mainly_on("torch")
def test_the_loss_of_an_evaluation_is_the_reconstruction():
    model = compiled(started(make(ridge=1e-3)))
    x, y, present = data()
    del x["sample_id"]
    logs = model.test_on_batch(x, y, return_dict=True)
    decoders, _ = parts_of(model)
    total = 0.0
    for row in range(6):
        names = [n for m, n in enumerate(NAMES) if present[row, m]]
        if names:
            w = np.concatenate([decoders[n][0] for n in names], 1)
            b = np.concatenate([x[n][row] - decoders[n][1] for n in names])
            h = np.linalg.solve(w @ w.T + 1e-3 * np.eye(4), w @ b)
            total += ((h @ w - b) ** 2).sum()
    assert float(logs["loss"]) == pytest.approx(total / 5, rel=1e-3)


def test_two_steps_at_a_high_missing_rate():
    x, y = at_rate(32, 0.7)
    x["sample_id"] = np.arange(32)
    model = compiled(make(32), "adam")
    history = model.fit(x, y, batch_size=16, verbose=0).history
    assert all(np.isfinite(v).all() for v in history.values())
    assert all(np.isfinite(to_numpy(v)).all() for v in model.weights)


@mainly_on("torch")
def test_one_hot_labels_are_classes():
    x, y, _ = data()
    found = []
    for labels, loss in (
        (y, "SparseCategoricalCrossentropy"),
        (np.eye(4, dtype="float32")[y], "CategoricalCrossentropy"),
    ):
        model = started(make())
        loss = getattr(keras.losses, loss)(from_logits=True)
        compiled(model, loss=loss).train_on_batch(x, labels)
        found.append([to_numpy(model.classes), to_numpy(model.head.kernel)])
    assert (found[0][0][[7, 5, 0]] == [0, 1, 1]).all()
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@mainly_on("torch")
def test_a_sample_that_weighs_nothing_trains_nothing():
    x, y, _ = data(missing=False)
    model = compiled(started(make()), keras.optimizers.SGD(0.01))
    weight = np.array([1, 0, 1, 1, 1, 1], "float32")
    before = to_numpy(model.latents)
    model.train_on_batch(x, y, weight)
    after = to_numpy(model.latents)
    np.testing.assert_array_equal(after[2], before[2])
    assert (after[7] != before[7]).any()
    assert to_numpy(model.classes)[2] == 4


@mainly_on("torch")
@pytest.mark.parametrize("bad", [-1, 10])
def test_an_id_out_of_range_is_an_error(bad):
    x, y, _ = data()
    x["sample_id"] = np.array([0, 1, 2, 3, 4, bad])
    model = compiled(make())
    with pytest.raises(ValueError, match=f"the id {bad}, num_samples=10"):
        model.fit(x, y, verbose=0)
    x["sample_id"] = np.arange(6.0)
    with pytest.raises(ValueError, match="must hold ints"):
        model.train_on_batch(x, y)
    del x["sample_id"]
    with pytest.raises(ValueError, match="CPMNet needs x..sample_id"):
        model.fit(x, y, verbose=0)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.x, self.y


@mainly_on("torch")
def test_an_id_out_of_range_in_a_dataset_trains_no_latent():
    x, y, _ = data(missing=False)
    x["sample_id"] = np.array([0, 1, 2, 3, 4, 10])
    model = compiled(started(make()), keras.optimizers.SGD(0.001))
    before = to_numpy(model.latents)
    with pytest.raises(ValueError, match="2 ids in x"):
        model.fit(Batches(x, y), verbose=0)
    after = to_numpy(model.latents)
    np.testing.assert_array_equal(after[5:10], before[5:10])
    assert (after[:5] != before[:5]).all()


@mainly_on("torch")
def test_other_tasks_are_refused():
    with pytest.raises(ValueError, match="Received: the task 'regression'"):
        compiled(make(), loss="mse", metrics=None)
    with pytest.raises(ValueError, match="Received: the task 'multi_label'"):
        compiled(make(), loss=BCE, metrics=None)


@mainly_on("torch")
def test_a_trainable_encoder_is_refused():
    parts = {name: encoder(WIDTHS[name]) for name in NAMES}
    with pytest.raises(ValueError, match="'text' is trainable"):
        CPMNet(parts, 4, 10)


@mainly_on("torch")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_samples": 0}, "Received: num_samples=0"),
        ({"width": 0}, "Received: width=0"),
        ({"latent_rate": 0.0}, "latent_rate=0"),
        ({"margin_weight": -1}, "margin_weight=-1"),
        ({"impute": "mean"}, "Received: impute='mean'"),
    ],
)
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        make(**wrong)


@mainly_on("torch")
def test_a_deep_head_is_refused():
    head = keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match="a number of classes or a single"):
        CPMNet(untrained(), head, 10)
