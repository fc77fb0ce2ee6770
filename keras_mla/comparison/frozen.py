"""Frozen encoders from presets, and their features, kept on disk."""

import contextlib
import copy
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_mla.comparison.encoders import KINDS
from keras_mla.comparison.features import BATCH_SIZE, Features, digest
from keras_mla.comparison.names import hint
from keras_mla.core.arrays import full_presence
from keras_mla.core.batch import RESERVED
from keras_mla.datasets.extras import need
from keras_mla.datasets.readers.image import ImageSettings, hub_settings
from keras_mla.datasets.table import Image, Table, Text, Video, cells, tokens
from keras_mla.datasets.table.field import Field, as_columns
from keras_mla.datasets.table.guess import guess_field
from keras_mla.encoders.cache import cache_features
from keras_mla.encoders.hub_encoders import (
    LONGEST,
    AsInPrediction,
    TextPreset,
    hub_image_encoder,
    hub_text_encoder,
)

# Features that are looked at together.
_CHUNK = 4096


@dataclasses.dataclass
class Frozen:
    """A frozen encoder.

    Attributes:
        encoder: `keras.Model` of a modality's inputs to features.
        cached: bool. Whether the data hold features in place of the inputs.
    """

    encoder: keras.Model
    cached: bool = True


@dataclasses.dataclass(frozen=True)
class Presets:
    """Which modalities' encoders are presets of Keras Hub.

    Attributes:
        names: dict of modality to a preset's name or folder.
        encoded: tuple of modalities that any encoder is given for.
        folder: Where features are kept.
        verbose: int. `1` shows how far features are.
    """

    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: pathlib.Path = pathlib.Path()
    verbose: int = 1
    encoded: tuple[str, ...] = ()

    @classmethod
    def given(
        cls,
        encoders: Mapping[str, Any] | None,
        folder: pathlib.Path,
        verbose: int,
    ) -> "Presets":
        """Finds the presets among encoders.

        Raises:
            ValueError: If a name is neither a kind nor a preset.
            ImportError: If there is a preset, and keras-hub is not installed.
        """
        names = {
            name: os.path.expanduser(encoder)
            for name, encoder in (encoders or {}).items()
            if isinstance(encoder, str) and encoder not in KINDS
        }
        for name, preset in names.items():
            _check_known(name, preset)
        return cls(names, folder, verbose, tuple(encoders or ()))

    def check(self, modalities: Sequence[str]) -> None:
        """Raises if an encoder is for no modality, before any is encoded.

        Raises:
            ValueError: The message suggests the nearest modality.
        """
        for name in self.encoded:
            if name not in modalities:
                raise ValueError(
                    f"`encoders` must name modalities: {list(modalities)}."
                    f"{hint(str(name), modalities)} Received: {name!r}"
                )

    def of_columns(
        self, given: Mapping[str, Any], kinds: dict[str, str], frame: Any
    ) -> tuple[dict[str, Any], dict[str, Frozen]]:
        """Returns what a table should read, and the encoders.

        Args:
            given: dict of modality to columns, or a field, as `Table` takes
                it.
            kinds: dict of column to kind. Loses columns that need none any
                more.
            frame: All rows.
        """
        self.check(list(given))
        fields, frozen = dict(given), {}
        for name in given:
            if name not in self.names:
                continue
            field = given[name]
            if not isinstance(field, Field):
                columns = as_columns(field)
                cells.check_columns(frame, columns, f"the modality {name!r}")
                field = guess_field(frame, name, columns, kinds)
            if not field.present(frame).any():
                raise ValueError(
                    f"The modality {name!r} is empty in all rows: columns "
                    f"{list(field.columns)}."
                )
            preset = self.names[name]
            with _told(name, preset):
                fields[name], encoder = _for_preset(preset, field, frame)
            frozen[name] = Frozen(encoder)
            for column in field.columns:
                kinds.pop(column, None)
        return fields, frozen

    def of_table(
        self, table: Table, frame: Any, frozen: Mapping[str, Frozen]
    ) -> Table:
        """Returns a table that gives features where encoders are frozen."""
        table = copy.copy(table)
        table.fields = {
            name: Features(
                field,
                frame,
                frozen[name].encoder,
                table,
                functools.partial(self._keep, name),
            )
            if name in frozen
            else field
            for name, field in table.fields.items()
        }
        return table

    def of_inputs(
        self, x: Mapping[str, Any], cached: bool
    ) -> dict[str, Frozen]:
        """Returns the encoders of inputs like these.

        Args:
            x: dict of modality to arrays, or to a batch of them.
            cached: bool. As in `Frozen`: encoders of batches stay in models.
        """
        frozen = {}
        for name, preset in self.names.items():
            with _told(name, preset):
                frozen[name] = Frozen(_of_arrays(preset, x[name]), cached)
        return frozen

    def features_of(
        self, x: Mapping[str, Any], frozen: Mapping[str, Frozen]
    ) -> dict[str, Any]:
        """Returns inputs with features in place of what encoders read."""
        kept = dict(x)
        names = tuple(name for name in x if name not in RESERVED)
        for name, one in frozen.items():
            present = full_presence(names, kept)[:, names.index(name)]
            kept[name] = self._kept(name, one.encoder, x[name], present)
        return kept

    def _kept(
        self, name: str, encoder: keras.Model, values: Any, present: np.ndarray
    ) -> np.ndarray:
        """Returns the features of arrays; zeros where a sample has none."""
        width = encoder.output_shape[-1]
        out: np.ndarray = np.zeros((len(present), width), "float32")
        if present.any():
            given = values
            if not present.all():
                given = keras.tree.map_structure(lambda a: a[present], values)
            leaves = keras.tree.flatten(given)
            parts = [np.ascontiguousarray(a).data for a in leaves]
            out[present] = self._keep(name, encoder, given, digest(*parts))
        return out

    def _keep(
        self, name: str, encoder: keras.Model, data: Any, content: str
    ) -> np.ndarray:
        """Computes a modality's features, unless they are there."""
        # Modalities may be one column, encoded by different presets.
        folder = self.folder / digest(self.names[name], content)
        if self.verbose and not (folder / "features.npy").exists():
            print(f"Features of {name}, from {self.names[name]}")
        found = cache_features(
            encoder,
            data,
            folder,
            BATCH_SIZE,
            overwrite=True,
            verbose=self.verbose,
        )
        for start in range(0, len(found), _CHUNK):
            if not np.isfinite(found[start : start + _CHUNK]).all():
                raise ValueError(
                    f"The encoder {self.names[name]!r} of modality {name!r} "
                    "gives features that are not finite: NaN or infinity is "
                    "in the inputs or in the preset's weights, or its dtype "
                    f"has too small a range. Received: {encoder.dtype_policy}"
                )
        return found


def whole(frozen: Frozen, head: keras.Model) -> keras.Model:
    """Returns an encoder of inputs, from one of features."""
    inputs = keras.tree.map_structure(
        lambda given: keras.Input(
            given.shape[1:], dtype=given.dtype, name=given.name
        ),
        frozen.encoder.input,
    )
    # The encoder may be older than a cleared session, which gives its name
    # anew.
    head.name = "head"
    return keras.Model(inputs, head(AsInPrediction(frozen.encoder)(inputs)))


@contextlib.contextmanager
def _told(name: str, preset: str) -> Iterator[None]:
    """Adds to an error which encoder it is of."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"The encoder {preset!r} of modality {name!r} does not work: "
            f"{error}"
        ) from error


def _check_known(name: str, preset: str) -> None:
    # `hf://` and `kaggle://` name presets of others.
    if os.path.isdir(preset) or "://" in preset:
        return
    try:
        hub = need("keras_hub", f"load the encoder {preset!r}")
    except ImportError as error:
        raise ImportError(f"{error}{hint(preset, KINDS)}") from error
    known = hub.models.Backbone.presets
    if preset not in known:
        raise ValueError(
            f"An encoder must be one of {list(KINDS)}, a preset of Keras Hub, "
            f"or the folder of one.{hint(preset, [*KINDS, *known])} "
            f"Received: {preset!r} for modality {name!r}"
        )


def _unfit(received: str) -> ValueError:
    return ValueError(
        "Presets encode pictures, videos and texts (as arrays, pictures with "
        "three colours or a dict of token_ids and padding_mask). "
        f"Received: {received}"
    )


def _of_several(
    encoder: keras.Model, shape: tuple, dtype: str = "float32"
) -> keras.Model:
    """Returns an encoder of several pictures: the mean of their features."""
    if len(shape) == 3:
        return encoder
    pictures = keras.Input(shape, dtype=dtype)
    each = layers.TimeDistributed(encoder)(pictures)
    return keras.Model(pictures, layers.GlobalAveragePooling1D()(each))


# === Tables ===


def _for_preset(
    preset: str, field: Field, frame: Any
) -> tuple[Field, keras.Model]:
    """Returns a field that reads as a preset expects, and the encoder."""
    if isinstance(field, Text):
        # No text is cut that the preset could read as a whole.
        known = tokens.read(preset)
        texts = [text for text in field.texts(frame) if text]
        loaded = TextPreset(preset)
        most = min(loaded.longest, LONGEST)
        length = field.length or max(known.lengths(texts))
        length = min(max(length, known.special + 1), most)
        encoder = loaded.encoder(length)
        encoder.trainable = False
        return Text(field.columns, length=length, tokenizer=preset), encoder
    if not isinstance(field, Image | Video):
        raise _unfit(f"a column of the kind {field.kind!r}")
    settings = hub_settings(preset)
    read = (
        Image(field.columns, settings)
        if isinstance(field, Image)
        else Video(field.columns, settings, field.frames)
    )
    encoder = hub_image_encoder(preset, trainable=False)
    return read, _of_several(encoder, read.shape)


# === Arrays ===


def _of_arrays(preset: str, values: Any) -> keras.Model:
    """Returns an encoder of arrays like these.

    Args:
        preset: str. A preset.
        values: Pixels from 0 to 255, `(samples, height, width, 3)` or
            `(samples, pictures, height, width, 3)`; or a dict of `token_ids`
            and `padding_mask`, `(samples, length)`.
    """
    if isinstance(values, Mapping):
        if set(values) != {"token_ids", "padding_mask"}:
            raise _unfit(f"a dict of {sorted(values)}")
        length = values["token_ids"].shape[1]
        return hub_text_encoder(preset, length, trainable=False)
    if len(values.shape) not in (4, 5) or values.shape[-1] != 3:
        raise _unfit(f"arrays of shape {tuple(values.shape)}")
    values = keras.ops.convert_to_numpy(values)
    if values.dtype != np.uint8:
        low, high = float(values.min()), float(values.max())
        if low < 0 or 0 < high <= 1:
            raise ValueError(
                "It takes pixels from 0 to 255. Received: values from "
                f"{low:g} to {high:g}"
            )
    encoder = hub_image_encoder(preset, trainable=False)
    dtype = str(values.dtype)
    pixels = keras.Input(values.shape[-3:], dtype=dtype)
    scaled = _fitted(pixels, hub_settings(preset))
    encoder = keras.Model(pixels, encoder(scaled))
    return _of_several(encoder, values.shape[1:], dtype)


def _fitted(pixels: Any, settings: ImageSettings) -> Any:
    """Resizes pixels, and scales them as a preset expects them."""
    x = pixels
    if tuple(x.shape[1:3]) != (settings.size, settings.size):
        x = layers.Resizing(
            settings.size,
            settings.size,
            settings.interpolation,
            crop_to_aspect_ratio=settings.crop,
        )(x)
    return layers.Rescaling(
        scale=[1 / (255 * std) for std in settings.std],
        offset=[
            -mean / std
            for mean, std in zip(settings.mean, settings.std, strict=True)
        ],
    )(x)
