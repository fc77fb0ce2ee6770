"""The base class of methods: encoders, head, fusion and forward pass."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.backend import internals, kernels
from keras_mla.core import building, checks, heads, tasks
from keras_mla.core.batch import split_inputs
from keras_mla.core.built import BuiltModel
from keras_mla.core.serving import ServedModel
from keras_mla.core.step import TrainedModel
from keras_mla.core.tasks import Task
from keras_mla.core.update import Outputs
from keras_mla.layers.fusion import Fusion, check_task


class MultimodalModel(
    TrainedModel,
    ServedModel,
    BuiltModel,
    metaclass=building.BuiltLast,
):
    """Base class of all methods, with the parts that a method overrides.

    A method is a subclass that defines which *updates* a batch makes, how
    features become logits and a fused prediction and, optionally, how
    gradients are changed before they are applied. It overrides some of the
    hooks of `core/hooks.py`; the training step, presence, unpaired data,
    metrics, saving and export are the same for all methods.

    The model is built when the outermost constructor has ended, so a subclass
    of any method may make layers and weights in its own constructor.

    Inputs are a dict keyed by modality; a modality's value may be a dict, list
    or tuple itself. `x["presence"]`, if given, is a bool array
    `(batch, modalities)`: values of absent modalities may be anything, NaN
    included, and count in no loss, metric, feature mean or fusion weight.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. The order of the
            dict is the order of the modalities.
        head: int, the number of classes, labels or targets; or a
            `keras.layers.Dense`; or a `keras.Sequential` that ends in one. It
            returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width, so that encoders may differ in width.
        task: `"single_label"`, `"multi_label"`, `"regression"`, or `"auto"`,
            the task of the compiled loss. Defaults to `"auto"`.
        allow_nan: bool. Whether encoders take NaN. If not, arrays that hold
            NaN where a modality is marked present are an error. Of a
            `numpy.memmap` only the first rows are checked, and batches of data
            sets are not. Defaults to `False`.
        table: The `keras_mla.datasets.Table` that makes the model's inputs. The
            model saves and loads it. Defaults to `None`.
        modality_dropout: float in [0, 1). In training, each present modality
            of a sample is hidden with this probability, as if it were absent.
            Where all would be hidden, one that is drawn at random stays.
            Unpaired data stay as they are. Defaults to `0.0`.
        **kwargs: Arguments of `keras.Model`: `name`, `dtype`.

    Attributes:
        modalities: tuple of the names of the modalities.
        task: The `keras_mla.core.Task`. Until the model is compiled, `"auto"`
            means `"single_label"`.
        tasks: Names of the tasks that the method supports.
        widths: dict from each modality to its number of features, filled when
            the model is built.

    Raises:
        TypeError: If an encoder is not a Keras layer.
        ValueError: If an argument is out of its range, the method or the head
            does not serve the task, or encoders, head and table do not fit
            together.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        task: str = "auto",
        allow_nan: bool = False,
        table: Any = None,
        modality_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("keras_mla_version", None)  # Configs hold it.
        checks.check_encoders(encoders)
        head = heads.make_head(head)
        # Encoders cast their inputs themselves, in training and in serving.
        super().__init__(autocast=False, **kwargs)
        # === Layers ===
        self.encoders = dict(encoders)
        self.projections = {
            name: keras.layers.Dense(feature_dim, name=f"{name}_projection")
            for name in (encoders if feature_dim is not None else ())
        }
        self.head = head
        # The layer that fuses the logits of experts, if the method has one.
        self.fusion: Fusion | None = None
        # === Config ===
        self.modalities = tuple(encoders)
        self.feature_dim = feature_dim
        self.allow_nan = allow_nan
        checks.check_table(table, self.modalities, heads.number_of_units(head))
        self.table = table
        if not 0 <= modality_dropout < 1:
            raise ValueError(
                "`modality_dropout` must be at least 0 and less than 1. "
                f"Received: modality_dropout={modality_dropout}"
            )
        self.modality_dropout = float(modality_dropout)
        if modality_dropout:
            self.dropout_seed = keras.random.SeedGenerator()
        self.given_task = tasks.check_task(task)
        self.task = tasks.TASKS["single_label" if task == "auto" else task]
        if task != "auto":
            self.check_task(self.task)
        # Whether the fusion is the method's default, which follows the task.
        self._fuses_by_default = False
        self.widths: dict[str, int] = {}

    # === Parts, for authors of methods ===

    def variables_of(self, name: str) -> list:
        """Returns the variables of one modality's encoder and projection.

        Args:
            name: str. Name of the modality.
        """
        projection = self.projections.get(name)
        of_projection = [] if projection is None else projection.variables
        return [*self.encoders[name].variables, *of_projection]

    def head_like(self, name: str) -> keras.layers.Layer:
        """Returns a new head with the configuration of the model's head.

        Call it in a constructor. The new head has its own weights, for
        features of any width.

        Args:
            name: Name of the new head.
        """
        return heads.head_like(self.head, name)

    # === Fusion ===

    def fuse(self, outputs: Outputs, presence: Any | None) -> Any:
        """Returns the fused logits, `(batch, units)`.

        By default, the method's `fusion` layer fuses the logits of all experts.

        Args:
            outputs: `Outputs` of a forward pass.
            presence: Bool tensor of shape `(batch, modalities)`, or `None` if
                no modality is missing.
        """
        logits = self._stacked(outputs)
        if presence is None:
            return self.fusion_layer(logits)
        return self.fusion_layer(logits, self.expert_presence(presence))

    def fusion_weights(self, outputs: Outputs, presence: Any | None) -> Any:
        """Returns the weights of experts in the fusion, `(batch, experts)`.

        The weights exclude scale and temperatures; `fusion_factors` includes
        them.

        Args:
            outputs: `Outputs` of a forward pass.
            presence: Bool tensor of shape `(batch, modalities)`, or `None` if
                no modality is missing.
        """
        if presence is not None:
            presence = self.expert_presence(presence)
        return self.fusion_layer.weights_of(self._stacked(outputs), presence)

    def fusion_factors(self, outputs: Outputs, presence: Any | None) -> Any:
        """Returns the factors of logits in `fuse`, `(batch, experts)`.

        Returns `None` if no layer fuses logits.

        Args:
            outputs: `Outputs` of a forward pass.
            presence: Bool tensor of shape `(batch, modalities)`, or `None` if
                no modality is missing.
        """
        if self.fusion is None:
            return None
        if presence is not None:
            presence = self.expert_presence(presence)
        return self.fusion.factors_of(self._stacked(outputs), presence)

    def _stacked(self, outputs: Outputs) -> Any:
        return ops.stack([outputs.logits[name] for name in self.experts], 1)

    @property
    def fusion_layer(self) -> Fusion:
        """The layer that fuses logits.

        Raises:
            NotImplementedError: If the method has none.
        """
        if self.fusion is None:
            raise NotImplementedError(
                f"{type(self).__name__} has no layer that fuses logits: call "
                "`make_fusion` in its constructor, or define `fuse`."
            )
        return self.fusion

    def make_fusion(self, fusion: Any) -> None:
        """Sets the fusion layer to `fusion`, or to the default if it is `None`.

        Call it in a constructor.

        Args:
            fusion: `Fusion` layer, or `None`.
        """
        checks.check_fusion(fusion)
        self._fuses_by_default = fusion is None
        self.fusion = fusion or self.default_fusion(self.task.name)
        if self.given_task != "auto":
            self.use_task(self.task)

    def replace_fusion(self, fusion: Fusion) -> None:
        """Replaces the fusion layer, of a model that may be built.

        What has been compiled is compiled anew when it is called next. If the
        task changes, a model that was made without `fusion` gets the default
        of the new task.

        Args:
            fusion: A new `Fusion` layer.

        Raises:
            TypeError: If it is no `Fusion` layer.
            ValueError: If it does not support the task, or is built; or if the
                method fuses no logits.
        """
        if self.fusion is None:
            raise ValueError(
                f"{type(self).__name__} joins features and has no fusion layer "
                "to replace."
            )
        if not isinstance(fusion, Fusion):
            raise TypeError(
                "`fusion` must be a `keras_mla.layers.Fusion`. "
                f"Received: {fusion!r}"
            )
        if fusion.built:
            raise ValueError(
                "`fusion` is built: it is a part of another model."
            )
        fusion.task = check_task(fusion, self.task.name)
        self._exchange_fusion(fusion)
        self.train_function = self.test_function = self.predict_function = None
        self.forget_graphs()

    def _exchange_fusion(self, fusion: Fusion) -> None:
        if self.built:
            units = heads.number_of_units(self.head)
            fusion.build((None, len(self.experts), units))
        internals.replace(self, "fusion", fusion)

    def use_task(self, task: Task) -> None:
        """Sets the task, and makes the fusion serve it.

        Raises:
            ValueError: If the given fusion does not support the task.
        """
        if self._fuses_by_default and task is not self.task:
            fusion = self.default_fusion(task.name)
            if fusion is not None and type(fusion) is not type(self.fusion):
                self._exchange_fusion(fusion)
        if self.fusion is not None:
            self.fusion.task = check_task(self.fusion, task.name)
        self.task = task

    # === Forward ===

    def encode(
        self,
        name: str,
        inputs: Any,
        training: bool | None,
        present: Any | None = None,
    ) -> Any:
        """Encodes one modality into features of shape `(batch, features)`.

        Args:
            name: Name of the modality.
            inputs: The modality's inputs.
            training: bool. Whether layers behave as in training.
            present: Bool tensor of shape `(batch,)`, or `None`. If no sample
                is present, the encoder's features become zeros, because the
                inputs may have made them NaN.

        Returns:
            Tensor of shape `(batch, features)`, projected if the model has a
            `feature_dim`. It is a structure of tensors if the encoder returns
            one and the method can use it.
        """
        feature = kernels.call(self.encoders[name], inputs, training)
        self.check_features(name, feature)
        if present is not None:
            any_present = ops.any(present, axis=0)
            feature = keras.tree.map_structure(
                lambda tensor: kernels.zero_unless(any_present, tensor), feature
            )
        return self.project_features(name, feature)

    def forward_pass(
        self,
        modalities: Sequence[str],
        inputs: dict[str, Any],
        training: bool | None,
        presence: Any | None = None,
        experts: Sequence[str] | None = None,
    ) -> Outputs:
        """Encodes the given modalities and computes logits.

        Args:
            modalities: Names of the modalities.
            inputs: dict of each modality's inputs.
            training: bool. Whether layers behave as in training.
            presence: Bool tensor of shape `(batch, modalities)`, or `None`.
            experts: Names of the experts whose logits are computed. Defaults
                to all that the modalities allow.

        Returns:
            `Outputs`, as `decode` returns them.
        """
        features = {}
        for name in modalities:
            present = None
            if presence is not None:
                present = presence[:, self.modalities.index(name)]
            features[name] = self.encode(name, inputs[name], training, present)
        return self.decode(features, training, presence, experts)

    def decode(
        self,
        features: dict[str, Any],
        training: bool | None,
        presence: Any | None = None,
        experts: Sequence[str] | None = None,
    ) -> Outputs:
        """Computes logits from features, the second half of a forward pass.

        A method that trains on a fused prediction of its own layers also
        computes `Outputs.fused` here, from all modalities and `presence`.

        Args:
            features: dict of features, `(batch, features)`, of all modalities
                or of some.
            training: bool. Whether layers behave as in training.
            presence: Bool tensor of shape `(batch, modalities)`, or `None`.
                Defaults to `None`.
            experts: Names of the experts whose logits are computed. Defaults
                to all that the modalities allow.

        Returns:
            `Outputs`: the features, and float32 logits `(batch, units)` of
            each expert.
        """
        if not self.widths:
            widths = {name: self.width_of(f) for name, f in features.items()}
            self.build_head(widths)
            self.widths = widths
        if experts is None:
            whole = len(features) == len(self.modalities) and same_size(
                features
            )
            experts = [e for e in self.experts if e in features or whole]
        logits, extra = {}, {}
        for name in experts:
            if name in self.modalities:
                output, extra[name] = self.unimodal_pass(
                    name, features[name], training
                )
            else:
                output, extra[name] = self.expert_pass(
                    name, features, training, presence
                )
            logits[name] = ops.cast(output, "float32")
        return Outputs(features, logits, extra)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Builds the model, before Keras locks it, and calls it."""
        if self._signature is None:
            self.build_for(split_inputs(self.modalities, inputs)[0])
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Returns fused logits `(batch, units)`.

        Returns a dict of each modality's logits if batch sizes are unequal, as
        in unpaired training.
        """
        inputs, presence = split_inputs(self.modalities, inputs, training)
        outputs = self.forward_pass(self.modalities, inputs, training, presence)
        if not same_size(outputs.features):
            return outputs.logits
        return self.fuse(outputs, presence)


def same_size(tensors: dict[str, Any]) -> bool:
    """Returns whether batches have the same size, as far as sizes are known."""
    # A size that is not an int is a tracer's placeholder for an unknown one.
    sizes = {
        keras.tree.flatten(tensor)[0].shape[0] for tensor in tensors.values()
    }
    return len([size for size in sizes if isinstance(size, int)]) <= 1
