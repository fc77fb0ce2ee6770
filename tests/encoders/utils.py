"""Checks that every encoder has to pass."""

import keras
import numpy as np
from keras import ops


def to_numpy(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


def check_round_trip(model, x, path, **kwargs):
    """Saved and loaded safely, a model computes the same and is configured so.

    Returns:
        What the model computes, as float32.
    """
    path = path / f"{model.name}.keras"
    model.save(path)
    loaded = keras.saving.load_model(path, safe_mode=True)
    assert loaded.get_config() == model.get_config()
    expected = keras.tree.map_structure(to_numpy, model(x, **kwargs))
    again = keras.tree.map_structure(to_numpy, loaded(x, **kwargs))
    keras.tree.map_structure(np.testing.assert_array_equal, again, expected)
    return expected


def check_mixed_precision(make, x, tolerance=0.05):
    """Half precision gives a half feature that is near the full one."""
    full = make(dtype="float32")
    expected = to_numpy(full(x))
    for policy in ("mixed_bfloat16", "mixed_float16"):
        model = make(dtype=policy)
        model.set_weights(full.get_weights())
        feature = model(x)
        name = keras.backend.standardize_dtype(feature.dtype)
        assert f"mixed_{name}" == policy
        np.testing.assert_allclose(to_numpy(feature), expected, atol=tolerance)


def check_training(model, x, y=None, unmoved=()):
    """A step of fit moves every trainable variable and nothing else but seeds.

    Args:
        model: a compiled model.
        x: inputs.
        y: labels.
        unmoved: ends of paths of trainable variables without a gradient.
    """
    before = {v.path: np.array(to_numpy(v)) for v in model.weights}
    model.fit(x, y, verbose=0)
    trainable = {v.path for v in model.trainable_variables}
    for variable in model.weights:
        path = variable.path
        if "seed_generator" in path:
            continue
        moved = np.abs(to_numpy(variable) - before[path]).max() > 0
        expected = path in trainable and not path.endswith(tuple(unmoved))
        assert moved == expected, path


def randomise(model, scale=0.3):
    """Gives every trainable variable random values, so that none is trivial."""
    generator = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(scale * generator.normal(size=variable.shape))
    return model


def write_clip_preset(folder):
    """Writes a tiny CLIP of Keras Hub's, its converter and its tokenizer.

    Returns:
        The CLIP, of 16 x 16 pixels, 12 tokens and 8 features.
    """
    import keras_hub

    vision = keras_hub.models.CLIPVisionEncoder(
        8, 16, 2, 2, 32, image_shape=(16, 16, 3), name="vision"
    )
    text = keras_hub.models.CLIPTextEncoder(
        50, 16, 16, 2, 2, 32, max_sequence_length=12, name="text"
    )
    backbone = keras_hub.models.CLIPBackbone(vision, text, 8)
    backbone.save_to_preset(str(folder))
    keras_hub.layers.CLIPImageConverter(
        image_size=(16, 16), scale=[1 / 255.0] * 3, offset=[-0.5] * 3
    ).save_to_preset(str(folder))
    pieces = {"<|startoftext|>": 48, "<|endoftext|>": 49, "ca": 40}
    pieces |= {letter: i for i, letter in enumerate("abct")}
    pieces |= {f"{letter}</w>": 10 + i for i, letter in enumerate("abct")}
    tokenizer = keras_hub.models.CLIPTokenizer()
    tokenizer.vocabulary = pieces | {"cat</w>": 41}
    tokenizer.merges = ["c a", "ca t</w>"]
    tokenizer.save_to_preset(str(folder))
    return backbone
