"""What data sets of pictures and texts share: jsonl lists and samples."""

from collections.abc import Callable, Iterator
from typing import Any

from keras_mla.datasets import listing, pipeline
from keras_mla.datasets.listing import Problems, Sample
from keras_mla.datasets.readers.image import ImageSettings


def read_records(
    path: str, problems: Problems
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields `(source, record)` for each line of a jsonl list."""
    keys = ("id", "label", "text", "img")
    return listing.read_json_lines(path, keys, problems)


def make_sample(
    key: str,
    label: int,
    image: str,
    text: str,
    source: str,
    problems: Problems,
) -> Sample:
    """Returns a sample, its text with single spaces.

    Raises:
        ValueError: If the text is empty, unless that makes it absent.
    """
    text = " ".join(text.split())
    inputs = {"image": image, "text": text}
    if not text:
        if not problems.absent:
            raise ValueError(f"{source}: the text of {key!r} is empty.")
        del inputs["text"]
    return Sample(key, label, inputs, source)


def read_text(path: str, problems: Problems) -> str:
    """Reads the text of a sample; `""` if its file makes it absent.

    Raises:
        ValueError: If the file is missing or no text, unless that makes the
            text absent.
    """
    try:
        return listing.read_text(path)
    except ValueError:
        if not problems.absent:
            raise
        return ""


def readers(
    image: ImageSettings, tokenizer: Callable[[Any], Any] | None
) -> dict[str, pipeline.Reader]:
    """Returns the readers of picture and text."""
    return {
        "image": pipeline.image_reader(image),
        "text": pipeline.text_reader(tokenizer),
    }
