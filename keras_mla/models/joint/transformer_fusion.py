from collections.abc import Mapping
from typing import Any

import keras
from keras import layers, ops

from keras_mla.core.joint import JointModel
from keras_mla.layers.transformer import Transformer


@keras.saving.register_keras_serializable(package="keras_mla")
class TransformerFusion(JointModel):
    r"""Joint training of a Transformer over one token for each modality.

    A token is a modality's features, mapped to `width`; the map's bias is the
    vector of the modality. A further token, CLS, has no input. The head takes
    what becomes of CLS:

    $$t_m = W_m f_m + b_m, \qquad
      z = g(\mathrm{Transformer}([c; t_1; \dots; t_M])_1).$$

    The tokens of absent modalities are masked: nobody attends to them. The
    unimodal score of a modality is the prediction with all others absent.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        width: int. Width of tokens. Defaults to `128`.
        depth: int. Number of blocks. Defaults to `2`.
        num_heads: int. Attention heads; must divide `width`. Defaults to `4`.
        dropout: float. Rate in the blocks, in training. Defaults to `0.1`.
        **kwargs: `task`, `allow_nan`, `table` and `modality_dropout`, as for
            `MultimodalModel`; `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Logits, float32 of shape `(batch, classes)`.

    Raises:
        TypeError: If an encoder is not a Keras layer.
        ValueError: If `num_heads` does not divide `width`, or encoders, head
            or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.TransformerFusion(encoders, 3, width=16)
    >>> x = {"image": np.ones((2, 4)), "text": None}
    >>> model.predict(x, verbose=0).shape
    (2, 3)

    Reference:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017; Devlin et
        al., "BERT", NAACL 2019 (the token CLS).
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        width: int = 128,
        depth: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        if width % num_heads or depth < 1:
            raise ValueError(
                "There must be at least one block, and `num_heads` must divide "
                f"`width`. Received: width={width}, depth={depth}, "
                f"num_heads={num_heads}"
            )
        # === Config ===
        self.width = width
        self.depth = depth
        self.num_heads = num_heads
        self.dropout = float(dropout)
        # === Layers ===
        self.tokens = _Tokens(width, name="tokens")
        self.transformer = Transformer(
            depth, num_heads, dropout=dropout, name="transformer"
        )

    def build_head(self, widths: dict[str, int]) -> None:
        """Builds the head for the token CLS."""
        if not self.head.built:
            self.head.build((None, self.width))

    def joined(
        self,
        features: dict[str, Any],
        presence: Any | None,
        training: bool | None,
    ) -> tuple[Any, Any]:
        """Returns the logits of the token CLS."""
        features = {name: features[name] for name in self.modalities}
        mask = None
        if presence is not None:
            # Absent features are placeholders, and may be anything.
            features, _ = self.complete(features, presence, training)
            mask = ops.pad(presence, ((0, 0), (1, 0)), constant_values=True)
        tokens = self.tokens(features)
        tokens = self.transformer(tokens, padding_mask=mask, training=training)
        return self.head(tokens[:, 0], training=training), ()

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Returns the prediction with all other modalities absent."""
        features, presence = self.alone(name, feature)
        return self.joined(features, presence, False)

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "width": self.width,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package="keras_mla")
class _Tokens(layers.Layer):
    """Turns features into tokens, after a token without input.

    Args:
        width: int. Width of tokens.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width

    def build(self, features_shape: dict[str, tuple]) -> None:
        """Makes a map for each modality, and the vectors."""
        self.maps = {
            name: layers.Dense(self.width, dtype=self.dtype_policy, name=name)
            for name in features_shape
        }
        for name, shape in features_shape.items():
            self.maps[name].build(shape)
        # The bias of a modality's map is its vector.
        self.cls = self.add_weight(
            shape=(1, self.width), initializer="random_normal", name="cls"
        )

    def call(self, features: dict[str, Any]) -> Any:
        """Returns tokens `(batch, 1 + modalities, width)`."""
        tokens = [
            self.maps[name](feature) for name, feature in features.items()
        ]
        first = ops.zeros_like(tokens[0]) + ops.cast(self.cls, tokens[0].dtype)
        return ops.stack([first, *tokens], axis=1)

    def compute_output_shape(self, features_shape: dict[str, tuple]) -> tuple:
        """Returns the shape of the tokens."""
        batch = next(iter(features_shape.values()))[0]
        return (batch, 1 + len(features_shape), self.width)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "width": self.width}
