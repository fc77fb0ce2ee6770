"""Columns of text, as tokens."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mla.datasets.pipeline import Reader
from keras_mla.datasets.readers.text import with_mask
from keras_mla.datasets.table import cells, tokens
from keras_mla.datasets.table.field import Field
from keras_mla.datasets.table.values import value_of

# So many texts teach a vocabulary, and a length, as well as all do.
_MOST_TEXTS = 10_000
_MOST_LENGTHS = 2000
_MOST_TOKENS = 256
_CHUNK = 4096


class Text(Field):
    """Texts, as token ids and a mask.

    Without a tokenizer, `adapt` learns byte pairs (in lower case) from the
    training rows, at most 10,000 of them, evenly spaced. Every text can be
    written in them, in any language. Several columns are joined by a space.
    A row whose texts are all empty lacks the modality.

    The model gets a dict of `"token_ids"`, int32, and `"padding_mask"`, bool,
    `True` on tokens, each `(batch, length)`. Padding has the id 0 in learned
    vocabularies.

    Args:
        columns: str or sequence of str. Names of columns.
        vocabulary: int. The most tokens to learn, 256 bytes and the padding
            among them. Defaults to `8000`.
        length: int. Every text is cut or padded to this length. Defaults to
            the length that 95 % of the training texts do not exceed, at most
            256.
        tokenizer: str or path. A `tokenizer.json` of the library `tokenizers`,
            a `vocab.txt` of BERT's word pieces in lower case, or a preset of
            Keras Hub, by name (which is downloaded) or folder, in place of
            what would be learned. Its content becomes a part of the table. If
            a file has no token for padding, `[PAD]` is added. A preset's
            start and end are put around each text.

    Raises:
        ValueError: If `columns` has no name or a name twice, `vocabulary` is
            less than 300, or `length` less than 1.

    Reference:
        Sennrich et al., "Neural Machine Translation of Rare Words with
        Subword Units", ACL 2016.

    Example:
    >>> from keras_mla.datasets import table
    >>> rows = {"title": ["a pinch of salt", "oil"]}
    >>> t = table.Table({"text": table.Text("title", length=8)})
    >>> x = t.adapt(rows, verbose=0).inputs(rows)["text"]
    >>> x["token_ids"].shape, x["padding_mask"].sum(axis=1)
    ((2, 8), array([8, 3]))
    """

    kind = "text"

    def __init__(
        self,
        columns: str | Sequence[str],
        vocabulary: int = 8000,
        length: int | None = None,
        tokenizer: str | os.PathLike | None = None,
    ) -> None:
        super().__init__(columns)
        if vocabulary < 300:
            raise ValueError(
                "`vocabulary` must be at least 300, as 256 tokens are bytes. "
                f"Received: vocabulary={vocabulary}"
            )
        if length is not None and length < 1:
            raise ValueError(
                f"`length` must be at least 1. Received: length={length}"
            )
        self.vocabulary = vocabulary
        self.length = length
        self.tokenizer = None if tokenizer is None else os.fspath(tokenizer)

    def adapt(self, frame: Any) -> None:
        """Learns a vocabulary and a length from rows.

        Raises:
            ValueError: If all texts are empty, or the tokenizer is none.
        """
        texts = [text for text in self.texts(frame) if text]
        if not texts:
            raise ValueError(
                f"The columns {list(self.columns)} are empty in all training "
                "rows."
            )
        given = bool(self.learned and self.learned.get("given"))
        found: tokens.Pieces | tokens.HubPieces
        if self.learned is not None and given:
            # The file that it came from may be of another machine.
            found = tokens.opened(self.learned["tokenizer"])
        elif self.tokenizer is not None:
            found, given = tokens.read(self.tokenizer), True
        else:
            learned_from = tokens.some(texts, _MOST_TEXTS)
            found = tokens.learn(learned_from, self.vocabulary)
        length = self.length
        if length is None:
            lengths = found.lengths(tokens.some(texts, _MOST_LENGTHS))
            usual: float = np.quantile(lengths, 0.95, method="higher")
            length = int(min(max(usual, 1), _MOST_TOKENS))
        if length <= found.special:
            raise ValueError(
                f"The tokenizer adds {found.special} tokens to each text: "
                f"`length` must be at least {found.special + 1}. "
                f"Received: length={length}"
            )
        self.learned = {
            "tokenizer": found.to_str(),
            "length": length,
            "given": given,
        }

    def texts(self, frame: Any) -> list[str]:
        """Returns the text of each row; an empty cell is `""`.

        Args:
            frame: DataFrame.
        """
        columns = [cells.words_of(frame[name]) for name in self.columns]
        if len(columns) == 1:
            return list(columns[0])
        return [
            " ".join(part for part in parts if part)
            for parts in zip(*columns, strict=True)
        ]

    def values(
        self, frame: Any, present: np.ndarray, root: str | None = None
    ) -> np.ndarray:
        """Returns token ids, int32 `(rows, length)`, padded."""
        found, length = self._tokens(), self.known()["length"]
        texts = self.texts(frame)
        out = np.full((len(texts), length), found.mark, np.int32)
        rows = np.flatnonzero(present)
        # A part at a time: what the library returns takes far more memory.
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            out[part] = found.encode([texts[i] for i in part])
        return out

    def _tokens(self) -> tokens.Pieces | tokens.HubPieces:
        known = self.known()
        return tokens.opened(known["tokenizer"], known["length"])

    def reader(self, modality: str) -> Reader:
        """Returns the reader of token ids, which adds the mask."""
        found = self._tokens()
        return Reader(
            functools.partial(value_of, modality),
            "int32",
            (self.known()["length"],),
            batched=functools.partial(with_mask, found.mark, found.pad),
        )

    @property
    def shape(self) -> dict[str, tuple[int]]:
        """Shapes of ids and mask."""
        length = self.known()["length"]
        return {"token_ids": (length,), "padding_mask": (length,)}

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids, as an embedding needs it."""
        return self._tokens().size

    def describe(self) -> str:
        """Returns the length and the size of the vocabulary."""
        return (
            f"{self.known()['length']} tokens of {self.vocabulary_size:,} "
            f"({', '.join(self.columns)})"
        )

    def can_learn(self, learned: dict[str, Any]) -> bool:
        """Returns whether a dict has the form of what `adapt` learns."""
        return (
            isinstance(learned.get("tokenizer"), str)
            and type(learned.get("length")) is int
            and learned["length"] > 0
        )

    def get_config(self) -> dict[str, Any]:
        """Returns arguments, and what was learned, as JSON has them."""
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "length": self.length,
            # Its content is a part of what was learned; its path is of one
            # machine.
            "tokenizer": self.tokenizer if self.learned is None else None,
        }
