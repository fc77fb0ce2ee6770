"""Helpers for tests of methods: small data, and NumPy in float64.

A method is checked against a plain function of its weights: the gradient is
that function's central difference, and what the model applied is read from
one step of gradient descent at rate 1.
"""

import keras
import numpy as np
from keras import ops

CLASSES = 3
WIDTHS = {"a": 3, "b": 3, "c": 3}
SIZES = {"a": 4, "b": 2, "c": 3}


def data(modalities, presence=False, samples=6, seed=0):
    """Returns inputs, labels, and presence (all true if nothing is missing)."""
    rng = np.random.default_rng(seed)
    x = {m: rng.normal(size=(samples, SIZES[m])) for m in modalities}
    y = rng.integers(0, CLASSES, samples)
    present = np.ones((samples, len(modalities)), bool)
    if presence:
        present[0] = False
        present[1, 0] = False
        present[2, 1:] = False
        for index, m in enumerate(modalities):
            x[m][~present[:, index]] = np.nan
        x["presence"] = present
    return x, y, present


def encoders(modalities, widths=None):
    """Linear encoders, whose biases are not zero."""
    return {
        m: keras.Sequential(
            [
                keras.Input((SIZES[m],)),
                keras.layers.Dense(
                    (widths or WIDTHS)[m], bias_initializer="normal"
                ),
            ]
        )
        for m in modalities
    }


def randomize(model, seed=0):
    """Gives every trainable weight a value that is not its initial one."""
    rng = np.random.default_rng(seed)
    for v in model.trainable_variables:
        v.assign(rng.normal(size=v.shape, scale=0.7))


def compiled(model, optimizer=None, **kwargs):
    """Compiles for one step of gradient descent at rate 1."""
    model.compile(
        optimizer=optimizer or keras.optimizers.SGD(1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
        **kwargs,
    )
    return model


def numpy_of(variables):
    """Values of a dict of variables, in float64."""
    return {
        name: ops.convert_to_numpy(v).astype("float64")
        for name, v in variables.items()
    }


def dense_of(name, layer):
    """The two weights of a Dense layer, by name."""
    return {f"{name}_W": layer.kernel, f"{name}_b": layer.bias}


def encoder_weights(model):
    """The weights of all encoders, by name."""
    result = {}
    for name, encoder in model.encoders.items():
        result |= dense_of(name, encoder.layers[-1])
    return result


def encode(p, x, modalities):
    """Returns features, with zeros in place of NaN inputs."""
    return {
        m: np.where(
            np.isnan(x[m]).any(1, keepdims=True),
            0.0,
            np.nan_to_num(x[m]) @ p[f"{m}_W"] + p[f"{m}_b"],
        )
        for m in modalities
    }


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def cross_entropies(z, y):
    return -log_softmax(z)[np.arange(len(y)), y]


def cross_entropy(z, y, present=None):
    """Mean over the samples that count."""
    losses = cross_entropies(z, y)
    return losses.mean() if present is None else losses[present].mean()


def numeric_gradients(function, p, step=1e-6):
    """Central differences of a scalar function of a dict of arrays."""
    gradients = {}
    for name, value in p.items():
        gradients[name] = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            high, low = ({**p, name: value.copy()} for _ in range(2))
            high[name][index] += step
            low[name][index] -= step
            gradients[name][index] = (function(high) - function(low)) / (
                2 * step
            )
    return gradients


def applied_gradients(model, variables, x, y):
    """Trains one batch, and returns its loss and the change of weights."""
    before = numpy_of(variables)
    logs = model.train_on_batch(x, y, return_dict=True)
    after = numpy_of(variables)
    return logs, {name: before[name] - after[name] for name in before}


def check_step(model, variables, x, y, objective, tolerance=2e-5):
    """Compares a step's loss and gradients with a function of the weights."""
    p = numpy_of(variables)
    assert len(variables) == len(model.trainable_variables)
    logs, gradients = applied_gradients(model, variables, x, y)
    np.testing.assert_allclose(float(logs["loss"]), objective(p), rtol=1e-5)
    for name, expected in numeric_gradients(objective, p).items():
        np.testing.assert_allclose(
            gradients[name], expected, atol=tolerance, err_msg=name
        )


def unimodal_logits(model, x):
    """Each modality's logits, as the model's forward pass has them."""
    inputs = {
        m: ops.convert_to_tensor(np.nan_to_num(x[m]), "float32")
        for m in model.modalities
    }
    outputs = model.forward_pass(model.modalities, inputs, False)
    return {m: ops.convert_to_numpy(z) for m, z in outputs.logits.items()}
