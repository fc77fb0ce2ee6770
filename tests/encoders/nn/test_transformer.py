import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import erf
from utils import mainly_on

from keras_mla import encoders


def randomise(model, seed=0, scale=0.3):
    """Gives every trainable variable random values, so that none is trivial."""
    generator = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(scale * generator.normal(size=variable.shape))
    return model


def norm(x, weights, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return centred / scale * weights["gamma"] + weights["beta"]


def reference(x, block, mask, pair):
    """A transformer block in NumPy and float64, head by head."""
    values = {}
    for variable in block.weights:
        layer, name = variable.path.split("/")[-2:]
        values.setdefault(layer, {})[name] = np.float64(
            ops.convert_to_numpy(variable)
        )
    suffix = f"_{pair}" if pair else ""
    y = norm(x, values[f"norm1{suffix}"], block.epsilon)
    qkv = y @ values["qkv"]["kernel"] + values["qkv"]["bias"]
    width = x.shape[-1]
    size = width // block.num_heads
    attended = np.zeros_like(x)
    for head in range(block.num_heads):
        part = slice(head * size, (head + 1) * size)
        q, k, v = (qkv[..., i * width :][..., part] for i in range(3))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(size)
        if mask is not None:
            scores = np.where(mask[:, None, :], scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        attended[..., part] = scores @ v
    kernel, bias = values["projection"].values()
    x = x + attended @ kernel + bias
    y = norm(x, values[f"norm2{suffix}"], block.epsilon)
    y = y @ values["mlp_in"]["kernel"] + values["mlp_in"]["bias"]
    if block.approximate_gelu:
        inner = np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)
        y = 0.5 * y * (1 + np.tanh(inner))
    else:
        y = 0.5 * y * (1 + erf(y / np.sqrt(2)))
    return x + y @ values["mlp_out"]["kernel"] + values["mlp_out"]["bias"]


@pytest.mark.parametrize("approximate", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_block_equals_numpy(approximate, masked):
    block = encoders.TransformerBlock(
        4, norms=("", "audio"), approximate_gelu=approximate, epsilon=1e-6
    )
    block.build((None, None, 16))
    randomise(block)
    x = np.random.default_rng(1).normal(size=(2, 7, 16))
    mask = np.arange(7)[None] < np.array([[7], [3]]) if masked else None
    for pair in ("", "audio"):
        ours = block(x.astype("float32"), padding_mask=mask, norm=pair)
        theirs = reference(x, block, mask, pair)
        np.testing.assert_allclose(
            ops.convert_to_numpy(ours), theirs, rtol=1e-4, atol=2e-5
        )


@mainly_on("torch")
def test_stack_round_trips_and_every_variable_gets_a_gradient():
    stack = encoders.Transformer(2, 4, drop_path=0.1, dropout=0.1)
    copy = encoders.Transformer.from_config(stack.get_config())
    assert copy.get_config() == stack.get_config()
    assert copy.blocks[1].drop_path == 0.1
    model = keras.Sequential(
        [keras.Input((5, 8)), stack, keras.layers.Flatten()]
    )
    model.add(keras.layers.Dense(1))
    randomise(model)
    before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    x = np.random.default_rng(0).normal(size=(4, 5, 8)).astype("float32")
    model.fit(x, np.ones(4), verbose=0)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        moved = np.abs(ops.convert_to_numpy(variable) - old)
        if variable.path.endswith("qkv/bias"):
            # Softmax does not see a constant added to the scores: the keys'
            # bias has no gradient by nature.
            moved = np.delete(moved, np.s_[8:16])
        assert moved.max() > 0, variable.path


@mainly_on("torch")
def test_drop_path_skips_whole_samples():
    block = encoders.TransformerBlock(2, drop_path=0.5)
    block.build((None, None, 8))
    randomise(block)
    x = np.random.default_rng(0).normal(size=(64, 3, 8)).astype("float32")
    y = ops.convert_to_numpy(block(x, training=True))
    skipped = np.abs(y - x).max(axis=(1, 2)) == 0
    assert 5 <= skipped.sum() <= 30  # a quarter of 64, both branches
    assert not (np.abs(y - x).max(axis=2) == 0)[~skipped].any()


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="num_heads=3, width=16"):
        encoders.TransformerBlock(3).build((None, None, 16))
    with pytest.raises(ValueError, match="norm=video"):
        encoders.TransformerBlock(2)(np.zeros((1, 2, 4)), norm="video")
    with pytest.raises(ValueError, match="norms="):
        encoders.TransformerBlock(2, norms=())
