"""The encoder of TATE: a Transformer over tagged steps of all modalities."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from keras_mla.layers.transformer import Transformer

# Keys of a sequence whose encoder says which of its steps are padding.
KEYS = {"features", "padding_mask"}


def check_sequence(name: str, feature: Any) -> None:
    """Raises unless an encoder's output is a sequence, or a vector.

    A sequence is a tensor `(batch, time, features)`, or a dict of it as
    `"features"` and a bool `"padding_mask"` of shape `(batch, time)`. A vector
    is a tensor `(batch, features)`.

    Args:
        name: Name of the modality.
        feature: Output of its encoder.
    """
    values, mask, received = feature, None, type(feature).__name__
    if isinstance(feature, dict):
        received = f"a dict of {sorted(feature)}"
        values, mask = (feature.get(key) for key in sorted(KEYS))
        if not {"features"} <= set(feature) <= KEYS:
            values = None
    shape, fits = getattr(values, "shape", None), False
    if shape is not None:
        received = f"features of shape {_known(shape)}"
        ranks = (2, 3) if mask is None else (3,)
        fits = len(shape) in ranks and shape[-1] is not None
    if fits and mask is not None:
        fits = len(mask.shape) == 2
        received += f" and a mask of shape {_known(mask.shape)}"
    if not fits:
        raise ValueError(
            f"The encoder of modality {name!r} must return a tensor of shape "
            "(batch, time, features) or (batch, features), or a dict of "
            "'features', (batch, time, features), and 'padding_mask', bool "
            "(batch, time), with `features` known. "
            f"Received: {received}"
        )


def split_sequence(feature: Any) -> tuple[Any, Any | None]:
    """Returns steps `(batch, time, features)`, and their mask or `None`."""
    mask = None
    if isinstance(feature, dict):
        feature, mask = feature["features"], feature.get("padding_mask")
    if len(feature.shape) == 2:
        feature = ops.expand_dims(feature, 1)
    return feature, mask


def _known(shape: Any) -> tuple[int | None, ...]:
    # Hides a tracer's placeholder for an unknown size.
    return tuple(size if isinstance(size, int) else None for size in shape)


def attended(shown: Any) -> Any:
    """Returns which steps may be attended to, bool `(batch, steps)`.

    They are the shown ones. If a sample has none, they are all of its steps,
    which hold zeros: attention to nothing would be NaN.
    """
    nothing = ops.logical_not(ops.any(shown, axis=1, keepdims=True))
    return ops.logical_or(shown, nothing)


@keras.saving.register_keras_serializable(package="keras_mla")
class TagEncoder(layers.Layer):
    r"""Encodes the steps of all modalities together, each with a tag.

    The steps of a modality m are mapped to `width` and go through a
    Transformer $T_m$. Each pair of modalities has a common space; the maps to
    the spaces that m shares stand side by side. The tag t follows on each
    step, and modalities follow each other in time:

    $$u_m = T_m(A_m x_m), \quad c_m = [u_m W_{m1}, \dots, u_m W_{mM}], \quad
      t = [p_1, \dots, p_M, \textstyle\prod_m p_m],$$
    $$I = [[c_1, t]; \dots; [c_M, t]], \quad E = T(I), \quad
      r = \textstyle\sum_s a_s E_s, \quad
      a = \mathrm{softmax}_s(w^\top (U E_s \odot \sigma(V E_s))),$$

    with $W_{mn} = W_{nm}$, $m \neq n$, and the presence $p_m$ of a sample. A
    common space has `width // (M - 1)` features, at least one. Where
    `num_heads` does not divide the width of a step, zeros stand before the
    tag, which is always last.

    Steps of absent modalities and padding hold zeros and a tag. No other step
    attends to them, and they are not pooled.

    Args:
        modalities: Sequence of str. Names of the modalities, in the order of
            presence.
        width: int. Width of a modality's steps.
        num_heads: int. Attention heads; must divide `width`.
        depth: int. Number of blocks of each Transformer. Defaults to `1`.
        dropout: float. Rate in the blocks. Defaults to `0.0`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        features: dict of modality to tensor `(batch, time, features)`.
        masks: dict of modality to bool tensor `(batch, time)`, `True` at steps
            that are not padding. A modality without one has no padding.
        presence: Bool tensor `(batch, modalities)`. Without it, samples have
            the modalities in `names`, and lack all others.
        names: Sequence of str. The modalities to encode, in the order of their
            steps. Defaults to `modalities`.
        training: bool. Whether to apply dropout.

    Returns:
        dict of `"given"`, the tensor I of shape `(batch, steps, total)`;
        `"encoded"`, E; `"shown"`, bool `(batch, steps)`: the steps that are
        neither absent nor padding; `"pooled"`, r of shape `(batch, total)`;
        and `"tag"`, t of shape `(batch, modalities + 1)`.

    Raises:
        ValueError: If `num_heads` does not divide `width`, or there is no
            block.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        num_heads: int,
        depth: int = 1,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_heads < 1 or width < 1 or width % num_heads or depth < 1:
            raise ValueError(
                "There must be at least one block, and `num_heads` must divide "
                f"`width`. Received: width={width}, depth={depth}, "
                f"num_heads={num_heads}"
            )
        self.modalities = tuple(modalities)
        self.width = width
        self.num_heads = num_heads
        self.depth = depth
        self.dropout = float(dropout)
        number = len(self.modalities)
        share = max(width // (number - 1), 1)
        least = share * (number - 1) + number + 1
        # Width of a step with its tag, and of the zeros in it.
        self.total = -(-least // num_heads) * num_heads
        self.zeros = self.total - least
        # === Layers ===
        dtype = self.dtype_policy

        def dense(units: int, name: str) -> layers.Dense:
            return layers.Dense(units, use_bias=False, dtype=dtype, name=name)

        def transformer(name: str) -> Transformer:
            return Transformer(
                depth, num_heads, dropout=self.dropout, dtype=dtype, name=name
            )

        self.maps = {m: dense(width, f"{m}_map") for m in self.modalities}
        self.blocks = {m: transformer(f"{m}_blocks") for m in self.modalities}
        # By positions: names may hold any sign between them.
        self.spaces = {
            f"{first}_{second}": dense(share, f"space_{first}_{second}")
            for first in range(number)
            for second in range(first + 1, number)
        }
        self.encoder = transformer("encoder")
        self.value = dense(self.total, "value")
        self.gate = dense(self.total, "gate")
        self.score = dense(1, "score")

    def build(self, features_shape: dict[str, tuple]) -> None:
        """Builds all layers, for the widths of all modalities."""
        steps = (None, None, self.width)
        for name in self.modalities:
            self.maps[name].build((None, None, features_shape[name][-1]))
            self.blocks[name].build(steps)
        for space in self.spaces.values():
            space.build(steps)
        tagged = (None, None, self.total)
        for layer in (self.encoder, self.value, self.gate, self.score):
            layer.build(tagged)

    def call(
        self,
        features: dict[str, Any],
        masks: dict[str, Any],
        presence: Any | None = None,
        names: Sequence[str] | None = None,
        training: bool | None = None,
    ) -> dict[str, Any]:
        """Encodes the steps of the named modalities."""
        names = tuple(names or self.modalities)
        tag = self._tag(features[names[0]], presence, names)
        parts, seen = [], []
        for name in names:
            steps = features[name]
            shown = ops.ones_like(steps[..., 0], dtype="bool")
            if name in masks:
                shown = ops.cast(masks[name], "bool")
            if presence is not None:
                # In two steps: of a column of stacked columns, TensorFlow's
                # optimizer of graphs forgets a new axis.
                there = presence[:, self.modalities.index(name)][:, None]
                shown = ops.logical_and(shown, there)
            parts.append(self._common(name, steps, shown, training))
            seen.append(shown)
        common, shown = ops.concatenate(parts, 1), ops.concatenate(seen, 1)
        first = ops.zeros_like(common[..., :1])
        given = [common, first + tag[:, None]]
        if self.zeros:
            given.insert(1, ops.repeat(first, self.zeros, axis=-1))
        joint = ops.concatenate(given, axis=-1)
        keys = attended(shown)
        encoded = self.encoder(joint, padding_mask=keys, training=training)
        return {
            "given": joint,
            "encoded": encoded,
            "shown": shown,
            "pooled": self._pool(encoded, keys),
            "tag": tag,
        }

    def _tag(self, steps: Any, presence: Any, names: Sequence[str]) -> Any:
        if presence is None:
            one = ops.ones_like(steps[:, 0, :1], dtype="bool")
            none = ops.zeros_like(one)
            bits = [one if m in names else none for m in self.modalities]
            presence = ops.concatenate(bits, axis=1)
        complete = ops.all(presence, axis=1, keepdims=True)
        tag = ops.concatenate([presence, complete], axis=1)
        return ops.cast(tag, self.compute_dtype)

    def _common(self, name: str, steps: Any, shown: Any, training: Any) -> Any:
        """Returns a modality's steps in the spaces that it shares."""
        # What is hidden may be NaN.
        steps = _where(shown, steps)
        steps = self.blocks[name](
            self.maps[name](steps),
            padding_mask=attended(shown),
            training=training,
        )
        own = self.modalities.index(name)
        common = [
            self.spaces[f"{min(own, other)}_{max(own, other)}"](steps)
            for other in range(len(self.modalities))
            if other != own
        ]
        return _where(shown, ops.concatenate(common, axis=-1))

    def _pool(self, encoded: Any, keys: Any) -> Any:
        if encoded.shape[1] == 1:
            return encoded[:, 0]
        gated = self.value(encoded) * ops.sigmoid(self.gate(encoded))
        scores = ops.cast(self.score(gated)[..., 0], "float32")
        weights = ops.softmax(ops.where(keys, scores, -1e9), axis=-1)
        weights = ops.cast(weights, encoded.dtype)
        return ops.sum(weights[..., None] * encoded, axis=1)

    def compute_output_spec(
        self,
        features: dict[str, Any],
        masks: dict[str, Any],
        presence: Any | None = None,
        names: Sequence[str] | None = None,
        training: bool | None = None,
    ) -> dict[str, keras.KerasTensor]:
        """Returns the shapes and dtypes of the outputs."""
        given = [features[name] for name in names or self.modalities]
        batch, sizes = given[0].shape[0], [one.shape[1] for one in given]
        steps = None if None in sizes else sum(sizes)

        def spec(*shape: int | None, dtype: str = self.compute_dtype) -> Any:
            return keras.KerasTensor((batch, *shape), dtype)

        return {
            "given": spec(steps, self.total),
            "encoded": spec(steps, self.total),
            "shown": spec(steps, dtype="bool"),
            "pooled": spec(self.total),
            "tag": spec(len(self.modalities) + 1),
        }

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "modalities": list(self.modalities),
            "width": self.width,
            "num_heads": self.num_heads,
            "depth": self.depth,
            "dropout": self.dropout,
        }


def _where(shown: Any, steps: Any) -> Any:
    """Sets steps that are not shown to zero."""
    return ops.where(shown[..., None], steps, ops.zeros_like(steps))
