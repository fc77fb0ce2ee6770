"""Optimizers and the options of `compile`."""

import functools
import warnings

import keras
import numpy as np
import pytest
from utils import (
    WIDTHS,
    compiled,
    largest_difference,
    long,
    mainly_on,
    make_data,
    make_model,
    to_numpy,
    weights_of,
)

import keras_mla

BACKEND = keras.backend.backend()


def trained(model, **fit):
    x, y = make_data()
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, **fit)
    return weights_of(model)


def twins(**kwargs):
    first = make_model(**kwargs)
    second = make_model(**kwargs)
    second.set_weights(first.get_weights())
    return first, second


@mainly_on("torch")
@pytest.mark.parametrize(
    "options", [{"run_eagerly": True}, {"jit_compile": False}]
)
def test_options_do_not_change_results(options):
    first, second = twins()
    expected = trained(compiled(first, keras.optimizers.SGD(0.1)))
    result = trained(compiled(second, keras.optimizers.SGD(0.1), **options))
    assert largest_difference(expected, result) < 2e-6


def test_jit_compile_gives_the_same():
    # Keras keeps the axes of its statistics in a list that stops a trace.
    first, second = twins(
        modalities=("image", "text"),
        layers=lambda: [keras.layers.BatchNormalization()],
    )
    x, y = make_data(16, ("image", "text"))
    compiled(first).fit(x, y, batch_size=8, shuffle=False, verbose=0)
    if BACKEND == "torch":
        import torch

        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
    with warnings.catch_warnings():
        # torch.compile emits warnings of its own.
        warnings.simplefilter("ignore")
        compiled(second, jit_compile=True)
        second.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert largest_difference(weights_of(first), weights_of(second)) < 2e-6
    if BACKEND == "torch":
        # All of a step, gradients and all, is one graph.
        counters = torch._dynamo.utils.counters
        assert not counters["graph_break"]
        assert counters["stats"]["unique_graphs"] == 1


@keras.saving.register_keras_serializable("tests")
class Scale(keras.layers.Layer):
    """Scales, if wanted by code that `torch.compile` cannot follow."""

    def __init__(self, factor, traceable, **kwargs):
        super().__init__(**kwargs)
        self.factor, self.traceable = factor, traceable

    def call(self, inputs):
        if BACKEND == "torch" and not self.traceable:
            import torch

            torch._dynamo.graph_break()
        return self.factor * inputs

    def get_config(self):
        own = {"factor": self.factor, "traceable": self.traceable}
        return {**super().get_config(), **own}


@long()
@pytest.mark.parametrize("traceable", [True, False])
def test_jit_compile_follows_the_batch_and_the_model(traceable):
    # Two models in turn; batches of another size, and with other parts.
    modalities = ("image", "text")
    factors = iter([1.0, 0.5, 2.0, 3.0])
    jit = [
        make_model(modalities, lambda: [Scale(next(factors), traceable)])
        for _ in range(2)
    ]
    eager = [model.from_config(model.get_config()) for model in jit]
    x, y = make_data(16, modalities)
    batches = [
        (x, y),
        keras.tree.map_structure(lambda a: a[:11], (x, y)),
        (x, y, np.linspace(0, 1, 16, dtype="float32")),
    ][: 3 if traceable else 1]
    for model, same in zip(jit, eager, strict=True):
        same.set_weights(model.get_weights())
        compiled(model, jit_compile=True)
        compiled(same, run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            for batch in batches:
                for model in [*jit, *eager]:
                    model.train_on_batch(*batch)
    for model, same in zip(jit, eager, strict=True):
        assert largest_difference(weights_of(model), weights_of(same)) < 5e-6


def test_steps_per_execution():
    first, second = twins()
    expected = trained(compiled(first))
    compiled(second, steps_per_execution=3)
    assert second.steps_per_execution == 3
    config = second.get_compile_config()
    assert config["steps_per_execution"] == 3
    if BACKEND == "torch":
        with pytest.raises(ValueError, match="steps_per_execution"):
            trained(second)
    else:
        assert largest_difference(expected, trained(second)) < 1e-6


@mainly_on("torch")
@pytest.mark.parametrize(
    "name",
    "Adadelta Adafactor Adagrad Adamax Ftrl Lamb Lion RMSprop".split(),
)
def test_optimizers_of_keras(name):
    x, y = make_data(8)
    optimizer = getattr(keras.optimizers, name)()
    model = compiled(make_model(("image", "text")), optimizer, metrics=None)
    x.pop("audio")
    before = weights_of(model)
    model.train_on_batch(x, y)
    after = weights_of(model)
    assert largest_difference(before, after) > 0
    assert all(np.isfinite(w).all() for w in after)
    assert int(to_numpy(model.optimizer.iterations)) == 1


def test_schedules_count_batches():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [2], [0.1, 0.0]
    )
    model = compiled(make_model(), keras.optimizers.SGD(schedule))
    x, y = make_data(8)
    moved = []
    for _ in range(5):
        before = to_numpy(model.head.kernel)
        model.train_on_batch(x, y)
        moved.append((to_numpy(model.head.kernel) != before).any())
    assert moved == [True, True, True, False, False]
    assert int(to_numpy(model.optimizer.iterations)) == 5


def test_moving_average_is_taken_once_a_batch():
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    first, second = twins(projector=None)
    compiled(first, optimizer)
    compiled(second, keras.optimizers.SGD(0.1))
    x, y = make_data(8)
    average = None
    for _ in range(3):
        first.train_on_batch(x, y)
        second.train_on_batch(x, y)
        kernel = to_numpy(second.head.kernel)
        np.testing.assert_allclose(to_numpy(first.head.kernel), kernel)
        # The first batch starts the average.
        average = kernel if average is None else (average + kernel) / 2
    index = [
        i
        for i, v in enumerate(first.trainable_variables)
        if v is first.head.kernel
    ][0]
    stored = optimizer._model_variables_moving_average[index]
    np.testing.assert_allclose(to_numpy(stored), average, atol=1e-6)
    assert optimizer.use_ema


@mainly_on("torch")
def test_learning_rate_multiplier():
    x, y = make_data(8)
    multiplier = {"audio": 0.0, "image": 0.5, "head": 3.0}
    for rule in (keras.optimizers.SGD, keras.optimizers.AdamW):
        first, second = twins(projector=None, modalities=("image",))
        # The same rates by hand: one modality, one batch.
        compiled(second, rule(0.1))
        compiled(
            first, rule(0.1), learning_rate_multiplier={"image": 0.5, "head": 3}
        )
        before = weights_of(first)
        image = {"image": x["image"]}
        first.train_on_batch(image, y)
        second.train_on_batch(image, y)
        for start, ours, plain, factor in zip(
            before,
            weights_of(first),
            weights_of(second),
            # The last are those of the fusion, which no step moves.
            (0.5, 0.5, 3, 3, 1, 1, 1),
            strict=True,
        ):
            np.testing.assert_allclose(
                ours - start, factor * (plain - start), atol=2e-6
            )
    model = compiled(make_model(), "adam", learning_rate_multiplier=multiplier)
    frozen = weights_of(model.encoders["audio"])
    model.fit(x, y, epochs=2, verbose=0)
    assert largest_difference(frozen, weights_of(model.encoders["audio"])) == 0


@mainly_on("torch")
def test_frozen_parts_stay():
    model = make_model()
    model.encoders["image"].trainable = False
    compiled(model, "adam")
    before = weights_of(model.encoders["image"])
    head = to_numpy(model.head.kernel)
    x, y = make_data()
    model.fit(x, y, verbose=0)
    assert largest_difference(before, weights_of(model.encoders["image"])) == 0
    assert (to_numpy(model.head.kernel) != head).any()


def test_frozen_head_is_not_projected():
    model = make_model()
    model.head.trainable = False
    compiled(model)
    x, y = make_data()
    model.fit(x, y, verbose=0)
    assert int(to_numpy(model.projectors[0].steps)) == 0


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=4),
            "`gradient_accumulation_steps` is not supported.*=4",
        ),
        (
            lambda: keras.optimizers.Nadam(),
            "The optimizer Nadam cannot be used",
        ),
        (
            lambda: keras.optimizers.LossScaleOptimizer(
                keras.optimizers.Nadam()
            ),
            "The optimizer Nadam cannot be used",
        ),
    ],
)
def test_refused_optimizers(optimizer, message):
    with pytest.raises(ValueError, match=message):
        compiled(make_model(), optimizer())


def test_refused_multi_optimizer():
    multi = getattr(keras.optimizers, "MultiOptimizer", None)
    if multi is None:
        pytest.skip("This Keras has no MultiOptimizer.")
    model = make_model()
    optimizer = multi([(keras.optimizers.SGD(0.1), model.trainable_variables)])
    with pytest.raises(ValueError, match="MultiOptimizer cannot be used"):
        compiled(model, optimizer)


@pytest.mark.parametrize(
    ("multiplier", "message"),
    [
        (
            {"smell": 0.1},
            "unknown key 'smell'.*'text', 'audio', 'image', 'head'",
        ),
        ({"head": -1.0}, "must be at least 0.*'head': -1.0"),
        (0.1, "must be a dict"),
    ],
)
def test_refused_multipliers(multiplier, message):
    with pytest.raises(ValueError, match=message):
        compiled(make_model(), learning_rate_multiplier=multiplier)


def test_multiplier_excludes_a_moving_average():
    with pytest.raises(ValueError, match="exclude each other"):
        compiled(
            make_model(),
            keras.optimizers.SGD(0.1, use_ema=True),
            learning_rate_multiplier={"head": 2},
        )


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        "categorical_crossentropy",
        "crossentropy",
        keras.losses.SparseCategoricalCrossentropy(),
        keras.losses.sparse_categorical_crossentropy,
        functools.partial(keras.losses.categorical_crossentropy, axis=-1),
    ],
)
def test_losses_must_take_logits(loss):
    with pytest.raises(ValueError, match="from_logits=True"):
        compiled(make_model(), loss=loss)


@pytest.mark.parametrize("loss", [None, ["mse", "mse"], {"audio": "mse"}])
def test_one_loss_is_needed(loss):
    with pytest.raises(ValueError, match="`loss` must be a single loss"):
        compiled(make_model(), loss=loss)


def test_a_loss_of_ones_own():
    def margin(y_true, y_pred):
        chosen = keras.ops.take_along_axis(
            y_pred, keras.ops.cast(y_true, "int32")[:, None], axis=1
        )
        return keras.ops.mean(keras.ops.relu(1 + y_pred - chosen), axis=-1)

    model = compiled(make_model(), loss=margin)
    x, y = make_data()
    before = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    model.fit(x, y, epochs=3, verbose=0)
    assert model.evaluate(x, y, verbose=0, return_dict=True)["loss"] < before


def test_a_crossentropy_of_ones_own():
    def my_crossentropy(y_true, y_pred):
        return keras.losses.sparse_categorical_crossentropy(
            y_true, y_pred, from_logits=True
        )

    x, y = make_data()
    first, second = twins()
    compiled(first, loss=my_crossentropy)
    compiled(second)
    scores = first.evaluate(x, y, verbose=0, return_dict=True)
    expected = second.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(scores["loss"], expected["loss"], rtol=1e-6)


def test_a_loss_must_reduce():
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=None
    )
    with pytest.raises(ValueError, match="one number.*reduction=None"):
        compiled(make_model(), loss=loss)


@pytest.mark.parametrize("metrics", ["accuracy", {"audio": ["accuracy"]}])
def test_metrics_must_be_a_list(metrics):
    with pytest.raises(ValueError, match="`metrics` must be a list"):
        compiled(make_model(), metrics=metrics)


def test_modalities_are_trained_in_their_order():
    assert [u.modalities for u in make_model().updates()] == [
        (name,) for name in WIDTHS
    ]


def test_a_moving_average_and_presence():
    model = compiled(make_model(), keras.optimizers.SGD(0.1, use_ema=True))
    x, y = make_data(8)
    presence = np.ones((8, len(WIDTHS)), bool)
    with pytest.raises(ValueError, match="`use_ema=True` cannot be used with"):
        model.train_on_batch({**x, "presence": presence}, y)


@mainly_on("torch")
def test_a_multiplier_keeps_constraints():
    # The same as a separate rate and Keras's constraint: SGD in NumPy.
    x, y = make_data(8, ("image",))
    kernels = {}
    for multiplier in (1.0, 3.0):
        keras.utils.set_random_seed(0)
        layer = keras.layers.Dense(
            6, kernel_constraint=keras.constraints.NonNeg()
        )
        encoder = keras.Sequential([keras.Input((8,)), layer])
        layer.kernel.assign(np.abs(to_numpy(layer.kernel)))
        model = keras_mla.MLA({"image": encoder}, 4)
        before = to_numpy(layer.kernel)
        rate = 3.0 / multiplier  # The encoder's is 3 in both.
        compiled(
            model,
            keras.optimizers.SGD(rate),
            learning_rate_multiplier={"image": multiplier},
        )
        assert layer.kernel.constraint is not None
        model.fit(x, y, verbose=0)
        assert layer.kernel.constraint is not None
        kernels[multiplier] = to_numpy(layer.kernel)
        assert (kernels[multiplier] != before).any()
    assert kernels[3.0].min() == 0
    np.testing.assert_allclose(kernels[1.0], kernels[3.0], atol=1e-6)


def test_a_multiplier_and_an_optimizer_with_weights_of_its_own():
    with pytest.raises(ValueError, match="ScheduleFreeAdamW exclude"):
        compiled(
            make_model(),
            keras.optimizers.ScheduleFreeAdamW(),
            learning_rate_multiplier={"image": 0.1},
        )


@pytest.mark.skipif(BACKEND != "torch", reason="Hooks are PyTorch's.")
@pytest.mark.filterwarnings("ignore")  # PyTorch warns: inputs have no gradient.
@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
    ],
)
def test_hooks_of_a_sequential_fire(register):
    model = compiled(make_model(("image", "text")))
    x, y = make_data(8, ("image", "text"))
    inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6)])
    nested = keras_mla.MLA({"image": keras.Sequential([inner])}, 4)
    for part, trained, data in (
        (model.encoders["image"], model, x),
        (inner, compiled(nested), {"image": x["image"]}),
    ):
        seen = []
        hook = getattr(part, register)(lambda *_, seen=seen: seen.append(1))
        trained.fit(data, y, verbose=0)
        assert seen
        seen.clear()
        hook.remove()
        trained.fit(data, y, verbose=0)
        assert not seen
