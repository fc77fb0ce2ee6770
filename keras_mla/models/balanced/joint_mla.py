from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.core.batch import Batch
from keras_mla.core.filling import where_present
from keras_mla.core.update import Outputs, Update
from keras_mla.models.balanced.alternating import AlternatingModel

JOINT = "joint"


@keras.saving.register_keras_serializable(package="keras_mla")
class JointMLA(AlternatingModel):
    r"""MLA with one more expert: a joint head on all features.

    After MLA's updates, a batch has one more update, of a head $g_J$ with
    weights of its own:

    $$z_J = g_J([\mathrm{sg}(f_1); \dots; \mathrm{sg}(f_M)]), \qquad
      L_J = \mathrm{CE}(z_J, y),$$

    with $\mathrm{sg}$ a stopped gradient. The joint head sees what modalities
    say only together, and cannot make an encoder lazy: it moves none. Its
    features are those of predictions: its update applies no dropout in the
    encoders, and leaves their statistics. A prediction fuses the logits of
    modalities and joint head as MLA fuses those of modalities. The features of
    absent modalities are zeros for it; a sample with any modality has it.
    Unpaired data do not train it.

    It is this library's own.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. The order of the
            dict is the order in which modalities are trained.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits. The joint
            head is a new one like it.
        feature_dim: int. If given, a linear projection per modality brings its
            features to this width.
        projector: As for `MLA`. The joint head is not projected.
        fusion: `Fusion` layer. Defaults to `EntropyFusion()`; for regression,
            to `InverseVarianceFusion()`.
        *args: `feature_dim`, `projector` and `fusion`, in this order, if they
            are passed by position.
        **kwargs: `task`, `allow_nan`, `table` and `modality_dropout`, as for
            `MultimodalModel`; `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Raises:
        TypeError: If an encoder, `projector` or `fusion` is of a wrong type.
        ValueError: If a modality is called `"joint"`, or encoders, head or
            inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.JointMLA(encoders, head=3)
    >>> model.experts
    ('image', 'text', 'joint')

    Reference:
        Zhang et al., "Multimodal Representation Learning by Alternating
        Unimodal Adaptation", CVPR 2024 (MLA).
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, *args, **kwargs)
        if JOINT in self.modalities:
            raise ValueError(
                f"The joint head is called {JOINT!r}: give the modality "
                f"another name. Received: encoders for {list(self.modalities)}"
            )
        self.joint_head = self.head_like("joint_head")

    @property
    def experts(self) -> tuple[str, ...]:
        """The modalities, and `"joint"`."""
        return (*self.modalities, JOINT)

    def build_head(self, widths: dict[str, int]) -> None:
        """Builds the joint head, for all features side by side."""
        super().build_head(widths)
        if not self.joint_head.built:
            self.joint_head.build((None, sum(widths.values())))

    def updates(self) -> Sequence[Update]:
        """Returns MLA's updates, and one of the joint head."""
        joint = Update(
            self.modalities,
            (self.joint_head,),
            name=JOINT,
            experts=(JOINT,),
            paired=True,
        )
        return [*super().updates(), joint]

    def forward_pass(
        self,
        modalities: Sequence[str],
        inputs: dict[str, Any],
        training: bool | None,
        presence: Any | None = None,
        experts: Sequence[str] | None = None,
    ) -> Outputs:
        """Encodes as in prediction where the joint head alone is trained."""
        if tuple(experts or ()) != (JOINT,):
            return super().forward_pass(
                modalities, inputs, training, presence, experts
            )
        features = super().forward_pass(modalities, inputs, False, presence, ())
        return self.decode(features.features, training, presence, experts)

    def expert_pass(
        self,
        name: str,
        features: dict[str, Any],
        training: bool | None,
        presence: Any | None,
    ) -> tuple[Any, Any]:
        """Applies the joint head."""
        joined = []
        for index, modality in enumerate(self.modalities):
            feature = ops.stop_gradient(features[modality])
            if presence is not None:
                feature = where_present(presence, index, feature)
            joined.append(feature)
        joined = ops.concatenate(joined, axis=-1)
        return self.joint_head(joined, training=training), ()

    def modify_gradients(
        self, update: Update, gradients: list, outputs: Outputs, batch: Batch
    ) -> tuple[list, list]:
        """Projects the gradients of the shared head."""
        if update.name == JOINT:
            return gradients, []
        return super().modify_gradients(update, gradients, outputs, batch)
