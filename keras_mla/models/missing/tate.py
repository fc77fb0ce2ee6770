from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_mla.core.batch import Batch
from keras_mla.core.losses import MeanLoss
from keras_mla.core.update import Outputs
from keras_mla.models.missing.tagged import TaggedModel, divergence
from keras_mla.models.missing.taught import ModelOrTeacher, TaughtModel
from keras_mla.models.missing.terms import NOTHING, check_weight


@keras.saving.register_keras_serializable(package="keras_mla")
class TagFusion(TaggedModel):
    r"""Joint training of a Transformer over tagged steps of all modalities.

    It is the first stage of `TATE`, which documents the network:

    $$L = \mathrm{CE}(z, y) + w_D J(D, I) + w_t \lvert t - \sigma(r_t)
      \rvert + \lambda \lVert g \rVert^2.$$

    It is meant for complete data, and takes others.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to a sequence or a vector, as for `TATE`.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        width: int. Width of the common spaces. Defaults to `300`.
        num_heads: int. Attention heads; must divide `width`. Defaults to `4`.
        depth: int. The number of blocks of each Transformer. Defaults to `1`.
        dropout: float. Rate in the blocks, in training. Defaults to `0.2`.
        decoding_weight: float >= 0. The weight $w_D$. Defaults to `0.1`.
        tag_weight: float >= 0. The weight $w_t$. Defaults to `0.1`.
        l2_weight: float >= 0. The weight $\lambda$. Defaults to `1e-4`.
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
        ValueError: If there are fewer than two modalities, `num_heads` does
            not divide `width`, another argument is out of its range, or
            encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.TagFusion(encoders, 3, width=8)
    >>> x = {"image": np.ones((2, 4)), "text": None}
    >>> model.predict(x, verbose=0).shape
    (2, 3)

    Reference:
        Zeng et al., "Tag-assisted Multimodal Sentiment Analysis under
        Uncertain Missing Modalities", SIGIR 2022.
    """


@keras.saving.register_keras_serializable(package="keras_mla")
class TATE(TaggedModel, TaughtModel):
    r"""Tag-assisted Transformer encoder.

    Features are sequences. Steps $x_m$ of a modality are mapped to `width` and
    go through a Transformer $T_m$. Each pair of modalities has a common space
    with a shared map $W_{mn} = W_{nm}$. A tag t, which says which modalities a
    sample has and whether it has all, follows on each step. A Transformer
    encodes the steps of all modalities, one after the other; a second one, the
    decoder, is to give back what the encoder was given. What attention pools
    is classified, and its last M + 1 features are to tell the tag:

    $$u_m = T_m(A_m x_m), \quad c_m = [u_m W_{mn}]_{n \neq m}, \quad
      t = [p_1, \dots, p_M, \textstyle\prod_m p_m],$$
    $$I = [[c_1, t]; \dots; [c_M, t]], \quad E = T(I), \quad D = T'(E),$$
    $$r = \textstyle\sum_s a_s E_s, \quad
      a = \mathrm{softmax}_s(w^\top (U E_s \odot \sigma(V E_s))), \quad
      z = g(\mathrm{ReLU}(C r)),$$
    $$L = \mathrm{CE}(z, y) + w_T J(E, E^T) + w_D J(D, I) + w_t
      \lvert t - \sigma(r_t) \rvert + \lambda \lVert g \rVert^2,$$

    with the presence $p_m$, the encoding $E^T$ of a teacher that sees the true
    values, the head g and the squares $\lVert g \rVert^2$ of its weights and
    biases. J is the symmetric Kullback-Leibler divergence of softmaxes over the
    features of a step, averaged over steps and then over samples. In the first
    divergence, the steps are those of the entries that have a true value, be
    they hidden or not; in the second one, those that the model is given.
    Padding counts in neither. As in the public code, the gradient of the
    second divergence goes into both of its sides. The error of the tag is
    averaged over its bits. Where nothing is hidden, as in evaluation with
    `targets="present"`, there is no first divergence.

    Absent modalities and padding are masked: their steps hold zeros and the
    tag, no other step attends to them, and they are not pooled. Steps have no
    positions here; encoders may add them. A vector is a sequence of length
    one. A unimodal score is the prediction with all other modalities absent.

    A common space has `width // (M - 1)` features, so that $c_m$ has `width`
    features for three modalities, as published. Where `num_heads` does not
    divide the width of a step with its tag, zeros stand before the tag.

    The public code's blocks normalize after the residual, have no dropout in
    the feed-forward part and no projection behind the heads; the blocks here
    are those of `TransformerFusion`. Its tag marks absent modalities, and a
    bug makes it constant; its dropout is on in prediction.

    The teacher is a `TagFusion`, fitted on complete data;
    `TATE.teacher(encoders, head)` makes one to fit. Its encoders must return
    as many steps as those of the model. Encoders start from the weights of the
    teacher's encoders if both have weights of the same shapes; else they keep
    their own.

    By default, some samples are trained with all of their modalities, or the
    model would never see the tag of complete samples.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to a tensor `(batch, time, features)` or
            `(batch, features)`, or to a dict of `"features"`,
            `(batch, time, features)`, and `"padding_mask"`, bool
            `(batch, time)`, `True` at steps that are not padding. Widths and
            lengths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        teacher: `TagFusion`, fitted, of the same modalities and classes. It is
            copied and frozen.
        teacher_saved: bool. Whether the teacher is saved with the model.
            Without it, a loaded model predicts, but does not train. Defaults
            to `True`.
        teacher_weight: float >= 0. The weight $w_T$. Defaults to `0.1`.
        width: int. Width of the common spaces. It must be the teacher's, as
            `num_heads`. Defaults to `300`.
        num_heads: int. Attention heads; must divide `width`. Defaults to `4`.
        depth: int. The number of blocks of each Transformer. Defaults to `1`.
        dropout: float. Rate in the blocks, in training. Defaults to `0.2`.
        decoding_weight: float >= 0. The weight $w_D$. Defaults to `0.1`.
        tag_weight: float >= 0. The weight $w_t$. Defaults to `0.1`.
        l2_weight: float >= 0. The weight $\lambda$. Defaults to `1e-4`.
        targets: `"present"`: in training, further present modalities are
            hidden at random, and the teacher sees them; or `"hidden"`: the
            teacher sees what `presence` marks as absent, and its values in `x`
            must be the true ones. Defaults to `"present"`.
        hide_rate: float in (0, 1). With `targets="present"`, the probability
            that a present value is hidden in training. Defaults to `0.5`.
        train_complete: bool. With `targets="present"`, whether some samples
            are trained with nothing hidden. Defaults to `True`.
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
        ValueError: If there is no fitted teacher or it has other modalities,
            classes, widths or lengths; if there are fewer than two modalities,
            `num_heads` does not divide `width`, another argument is out of its
            range, `targets="hidden"` meets NaN, or encoders, head or inputs do
            not fit together.

    Example:
    >>> def part():
    ...     return keras.Sequential(
    ...         [keras.Input((5, 4)), keras.layers.Dense(8)]
    ...     )
    >>> def parts():
    ...     return {"image": part(), "text": part()}
    >>> teacher = keras_mla.models.TATE.teacher(parts(), 3)  # and fit it
    >>> model = keras_mla.models.TATE(parts(), 3, teacher=teacher)
    >>> x = {"image": np.ones((2, 5, 4)), "text": None}
    >>> model.predict(x, verbose=0).shape
    (2, 3)

    Reference:
        Zeng et al., "Tag-assisted Multimodal Sentiment Analysis under
        Uncertain Missing Modalities", SIGIR 2022, section 3.
    """

    teacher_class = TagFusion
    example = "TATE.teacher(encoders, head)"
    terms_named = ("teacher", *TaggedModel.terms_named)
    teacher = ModelOrTeacher()

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        teacher: Any = None,
        teacher_saved: bool = True,
        teacher_weight: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            encoders,
            head,
            feature_dim,
            teacher=teacher,
            teacher_saved=teacher_saved,
            **kwargs,
        )
        self.teacher_weight = check_weight("teacher_weight", teacher_weight)
        if self.taught_by.known:
            theirs = self.taught_by.model
            sizes = [(m.width, m.num_heads) for m in (theirs, self)]
            if sizes[0] != sizes[1]:
                raise ValueError(
                    "`width` and `num_heads` must be those of the teacher, "
                    f"{theirs.width} and {theirs.num_heads}. Received: "
                    f"width={self.width}, num_heads={self.num_heads}"
                )

    def true_features(self, values: dict[str, Any], known: Any) -> dict:
        """Returns the teacher's encoding of true values, and its steps."""
        columns = {m: known[:, i] for i, m in enumerate(self.modalities)}

        def encoded(teacher: TagFusion) -> dict[str, Any]:
            features = {
                name: teacher.encode(name, values[name], False, present)
                for name, present in columns.items()
            }
            # The teacher may have another order of modalities.
            presence = ops.stack([columns[m] for m in teacher.modalities], 1)
            found = teacher.encode_steps(
                features, presence, False, self.modalities
            )
            return {key: found[key] for key in ("encoded", "shown")}

        return {"teacher": self.taught_by.compute(encoded)}

    def terms(
        self, outputs: Outputs, batch: Batch
    ) -> dict[str, tuple[float, MeanLoss]]:
        """Returns the weights and values of all terms."""
        loss = NOTHING
        if batch.extra:
            own, theirs = outputs.kept["encoded"], batch.extra["teacher"]
            lengths = [x.shape[1] for x in (theirs["encoded"], own)]
            if lengths[0] != lengths[1]:
                raise ValueError(
                    "The teacher's encoders must return as many steps as those "
                    f"of the model. Received: {lengths[0]} steps of all "
                    f"modalities of the teacher, and {lengths[1]} of the model"
                )
            loss = divergence(own, theirs["encoded"], theirs["shown"])
        terms = super().terms(outputs, batch)
        return {**terms, "teacher": (self.teacher_weight, loss)}

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "teacher_weight": self.teacher_weight,
        }
