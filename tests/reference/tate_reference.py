"""TATE in NumPy and float64: one sample after the other, without masks."""

import math

import keras
import methods_reference as ref
import numpy as np

# Not in alphabetical order, in which JAX returns the keys of a dict.
NAMES = ("text", "audio", "image")
SIZES = {"text": 4, "audio": 2, "image": 3}
STEPS = {"text": 2, "audio": 1, "image": 2}
FEATURES = {"text": 4, "audio": 5, "image": 2}
WIDTH, HEADS = 4, 2
SMALL = {"width": WIDTH, "num_heads": HEADS, "dropout": 0.0}
# Weights that let each term be seen.
TERMS = {"decoding_weight": 0.7, "tag_weight": 0.9, "l2_weight": 0.05}


def parts():
    """Encoders of padded steps, of a vector, and of steps without padding."""

    def dense(m):
        return keras.layers.Dense(FEATURES[m], bias_initializer="normal")

    steps = keras.Input((STEPS["text"], SIZES["text"]), name="steps")
    mask = keras.Input((STEPS["text"],), dtype="bool", name="padding_mask")
    inputs = {"steps": steps, "padding_mask": mask}
    outputs = {"features": dense("text")(steps), "padding_mask": mask}
    audio = keras.Input((SIZES["audio"],))
    image = keras.Input((STEPS["image"], SIZES["image"]))
    return {
        "text": keras.Model(inputs, outputs),
        "audio": keras.Sequential([audio, dense("audio")]),
        "image": keras.Sequential([image, dense("image")]),
    }


def data(samples=6, seed=0):
    """Returns inputs whose absent values are the true ones, and labels.

    One sample has no modality at all, and one has all.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=(samples, *shape)).astype("float32")

    lengths = rng.integers(1, STEPS["text"] + 1, (samples, 1))
    presence = rng.random((samples, 3)) < 0.5
    presence[:4] = [
        [True, False, True],
        [False, False, False],
        [True, True, True],
        [False, True, False],
    ]
    x = {
        "text": {
            "steps": normal(STEPS["text"], SIZES["text"]),
            "padding_mask": np.arange(STEPS["text"])[None] < lengths,
        },
        "audio": normal(SIZES["audio"]),
        "image": normal(STEPS["image"], SIZES["image"]),
        "presence": presence,
    }
    return x, rng.integers(0, ref.CLASSES, samples)


# === Weights by name ===


def weights(model):
    """The trainable weights of a model, by name."""
    layer = model.tag_encoder
    found = ref.dense_of("head", model.head) | ref.dense_of("C", model.hidden)
    for m, encoder in model.encoders.items():
        dense = [i for i in encoder.layers if hasattr(i, "kernel")]
        found |= ref.dense_of(m, *dense)
        found[f"{m}_A"] = layer.maps[m].kernel
        found |= of_transformer(m, layer.blocks[m])
    found |= {f"space_{k}": v.kernel for k, v in layer.spaces.items()}
    for name in ("value", "gate", "score"):
        found[name] = getattr(layer, name).kernel
    found |= of_transformer("encoder", layer.encoder)
    return found | of_transformer("decoder", model.decoder)


def of_transformer(name, transformer):
    """The weights of a Transformer with one block."""
    (block,) = transformer.blocks
    found = {}
    for part in ("qkv", "projection", "mlp_in", "mlp_out"):
        found |= ref.dense_of(f"{name}_{part}", getattr(block, part))
    norms = (*block.norm1, *block.norm2, transformer.norm)
    for index, norm in enumerate(norms):
        found[f"{name}_gamma_{index}"] = norm.gamma
        found[f"{name}_beta_{index}"] = norm.beta
    return found


# === Layers ===


def dense(p, name, x):
    return x @ p[f"{name}_W"] + p[f"{name}_b"]


def norm(p, name, index, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x * p[f"{name}_gamma_{index}"] + p[f"{name}_beta_{index}"]


def softmax(x):
    return np.exp(ref.log_softmax(x))


def transformer(p, name, x, keys):
    """A block and a norm over steps `(time, width)`, of which some are keys."""
    head = x.shape[1] // HEADS
    q, k, v = np.split(dense(p, f"{name}_qkv", norm(p, name, 0, x)), 3, -1)
    heads = []
    for index in range(HEADS):
        part = slice(index * head, index * head + head)
        scores = q[:, part] @ k[keys, part].T / np.sqrt(head)
        heads.append(softmax(scores) @ v[keys, part])
    x = x + dense(p, f"{name}_projection", np.concatenate(heads, -1))
    inner = dense(p, f"{name}_mlp_in", norm(p, name, 1, x))
    erf = np.vectorize(math.erf)
    inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
    x = x + dense(p, f"{name}_mlp_out", inner)
    return norm(p, name, 2, x)


def encoded(p, x, row, present, order=NAMES):
    """What a sample's steps are, and what the encoder makes of them.

    Args:
        p: dict of weights.
        x: dict of true values.
        row: The sample.
        present: Bools: the modalities that are shown, in the order of `order`.
        order: The modalities, in the order of presence.

    Returns:
        The steps that are given; their encoding; and which are shown. Steps
        are in the order of `NAMES`.
    """
    parts, shown = [], []
    for m in NAMES:
        steps, own = STEPS[m], order.index(m)
        mask = np.full(steps, bool(present[own]))
        values = x[m]
        if m == "text":
            mask &= x[m]["padding_mask"][row]
            values = x[m]["steps"]
        common = np.zeros((steps, WIDTH))
        if mask.any():
            seen = values[row].reshape(steps, -1)[mask]
            u = dense(p, m, seen.astype("float64")) @ p[f"{m}_A"]
            u = transformer(p, m, u, np.arange(len(u)))
            pairs = [sorted((own, other)) for other in range(3) if other != own]
            common[mask] = np.concatenate(
                [u @ p[f"space_{a}_{b}"] for a, b in pairs], 1
            )
        parts.append(common)
        shown.append(mask)
    tag = np.array([*present, all(present)], "float64")
    given = np.concatenate(parts)
    given = np.concatenate([given, np.tile(tag, (len(given), 1))], 1)
    shown = np.concatenate(shown)
    return given, transformer(p, "encoder", given, shown), shown


def pooled(p, steps):
    """Attention pooling of the steps that are shown."""
    gate = 1 / (1 + np.exp(-steps @ p["gate"]))
    weights = softmax(((steps @ p["value"] * gate) @ p["score"])[:, 0])
    return weights @ steps


def divergence(first, second):
    """The mean over steps of both Kullback-Leibler divergences."""
    p, q = ref.log_softmax(first), ref.log_softmax(second)
    there = (np.exp(p) * (p - q)).sum(-1)
    return (there + (np.exp(q) * (q - p)).sum(-1)).mean()


def sample(p, x, row, present):
    """A sample's logits, and its terms: decoding, tag, and the encoding."""
    given, steps, shown = encoded(p, x, row, present)
    r = pooled(p, steps[shown])
    logits = dense(p, "head", np.maximum(dense(p, "C", r), 0))
    decoded = transformer(p, "decoder", steps, shown)
    tag = given[0, -4:]
    error = np.abs(tag - 1 / (1 + np.exp(-r[-4:]))).mean()
    return logits, divergence(decoded[shown], given[shown]), error, steps


def logits(p, x, presence):
    """The logits of all samples, zeros without any modality."""
    return np.stack(
        [
            sample(p, x, row, present)[0]
            if any(present)
            else np.zeros(ref.CLASSES)
            for row, present in enumerate(presence)
        ]
    )


def loss(p, x, y, presence, taught=None, weight=0.0):
    """The whole loss.

    Args:
        p: dict of weights.
        x: dict of true values.
        y: Labels.
        presence: Entries that are shown.
        taught: For each sample a teacher's encoding, and the steps of it that
            count; `None` without a teacher.
        weight: The weight of the divergence from it.
    """
    rows = [row for row in range(len(y)) if presence[row].any()]
    found = {row: sample(p, x, row, presence[row]) for row in rows}
    entropies = [
        ref.cross_entropies(found[row][0][None], y[[row]])[0] for row in rows
    ]
    total = np.mean(entropies)
    total += TERMS["decoding_weight"] * np.mean([found[r][1] for r in rows])
    total += TERMS["tag_weight"] * np.mean([found[r][2] for r in rows])
    squares = (p["head_W"] ** 2).sum() + (p["head_b"] ** 2).sum()
    total += TERMS["l2_weight"] * squares
    if taught is not None:
        gaps = [
            divergence(found[row][3][counted], steps[counted])
            for row, (steps, counted) in taught.items()
        ]
        total += weight * np.mean(gaps)
    return total
