from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.core.batch import Batch
from keras_mla.core.losses import MeanLoss
from keras_mla.core.teacher import Teacher
from keras_mla.core.update import Outputs
from keras_mla.models.missing.cascade import CascadedAutoencoder
from keras_mla.models.missing.imagining import ImaginingModel
from keras_mla.models.missing.reconstruction import reconstruction_loss
from keras_mla.models.missing.terms import check_weight


@keras.saving.register_keras_serializable(package="keras_mla")
class MMIN(ImaginingModel):
    r"""Missing modality imagination network.

    A cascade of residual autoencoders imagines the features that a teacher,
    fitted before, computes from what is hidden. A second cascade maps what is
    imagined back. The prediction uses the latents of the first cascade:

    $$\hat h, l = A(h), \qquad \bar h = B(\hat h), \qquad z = g(C(l)),$$
    $$L = \mathrm{CE}(z, y) + w_R R(\hat h, h^T) + w_C R(\bar h,
      \mathrm{sg}(h)),$$

    with $h = [\tilde f_1; \dots; \tilde f_M]$, $\tilde f_m = 0$ for an absent
    modality, the teacher's features $h^T$, hidden layers C and the head g. R
    is the squared error, averaged over a modality's features and then over
    entries: the hidden ones in the first term, and those that the model is
    given in the second one, the cycle. The public code averages over all
    entries, where zeros stand for the present ones in the first term and for
    the hidden ones in the second term.

    Encoders start from the weights of the teacher's encoders if both have
    weights of the same shapes; else they keep their own.

    As published, no sample is trained with all of its modalities: with
    `hide_rate=0.5` and up to three of them, each incomplete pattern is equally
    likely. `train_complete=True` includes the complete pattern. If a sample
    has one modality, nothing is hidden from it.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        teacher: A fitted model of this package, such as a `ConcatFusion`, of
            the same modalities and classes: it says what to reconstruct. It
            is copied and frozen.
        teacher_saved: bool. Whether the teacher is saved with the model.
            Without it, a loaded model predicts, but does not train. Defaults
            to `True`.
        widths: Sequence of int. Widths of an autoencoder, up to its
            bottleneck. Defaults to `(256, 128, 64)`.
        blocks: int. The number of autoencoders of a cascade. Defaults to `5`.
        classifier: Sequence of int. Widths of the hidden layers before the
            head. Defaults to `(128, 128)`.
        dropout: float. Rate behind each hidden layer. Defaults to `0.3`.
        targets: `"present"`: in training, further present modalities are
            hidden at random, and reconstructed; or `"hidden"`: what `presence`
            marks as absent is reconstructed, and its values in `x` must be
            the true ones. Defaults to `"present"`.
        hide_rate: float in (0, 1). With `targets="present"`, the probability
            that a present value is hidden in training. Defaults to `0.5`.
        train_complete: bool. With `targets="present"`, whether some samples
            are trained with nothing hidden. Defaults to `False`.
        reconstruction_weight: float >= 0. The weight $w_R$. Defaults to `4.0`.
        cycle_weight: float >= 0. The weight $w_C$. Defaults to `2.0`.
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
        ValueError: If there is no fitted teacher or it has other modalities,
            classes or widths of features; if there are fewer than two
            modalities, an argument is out of its range, `targets="hidden"`
            meets NaN, or encoders, head or inputs do not fit together.

    Example:
    >>> def parts():
    ...     return {
    ...         m: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...         for m in ("image", "text")
    ...     }
    >>> teacher = keras_mla.models.ConcatFusion(parts(), 3)  # and fit it
    >>> model = keras_mla.models.MMIN(parts(), 3, teacher=teacher)
    >>> x = {"image": np.ones((2, 4)), "text": None}
    >>> model.imputed(x)["text"].shape
    (2, 8)

    Reference:
        Zhao et al., "Missing Modality Imagination Network for Emotion
        Recognition with Uncertain Missing Modalities", ACL 2021, section 3.
    """

    terms_named = ("reconstruction", "cycle")

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        teacher: Any = None,
        teacher_saved: bool = True,
        widths: Sequence[int] = (256, 128, 64),
        blocks: int = 5,
        reconstruction_weight: float = 4.0,
        cycle_weight: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            encoders,
            head,
            feature_dim,
            teacher,
            teacher_saved,
            CascadedAutoencoder(widths, blocks, name="imagination"),
            reconstruction_weight=reconstruction_weight,
            **kwargs,
        )
        self.cycle_weight = check_weight("cycle_weight", cycle_weight)
        self.back = CascadedAutoencoder(widths, blocks, name="back")

    @property
    def teacher(self) -> Teacher:
        """The frozen teacher."""
        return self.taught_by

    def build_head(self, widths: dict[str, int]) -> None:
        """Builds both cascades, the hidden layers and the head."""
        super().build_head(widths)
        self.back.build((None, sum(widths.values())))

    def joined(
        self,
        features: dict[str, Any],
        presence: Any | None,
        training: bool | None,
    ) -> tuple[Any, Any]:
        """Returns the logits of the latents, and the imagined features."""
        shown = self.shown(features, presence, training)
        imagined, latents = self.cascade(self.beside(shown))
        kept = {"guesses": self.split(imagined)}
        return self.classify(latents, training), kept

    def terms(
        self, outputs: Outputs, batch: Batch
    ) -> dict[str, tuple[float, MeanLoss]]:
        """Returns the weights and values of reconstruction and cycle."""
        back, _ = self.back(self.beside(outputs.kept["guesses"]))
        given = {
            name: ops.stop_gradient(outputs.features[name])
            for name in self.modalities
        }
        cycle = reconstruction_loss(
            self.split(back), given, batch.presence, self.modalities
        )
        terms = super().terms(outputs, batch)
        return {**terms, "cycle": (self.cycle_weight, cycle)}

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {**super().get_config(), "cycle_weight": self.cycle_weight}
