"""Tokenizers of texts in tables: learned, from a file, or of Keras Hub."""

import base64
import functools
import json
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mla.datasets.extras import need

_PAD = "[PAD]"
_HUB = "keras_hub"


class Pieces:
    """A tokenizer of the library `tokenizers`.

    Args:
        tokenizer: `tokenizers.Tokenizer`. Without a token for padding it gets
            one: no word of its own may be taken for padding.
        length: int. Length that `encode` cuts and pads to.

    Attributes:
        mark: int. What `encode` pads with.
        pad: int. The token id that padding has in a model's input.
    """

    def __init__(self, tokenizer: Any, length: int | None = None) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if _pad_of(tokenizer) is None:
            tokenizer.add_special_tokens([_PAD])
        self.pad = self.mark = _pad_of(tokenizer) or 0
        if length is not None:
            tokenizer.enable_truncation(length)
            tokenizer.enable_padding(
                length=length, pad_id=self.pad, pad_token=_PAD
            )
        self._tokenizer = tokenizer

    @property
    def size(self) -> int:
        """Number of token ids, as an embedding needs it."""
        return 1 + max(self._tokenizer.get_vocab().values())

    @property
    def special(self) -> int:
        """Number of tokens that each text gets in addition."""
        return self._tokenizer.num_special_tokens_to_add(False)

    def lengths(self, texts: list[str]) -> list[int]:
        """Returns the number of tokens of each text."""
        return [len(e) for e in self._tokenizer.encode_batch_fast(texts)]

    def encode(self, texts: list[str]) -> Any:
        """Returns token ids `(texts, length)`. Threads may share the object."""
        return [e.ids for e in self._tokenizer.encode_batch_fast(texts)]

    def to_str(self) -> str:
        """Returns all that is needed to make the tokenizer again."""
        return self._tokenizer.to_str()


class HubPieces:
    """A tokenizer of Keras Hub, with its start and end around each text.

    Args:
        tokenizer: `keras_hub.tokenizers.Tokenizer`.
        length: int. Length that `encode` cuts and pads to. A text that is cut
            keeps the end.

    Attributes:
        mark: int. What `encode` pads with, which is no token id: the id of
            padding may be that of a word, as in GPT-2 and Llama.
        pad: int. The token id that padding has in a model's input.
    """

    mark = -1

    def __init__(self, tokenizer: Any, length: int | None = None) -> None:
        self._tokenizer, self._length = tokenizer, length

        def first(*names: str) -> int | None:
            found = (getattr(tokenizer, f"{name}_id", None) for name in names)
            return next((one for one in found if one is not None), None)

        self.pad = first("pad_token") or 0
        start = first("cls_token", "start_token")
        end = first("sep_token", "end_token")
        self._is_clip = type(tokenizer).__name__.startswith("CLIP")
        self._start = [] if start is None else [start]
        self._end = [] if end is None else [end]

    @property
    def size(self) -> int:
        """Number of token ids, as an embedding needs it."""
        return self._tokenizer.vocabulary_size()

    @property
    def special(self) -> int:
        """Number of tokens that each text gets in addition."""
        return len(self._start) + len(self._end)

    def lengths(self, texts: list[str]) -> list[int]:
        """Returns the number of tokens of each text."""
        return [len(ids) + self.special for ids in self._ids(texts)]

    def encode(self, texts: list[str]) -> np.ndarray:
        """Returns token ids `(texts, length)`."""
        assert self._length is not None
        out: np.ndarray = np.full(
            (len(texts), self._length), self.mark, "int32"
        )
        room = self._length - self.special
        for row, ids in zip(out, self._ids(texts), strict=True):
            ids = [*self._start, *ids[:room], *self._end]
            row[: len(ids)] = ids
        return out

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if self._is_clip:
            texts = [text.lower() for text in texts]
        found = self._tokenizer(list(texts))
        if hasattr(found, "to_list"):  # A ragged tensor of TensorFlow.
            return found.to_list()
        return [[int(i) for i in ids] for ids in found]

    def to_str(self) -> str:
        """Returns all that is needed to make the tokenizer again."""
        with tempfile.TemporaryDirectory() as folder:
            self._tokenizer.save_assets(folder)
            files = {
                path.name: base64.b64encode(path.read_bytes()).decode()
                for path in sorted(pathlib.Path(folder).iterdir())
            }
        config = keras.saving.serialize_keras_object(self._tokenizer)
        return json.dumps({_HUB: config, "files": files})


def learn(texts: list[str], size: int) -> Pieces:
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
    return Pieces(tokenizer)


def read(source: str) -> Pieces | HubPieces:
    """Reads a tokenizer from a file, or from a preset of Keras Hub.

    Raises:
        ValueError: If the file is missing or no tokenizer, or there is no
            such preset.
    """
    if not os.path.isfile(source):
        if source.endswith((".json", ".txt")):
            raise ValueError(f"There is no tokenizer at {source!r}.")
        return HubPieces(_from_preset(source))
    lib = _tokenizers()
    if source.endswith(".json"):
        with open(source, encoding="utf-8") as file:
            return Pieces(_from_json(file.read(), source))
    with open(source, encoding="utf-8") as file:
        pieces = [line.rstrip("\r\n") for line in file]
    if not {_PAD, "[UNK]"} <= set(pieces):
        raise ValueError(
            f"{source!r} is no vocabulary of BERT: it lacks [PAD] or [UNK]."
        )
    tokenizer = lib.Tokenizer(
        lib.models.WordPiece(
            {piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"
        )
    )
    tokenizer.normalizer = lib.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = lib.pre_tokenizers.BertPreTokenizer()
    return Pieces(tokenizer)


@functools.lru_cache(maxsize=16)
def opened(text: str, length: int | None = None) -> Pieces | HubPieces:
    """Returns the tokenizer that `to_str` has written.

    Raises:
        ValueError: If the text is none.
    """
    try:
        content = json.loads(text)
        is_hub = isinstance(content, dict) and _HUB in content
    except ValueError:
        is_hub = False
    if not is_hub:
        return Pieces(_from_json(text), length)
    hub = need("keras_hub", "read texts as a preset does")
    tokenizer = keras.saving.deserialize_keras_object(
        content[_HUB], safe_mode=True
    )
    if not isinstance(tokenizer, hub.tokenizers.Tokenizer):
        raise ValueError(
            "There is no tokenizer of Keras Hub in the table. "
            f"Received: {type(tokenizer).__name__}"
        )
    with tempfile.TemporaryDirectory() as folder:
        for name, file in content["files"].items():
            path = pathlib.Path(folder, pathlib.Path(name).name)
            path.write_bytes(base64.b64decode(file))
        tokenizer.load_assets(folder)
    return HubPieces(_with_vocabulary(tokenizer), length)


def _from_preset(preset: str) -> Any:
    hub = need("keras_hub", f"load the preset {preset!r}")
    try:
        tokenizer = hub.tokenizers.Tokenizer.from_preset(preset)
    except Exception as error:
        raise ValueError(
            "`tokenizer` must be a file, or a preset of Keras Hub that has a "
            f"tokenizer. Received: {preset!r}. Keras Hub said: {error}"
        ) from error
    return _with_vocabulary(tokenizer)


def _with_vocabulary(tokenizer: Any) -> Any:
    """Returns a tokenizer that knows its byte pairs.

    Keras Hub 0.32 forgets them where tensorflow-text is missing, and then
    cannot save them.
    """
    inner = getattr(tokenizer, "_tokenizer", None)
    if inner is not None and getattr(tokenizer, "vocabulary", 0) is None:
        pairs = json.loads(inner.to_str())["model"]["merges"]
        tokenizer.vocabulary = inner.get_vocab(with_added_tokens=False)
        tokenizer.merges = [
            pair if isinstance(pair, str) else " ".join(pair) for pair in pairs
        ]
    return tokenizer


def _tokenizers() -> Any:
    return need("tokenizers", "read texts of tables")


def _from_json(text: str, path: str = "") -> Any:
    lib = _tokenizers()
    try:
        return lib.Tokenizer.from_str(text)
    # The library raises bare exceptions.
    except Exception as error:
        where = f" in {path!r}" if path else ""
        raise ValueError(f"There is no tokenizer{where}: {error}") from error


def _pad_of(tokenizer: Any) -> int | None:
    """Returns the id of padding, or `None` if there is no token for it."""
    for token in (_PAD, "<pad>", "<|endoftext|>", "</s>"):
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    return None


def some(texts: Sequence[str], most: int) -> list[str]:
    """Returns at most so many texts, evenly spaced."""
    return list(texts[:: -(-len(texts) // most) or 1])
