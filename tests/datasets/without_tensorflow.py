"""Trains on each data set in a process that has no TensorFlow.

`test_without_tensorflow.py` starts this script with a folder to write to.
"""

import pathlib
import sys
import warnings

for name in ("tensorflow", "tensorflow_io", "tensorflow_text"):
    sys.modules[name] = None  # An import of it fails.
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "__array__ implementation")
warnings.filterwarnings("ignore", "`torch.jit.script_method`")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import dataset_layouts as layouts  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

import keras_mla  # noqa: E402
from keras_mla.datasets import audio, image, pipeline, text  # noqa: E402

SOUND = audio.Fbank(frames=20, mels=8, time_mask=4)
PICTURE = image.ImageSettings(size=8)


def load(name, root, words):
    """Returns the training batches of a data set of small files."""
    root.mkdir()
    getattr(layouts, name)(root)
    module = getattr(keras_mla.datasets, name)
    settings = {"batch_size": 4, "image": PICTURE}
    if name in ("crema_d", "kinetics_sounds", "iemocap"):
        settings["audio"] = SOUND
    if name in ("food101", "mvsa", "iemocap"):
        settings["tokenizer"] = text.bert(words, 6)
    if name == "kinetics_sounds":
        fillers = [f"class {i}" for i in range(28)]
        settings["classes"] = [
            "bowling",
            "playing piano",
            "tap dancing",
            *fillers,
        ]
    with warnings.catch_warnings():
        # The published data sets have more samples.
        warnings.simplefilter("ignore")
        return module.load(root, **settings)


def encoder(value):
    """Returns an encoder of what a reader gives."""
    if isinstance(value, dict):
        inputs = {
            key: keras.Input(part.shape[1:], dtype=str(part.dtype), name=key)
            for key, part in value.items()
        }
        mask = keras.ops.cast(inputs["padding_mask"], "float32")
        embedded = keras.layers.Embedding(100, 4)(inputs["token_ids"])
        pooled = keras.ops.sum(embedded * mask[..., None], axis=1)
        return keras.Model(inputs, keras.layers.Dense(4)(pooled))
    layers = [keras.layers.Flatten(), keras.layers.Dense(4)]
    return keras.Sequential([keras.Input(value.shape[1:]), *layers])


def main(root):
    """Trains a model on each data set, and meets each missing package."""
    words = root / "vocab.txt"
    pieces = text.word_pieces(["a pinch of salt, apple_pie waffles t1 no."])
    words.write_text("\n".join(pieces))
    sets = ("crema_d", "kinetics_sounds", "food101", "mvsa", "iemocap")
    for name in sets:
        data = load(name, root / name, words)
        assert isinstance(data, keras.utils.PyDataset)
        x, y = data[0]
        model = keras_mla.MLA(
            {key: encoder(value) for key, value in x.items()}, head=101
        )
        model.compile(
            optimizer=keras.optimizers.SGD(0.01),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        history = model.fit(data, epochs=2, shuffle=False, verbose=0).history
        assert np.isfinite(history["loss"]).all()
        print(name, len(data), sorted(x), y.dtype)

    samples = [pipeline.Sample("a", 0, {"text": "salt"}, "line 1")]
    readers = {"text": pipeline.text_reader()}
    for extra, call in {
        "tensorflow": lambda: pipeline.build(
            samples, readers, engine="tensorflow"
        ),
        "audio": lambda: audio.decode(root / "a.wav"),
        "media": lambda: image.decode(b""),
        "hub": lambda: text.bert(words),
    }.items():
        for module in ("soundfile", "PIL.Image", "keras_hub"):
            sys.modules[module] = None
        with pytest.raises(ImportError, match=rf"keras-mla\[{extra}\]"):
            call()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
