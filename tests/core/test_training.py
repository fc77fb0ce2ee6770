"""Whole training against an independent NumPy implementation."""

import keras
import numpy as np
import pytest
from mla_reference import SGD, AdamW, ReferenceMLA
from utils import (
    WIDTHS,
    compiled,
    encoder,
    mainly_on,
    make_data,
    make_model,
    reference_weights,
    some,
    to_numpy,
    weights_of,
)

import keras_mla
from keras_mla.layers import AverageFusion, GradientProjector

BATCH = 8


def assert_trained_like(model, reference, x, atol):
    for key, value in reference_weights(model).items():
        np.testing.assert_allclose(
            value, reference.w[key], atol=atol, err_msg=str(key)
        )
    if model.projectors:
        P = to_numpy(model.projectors[0].P)
        np.testing.assert_allclose(P, reference.P, atol=atol)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), reference.fused(x), atol=5 * atol
    )


@pytest.mark.parametrize(
    ("keras_optimizer", "optimizer", "atol"),
    [
        (lambda: keras.optimizers.SGD(0.05), SGD(0.05), 2e-6),
        (lambda: keras.optimizers.SGD(0.02, 0.9), SGD(0.02, 0.9), 2e-6),
        (
            lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
            AdamW(0.01, 0.1),
            1e-5,
        ),
    ],
    ids=["sgd", "momentum", "adamw"],
)
def test_against_numpy(keras_optimizer, optimizer, atol):
    x, y = make_data(samples=24 * BATCH)
    model = compiled(make_model(), keras_optimizer())
    reference = ReferenceMLA(list(WIDTHS), reference_weights(model), optimizer)
    history = model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    losses = []
    for i in range(0, len(y), BATCH):
        batch = {name: v[i : i + BATCH] for name, v in x.items()}
        losses.append(reference.train(batch, y[i : i + BATCH]))
    assert_trained_like(model, reference, x, atol)
    for name in WIDTHS:
        np.testing.assert_allclose(
            history.history[f"{name}_loss"],
            [np.mean([step[name] for step in losses])],
            rtol=1e-5,
        )
    assert int(to_numpy(model.optimizer.iterations)) == 24


def test_without_projection_and_with_previous_order():
    x, y = make_data(samples=6 * BATCH)
    model = compiled(make_model(projector=None, fusion=AverageFusion()))
    assert model.projectors == []
    reference = ReferenceMLA(
        list(WIDTHS), reference_weights(model), SGD(0.1), alpha=None
    )
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    for i in range(0, len(y), BATCH):
        reference.train(
            {name: v[i : i + BATCH] for name, v in x.items()}, y[i : i + BATCH]
        )
    for key, value in reference_weights(model).items():
        np.testing.assert_allclose(value, reference.w[key], atol=2e-6)
    logits = [reference.logits(name, x[name]) for name in WIDTHS]
    np.testing.assert_allclose(
        model.predict(x, verbose=0), np.mean(logits, 0), atol=1e-5
    )


@pytest.mark.parametrize("modality", some(WIDTHS, "audio"))
def test_idle_encoders_do_not_move_by_a_bit(modality):
    x, y = make_data()
    model = compiled(
        make_model(), keras.optimizers.AdamW(0.05, weight_decay=0.5)
    )
    model.fit(x, y, verbose=0)  # Moments are no longer zero.
    before = {n: weights_of(e) for n, e in model.encoders.items()}
    presence = np.zeros((len(y), len(WIDTHS)), bool)
    presence[:, list(WIDTHS).index(modality)] = True
    model.fit({**x, "presence": presence}, y, verbose=0)
    for name, encoder_ in model.encoders.items():
        changed = any(
            (a != b).any()
            for a, b in zip(before[name], weights_of(encoder_), strict=True)
        )
        assert changed == (name == modality)


def test_one_modality_is_plain_training():
    x, y = make_data(modalities=("image",))
    model = compiled(make_model(("image",), projector=None))
    plain = keras.models.clone_model(model.unimodal("image"))
    plain.set_weights(model.unimodal("image").get_weights())
    plain.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(x, y, shuffle=False, verbose=0, epochs=2)
    plain.fit(x["image"], y, shuffle=False, verbose=0, epochs=2)
    for ours, theirs in zip(
        model.unimodal("image").get_weights(), plain.get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_each_kernel_of_a_deep_head_is_projected_by_its_own_input():
    head = keras.Sequential(
        [
            keras.layers.Dense(9, "tanh"),
            keras.layers.LayerNormalization(),
            keras.Sequential([keras.layers.Dense(4)]),
        ]
    )
    model = compiled(
        make_model(("image", "text"), head=head), keras.optimizers.SGD(0.0)
    )
    x, y = make_data(BATCH, ("image", "text"))
    model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0, shuffle=False)
    first, last = model.projectors
    assert tuple(first.P.shape) == (6, 6)
    assert tuple(last.P.shape) == (9, 9)
    # With nothing moving, each modality's mean feature comes twice, except
    # that the first of all is not folded in.
    outputs = model.forward_pass(model.modalities, x, training=False)
    for projector, index in ((first, 0), (last, 1)):
        means = {
            name: to_numpy(inputs[index]).mean(0)
            for name, inputs in outputs.extra.items()
        }
        h = np.stack([means["text"], means["image"], means["text"]])
        expected = np.linalg.inv(np.eye(h.shape[1]) + h.T @ h)
        np.testing.assert_allclose(to_numpy(projector.P), expected, atol=1e-5)


@mainly_on("torch")
def test_feature_dim_brings_widths_together():
    x, y = make_data(modalities=("audio", "text"))
    model = compiled(
        keras_mla.MLA(
            {"audio": encoder(5, features=7), "text": encoder(3, features=4)},
            head=4,
            feature_dim=5,
        )
    )
    before = to_numpy(model.projections["text"].kernel)
    model.fit(x, y, verbose=0)
    assert tuple(model.projectors[0].P.shape) == (5, 5)
    assert (to_numpy(model.projections["text"].kernel) != before).any()


@mainly_on("torch")
def test_nested_inputs_and_an_encoder_without_a_declared_input():
    class Tokens(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.embedding = keras.layers.Embedding(20, 6)

        def call(self, inputs):
            mask = keras.ops.cast(inputs["padding_mask"], "float32")[..., None]
            total = keras.ops.sum(
                self.embedding(inputs["token_ids"]) * mask, axis=1
            )
            return total / keras.ops.sum(mask, axis=1)

    rng = np.random.default_rng(0)
    x, y = make_data(modalities=("image",))
    x["text"] = {
        "token_ids": rng.integers(0, 20, (len(y), 7)),
        "padding_mask": np.arange(7) < rng.integers(1, 8, (len(y), 1)),
    }
    model = compiled(keras_mla.MLA({"image": encoder(8), "text": Tokens()}, 4))
    assert not model.built
    model.fit(x, y, verbose=0, epochs=2)
    assert model.predict(x, verbose=0).shape == (len(y), 4)
    presence = np.ones((len(y), 2), bool)
    presence[::3, 1] = False
    model.fit({**x, "presence": presence}, y, verbose=0)


def test_one_hot_labels_equal_sparse_ones():
    x, y = make_data()
    sparse, one_hot = compiled(make_model()), make_model()
    one_hot.set_weights(sparse.get_weights())
    compiled(
        one_hot, loss=keras.losses.CategoricalCrossentropy(from_logits=True)
    )
    first = sparse.fit(x, y, shuffle=False, verbose=0)
    second = one_hot.fit(x, np.eye(4)[y], shuffle=False, verbose=0)
    for key, value in first.history.items():
        np.testing.assert_allclose(value, second.history[key], rtol=1e-5)


def test_sample_weight_and_class_weight_agree():
    x, y = make_data()
    models = [compiled(make_model()) for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    class_weight = {0: 0.5, 1: 2.0, 2: 0.0, 3: 1.0}
    sample_weight = np.array([class_weight[c] for c in y])
    models[0].fit(x, y, class_weight=class_weight, shuffle=False, verbose=0)
    models[1].fit(x, y, sample_weight=sample_weight, shuffle=False, verbose=0)
    for a, b in zip(*(weights_of(m) for m in models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_zero_weight_is_as_good_as_absence_to_encoders():
    x, y = make_data(BATCH)
    weights = np.array([1, 1, 0, 1, 0, 0, 1, 1], "float32")
    model = compiled(make_model(projector=None))
    reference = ReferenceMLA(
        list(WIDTHS), reference_weights(model), SGD(0.1), alpha=None
    )
    model.fit(x, y, sample_weight=weights * 8 / 5, batch_size=8, verbose=0)
    kept = weights > 0
    reference.train({n: v[kept] for n, v in x.items()}, y[kept])
    for key, value in reference_weights(model).items():
        np.testing.assert_allclose(value, reference.w[key], atol=2e-6)


def test_regularisers_move_what_they_belong_to():
    head = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.1))
    model = compiled(make_model(("audio", "text"), head=head, projector=None))
    x, y = make_data(BATCH, ("audio", "text"))
    twin = compiled(make_model(("audio", "text"), projector=None))
    twin.set_weights(model.get_weights())
    penalty = 0.1 * np.sum(to_numpy(head.kernel) ** 2)
    ours = model.evaluate(x, y, verbose=0, return_dict=True)
    theirs = twin.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(
        ours["loss"], theirs["loss"] + penalty, rtol=1e-5
    )
    np.testing.assert_allclose(
        ours["text_loss"], theirs["text_loss"], rtol=1e-5
    )
    model.fit(x, y, verbose=0)
    twin.fit(x, y, verbose=0)
    difference = to_numpy(model.head.kernel) - to_numpy(twin.head.kernel)
    assert np.abs(difference).max() > 1e-3


def test_projector_settings_reach_the_model():
    model = make_model(projector=GradientProjector(alpha=7, order="previous"))
    assert model.projectors[0].alpha == 7
    assert model.projectors[0].order == "previous"


def test_inputs_are_adapted_as_the_encoder_would():
    rng = np.random.default_rng(0)
    image = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(3, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ]
    )
    signal = keras.Sequential(
        [
            keras.Input((5, 1)),
            keras.layers.Conv1D(4, 2),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ]
    )
    model = compiled(keras_mla.MLA({"image": image, "signal": signal}, 4))
    x = {
        "image": rng.integers(0, 256, (8, 6, 6, 1)).astype("uint8"),
        "signal": rng.normal(size=(8, 5)).astype("float32"),
    }
    model.fit(x, np.arange(8) % 4, verbose=0)
    assert model.predict(x, verbose=0).shape == (8, 4)


def test_a_projector_of_ones_own():
    @keras.saving.register_keras_serializable(package="tests")
    class Frozen(GradientProjector):
        def project(self, gradient, feature):
            return 0 * gradient, lambda taken: None

    model = compiled(make_model(projector=Frozen(alpha=3.0)))
    kernel = to_numpy(model.head.kernel)
    x, y = make_data()
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(to_numpy(model.head.kernel), kernel)
    again = keras_mla.MLA.from_config(model.get_config())
    assert type(again.projectors[0]) is Frozen
    assert again.projectors[0].alpha == 3.0
