from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.core import checks
from keras_mla.core.batch import Batch
from keras_mla.core.losses import MeanLoss
from keras_mla.core.update import Outputs
from keras_mla.models.missing.cascade import CascadedAutoencoder, dense_stack
from keras_mla.models.missing.imagining import ImaginingModel
from keras_mla.models.missing.moments import moment_discrepancy
from keras_mla.models.missing.reconstruction import reconstruction_loss
from keras_mla.models.missing.taught import ModelOrTeacher, copy_weights
from keras_mla.models.missing.terms import NOTHING, TermsModel, check_weight


@keras.saving.register_keras_serializable(package="keras_mla")
class InvariantFusion(TermsModel):
    r"""Joint training with features that are alike in all modalities.

    It is the first stage of `IFMMIN`. An encoder S that all modalities share
    follows their encoders, and the moments of what it returns are to agree:

    $$H_m = S(\tilde f_m), \qquad
      z = g(C([\tilde f_1; \dots; \tilde f_M; H_1; \dots; H_M])),$$
    $$L = \mathrm{CE}(z, y) + w\, \frac{2}{M (M-1)} \sum_{m<n}
      \mathrm{CMD}(\sigma(H_m), \sigma(H_n)),$$

    with $\tilde f_m = 0$ for an absent modality, hidden layers C and the head
    g. CMD compares the means and the central moments over the samples of a
    batch that have the modality. It is made for values in an interval, so that
    each value passes a sigmoid before. A pair counts if a batch has samples of
    both modalities.

    Features must have one width.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        invariant: Sequence of int. Widths of the layers of the encoder that
            all modalities share. Defaults to `(128, 128)`.
        classifier: Sequence of int. Widths of the hidden layers before the
            head. Defaults to `(128, 128)`.
        dropout: float. Rate behind each hidden layer. Defaults to `0.3`.
        moments: int. The number of moments that are compared. Defaults to `5`.
        discrepancy_weight: float >= 0. The weight w. Defaults to `1.0`.
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
            of its range, encoders, head or inputs do not fit together, or
            several devices train the model.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.InvariantFusion(encoders, 3)
    >>> x = {"image": np.ones((2, 4)), "text": None}
    >>> model.predict(x, verbose=0).shape
    (2, 3)

    Reference:
        Zuo et al., "Exploiting Modality-Invariant Feature for Robust
        Multimodal Emotion Recognition with Missing Modalities", ICASSP 2023.
    """

    terms_named = ("discrepancy",)

    whole_batch = "its loss compares moments of a batch"

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        invariant: Sequence[int] = (128, 128),
        classifier: Sequence[int] = (128, 128),
        dropout: float = 0.3,
        moments: int = 5,
        discrepancy_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        if len(self.modalities) < 2:
            raise ValueError(
                "This method makes modalities alike, and needs at least two. "
                f"Received: encoders for {list(self.modalities)}"
            )
        if moments < 1 or not invariant:
            raise ValueError(
                "There must be at least one moment, and one layer in "
                f"`invariant`. Received: moments={moments}, "
                f"invariant={list(invariant)}"
            )
        # === Config ===
        self.invariant = tuple(invariant)
        self.classifier = tuple(classifier)
        self.dropout = float(dropout)
        self.moments = moments
        self.discrepancy_weight = check_weight(
            "discrepancy_weight", discrepancy_weight
        )
        # === Layers ===
        self.shared = dense_stack(self.invariant, "shared", slope=0.01)
        self.hidden = dense_stack(
            self.classifier, "classifier", dropout=self.dropout
        )

    def build_head(self, widths: dict[str, int]) -> None:
        """Builds the shared encoder, the hidden layers and the head."""
        checks.check_widths(widths)
        (width,) = set(widths.values())
        self.shared.build((None, width))
        total = len(widths) * (width + self.invariant[-1])
        self.hidden.build((None, total))
        if not self.head.built:
            self.head.build((None, (total, *self.classifier)[-1]))

    def invariants(self, features: dict[str, Any]) -> dict[str, Any]:
        """Returns what the shared encoder makes of each modality's features.

        Args:
            features: dict of each modality's features, `(batch, features)`.
        """
        return {name: self.shared(features[name]) for name in self.modalities}

    def joined(
        self,
        features: dict[str, Any],
        presence: Any | None,
        training: bool | None,
    ) -> tuple[Any, Any]:
        """Returns the joint logits, and what the shared encoder returns."""
        if presence is not None:
            features, _ = self.complete(features, presence, training)
        elif training and self.imputation is not None:
            self.imputation(features, None, training=training)
        alike = self.invariants(features)
        both = [self.beside(features), self.beside(alike)]
        hidden = self.hidden(ops.concatenate(both, -1), training=training)
        return self.head(hidden, training=training), {"alike": alike}

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Returns the prediction with all other modalities absent."""
        features, presence = self.alone(name, feature)
        return self.joined(features, presence, False)[0], ()

    def discrepancy(self, outputs: Outputs, batch: Batch) -> MeanLoss:
        """Returns the mean CMD of all pairs of modalities.

        Args:
            outputs: `Outputs` of the update's forward pass, with what `joined`
                keeps.
            batch: The `Batch`.
        """
        alike = {
            name: ops.sigmoid(ops.cast(outputs.kept["alike"][name], "float32"))
            for name in self.modalities
        }
        total, pairs = 0.0, 0.0
        for index, first in enumerate(self.modalities):
            for second in self.modalities[index + 1 :]:
                far, both = moment_discrepancy(
                    alike[first],
                    alike[second],
                    batch.present(first),
                    batch.present(second),
                    self.moments,
                )
                total, pairs = total + far, pairs + both
        rows = ops.cast(batch.samples(self.modalities[0]), "float32")
        counted = rows * ops.cast(pairs > 0, "float32")
        return MeanLoss(total / ops.maximum(pairs, 1), counted)

    def terms(
        self, outputs: Outputs, batch: Batch
    ) -> dict[str, tuple[float, MeanLoss]]:
        """Returns the weight and the value of the CMD."""
        found = self.discrepancy(outputs, batch)
        return {"discrepancy": (self.discrepancy_weight, found)}

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "invariant": list(self.invariant),
            "classifier": list(self.classifier),
            "dropout": self.dropout,
            "moments": self.moments,
            "discrepancy_weight": self.discrepancy_weight,
        }


@keras.saving.register_keras_serializable(package="keras_mla")
class IFMMIN(ImaginingModel):
    r"""Missing modality imagination network with invariant features.

    As in `MMIN`, a cascade imagines the features that a teacher computes from
    what is hidden. Here the cascade is guided by features that are alike in
    all modalities, those of an encoder S that all modalities share:

    $$H' = [S(\tilde f_1); \dots; S(\tilde f_M)], \qquad
      o_0 = h, \quad o_k = A_k(o_{k-1} + H'), \quad \hat h = T(o_K),$$
    $$L = \mathrm{CE}(g(C(l)), y) + w_R R(\hat h, h^T) + w_H R(H', H^T),$$

    with $h = [\tilde f_1; \dots; \tilde f_M]$, $\tilde f_m = 0$ for an absent
    modality, the latents l of all autoencoders $A_k$, the teacher's features
    $h^T$ and $H^T$, hidden layers C and the head g. R is the squared error,
    averaged over a modality's features and then over entries: the hidden ones
    in the first term, and all that have a true value in the second term. If
    $H'$ is not as wide as h, a linear map brings it to that width.

    The teacher is an `InvariantFusion`; `IFMMIN.teacher(encoders, head)` makes
    one to fit. Encoders and S start from the teacher's weights if both have
    weights of the same shapes; else they keep their own.

    As published, no sample is trained with all of its modalities: with
    `hide_rate=0.5` and up to three of them, each incomplete pattern is equally
    likely. `train_complete=True` includes the complete pattern. If a sample
    has one modality, nothing is hidden from it.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        teacher: `InvariantFusion`, fitted, of the same modalities and classes:
            it says what to reconstruct. It is copied and frozen.
        teacher_saved: bool. Whether the teacher is saved with the model.
            Without it, a loaded model predicts, but does not train. Defaults
            to `True`.
        widths: Sequence of int. Widths of an autoencoder, up to its
            bottleneck. Defaults to `(256, 128, 64)`.
        blocks: int. The number of autoencoders. Defaults to `5`.
        invariant: Sequence of int. Widths of the layers of the encoder that
            all modalities share. The last one must be
            the teacher's. Defaults to `(128, 128)`.
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
        reconstruction_weight: float >= 0. The weight $w_R$. Defaults to `1.0`.
        invariant_weight: float >= 0. The weight $w_H$. Defaults to `1.0`.
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
    >>> teacher = keras_mla.models.IFMMIN.teacher(parts(), 3)  # and fit it
    >>> model = keras_mla.models.IFMMIN(parts(), 3, teacher=teacher)
    >>> x = {"image": np.ones((2, 4)), "text": None}
    >>> model.imputed(x)["text"].shape
    (2, 8)

    Reference:
        Zuo et al., "Exploiting Modality-Invariant Feature for Robust
        Multimodal Emotion Recognition with Missing Modalities", ICASSP 2023.
    """

    teacher_class = InvariantFusion
    example = "IFMMIN.teacher(encoders, head)"
    terms_named = ("reconstruction", "invariant")
    teacher = ModelOrTeacher()

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        teacher: Any = None,
        teacher_saved: bool = True,
        widths: Sequence[int] = (256, 128, 64),
        blocks: int = 5,
        invariant: Sequence[int] = (128, 128),
        invariant_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            encoders,
            head,
            feature_dim,
            teacher,
            teacher_saved,
            CascadedAutoencoder(widths, blocks, "added", name="imagination"),
            **kwargs,
        )
        # === Config ===
        self.invariant = tuple(invariant)
        self.invariant_weight = check_weight(
            "invariant_weight", invariant_weight
        )
        # === Layers ===
        self.shared = dense_stack(self.invariant, "shared", slope=0.01)
        if self.taught_by.known:
            theirs = self.taught_by.model
            if self.invariant[-1] != theirs.invariant[-1]:
                raise ValueError(
                    "The last width in `invariant` must be that of the "
                    f"teacher, {theirs.invariant[-1]}. "
                    f"Received: invariant={list(self.invariant)}"
                )
            width, *_ = theirs.widths.values()
            self.shared.build((None, width))
            copy_weights(theirs.shared, self.shared)
        self.bridge: keras.layers.Dense | None = None

    def build_head(self, widths: dict[str, int]) -> None:
        """Builds the cascade, the shared encoder, hidden layers and head."""
        checks.check_widths(widths)
        super().build_head(widths)
        (width,) = set(widths.values())
        if not self.shared.built:
            self.shared.build((None, width))
        total, added = (len(widths) * n for n in (width, self.invariant[-1]))
        if added != total:
            self.bridge = keras.layers.Dense(total, name="bridge")
            self.bridge.build((None, added))

    def joined(
        self,
        features: dict[str, Any],
        presence: Any | None,
        training: bool | None,
    ) -> tuple[Any, Any]:
        """Returns the logits of the latents, and what losses compare."""
        shown = self.shown(features, presence, training)
        alike = {name: self.shared(shown[name]) for name in self.modalities}
        added = self.beside(alike)
        if self.bridge is not None:
            added = self.bridge(added)
        imagined, latents = self.cascade(self.beside(shown), added)
        kept = {"guesses": self.split(imagined), "alike": alike}
        return self.classify(latents, training), kept

    def true_features(self, values: dict[str, Any], known: Any) -> dict:
        """Returns the teacher's features, also those alike in modalities."""
        found = super().true_features(values, known)
        alike = self.taught_by.compute(
            lambda teacher: teacher.invariants(found["features"])
        )
        return {**found, "alike": alike}

    def terms(
        self, outputs: Outputs, batch: Batch
    ) -> dict[str, tuple[float, MeanLoss]]:
        """Returns the weights and values of both reconstructions."""
        loss = NOTHING
        if batch.extra:
            loss = reconstruction_loss(
                outputs.kept["alike"],
                batch.extra["alike"],
                batch.extra["known"],
                self.modalities,
            )
        terms = super().terms(outputs, batch)
        return {**terms, "invariant": (self.invariant_weight, loss)}

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "invariant": list(self.invariant),
            "invariant_weight": self.invariant_weight,
        }
