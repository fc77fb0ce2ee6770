"""From strings to the input of CLIP's text tower."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mla.encoders.hub import import_hub, load_preset


class CLIPTokens:
    """Turns strings into the input of `CLIPTextTower`.

    Args:
        tokenizer: `keras_hub.models.CLIPTokenizer`.
        sequence_length: int. Tokens of a text, start and end included; longer
            texts are cut and still end in the end token. Defaults to `77`.

    Call arguments:
        texts: str or sequence of str.

    Returns:
        A dict of NumPy arrays: `"token_ids"`, int32 `(texts, length)`, and
        `"padding_mask"`, bool, `True` at tokens.

    Raises:
        ValueError: If `sequence_length` leaves no room between start and end.
        TypeError: If a text is no string.
    """

    def __init__(self, tokenizer: Any, sequence_length: int = 77) -> None:
        if sequence_length < 3:
            raise ValueError(
                "A text needs a start, an end and something between them. "
                f"Received: sequence_length={sequence_length}"
            )
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length

    def __call__(self, texts: str | Sequence[str]) -> dict[str, np.ndarray]:
        """Tokenizes and packs."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(
                    "CLIP's tokenizer reads strings. "
                    f"Received: {text!r} of type {type(text).__name__}"
                )
        shape = (len(texts), self.sequence_length)
        ids: Any = np.full(shape, self.tokenizer.pad_token_id, "int32")
        mask: Any = np.zeros(shape, "bool")
        for row, text in enumerate(texts):
            tokens = np.asarray(self.tokenizer(text.lower())).tolist()
            tokens = [
                self.tokenizer.start_token_id,
                *tokens[: self.sequence_length - 2],
                self.tokenizer.end_token_id,
            ]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return {"token_ids": ids, "padding_mask": mask}


def load_tokenizer(preset: str) -> Any:
    """Loads a CLIP tokenizer that needs no TensorFlow.

    Keras Hub 0.32 stores the vocabulary of a tokenizer only if tensorflow-text
    can be imported, although CLIP's tokenizer works without it. A subclass
    replaces it while the preset is loaded, and stores the vocabulary first.

    Args:
        preset: str. A preset's name or a local folder.

    Returns:
        A `keras_hub.models.CLIPTokenizer`.

    Raises:
        ValueError: If the preset cannot be loaded.
        ImportError: If Keras Hub is not installed.
    """
    base: Any = import_hub().models.CLIPTokenizer

    class CLIPTokenizer(base):
        def _set_vocabulary_and_merges_tokenizers(
            self, vocabulary: dict[str, int], merges: list[str]
        ) -> None:
            self.vocabulary, self.merges = vocabulary, merges
            super()._set_vocabulary_and_merges_tokenizers(vocabulary, merges)

    name = keras.saving.get_registered_name(base)
    with keras.saving.custom_object_scope({name: CLIPTokenizer}):
        return load_preset(base, preset)
