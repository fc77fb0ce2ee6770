"""The methods that reconstruct features, in NumPy and float64."""

import keras
import methods_reference as ref
import numpy as np

# Not in alphabetical order, in which JAX returns the keys of a dict.
NAMES = ("text", "audio", "image")
SIZES = {"text": 4, "audio": 2, "image": 3}
FEATURES = 3


def parts(features=FEATURES):
    """Linear encoders of all modalities."""
    return {
        m: keras.Sequential(
            [
                keras.Input((SIZES[m],)),
                keras.layers.Dense(features, bias_initializer="normal"),
            ]
        )
        for m in NAMES
    }


def data(samples=7, seed=0):
    """Returns inputs whose absent values are the true ones, and labels.

    One sample has no modality at all.
    """
    rng = np.random.default_rng(seed)
    x = {
        m: rng.normal(size=(samples, SIZES[m])).astype("float32") for m in NAMES
    }
    presence = rng.random((samples, 3)) < 0.5
    presence[:4] = [
        [True, False, True],
        [False, False, False],
        [True, True, True],
        [False, True, False],
    ]
    return {**x, "presence": presence}, rng.integers(0, ref.CLASSES, samples)


def shuffled(model, seed=0):
    """Gives every trainable weight a new, small value."""
    rng = np.random.default_rng(seed)
    for v in model.trainable_variables:
        v.assign(rng.normal(size=v.shape, scale=0.5))
    return model


# === Weights by name ===


def of_stack(name, stack):
    """The weights of the Dense layers of a stack."""
    dense = [i for i in stack.layers if isinstance(i, keras.layers.Dense)]
    found = {}
    for index, layer in enumerate(dense):
        found |= ref.dense_of(f"{name}_{index}", layer)
    return found


def of_cascade(name, cascade):
    """The weights of a cascade."""
    found = {}
    for k in range(cascade.blocks):
        found |= of_stack(f"{name}_in_{k}", cascade.encoders[k])
        found |= of_stack(f"{name}_out_{k}", cascade.decoders[k])
    if cascade.residual != "none":
        found |= of_stack(f"{name}_end", cascade.transition)
    return found


# === Layers ===


def stack(p, name, x, slope=0.0, last=True):
    """Dense layers with a leaky ReLU behind each, or all but the last."""
    number = sum(f"{name}_{i}_W" in p for i in range(9))
    for index in range(number):
        x = x @ p[f"{name}_{index}_W"] + p[f"{name}_{index}_b"]
        if last or index < number - 1:
            x = np.where(x > 0, x, slope * x)
    return x


def block(p, name, k, given, slopes):
    """The output and the latent of one autoencoder."""
    latent = stack(p, f"{name}_in_{k}", given, slopes[0], last=False)
    out = stack(p, f"{name}_out_{k}", latent, slopes[1], last=False)
    return out, latent


def chained(p, name, x, blocks, added=0.0, slopes=(0.01, 0.0)):
    """Each block is given what the one before returned, plus `added`."""
    out, latents = x, []
    for k in range(blocks):
        out, latent = block(p, name, k, out + added, slopes)
        latents.append(latent)
    return out, np.concatenate(latents, 1)


def cumulative(p, name, x, blocks, slopes=(0.01, 0.0)):
    """Each block is given x plus what all before it returned."""
    outs, latents = [], []
    for k in range(blocks):
        out, latent = block(p, name, k, x + sum(outs), slopes)
        outs.append(out)
        latents.append(latent)
    return x + sum(outs), np.concatenate(latents, 1)


def transition(p, name, x):
    """A linear map, a ReLU and a linear map."""
    return stack(p, f"{name}_end", x, last=False)


def features(p, x):
    """The features of all modalities."""
    return {m: np.nan_to_num(x[m]) @ p[f"{m}_W"] + p[f"{m}_b"] for m in NAMES}


def side_by_side(f, presence=None):
    """Features of all modalities, zeros for absent ones."""
    if presence is not None:
        f = {
            m: np.where(presence[:, [i]], f[m], 0) for i, m in enumerate(NAMES)
        }
    return np.concatenate([f[m] for m in NAMES], 1)


def error(guess, target, counted):
    """The mean squared error of entries, one by one."""
    found = []
    for row in range(len(guess)):
        for index, m in enumerate(NAMES):
            if counted[row, index]:
                width = target[m].shape[1]
                part = guess[row, index * width : (index + 1) * width]
                found.append(((part - target[m][row]) ** 2).mean())
    return np.mean(found) if found else 0.0


def discrepancy(x, y, moments=5, span=1.0):
    """The central moment discrepancy of two sets of samples."""
    a, b = x.mean(0), y.mean(0)
    total = np.linalg.norm(a - b) / span
    for k in range(2, moments + 1):
        gap = ((x - a) ** k).mean(0) - ((y - b) ** k).mean(0)
        total += np.linalg.norm(gap) / span**k
    return total
