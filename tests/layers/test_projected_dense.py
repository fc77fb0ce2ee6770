"""P in the backward pass gives the gradient that P multiplies afterwards."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops
from mla_reference import SGD, ReferenceMLA, closed_form
from utils import (
    CLASSES,
    LONG,
    WIDTHS,
    compiled,
    half_presence,
    largest_difference,
    make_data,
    make_model,
    only_on,
    reference_weights,
    to_numpy,
    weights_of,
)

import keras_mla
from keras_mla.layers import GradientProjector, projected_dense

SIZE, UNITS, FEW, MANY = 7, 5, 3, 9


def product_and_gradients(projector, inputs, kernel, gradient):
    """`product`, and its gradients for inputs and kernel."""

    def loss(inputs, kernel):
        outputs = projector.product(inputs, kernel)
        return ops.sum(outputs * gradient), outputs

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        grad = jax.grad(loss, (0, 1), has_aux=True)
        gradients, outputs = grad(inputs, kernel)
    elif backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch([inputs, kernel])
            total, outputs = loss(inputs, kernel)
        gradients = tape.gradient(total, [inputs, kernel])
    else:
        import torch

        given = [inputs.requires_grad_(), kernel.requires_grad_()]
        total, outputs = loss(*given)
        gradients = torch.autograd.grad(total, given)
    return outputs, *gradients


def numbers(tensor):
    """The numbers of a tensor of any dtype."""
    return to_numpy(ops.cast(ops.stop_gradient(tensor), "float32"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rows", [FEW, MANY])
def test_the_kernel_s_gradient_is_the_closed_form(rows, dtype):
    rng = np.random.default_rng(0)
    features = rng.normal(0.4, 1, (4, SIZE))
    projector = GradientProjector()
    projector.build((SIZE, UNITS))
    for h in features:
        projector(np.ones((SIZE, UNITS), "float32"), h)
    inputs, gradient = (
        ops.cast(rng.normal(size=(rows, n)), dtype) for n in (SIZE, UNITS)
    )
    kernel = ops.convert_to_tensor(rng.normal(size=(SIZE, UNITS)), "float32")
    H, D, W = map(numbers, (inputs, gradient, kernel))
    outputs, of_inputs, of_kernel = product_and_gradients(
        projector, inputs, kernel, gradient
    )
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    assert keras.backend.standardize_dtype(of_kernel.dtype) == "float32"
    rough = {"float32": 1e-6, "float16": 2e-2, "bfloat16": 2e-1}[dtype]
    np.testing.assert_allclose(numbers(outputs), H @ W, atol=rough)
    np.testing.assert_allclose(numbers(of_inputs), D @ W.T, atol=rough)
    # The kernel's gradient is as exact in half precision.
    G = H.T.astype("float64") @ D
    P = closed_form(features[1:], 1.0)
    np.testing.assert_allclose(numbers(of_kernel), P @ G, atol=2e-5)
    # A step from it.
    h = rng.normal(size=SIZE).astype("float32")
    projected, advance = projector.project(of_kernel, h, projected=True)
    P = closed_form([*features[1:], h], 1.0)
    np.testing.assert_allclose(numbers(projected), P @ G, atol=4e-5)
    advance()
    np.testing.assert_allclose(to_numpy(projector.P), P, atol=5e-6)


@pytest.mark.parametrize(
    ("missing", "jit_compile"),
    # With --long all are compiled too, which takes PyTorch a minute.
    [(m, jit) for jit in ("auto", True)[: 1 + LONG] for m in (False, True)],
)
def test_training_is_the_reference_s(monkeypatch, missing, jit_compile):
    seen = record_calls(monkeypatch)
    samples, batch = 12, FEW  # Fewer than classes.
    x, y = make_data(samples)
    model = compiled(make_model(), jit_compile=jit_compile)
    model.build_for(x)
    reference = ReferenceMLA(tuple(WIDTHS), reference_weights(model), SGD(0.1))
    presence = half_presence(samples) if missing else None
    inputs = {**x, "presence": presence} if missing else x
    with warnings.catch_warnings():
        if jit_compile is True:
            # `torch.compile` emits warnings of its own.
            warnings.simplefilter("ignore")
        model.fit(
            inputs, y, batch_size=batch, epochs=2, shuffle=False, verbose=0
        )
    for _ in range(2):
        for start in range(0, samples, batch):
            rows = slice(start, start + batch)
            reference.train(
                {name: values[rows] for name, values in x.items()},
                y[rows],
                presence[rows] if missing else None,
            )
    assert seen
    np.testing.assert_allclose(
        to_numpy(model.projectors[0].P), reference.P, atol=2e-5
    )
    for key, found in reference_weights(model).items():
        np.testing.assert_allclose(found, reference.w[key], atol=2e-5)


def record_calls(monkeypatch):
    """Names of the layers that `projected_dense` calls, as it calls them."""
    seen, call = [], projected_dense.call

    def recorded(dense, *args):
        seen.append(dense.name)
        return call(dense, *args)

    monkeypatch.setattr(projected_dense, "call", recorded)
    return seen


def deep_head(regularizer=None):
    """A head of several layers, one of which may have a regulariser."""
    return keras.Sequential(
        [
            layers.Dense(9, "relu", use_bias=False, name="wide"),
            layers.Dropout(0.0),
            layers.Dense(CLASSES, kernel_regularizer=regularizer, name="last"),
        ]
    )


# TensorFlow runs the first case, JAX the last one.
CASES = {
    "regularised": ({"regularizer": "l2"}, {"wide"}, "float32"),
    "plain": ({}, {"wide", "last"}, "float32"),
    "half": ({}, {"wide", "last"}, "mixed_bfloat16"),
}


@pytest.mark.parametrize("name", CASES)
def test_training_is_that_of_P_after_the_gradient(monkeypatch, name):
    arguments, expected, policy = CASES[name]
    keras.config.set_dtype_policy(policy)
    x, y = make_data(10)
    found = []
    for projects in (True, False):
        keras.utils.set_random_seed(0)
        seen = record_calls(monkeypatch)
        if not projects:
            monkeypatch.setattr(
                projected_dense, "can_project", lambda *_: False
            )
        model = compiled(
            make_model(
                # Rows that are all zero are masked: they do not count.
                layers=lambda: (layers.Masking(),),
                head=deep_head(**arguments),
                projector=GradientProjector(order="previous"),
            )
        )
        model.fit(x, y, batch_size=FEW, shuffle=False, verbose=0)
        assert set(seen) == (expected if projects else set())
        found.append(weights_of(model))
    bound = 1e-6 if policy == "float32" else 2e-2
    assert largest_difference(*found) < bound


def test_only_a_training_step_projects(monkeypatch):
    seen = record_calls(monkeypatch)
    x, y = make_data(FEW)
    model = compiled(make_model())
    model(x, training=True)
    model.evaluate(x, y, verbose=0)
    assert not seen


@keras.saving.register_keras_serializable(package="tests")
class OwnDense(layers.Dense):
    """A layer that may compute anything."""


NOT_PROJECTED = {
    "forgetting": ({}, {"forgetting": 0.9}),
    "normalize": ({}, {"normalize": True}),
    "regularizer": ({"kernel_regularizer": "l2"}, {}),
    "activity": ({"activity_regularizer": "l2"}, {}),
    "autocast": ({"autocast": False}, {}),
}


@pytest.mark.parametrize("name", NOT_PROJECTED)
def test_other_layers_and_projectors_are_left(name):
    dense, projector = NOT_PROJECTED[name]
    projector = GradientProjector(**projector)
    dense = layers.Dense(UNITS, **dense)
    assert not projected_dense.can_project(dense, projector)


def test_layers_of_other_kinds_are_left():
    projector, dense = GradientProjector(), layers.Dense(UNITS)
    assert projected_dense.can_project(dense, projector)
    assert not projected_dense.can_project(OwnDense(UNITS), projector)
    dense.build((None, SIZE))
    dense.enable_lora(2)
    assert not projected_dense.can_project(dense, projector)


def test_a_user_s_hook_gets_the_gradient_as_it_is(monkeypatch):
    seen = record_calls(monkeypatch)

    class Own(keras_mla.MLA):
        def modify_gradients(self, update, gradients, outputs, batch):
            return gradients, []

    x, y = make_data(FEW)
    compiled(Own(make_model().encoders, CLASSES)).fit(x, y, verbose=0)
    assert not seen


@only_on("torch")
def test_hooks_of_a_layer_are_called():
    x, y = make_data(FEW)
    model = compiled(make_model())
    model.fit(x, y, verbose=0)  # Keras calls layers once more before it.
    called = []
    model.head.register_forward_hook(lambda *_: called.append(1))
    model.fit(x, y, verbose=0)
    assert len(called) == len(WIDTHS)


@only_on("jax")
@pytest.mark.parametrize("classes", [10, 200])
def test_a_step_keeps_one_copy_of_p(classes):
    import jax

    size, rows = 512, 64
    encoders = {
        name: keras.Sequential([keras.Input((size,)), keras.layers.Identity()])
        for name in ("text", "audio")
    }

    def memory(projector):
        model = keras_mla.MLA(encoders, classes, projector=projector)
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        x = {name: np.ones((rows, size), "float32") for name in encoders}
        y = np.zeros(rows, "int32")
        model.train_on_batch(x, y)
        groups = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        state = tuple([v.value for v in group] for group in groups)
        step = jax.jit(lambda *a: model.train_step(*a), donate_argnums=0)
        sizes = step.lower(state, (x, y, None)).compile().memory_analysis()
        return sizes.argument_size_in_bytes + sizes.temp_size_in_bytes

    copies = (memory("auto") - memory(None)) / (4 * size**2)
    assert copies < 1.5  # P itself is one; two and more before.
