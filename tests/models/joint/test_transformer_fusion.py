"""The masked late-fusion Transformer, against NumPy."""

import keras
import numpy as np
import pytest
from utils import WIDTHS, compiled, encoder, make_data, only_on, to_numpy

from keras_mla.models import TransformerFusion

NAMES = ("text", "audio", "image")


def make(**kwargs):
    parts = {name: encoder(WIDTHS[name]) for name in NAMES}
    return TransformerFusion(parts, 4, width=8, num_heads=2, **kwargs)


def norm(layer, x):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    x = (x - mean) / np.sqrt(variance + layer.epsilon)
    return x * to_numpy(layer.gamma) + to_numpy(layer.beta)


def dense(layer, x):
    return x @ to_numpy(layer.kernel).astype("float64") + to_numpy(layer.bias)


def gelu(x):
    erf = np.vectorize(__import__("math").erf)
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def by_hand(model, features, presence):
    """Computes logits in float64, each sample with its own tokens alone."""
    logits = []
    for row, there in enumerate(presence):
        tokens = [to_numpy(model.tokens.cls)[0].astype("float64")]
        tokens += [
            dense(model.tokens.maps[name], features[name][row])
            for name, known in zip(NAMES, there, strict=True)
            if known
        ]
        x = np.stack(tokens)
        for block in model.transformer.blocks:
            q, k, v = np.split(dense(block.qkv, norm(block.norm1[0], x)), 3, -1)
            heads = []
            for head in range(block.num_heads):
                part = slice(4 * head, 4 * head + 4)
                scores = q[:, part] @ k[:, part].T / np.sqrt(4)
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                weights /= weights.sum(-1, keepdims=True)
                heads.append(weights @ v[:, part])
            x = x + dense(block.projection, np.concatenate(heads, -1))
            inner = gelu(dense(block.mlp_in, norm(block.norm2[0], x)))
            x = x + dense(block.mlp_out, inner)
        logits.append(dense(model.head, norm(model.transformer.norm, x[0])))
    return np.stack(logits)


def test_logits_against_numpy():
    model = make(depth=1)
    x, _ = make_data(16, NAMES)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:  # Biases are zeros else.
        variable.assign(rng.normal(0, 0.5, variable.shape))
    presence = np.random.default_rng(0).random((16, 3)) < 0.6
    presence[:, 0] |= ~presence.any(axis=1)
    x["presence"] = presence
    for index, name in enumerate(NAMES):
        x[name][~presence[:, index]] = np.nan
    features = model.features(x)
    expected = by_hand(model, features, presence)
    found = model.predict_modalities(x)
    np.testing.assert_allclose(found["fused"], expected, atol=1e-4)
    # A unimodal score is the prediction with all others absent.
    alone = found["audio"]["logits"]
    expected = by_hand(model, features, np.tile([False, True, False], (16, 1)))
    there = presence[:, 1]
    np.testing.assert_allclose(alone[there], expected[there], atol=1e-4)


@only_on("torch")
def test_it_is_saved(tmp_path):
    model = compiled(make(depth=1, dropout=0.3, modality_dropout=0.5), "adam")
    x, y = make_data(16, NAMES)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert (again.width, again.depth, again.dropout) == (8, 1, 0.3)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@pytest.mark.parametrize("wrong", [{"width": 9}, {"depth": 0}])
def test_wrong_sizes(wrong):
    parts = {name: encoder(WIDTHS[name]) for name in NAMES}
    with pytest.raises(ValueError, match="must divide"):
        TransformerFusion(parts, 4, **{"num_heads": 2, **wrong})
