"""Columns of text, as tokens."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mla.datasets.extras import need
from keras_mla.datasets.pipeline import Reader
from keras_mla.datasets.table import cells
from keras_mla.datasets.table.field import Field
from keras_mla.datasets.table.values import value_of

_PAD = "[PAD]"
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
            or a `vocab.txt` of BERT's word pieces in lower case, in place of
            what would be learned. Its content becomes a part of the table. If
            it has no token for padding, `[PAD]` is added.

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
        texts = [text for text in self._texts(frame) if text]
        if not texts:
            raise ValueError(
                f"The columns {list(self.columns)} are empty in all training "
                "rows."
            )
        given = bool(self.learned and self.learned.get("given"))
        if self.learned is not None and given:
            # The file that it came from may be of another machine.
            tokenizer = _from_json(self.learned["tokenizer"])
        elif self.tokenizer is not None:
            tokenizer, given = _load(self.tokenizer), True
        else:
            tokenizer = _train(_some(texts, _MOST_TEXTS), self.vocabulary)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if _pad_of(tokenizer) is None:
            # No word of its own may be taken for padding.
            tokenizer.add_special_tokens([_PAD])
        length = self.length
        if length is None:
            some = _some(texts, _MOST_LENGTHS)
            lengths = [len(e) for e in tokenizer.encode_batch_fast(some)]
            usual: float = np.quantile(lengths, 0.95, method="higher")
            length = int(min(max(usual, 1), _MOST_TOKENS))
        special = tokenizer.num_special_tokens_to_add(False)
        if length <= special:
            raise ValueError(
                f"The tokenizer adds {special} tokens to each text: `length` "
                f"must be at least {special + 1}. Received: length={length}"
            )
        self.learned = {
            "tokenizer": tokenizer.to_str(),
            "length": length,
            "given": given,
        }

    def _texts(self, frame: Any) -> list[str]:
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
        known = self.known()
        length = known["length"]
        tokenizer = _encoder(known["tokenizer"], length)
        texts = self._texts(frame)
        pad = _pad_of(tokenizer) or 0
        out = np.full((len(texts), length), pad, np.int32)
        rows = np.flatnonzero(present)
        # A part at a time: what the library returns takes far more memory.
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            encoded = tokenizer.encode_batch_fast([texts[i] for i in part])
            out[part] = [e.ids for e in encoded]
        return out

    def reader(self, modality: str) -> Reader:
        """Returns the reader of token ids, which adds the mask."""
        known = self.known()
        pad = _pad_of(_encoder(known["tokenizer"], known["length"])) or 0
        return Reader(
            functools.partial(value_of, modality),
            "int32",
            (known["length"],),
            batched=functools.partial(_mask, pad),
        )

    @property
    def shape(self) -> dict[str, tuple[int]]:
        """Shapes of ids and mask."""
        length = self.known()["length"]
        return {"token_ids": (length,), "padding_mask": (length,)}

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids, as an embedding needs it."""
        known = self.known()
        tokenizer = _encoder(known["tokenizer"], known["length"])
        return 1 + max(tokenizer.get_vocab().values())

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


def _mask(pad: int, ids: Any) -> dict[str, Any]:
    return {"token_ids": ids, "padding_mask": ids != pad}


def _some(texts: list[str], most: int) -> list[str]:
    """Returns at most so many texts, evenly spaced."""
    return texts[:: -(-len(texts) // most) or 1]


def _tokenizers() -> Any:
    return need("tokenizers", "read texts of tables")


def _train(texts: list[str], size: int) -> Any:
    """Learns byte pairs. The same texts give the same pairs."""
    lib = _tokenizers()
    tokenizer = lib.Tokenizer(lib.models.BPE())
    tokenizer.normalizer = lib.normalizers.Sequence(
        [lib.normalizers.NFC(), lib.normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = lib.pre_tokenizers.ByteLevel(
        add_prefix_space=True
    )
    tokenizer.decoder = lib.decoders.ByteLevel()
    trainer = lib.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[_PAD],
        initial_alphabet=sorted(lib.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    return tokenizer


def _load(path: str) -> Any:
    """Reads a tokenizer from a file.

    Raises:
        ValueError: If the file is missing or no tokenizer.
    """
    lib = _tokenizers()
    if not os.path.isfile(path):
        raise ValueError(f"There is no tokenizer at {path!r}.")
    if path.endswith(".json"):
        with open(path, encoding="utf-8") as file:
            return _from_json(file.read(), path)
    with open(path, encoding="utf-8") as file:
        pieces = [line.rstrip("\r\n") for line in file]
    if not {_PAD, "[UNK]"} <= set(pieces):
        raise ValueError(
            f"{path!r} is no vocabulary of BERT: it lacks [PAD] or [UNK]."
        )
    tokenizer = lib.Tokenizer(
        lib.models.WordPiece(
            {piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"
        )
    )
    tokenizer.normalizer = lib.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = lib.pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _from_json(text: str, path: str = "") -> Any:
    lib = _tokenizers()
    try:
        return lib.Tokenizer.from_str(text)
    # The library raises bare exceptions.
    except Exception as error:
        where = f" in {path!r}" if path else ""
        raise ValueError(f"There is no tokenizer{where}: {error}") from error


@functools.lru_cache(maxsize=16)
def _encoder(text: str, length: int) -> Any:
    """Returns a tokenizer that cuts and pads. Threads share it as it is."""
    tokenizer = _from_json(text)
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(
        length=length, pad_id=_pad_of(tokenizer) or 0, pad_token=_PAD
    )
    return tokenizer


def _pad_of(tokenizer: Any) -> int | None:
    """Returns the id of padding, or `None` if there is no token for it."""
    for token in (_PAD, "<pad>", "<|endoftext|>", "</s>"):
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    return None
