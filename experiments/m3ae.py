"""Makes or loads the encoders of the scripts that use transformers."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
from absl import flags

import keras_mla
from keras_mla.datasets import image, pipeline, text
from keras_mla.datasets.listing import Sample


def define_flags(values: flags.FlagValues, modalities: Sequence[str]) -> None:
    """Defines the flags of encoders and of their inputs."""
    own: dict[str, Any] = {"flag_values": values}
    for name in modalities:
        flags.DEFINE_string(
            f"{name}_encoder",
            None,
            "A file of keras_mla.encoders.convert; default: a new encoder.",
            **own,
        )
    define = functools.partial(flags.DEFINE_integer, **own)
    flags.DEFINE_string(
        "vocabulary", None, "BERT's; default: from the texts.", **own
    )
    define("words", 8000, "Most pieces of a new vocabulary.")
    define("text_length", 48, "Word pieces of a text.", lower_bound=1)
    define("image_size", 96, "Height and width in pixels.", lower_bound=16)
    define("width", 128, "Features of a new encoder.", lower_bound=1)
    define("depth", 3, "Blocks of a new encoder.", lower_bound=1)
    define("num_heads", 4, "Attention heads of a new encoder.", lower_bound=1)
    rate = functools.partial(flags.DEFINE_float, **own)
    rate("dropout", 0.1, "Dropout of a new encoder.")
    rate("crop", 0.3, "Least share of a picture in a crop.")


def vocabulary(
    values: flags.FlagValues, output: pathlib.Path, train: Sequence[Sample]
) -> str:
    """Returns the path of the vocabulary; makes one unless it is given."""
    if values["vocabulary"].value:
        return values["vocabulary"].value
    texts = (sample.inputs["text"] for sample in train)
    pieces = text.word_pieces(texts, values["words"].value)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "vocab.txt"
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return str(path)


def text_reader(values: flags.FlagValues, words: str) -> pipeline.Reader:
    """Returns the reader of texts, given the path of a vocabulary."""
    return pipeline.text_reader(text.bert(words, values["text_length"].value))


def image_settings(values: flags.FlagValues) -> image.ImageSettings:
    """Returns how pictures are cropped and resized."""
    return dataclasses.replace(
        image.M3AE,
        size=values["image_size"].value,
        scale=(values["crop"].value, 1.0),
    )


def encoder(
    values: flags.FlagValues, name: str, make: Callable[..., Any], **own: Any
) -> Any:
    """Loads an encoder, or makes a new one.

    Args:
        values: The flags.
        name: The modality.
        make: The class of a new encoder.
        **own: Arguments that only this encoder has.
    """
    file = values[f"{name}_encoder"].value
    if file:
        return keras.saving.load_model(file, compile=False)
    shared = ("width", "depth", "num_heads", "dropout")
    return make(name, **{key: values[key].value for key in shared}, **own)


def image_and_text(values: flags.FlagValues, words: str) -> dict[str, Any]:
    """Returns functions that make M3AE encoders of a picture and of a text."""
    with open(words, encoding="utf-8") as file:
        size = sum(1 for _ in file)
    make = functools.partial(encoder, values)
    m3ae, length = keras_mla.encoders.M3AE, values["text_length"].value
    return {
        "image": functools.partial(
            make, "image", m3ae, image_shape=image_settings(values).shape
        ),
        "text": functools.partial(
            make, "text", m3ae, vocabulary_size=size, max_length=length
        ),
    }
