import types
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla import training as backend
from keras_mla.layers.fusion import Fusion
from keras_mla.models import calibration, checks, deployment, stack
from keras_mla.models.batch import Batch, split_inputs
from keras_mla.models.losses import MeanLoss
from keras_mla.models.trainer import MultimodalTrainer, Outputs, Update
from keras_mla.version import __version__


class MultimodalClassifier(MultimodalTrainer):
    """Base class of all methods: encoders, head, and what a method defines.

    A method is a subclass that says which *updates* a batch makes, how
    features become logits and a fused prediction, and, if it wants, how
    gradients are changed before they are applied. It overrides some of
    `build_head`, `updates`, `unimodal_pass`, `fuse`, `update_losses` and
    `modify_gradients`; the training step, presence, unpaired data, metrics,
    saving and export are the same for all. A subclass ends its constructor
    with `self.build_if_possible()`.

    Inputs are a dict keyed by modality; a modality's value may be a dict
    itself. `x["presence"]`, if given, is a bool array `(batch, modalities)`:
    values of absent modalities may be anything, NaN included, and count in no
    loss, metric, feature mean or fusion weight.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. The order of the
            dict is the order of the modalities.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width, so that encoders may differ in width.
        **kwargs: Of `keras.Model`: `name`, `dtype`.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("keras_mla_version", None)  # Of a config.
        checks.check_encoders(encoders)
        head = checks.make_head(head)
        # Encoders cast their inputs themselves, in training and in serving.
        super().__init__(autocast=False, **kwargs)
        # === Layers ===
        self.encoders = dict(encoders)
        self.projections = {
            name: keras.layers.Dense(feature_dim, name=f"{name}_projection")
            for name in (encoders if feature_dim is not None else ())
        }
        self.head = head
        # Set by a method that fuses unimodal logits by a layer.
        self.fusion: Fusion | None = None
        # === Config ===
        self.modalities = tuple(encoders)
        self.feature_dim = feature_dim
        # Shape and dtype of each input that the model was built with.
        self._signature: Any = None
        # Holds the model that `predict_modalities` compiles, hidden from
        # Keras's tracking.
        self._serving = types.SimpleNamespace(view=None)
        # Width of each modality's features, known once the model is built.
        self.widths: dict[str, int] | None = None

    # === What a method defines ===

    def build_head(self, widths: dict[str, int]) -> None:
        """Checks features' widths and makes what depends on them.

        Called once, in the first forward pass. Defaults to what a shared head
        needs: that all widths are equal.

        Args:
            widths: The width of each modality's features.
        """
        checks.check_widths(widths)

    def updates(self) -> Sequence[Update]:
        """The updates of one batch, in order. Defaults to one of everything."""
        return [Update(self.modalities, (self,))]

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Maps one modality's feature to logits, and anything worth keeping.

        Args:
            name: The modality.
            feature: Tensor of shape `(batch, features)`.
            training: Whether layers behave as in training.

        Returns:
            Logits `(batch, classes)`, and a structure of tensors that
            `modify_gradients` finds in `Outputs.extra[name]`.
        """
        return stack.run(self.head, feature, training), ()

    def fuse(self, outputs: Outputs, presence: Any | None) -> Any:
        """Returns the fused logits, `(batch, classes)`.

        Defaults to what the method's `fusion` layer makes of unimodal ones.
        """
        fusion, logits = self._fusion_layer(), self._stacked(outputs)
        if presence is None:
            return stack.call(fusion, logits, None)
        return fusion(logits, presence)

    def fusion_weights(self, outputs: Outputs, presence: Any | None) -> Any:
        """Returns the weights `(batch, modalities)` that `fuse` uses."""
        logits = self._stacked(outputs)
        return self._fusion_layer().weights_of(logits, presence)

    def _stacked(self, outputs: Outputs) -> Any:
        return backend.stack([outputs.logits[m] for m in self.modalities])

    def _fusion_layer(self) -> Fusion:
        if self.fusion is None:
            raise NotImplementedError(
                f"{type(self).__name__} does not fuse by weights of modalities."
            )
        return self.fusion

    def update_losses(
        self,
        update: Update,
        outputs: Outputs,
        losses: dict[str, MeanLoss],
        batch: Batch,
    ) -> list[MeanLoss]:
        """Returns the losses whose sum an update minimises.

        There are as many as `update.losses` names, each with the number of
        samples that it is the mean of. Defaults to the losses of the update's
        modalities, each over their number. Regularisers of the update's
        layers are added by the caller.

        Args:
            update: The update.
            outputs: What its forward pass yields.
            losses: Each modality's own loss.
            batch: The batch.
        """
        return [
            loss._replace(mean=loss.mean / len(losses))
            if len(losses) > 1
            else loss
            for loss in losses.values()
        ]

    def modify_gradients(
        self, update: Update, gradients: list, outputs: Outputs, batch: Batch
    ) -> tuple[list, list]:
        """Changes an update's gradients before they are applied.

        Returns:
            The gradients, in the order of `update.variables`, and a list of
            functions `advance(taken)` that move state of the method's own with
            the step. `taken` is `None`, or a bool scalar: false where no sample
            is present, and where loss scaling skips the step. Then nothing may
            change (`training.assign_where`).
        """
        return gradients, []

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
            name: The modality.
            inputs: Its inputs.
            training: Whether layers behave as in training.
            present: Bool tensor of shape `(batch,)`. Where no sample is
                present, the encoder's features are zeros, since what it was
                fed may have made them NaN.
        """
        feature = stack.run(self.encoders[name], inputs, training)
        checks.check_features(name, feature)
        if present is not None:
            feature = ops.where(
                ops.any(present, axis=0), feature, ops.zeros_like(feature)
            )
        return self._project(name, feature)

    def _project(self, name: str, feature: Any) -> Any:
        if self.projections:
            feature = self.projections[name](feature)
        return feature

    def forward_pass(
        self,
        modalities: Sequence[str],
        inputs: dict[str, Any],
        training: bool | None,
        presence: Any | None = None,
    ) -> Outputs:
        """Encodes the given modalities and computes their logits.

        A method that trains on a fused prediction of its own layers computes
        it here too, `Outputs.fused`, from all modalities and `presence`.
        """
        features = {}
        for name in modalities:
            present = None
            if presence is not None:
                present = presence[:, self.modalities.index(name)]
            features[name] = self.encode(name, inputs[name], training, present)
        return self.decode(features, training, presence)

    def decode(
        self,
        features: dict[str, Any],
        training: bool | None,
        presence: Any | None = None,
    ) -> Outputs:
        """Computes the logits of features, the second half of a pass."""
        if self.widths is None:
            # Under a tracer, a dimension may only act as an int.
            widths = {name: int(f.shape[1]) for name, f in features.items()}
            self.build_head(widths)
            self.widths = widths
        logits, extra = {}, {}
        for name, feature in features.items():
            output, extra[name] = self.unimodal_pass(name, feature, training)
            logits[name] = ops.cast(output, "float32")
        return Outputs(features, logits, extra)

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Returns fused logits `(batch, classes)`.

        For inputs of unequal batch sizes, as in unpaired training, a dict of
        each modality's logits.
        """
        inputs, presence = split_inputs(self.modalities, inputs, training)
        outputs = self.forward_pass(self.modalities, inputs, training, presence)
        if self._signature is None:
            self._signature = self._declared(inputs)
        if not same_size(outputs.logits):
            return outputs.logits
        return self.fuse(outputs, presence)

    # === Building, saving and serving ===

    def build_if_possible(self) -> None:
        """Builds the model if its encoders know their inputs."""
        ends = {
            name: deployment.ends_of(encoder)
            for name, encoder in self.encoders.items()
        }
        if any(inputs is None for inputs, _ in ends.values()):
            return  # The first batch builds it.
        self._build_from(
            {name: inputs for name, (inputs, _) in ends.items()},
            {name: output for name, (_, output) in ends.items()},
        )

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: a call builds the layers, and knows dtypes too."""

    def build_for(self, inputs: dict[str, Any]) -> None:
        """Builds the model for inputs like these, if it is not built."""
        if self._signature is None:
            self.build_from_config({"signature": self._declared(inputs)})

    def get_build_config(self) -> dict | None:
        """Returns shape and dtype of each input."""
        if self._signature is None:
            return None
        return {"signature": deployment.plain(self._signature)}

    def build_from_config(self, config: dict | None) -> None:
        """Builds the model for inputs of recorded shapes and dtypes."""
        if not config or self._signature is not None:
            return
        signature = config["signature"]
        encoded = {
            name: deployment.encode_symbolically(encoder, signature[name])
            for name, encoder in self.encoders.items()
        }
        self._signature = signature
        self._build_from(signature, encoded)

    def _declared(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Records inputs, as encoders declare them where they do."""
        declared = {}
        for name, value in inputs.items():
            known, _ = deployment.ends_of(self.encoders[name])
            declared[name] = deployment.signature_of(
                value if known is None else known
            )
        return declared

    def _build_from(
        self, inputs: dict[str, Any], encoded: dict[str, Any]
    ) -> None:
        """Builds all layers behind the encoders, by passing zeros through.

        Args:
            inputs: Each modality's symbolic inputs, or their signature.
            encoded: Symbolic outputs of the encoders.
        """
        features = {}
        for name, feature in encoded.items():
            checks.check_features(name, feature)
            zeros = ops.zeros((1, feature.shape[1]), feature.dtype)
            features[name] = self._project(name, zeros)
        self.fuse(self.decode(features, False), None)
        if self._signature is None:
            self._signature = deployment.signature_of(inputs)
        if not self.built:
            # Keras keeps the shapes, for a SavedModel on TensorFlow.
            self.build(
                deployment.map_signature(
                    lambda shape, dtype, name: shape, self._signature
                )
            )
        backend.internals.find_parameters(self)

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoders": {
                name: serialize(encoder)
                for name, encoder in self.encoders.items()
            },
            "head": serialize(self.head),
            "feature_dim": self.feature_dim,
            "keras_mla_version": __version__,
        }

    @classmethod
    def from_config(
        cls, config: dict, custom_objects: dict | None = None
    ) -> "MultimodalClassifier":
        """Makes a model from what `get_config` of any version returned."""

        def revive(value: Any) -> Any:
            if isinstance(value, dict) and "class_name" in value:
                return keras.saving.deserialize_keras_object(
                    value, custom_objects=custom_objects
                )
            return value

        config = {name: revive(value) for name, value in config.items()}
        config["encoders"] = {
            name: revive(value) for name, value in config["encoders"].items()
        }
        if "keras_mla_version" in config:
            return cls(**config)
        with checks.as_before():  # Of version 0.1, which checked less.
            return cls(**config)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuses a hook of version 0.1, which nothing would call."""
        super().__init_subclass__(**kwargs)
        if "update_loss" in vars(cls):
            raise TypeError(
                f"`{cls.__name__}.update_loss` is not called any more: "
                "override `update_losses`, which returns a list of `MeanLoss`, "
                "one for each name in `Update.losses`."
            )

    def unimodal(self, name: str) -> keras.Model:
        """Returns one modality's part as a plain model, sharing weights.

        Args:
            name: The modality.

        Returns:
            `keras.Model` that maps the modality's input to its logits,
            `(batch, classes)`. It follows this model's further training, and
            can be saved and exported by itself.

        Raises:
            ValueError: If there is no such modality, or the model is unbuilt.
        """
        return deployment.unimodal_model(self, name)

    def predict_modalities(
        self, x: dict[str, Any], batch_size: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """Predicts with each modality and tells what it weighs in the fusion.

        Args:
            x: Inputs as for `predict`; `presence` may be among them.
            batch_size: int. Defaults to 32.

        Returns:
            dict keyed by modality, of `{"logits": (samples, classes),
            "weight": (samples,)}` NumPy arrays; and under `"fused"` the
            logits that `predict` returns. Where a sample lacks a modality,
            both are zero.
        """
        return deployment.predict_modalities(self, x, batch_size)

    def forget_graphs(self) -> None:
        """Drops what `predict_modalities` has compiled."""
        self._serving.view = None

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Quantizes the weights, as `keras.Model.quantize`."""
        super().quantize(*args, **kwargs)
        self.forget_graphs()

    def calibrate(
        self, validation_data: Any, batch_size: int | None = None
    ) -> dict[str, Any]:
        r"""Fits the fusion's temperatures on validation data.

        Networks are more certain than right, and not all equally, which
        misleads a fusion by certainty. This fits, by minimising the negative
        log-likelihood: for each modality the temperature $T_m$ of its
        prediction $\mathrm{softmax}(z_m / T_m)$; then, of the fused
        prediction, the `sharpness` of an `EntropyFusion`'s weights and the
        factor `scale` to the fused logits. They are weights of the fusion
        layer. Unimodal logits, as in `unimodal(name)`, stay as they are.
        Call it when training is done: methods that train on their fused
        prediction (`QMF`, `MultiLossFusion`) would go on with the calibrated
        one. SciPy is needed.

        Args:
            validation_data: `(x, y)`, or an iterable of such batches, which
                were not trained on. `presence` may be among the inputs.
            batch_size: int. Of the prediction. Defaults to 32.

        Returns:
            dict of what was fitted: `"temperature"`, a dict keyed by
            modality; `"sharpness"`, if the fusion has one; `"scale"`.

        Raises:
            ValueError: If the method has no fusion layer, or a modality has
                no sample.

        Reference:
            Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
            section 4.2.
        """
        return calibration.calibrate(self, validation_data, batch_size)

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        presence: bool = False,
        **kwargs: Any,
    ) -> None:
        """Exports the fused prediction, as `keras.Model.export`.

        Inputs keep their names, nesting and dtypes.

        Args:
            filepath: Where to write to.
            format: `"tf_saved_model"` (from TensorFlow and JAX), `"onnx"`
                (from TensorFlow and PyTorch), or another that Keras offers.
            verbose: bool. Whether Keras prints what it does.
            input_signature: Overrides shapes and dtypes as recorded.
            presence: bool. Whether the exported model takes `presence`.
                Defaults to `False`.
            **kwargs: As for `keras.Model.export`.
        """
        if format == "tf_saved_model" and keras.backend.backend() == "torch":
            raise ValueError(
                "A TensorFlow SavedModel cannot be exported from PyTorch. "
                "Save the model as a `.keras` file, load it with "
                "KERAS_BACKEND=tensorflow or jax, and export it there; or "
                "use format='onnx' or 'torch'."
            )
        if input_signature is None:
            input_signature = deployment.export_signature(self, presence)
        super().export(
            filepath,
            format=format,
            verbose=verbose,
            input_signature=input_signature,
            **kwargs,
        )


def same_size(tensors: dict[str, Any]) -> bool:
    """Whether batches are of one size, as far as that is known."""
    # What is not an int is a tracer's stand-in for a size yet unknown.
    sizes = {tensor.shape[0] for tensor in tensors.values()}
    return len([size for size in sizes if isinstance(size, int)]) <= 1
