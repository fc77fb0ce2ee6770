"""Guesses what a column holds, from its training rows."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mla.datasets.table import cells
from keras_mla.datasets.table.field import Field
from keras_mla.datasets.table.files import Image, Sound, Video
from keras_mla.datasets.table.text import Text
from keras_mla.datasets.table.values import KINDS, Values

FIELDS: dict[str, type[Field]] = {
    field.kind: field for field in (Values, Text, Image, Sound, Video)
}
_ENDINGS = {
    "image": ".jpg .jpeg .png .gif .bmp .webp",
    "sound": ".wav .flac .mp3 .ogg .aiff .aif .au",
    "video": ".mp4 .mov .avi .mkv .webm .flv .mpg .mpeg .m4v",
}
COLUMN_KINDS = (*KINDS, Text.kind, *_ENDINGS)
# The most categories, by how often each is used on average.
_MOST_CATEGORIES = {2: 100, 10: 1000}
_MOST_WORDS = 5
_LOOKED_AT = 10_000


def guess_kind(frame: Any, column: str) -> str:
    """Returns what a column of a DataFrame holds.

    Numbers, and words that are all numbers, are `"number"`; names of files are
    `"image"`, `"sound"` or `"video"` by their endings; cells of at most five
    words on average, of which 100 are different and each is used twice, or
    1,000 are different and each is used ten times, are `"category"`; all else
    is `"text"`. At most 10,000 cells are looked at, evenly spaced.

    Raises:
        ValueError: If all cells are empty, or the column holds neither numbers
            nor words.
    """
    import pandas as pd

    series = frame[column]
    if isinstance(series.dtype, pd.CategoricalDtype):
        return "category"
    if cells.is_number(series):
        return "number"
    if not cells.is_text(series):
        raise ValueError(
            f"Column {column!r} holds {series.dtype}, which is neither numbers "
            "nor words. Turn it into one of them."
        )
    series = series.iloc[:: -(-len(series) // _LOOKED_AT)]
    if cells.holds_numbers(series) and cells.holds_numbers(frame[column]):
        return "number"
    words = [word for word in cells.words_of(series) if word]
    if not words:
        raise ValueError(
            f"Column {column!r} is empty in all rows that were looked at."
        )
    for kind, known in _ENDINGS.items():
        endings = (os.path.splitext(word)[1].lower() for word in words)
        if all(ending in known.split() for ending in endings):
            return kind
    different = len(set(words))
    long = np.mean([len(word.split()) for word in words]) > _MOST_WORDS
    few = any(
        different <= min(most, len(words) / uses)
        for uses, most in _MOST_CATEGORIES.items()
    )
    return "category" if few and not long else "text"


def guess_field(
    frame: Any,
    modality: str,
    columns: Sequence[str],
    kinds: Mapping[str, str],
) -> Field:
    """Returns the field for columns of which nothing else is known.

    Args:
        frame: DataFrame of training rows.
        modality: str. Name of the modality, for messages.
        columns: Names of columns.
        kinds: dict of column to kind, of columns whose kind is known.

    Raises:
        ValueError: If the columns do not go together.
    """
    found = {c: kinds.get(c) or guess_kind(frame, c) for c in columns}
    different = set(found.values())
    if different <= set(KINDS):
        return Values(columns, found)
    if len(different) > 1:
        raise ValueError(
            f"The modality {modality!r} mixes columns of different kinds: "
            f"{found}. Numbers and categories go together, and texts do. Give "
            "the others modalities of their own, or say what a column holds, "
            "with `kinds={column: kind}`."
        )
    [kind] = different
    if kind in _ENDINGS and len(columns) > 1:
        raise ValueError(
            f"The modality {modality!r} has two files: the columns "
            f"{list(columns)} hold paths. Give each a modality of its own. "
            "For several pictures of each row, say "
            f"`table.Image({list(columns)})`."
        )
    return FIELDS[kind](columns)
