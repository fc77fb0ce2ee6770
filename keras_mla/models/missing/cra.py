from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mla.models.missing.autoencoded import AutoencodedModel
from keras_mla.models.missing.cascade import CascadedAutoencoder


@keras.saving.register_keras_serializable(package="keras_mla")
class CRA(AutoencodedModel):
    r"""Joint training with a cascaded residual autoencoder.

    K autoencoders in a row reconstruct absent features. Each works on the
    features plus what all autoencoders before it have returned:

    $$o_k = A_k\Big(h + \sum_{j<k} o_j\Big), \qquad
      c = T\Big(h + \sum_{k=1}^{K} o_k\Big), \qquad
      \hat f_m = D_m(c), \qquad z = g(C(c)),$$
    $$L = \mathrm{CE}(z, y) + w R,$$

    with $h = [\tilde f_1; \dots; \tilde f_M]$, $\tilde f_m = 0$ for an absent
    modality, a transition T, a decoder $D_m$ of each modality, hidden layers C
    and the head g. R is the squared error of $\hat f_m$, averaged over its
    features and then over the hidden entries; the true features get no
    gradient.

    The public code sums the error over a batch of 256 and takes $w = 0.8$.
    With n hidden entries in a batch, this is $w = 0.8\,n$ here: 205 for one
    hidden entry per sample. It reconstructs fixed inputs, not learned
    features, which is why the default is smaller.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        widths: Sequence of int. Widths of an autoencoder, up to its
            bottleneck. Defaults to `(256, 128, 64)`.
        blocks: int. The number K of autoencoders. Defaults to `5`.
        decoder: Sequence of int. Widths of the hidden layers of each
            modality's decoder. Defaults to `(128, 128)`.
        classifier: Sequence of int. Widths of the hidden layers before the
            head. Defaults to `(128, 128)`.
        targets: `"present"`: in training, further present modalities are
            hidden at random, and reconstructed; or `"hidden"`: what `presence`
            marks as absent is reconstructed, and its values in `x` must be
            the true ones. Defaults to `"present"`.
        hide_rate: float in (0, 1). With `targets="present"`, the probability
            that a present value is hidden in training. Defaults to `0.5`.
        train_complete: bool. With `targets="present"`, whether some samples
            are trained with nothing hidden. Defaults to `True`.
        reconstruction_weight: float >= 0. The weight w. Defaults to `1.0`.
        **kwargs: `impute`, as for `keras_mla.core.JointModel`; `task`,
            `allow_nan`, `table` and `modality_dropout`, as for
            `MultimodalModel`; `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Logits, float32 of shape `(batch, classes)`.

    Raises:
        TypeError: If an encoder is not a Keras layer.
        ValueError: If there are fewer than two modalities, an argument is out
            of its range, `targets="hidden"` meets NaN, or encoders, head or
            inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.CRA(encoders, 3)
    >>> x = {"image": np.ones((2, 4)), "text": None}
    >>> model.imputed(x)["text"].shape
    (2, 8)

    Reference:
        Tran et al., "Missing Modalities Imputation via Cascaded Residual
        Autoencoder", CVPR 2017, section 3.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        widths: Sequence[int] = (256, 128, 64),
        blocks: int = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        self.autoencoder = CascadedAutoencoder(
            widths, blocks, "cumulative", name="autoencoder"
        )

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "widths": list(self.autoencoder.widths),
            "blocks": self.autoencoder.blocks,
        }
