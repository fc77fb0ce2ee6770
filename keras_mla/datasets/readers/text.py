"""Texts to token ids: BERT's word pieces and CLIP's byte pairs."""

import collections
import dataclasses
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from keras_mla.datasets import extras
from keras_mla.datasets.readers.arrays import is_tensor

__all__ = [
    "bert",
    "clip",
    "word_pieces",
]

Tokenizer = Callable[[Any], dict[str, Any]]
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def word_pieces(texts: Iterable[str], size: int = 8000) -> list[str]:
    """Makes a vocabulary for `bert` from texts, for training from scratch.

    The vocabulary holds BERT's special tokens, every character of the texts
    and the most frequent words, each as the start and as the continuation of
    a word: `"#rainyday"` becomes `"#", "rainy", "##day"`. Unknown words are
    spelled out. Unlike in BERT's own vocabulary, a part of a word is learned
    only if it is a word itself. Take the texts of the training split alone.

    Args:
        texts: The texts. Case and accents are ignored, as in `bert`.
        size: int. The most pieces to return. All characters are returned
            even if they are more. Defaults to `8000`.

    Returns:
        list of str, to be written to a file, one piece a line.

    Example:
    >>> from keras_mla.datasets import text
    >>> text.word_pieces(["Oh, oh"], 100)[5:]
    ['##,', '##h', '##o', ',', 'h', 'o', 'oh', '##oh']
    """
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        plain = unicodedata.normalize("NFD", text.lower())
        plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
        # BERT takes every sign of punctuation for a word.
        counts.update(re.findall(r"[^\W_]+|[^\w\s]|_", plain))
    letters = {letter for word in counts for letter in word}
    pieces = [*_SPECIAL, *sorted(letters | {f"##{c}" for c in letters})]
    words = [word for word, _ in counts.most_common() if len(word) > 1]
    parts = [part for word in words for part in (word, f"##{word}")]
    return pieces + parts[: max(0, size - len(pieces))]


def bert(
    source: str | os.PathLike,
    length: int = 256,
    special_tokens: bool = False,
    lowercase: bool = True,
) -> Tokenizer:
    """Returns a tokenizer into BERT's word pieces.

    Args:
        source: str or path. A vocabulary file (one piece a line), a folder
            that holds a `vocab.txt`, or a keras-hub preset, by name or local
            folder.
        length: int. Every text is cut or padded to this length. Defaults to
            `256`.
        special_tokens: bool. Whether to put `[CLS]` before and `[SEP]` after
            each text. Defaults to `False`, as M3AE has it.
        lowercase: bool. Whether to ignore case and accents, as BERT's uncased
            vocabularies do. A preset knows by itself and ignores the
            argument. Defaults to `True`.

    Returns:
        A function that maps strings `(batch,)`, as a list, an array or (in a
        `tf.data` pipeline) a tensor, to `{"token_ids": int32,
        "padding_mask": bool}`, each `(batch, length)`. The mask is `True` on
        tokens and `False` on padding.

    Raises:
        ValueError: If there is no vocabulary, or the vocabulary lacks BERT's
            `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` or `[MASK]`, or `length` leaves
            no room for a token.
        ImportError: If keras-hub is not installed.

    Example:
    >>> from keras_mla.datasets import text
    >>> pieces = text.word_pieces(["a pinch of salt"])
    >>> np.savetxt("vocab.txt", pieces, fmt="%s")
    >>> tokens = text.bert("vocab.txt", length=6)(["a pinch of salt"])
    >>> tokens["padding_mask"].astype(int)
    array([[1, 1, 1, 1, 0, 0]])
    """
    keras_hub = extras.need("keras_hub", "tokenize texts")
    path = _file(source, "vocab.txt")
    if path is None:
        tokenizer = keras_hub.tokenizers.BertTokenizer.from_preset(str(source))
    else:
        with open(path, encoding="utf-8") as file:
            words = [line.rstrip("\r\n") for line in file]
        missing = set(_SPECIAL) - set(words)
        if missing:
            raise ValueError(
                f"The vocabulary {path!r} lacks {', '.join(sorted(missing))}."
            )
        tokenizer = keras_hub.tokenizers.BertTokenizer(
            words, lowercase=lowercase, strip_accents=lowercase
        )
    ends = (
        {
            "start_value": tokenizer.cls_token_id,
            "end_value": tokenizer.sep_token_id,
        }
        if special_tokens
        else {}
    )
    return _packed(tokenizer, length, tokenizer.pad_token_id, ends)


def clip(source: str | os.PathLike, length: int = 77) -> Tokenizer:
    """Returns a tokenizer into CLIP's byte pairs, start and end included.

    Args:
        source: str or path. A folder that holds `vocab.json` and
            `merges.txt`, or a keras-hub preset, by name or local folder.
        length: int. Every text is cut or padded to this length. Defaults to
            `77`.

    Returns:
        A function as `bert` returns it. The function puts texts in lower
        case. A text that is cut keeps the end token.

    Raises:
        ValueError: If the folder holds `vocab.json` and no `merges.txt`, or
            `length` leaves no room for a token.
        ImportError: If keras-hub is not installed.
    """
    keras_hub = extras.need("keras_hub", "tokenize texts")
    vocabulary = _file(source, "vocab.json")
    if vocabulary is None:
        tokenizer = keras_hub.tokenizers.CLIPTokenizer.from_preset(str(source))
    else:
        merges = os.path.join(os.path.dirname(vocabulary), "merges.txt")
        if not os.path.isfile(merges):
            raise ValueError(f"There is no {merges!r} beside the vocabulary.")
        with open(vocabulary, encoding="utf-8") as file:
            pieces = json.load(file)
        with open(merges, encoding="utf-8") as file:
            pairs = [line.strip() for line in file]
        pairs = [p for p in pairs if p and not p.startswith("#version")]
        tokenizer = keras_hub.tokenizers.CLIPTokenizer(None, None)
        # keras-hub 0.32 forgets these where tensorflow-text is missing.
        tokenizer.vocabulary, tokenizer.merges = pieces, pairs
        tokenizer.set_vocabulary_and_merges(pieces, pairs)
    ends = {
        "start_value": tokenizer.start_token_id,
        "end_value": tokenizer.end_token_id,
    }
    pad = tokenizer.pad_token_id
    return _packed(tokenizer, length, pad, ends, lower=True)


def _file(source: str | os.PathLike, name: str) -> str | None:
    """Returns the vocabulary at `source`, or `None` if that is a preset."""
    path = os.path.expanduser(os.fspath(source))
    if os.path.isdir(path):
        # Beside the customary name the one inside a keras-hub preset.
        kind = os.path.splitext(name)[1]
        for inside in (name, f"assets/tokenizer/vocabulary{kind}"):
            if os.path.isfile(os.path.join(path, inside)):
                return os.path.join(path, inside)
        return None
    if os.path.isfile(path):
        return path
    if os.sep in path and "://" not in path:
        raise ValueError(
            f"There is no vocabulary file and no preset folder at {path!r}."
        )
    return None


def _packed(
    tokenizer: Any, length: int, pad: int, ends: dict, lower: bool = False
) -> Tokenizer:
    if length < 1 + len(ends):
        raise ValueError(
            f"`length` must be at least {1 + len(ends)}. "
            f"Received: length={length}"
        )

    return _Packed(tokenizer, length, pad, ends, lower)


@dataclasses.dataclass(frozen=True)
class _Packed:
    """A tokenizer that cuts or pads each text to one length."""

    tokenizer: Any
    length: int
    pad: int
    ends: dict
    lower: bool

    def __call__(self, texts: Any) -> dict[str, Any]:
        if is_tensor(texts) and not hasattr(texts, "numpy"):
            # keras-hub's own graph needs tensorflow-text; this does not.
            import tensorflow as tf

            ids, mask = tf.numpy_function(
                self._pack, [texts], [tf.int32, tf.bool], stateful=False
            )
            ids.set_shape((texts.shape[0], self.length))
            mask.set_shape((texts.shape[0], self.length))
        else:
            ids, mask = self._pack(np.asarray(texts).reshape(-1))
        return {"token_ids": ids, "padding_mask": mask}

    def _pack(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        words = [
            text.decode("utf-8", errors="replace")
            if isinstance(text, bytes)
            else str(text)
            for text in texts
        ]
        if self.lower:
            words = [word.lower() for word in words]
        ids: np.ndarray = np.full((len(words), self.length), self.pad, np.int32)
        mask: np.ndarray = np.zeros((len(words), self.length), bool)
        ends = self.ends
        for i, row in enumerate(self.tokenizer(words) if words else ()):
            row = list(row)[: self.length - len(ends)]
            if ends:
                row = [ends["start_value"], *row, ends["end_value"]]
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        return ids, mask


def with_mask(mark: int, pad: int, ids: Any) -> dict[str, Any]:
    """Returns token ids with their mask, as encoders of texts take them.

    Args:
        mark: int. What stands in `ids` for padding.
        pad: int. The token id that stands for padding in the result.
        ids: int32 array or TensorFlow tensor `(batch, length)`.
    """
    known = ids != mark
    if mark != pad and is_tensor(ids):
        import tensorflow as tf

        ids = tf.where(known, ids, pad)
    elif mark != pad:
        ids = np.where(known, ids, np.int32(pad))
    return {"token_ids": ids, "padding_mask": known}
