"""How a model is built, and made again from its config."""

from typing import Any

import keras
from keras import ops

from keras_mla.backend import internals
from keras_mla.core import building, checks
from keras_mla.core.hooks import Hooks
from keras_mla.core.tasks import TASKS
from keras_mla.version import __version__


class BuiltModel(Hooks):
    """The part of a multimodal model that makes its weights."""

    # Shape and dtype of each input that the model was built with.
    _signature: Any = None
    # A size for each modality to put in place of its unknown sizes.
    _placeholders: dict[str, int] = {}

    def build_if_possible(self) -> None:
        """Builds the model if its encoders know their inputs."""
        if self._signature is not None:
            return
        ends = {
            name: building.ends_of(encoder)
            for name, encoder in self.encoders.items()
        }
        if any(inputs is None for inputs, _ in ends.values()):
            return  # The first batch builds it.
        self._build_from(
            {name: inputs for name, (inputs, _) in ends.items()},
            {name: output for name, (_, output) in ends.items()},
        )

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: a call builds the layers, as it also knows dtypes."""

    def build_for(self, inputs: dict[str, Any]) -> None:
        """Builds the model, unless built, for the inputs' shapes and dtypes."""
        if self._signature is None:
            self.build_from_config({"signature": self._declared(inputs)})

    def get_build_config(self) -> dict | None:
        """Returns the shape and dtype of each input."""
        if self._signature is None:
            return None
        return {"signature": building.plain(self._signature)}

    def blank_inputs(self, name: str, rows: int) -> Any:
        """Returns zeros for samples that lack a modality.

        Where a size is unknown, it is one that the encoder takes.
        """
        size = self.placeholder_of(name)
        return building.blank(rows, self._signature[name], size)

    def placeholder_of(self, name: str) -> int:
        """Returns a size to put in place of a modality's unknown sizes."""
        if name not in self._placeholders:
            # A new dict: Keras would track one that it knows.
            found = building.placeholder_of(
                self.encoders[name], self._signature[name]
            )
            self._placeholders = {**self._placeholders, name: found}
        return self._placeholders[name]

    def build_from_config(self, config: dict | None) -> None:
        """Builds the model for inputs of recorded shapes and dtypes."""
        if not config or self._signature is not None:
            return
        signature = config["signature"]
        encoded = {
            name: building.encode_symbolically(encoder, signature[name])
            for name, encoder in self.encoders.items()
        }
        self._signature = signature
        self._build_from(signature, encoded)

    def _declared(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Returns the inputs' signature, or what encoders declare instead."""
        declared = {}
        for name, value in inputs.items():
            known, _ = building.ends_of(self.encoders[name])
            declared[name] = building.signature_of(
                value if known is None else known
            )
        return declared

    def _build_from(
        self, inputs: dict[str, Any], encoded: dict[str, Any]
    ) -> None:
        """Builds all layers behind the encoders, by passing zeros through them.

        Args:
            inputs: Each modality's symbolic inputs, or their signature.
            encoded: Symbolic outputs of the encoders.
        """
        for name, feature in encoded.items():
            self.check_features(name, feature)

        # No dict: JAX would sort it, and layers may follow its order.
        def fused(presence: Any, *zeros: Any) -> Any:
            features = {
                name: self.project_features(name, feature)
                for name, feature in zip(encoded, zeros, strict=True)
            }
            outputs = self.decode(features, False, presence)
            return self.fuse(outputs, presence)

        internals.call_to_build(
            fused,
            ops.ones((1, len(self.modalities)), "bool"),
            *(
                keras.tree.map_structure(building.zeros_like, feature)
                for feature in encoded.values()
            ),
        )
        if self._signature is None:
            self._signature = building.signature_of(inputs)
        if not self.built:
            # Keras keeps the shapes for a SavedModel on TensorFlow.
            self.build(
                building.map_signature(
                    lambda shape, dtype, name: shape, self._signature
                )
            )
        internals.find_parameters(self)

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
            "allow_nan": self.allow_nan,
            "table": self.table and serialize(self.table),
            "modality_dropout": self.modality_dropout,
            "task": self.given_task,
            "current_task": self.task.name,
            "default_fusion": self._fuses_by_default,
            "keras_mla_version": __version__,
        }

    @classmethod
    def from_config(
        cls, config: dict, custom_objects: dict | None = None
    ) -> "BuiltModel":
        """Makes a model from a config of any version of the library."""
        config = {
            name: building.revive(value, custom_objects)
            for name, value in config.items()
        }
        for encoder in config["encoders"].values():
            building.freeze_again(encoder)
        task = config.pop("current_task", None)
        default_fusion = config.pop("default_fusion", False)
        if "keras_mla_version" not in config:
            with checks.as_before():  # Version 0.1 checked less.
                return cls(**{"allow_nan": True, **config})
        model = cls(**config)
        model._fuses_by_default = default_fusion
        if task is not None:
            model.use_task(TASKS[task])
        return model

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raises if a subclass defines a hook of version 0.1."""
        super().__init_subclass__(**kwargs)
        if "update_loss" in vars(cls):
            raise TypeError(
                f"`{cls.__name__}.update_loss` is not called any more: "
                "override `update_losses`, which returns a list of `MeanLoss`, "
                "one for each name in `Update.losses`."
            )
