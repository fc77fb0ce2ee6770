"""Makes or loads the encoders of the scripts that use transformers."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
from absl import flags

import keras_mla
from keras_mla.datasets import image, pipeline, text
from keras_mla.datasets.listing import Sample

# The flags below then count as flags of the script.
flags.disclaim_key_flags()
FLAGS = flags.FLAGS


def define_flags(modalities: Sequence[str]) -> None:
    """Defines the flags of encoders and of their inputs."""
    for name in modalities:
        flags.DEFINE_string(
            f"{name}_encoder",
            None,
            "A file of keras_mla.encoders.convert; default: a new encoder.",
        )
    define = flags.DEFINE_integer
    flags.DEFINE_string("vocabulary", None, "BERT's; default: from the texts.")
    define("words", 8000, "Most pieces of a new vocabulary.")
    define("text_length", 48, "Word pieces of a text.", lower_bound=1)
    define("image_size", 96, "Height and width in pixels.", lower_bound=16)
    define("width", 128, "Features of a new encoder.")
    define("depth", 3, "Blocks of a new encoder.")
    define("num_heads", 4, "Attention heads of a new encoder.")
    flags.DEFINE_float("dropout", 0.1, "Dropout of a new encoder.")
    flags.DEFINE_float("crop", 0.3, "Least share of a picture in a crop.")


def vocabulary(output: pathlib.Path, train: Sequence[Sample]) -> str:
    """Returns the path of the vocabulary; makes one unless it is given."""
    if FLAGS.vocabulary:
        return FLAGS.vocabulary
    pieces = text.word_pieces((s.inputs["text"] for s in train), FLAGS.words)
    path = output / "vocab.txt"
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return str(path)


def text_reader(words: str) -> pipeline.Reader:
    """Returns the reader of texts, given the path of a vocabulary."""
    return pipeline.text_reader(text.bert(words, FLAGS.text_length))


def image_settings() -> image.ImageSettings:
    """Returns how pictures are cropped and resized."""
    return dataclasses.replace(
        image.M3AE, size=FLAGS.image_size, scale=(FLAGS.crop, 1.0)
    )


def encoder(name: str, make: Callable[..., Any], **own: Any) -> Any:
    """Loads an encoder, or makes a new one.

    Args:
        name: The modality.
        make: The class of a new encoder.
        **own: Arguments that only this encoder has.
    """
    file = FLAGS[f"{name}_encoder"].value
    if file:
        return keras.saving.load_model(file, compile=False)
    return make(
        name,
        width=FLAGS.width,
        depth=FLAGS.depth,
        num_heads=FLAGS.num_heads,
        dropout=FLAGS.dropout,
        **own,
    )


def image_and_text(words: str) -> dict[str, Any]:
    """Returns M3AE encoders of a picture and of a text."""
    with open(words, encoding="utf-8") as file:
        size = sum(1 for _ in file)
    m3ae = keras_mla.encoders.M3AE
    lengths = {"vocabulary_size": size, "max_length": FLAGS.text_length}
    shape = image_settings().shape
    return {
        "image": encoder("image", m3ae, image_shape=shape),
        "text": encoder("text", m3ae, **lengths),
    }
