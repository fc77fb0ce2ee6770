"""Missing modalities: absent values do not count anywhere."""

import keras
import numpy as np
import pytest
from mla_reference import SGD, ReferenceMLA
from utils import (
    WIDTHS,
    compiled,
    encoder,
    largest_difference,
    mainly_on,
    make_data,
    make_model,
    reference_weights,
    to_numpy,
    weights_of,
)

import keras_mla

BATCH = 8
AUDIO, IMAGE = (list(WIDTHS).index(name) for name in ("audio", "image"))


def with_presence(x, presence, absent=np.nan):
    """Hides what is absent behind a value that must not count."""
    hidden = {
        name: np.where(presence[:, m, None], value, absent).astype("float32")
        for m, (name, value) in enumerate(x.items())
    }
    return {**hidden, "presence": presence}


def draw_presence(samples, rate=0.4, seed=3):
    return np.random.default_rng(seed).random((samples, len(WIDTHS))) > rate


@pytest.mark.parametrize("absent", [np.nan, np.inf, -7.0])
def test_training_equals_training_on_the_present_subset(absent):
    x, y = make_data(samples=10 * BATCH)
    presence = draw_presence(len(y))
    presence[5] = False  # A sample with nothing at all.
    presence[2 * BATCH : 3 * BATCH, 1] = False  # A batch without one modality.
    model = compiled(make_model(), keras.optimizers.SGD(0.05, 0.9))
    reference = ReferenceMLA(
        list(WIDTHS), reference_weights(model), SGD(0.05, 0.9)
    )
    history = model.fit(
        with_presence(x, presence, absent),
        y,
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
    )
    for i in range(0, len(y), BATCH):
        rows = slice(i, i + BATCH)
        reference.train(
            {n: v[rows] for n, v in x.items()}, y[rows], presence[rows]
        )
    for key, value in reference_weights(model).items():
        np.testing.assert_allclose(value, reference.w[key], atol=2e-6)
    np.testing.assert_allclose(
        to_numpy(model.projectors[0].P), reference.P, atol=2e-6
    )
    assert int(to_numpy(model.optimizer.iterations)) == 10
    assert all(np.isfinite(v).all() for v in history.history.values())

    predicted = model.predict(with_presence(x, presence, absent), verbose=0)
    np.testing.assert_allclose(
        predicted, reference.fused(x, presence), atol=1e-5
    )
    np.testing.assert_array_equal(predicted[5], 0)


def test_evaluate_counts_what_is_present():
    x, y = make_data(samples=40)
    presence = draw_presence(40)
    model = compiled(make_model())
    scores = model.evaluate(
        with_presence(x, presence), y, batch_size=7, verbose=0, return_dict=True
    )
    for m, name in enumerate(WIDTHS):
        rows = presence[:, m]
        logits = model.unimodal(name).predict(x[name][rows], verbose=0)
        hits = (logits.argmax(1) == y[rows]).mean()
        np.testing.assert_allclose(scores[f"{name}_accuracy"], hits, rtol=1e-5)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        loss = -log_p[np.arange(rows.sum()), y[rows]].mean()
        np.testing.assert_allclose(scores[f"{name}_loss"], loss, rtol=1e-5)
    fused = model.predict(with_presence(x, presence), verbose=0)
    np.testing.assert_allclose(
        scores["accuracy"], (fused.argmax(1) == y).mean(), rtol=1e-5
    )


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_an_update_without_samples_moves_nothing(optimizer):
    keras.utils.set_random_seed(1)
    model = compiled(
        make_model(
            layers=lambda: [
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.1),
            ]
        ),
        optimizer,
    )
    x, y = make_data(BATCH)
    presence = np.ones((BATCH, len(WIDTHS)), bool)
    model.fit({**x, "presence": presence}, y, verbose=0)
    variables = [*model.weights, *model.optimizer.variables]
    before = [to_numpy(v) for v in variables]
    presence[:] = False
    # Arrays like that are refused, a batch of a data set is not.
    batches = (batch for batch in [(with_presence(x, presence), y)])
    options = {"shuffle": False, "steps_per_epoch": 1, "verbose": 0}
    history = model.fit(batches, **options)
    after = [to_numpy(v) for v in variables]
    assert largest_difference(before, after) == 0
    assert history.history["loss"] == [0.0]


def test_one_absent_modality_leaves_its_encoder_and_statistics():
    model = compiled(
        make_model(layers=lambda: [keras.layers.BatchNormalization()]), "adam"
    )
    x, y = make_data(BATCH)
    presence = np.ones((BATCH, len(WIDTHS)), bool)
    model.fit({**x, "presence": presence}, y, verbose=0)
    before = {n: weights_of(e) for n, e in model.encoders.items()}
    steps = int(to_numpy(model.projectors[0].steps))
    presence[:, AUDIO] = False
    model.fit(with_presence(x, presence), y, verbose=0)
    after = {n: weights_of(e) for n, e in model.encoders.items()}
    assert largest_difference(before["audio"], after["audio"]) == 0
    assert largest_difference(before["image"], after["image"]) > 0
    assert int(to_numpy(model.projectors[0].steps)) == steps + 2


def test_full_presence_changes_nothing():
    x, y = make_data()
    models = [compiled(make_model(), "adam") for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    presence = np.ones((len(y), len(WIDTHS)), bool)
    first = models[0].fit(x, y, shuffle=False, verbose=0)
    second = models[1].fit(
        {**x, "presence": presence}, y, shuffle=False, verbose=0
    )
    difference = largest_difference(*(weights_of(m) for m in models))
    assert difference < 1e-6
    for key, value in first.history.items():
        np.testing.assert_allclose(value, second.history[key], rtol=1e-5)


def test_a_prediction_does_not_depend_on_its_batch():
    x, _ = make_data(BATCH)
    model = make_model()
    hidden = with_presence(x, draw_presence(BATCH))
    together = model.predict(hidden, verbose=0)
    alone = model.predict(hidden, batch_size=1, verbose=0)
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_weights_count_present_samples():
    # loss = sum of weight * loss over the present, by their number.
    x, y = make_data(BATCH)
    presence = draw_presence(BATCH)
    weights = np.random.default_rng(0).random(BATCH).astype("float32")
    model = compiled(make_model())
    scores = model.evaluate(
        with_presence(x, presence),
        y,
        sample_weight=weights,
        verbose=0,
        return_dict=True,
    )
    rows = presence[:, AUDIO]
    logits = model.unimodal("audio").predict(x["audio"][rows], verbose=0)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    losses = -log_p[np.arange(rows.sum()), y[rows]] * weights[rows]
    np.testing.assert_allclose(scores["audio_loss"], losses.mean(), rtol=1e-5)


@pytest.mark.parametrize(
    "reduction", ["sum", "mean", "mean_with_sample_weight"]
)
def test_other_reductions(reduction):
    x, y = make_data(BATCH)
    presence = draw_presence(BATCH)
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=reduction
    )
    model = compiled(make_model(), loss=loss)
    scores = model.evaluate(
        with_presence(x, presence), y, verbose=0, return_dict=True
    )
    rows = presence[:, AUDIO]
    logits = model.unimodal("audio").predict(x["audio"][rows], verbose=0)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    losses = -log_p[np.arange(rows.sum()), y[rows]]
    expected = losses.sum() if reduction == "sum" else losses.mean()
    np.testing.assert_allclose(scores["audio_loss"], expected, rtol=1e-5)


@mainly_on("torch")
def test_predict_modalities():
    x, _ = make_data(20)
    presence = draw_presence(20)
    model = make_model()
    hidden = with_presence(x, presence)
    result = model.predict_modalities(hidden, batch_size=8)
    assert list(result) == [*WIDTHS, "fused"]
    fused = model.predict(hidden, verbose=0)
    np.testing.assert_allclose(result["fused"], fused, atol=1e-6)
    total = np.zeros_like(fused)
    for m, name in enumerate(WIDTHS):
        weight = result[name]["weight"]
        assert weight.shape == (20,)
        np.testing.assert_array_equal(weight[~presence[:, m]], 0)
        np.testing.assert_array_equal(
            result[name]["logits"][~presence[:, m]], 0
        )
        total += weight[:, None] * result[name]["logits"]
    np.testing.assert_allclose(total, fused, atol=1e-5)
    unimodal = model.unimodal("image").predict(x["image"], verbose=0)
    rows = presence[:, IMAGE]
    np.testing.assert_allclose(
        result["image"]["logits"][rows], unimodal[rows], atol=1e-6
    )


def test_integer_inputs_may_be_absent():
    x, y = make_data(BATCH, ("image",))
    x["text"] = np.random.default_rng(0).integers(0, 9, (BATCH, 4))
    text = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(9, 6),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )
    model = compiled(keras_mla.MLA({"image": encoder(8), "text": text}, 4))
    presence = np.ones((BATCH, 2), bool)
    presence[3:, 1] = False
    model.fit({**x, "presence": presence}, y, verbose=0)
    assert np.isfinite(to_numpy(model.head.kernel)).all()
