from typing import Any

import keras

from keras_mla.backend import internals
from keras_mla.core import heads
from keras_mla.core.joint import JointModel
from keras_mla.core.model import MultimodalModel
from keras_mla.core.teacher import copy_of


@keras.saving.register_keras_serializable(package="keras_mla")
class UniPre(JointModel):
    r"""Joint training on encoders that were trained alone.

    A control. In the first stage, each modality's encoder learns by its own
    loss, so that none is lazy; in the second, a joint head learns on the
    features of all, $z = g([f_1; \dots; f_M])$. Encoders are frozen, or trained
    along. Independent studies found it better than the ensemble in eight of ten
    columns if frozen, in seven if trained along, and no balancing method
    better.

    `UniPre.from_fitted` makes it of a fitted model. The constructor makes the
    same model of encoders that you have trained elsewhere.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
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
        ValueError: If encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> first = keras_mla.models.LateFusion(encoders, head=3)
    >>> first.compile(
    ...     optimizer="adam",
    ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ... )
    >>> x = {"image": np.ones((8, 4)), "text": np.ones((8, 4))}
    >>> history = first.fit(x, np.zeros(8, "int32"), verbose=0)
    >>> model = keras_mla.models.UniPre.from_fitted(first)
    >>> len(model.trainable_variables)  # The head's.
    2

    Reference:
        Du et al., "On Uni-Modal Feature Learning in Supervised Multi-Modal
        Learning", ICML 2023; Kontras et al., "Balancing Multimodal Training
        Through Game-Theoretic Regularization", NeurIPS 2025 (the comparison).
    """

    @classmethod
    def from_fitted(
        cls,
        model: MultimodalModel,
        join: str = "ConcatFusion",
        frozen: bool = True,
        head: int | keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> JointModel:
        """Returns a joint model on copies of a fitted model's encoders.

        The fitted model stays as it was. Its heads are left out, and so are its
        projections to a `feature_dim`. To train encoders along at a lower rate,
        pass `frozen=False` here, and a `learning_rate_multiplier` to `compile`.

        Args:
            model: A fitted `UnimodalEnsemble`, `LateFusion`, `MLA` or other
                model of the library. One that is not compiled, such as a
                loaded one, is taken as it is.
            join: Name of a joint method of the library, which joins features.
                Defaults to `"ConcatFusion"`.
            frozen: bool. Whether the encoders stay. Defaults to `True`.
            head: As in the constructor. Defaults to a new head like the
                model's.
            **kwargs: Further arguments of the joint method.

        Returns:
            A `UniPre`, or a model of the method that `join` names.

        Raises:
            TypeError: If `model` is no model of the library.
            ValueError: If the model is not fitted, or there is no such joint
                method.
        """
        if not isinstance(model, MultimodalModel):
            raise TypeError(
                "`model` must be a fitted model of `keras_mla`. Received: an "
                f"object of type {type(model).__name__}"
            )
        optimizer = getattr(model, "optimizer", None)
        trained = optimizer is None or bool(
            keras.ops.convert_to_numpy(optimizer.iterations) > 0
        )
        if not model.built or not trained:
            raise ValueError(
                f"The encoders are to be trained alone first: call `fit` of "
                f"the {type(model).__name__}, and then `from_fitted`. "
                "Received: a model that was not trained"
            )
        return cls.on_encoders_of(model, join, frozen, head, **kwargs)

    @classmethod
    def on_encoders_of(
        cls,
        model: MultimodalModel,
        join: str = "ConcatFusion",
        frozen: bool = True,
        head: int | keras.layers.Layer | None = None,
        copied: bool = True,
        **kwargs: Any,
    ) -> JointModel:
        """Returns what `from_fitted` does, of a built model, fitted or not.

        Args:
            model: The model.
            join: As for `from_fitted`.
            frozen: As for `from_fitted`.
            head: As for `from_fitted`.
            copied: bool. Whether the encoders are copied. If not, they are
                shared with the model. Defaults to `True`.
            **kwargs: Further arguments of the joint method.

        Raises:
            ValueError: If `join` is not the name of a joint method.
        """
        joint = cls
        if join != "ConcatFusion":
            joint = keras.saving.get_registered_object(f"keras_mla>{join}")
        if joint is None or not issubclass(joint, JointModel):
            raise ValueError(
                "`join` must be the name of a joint method, such as "
                f"'ConcatFusion' or 'BiGated'. Received: join={join!r}"
            )
        encoders = (copy_of(model) if copied else model).encoders
        for encoder in encoders.values() if frozen else ():
            _freeze(encoder)
        shared = {
            "task": model.given_task,
            "allow_nan": model.allow_nan,
            "table": model.table,
        }
        made = joint(
            encoders,
            heads.head_like(model.head, "head") if head is None else head,
            **{**shared, **kwargs},
        )
        made.build_from_config(model.get_build_config())
        return made


def _freeze(encoder: keras.layers.Layer) -> None:
    """Freezes a layer, as a file keeps it.

    Keras forgets that a `Sequential` was frozen as a whole, and not that its
    layers were.
    """
    for layer in internals.sublayers(encoder):
        if len(internals.sublayers(layer)) == 1:
            layer.trainable = False
    if encoder.trainable_variables:  # Weights beside those of its layers.
        encoder.trainable = False
