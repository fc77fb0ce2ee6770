from typing import Any

import keras
import numpy as np
from keras import ops

# Where a file of weights says which class they are of.
_CLASS = "class"


class Fusion(keras.layers.Layer):
    r"""Weighted sum of the modalities' logits, with weights per sample.

    A subclass defines `weights_of`. Absent modalities have zero weight,
    whatever their logits hold; a sample without any modality gets zero logits.

    The temperature $T_m$ of each modality and the factor $s$ to the sum are 1
    until a model's `calibrate` fits them:

    $$z = s \sum_m \lambda_m \frac{z_m}{T_m}.$$

    They are non-trainable weights of the layer, so that they are saved and
    exported. (Fusing log-probabilities instead of logits would change no
    prediction: the two differ by a number that is the same for all classes.)

    Args:
        **kwargs: Arguments of `keras.layers.Layer`. Weights and results are
            float32 under any dtype policy.

    Attributes:
        tasks: Names of the tasks that the fusion supports.
        task: Name of the task of the model that the fusion is a part of. The
            model sets it.

    Call arguments:
        logits: Tensor of shape `(batch, modalities, classes)`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` if
            every modality is present.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Example:
    >>> class FirstModality(keras_mla.layers.Fusion):
    ...     def weights_of(self, logits, presence=None):
    ...         return keras.ops.convert_to_tensor([[1.0, 0.0]])
    >>> logits = np.array([[[2.0, 0.0], [0.0, 4.0]]], "float32")
    >>> keras.ops.convert_to_numpy(FirstModality()(logits))
    array([[2., 0.]], dtype=float32)
    """

    tasks: tuple[str, ...] = ("single_label", "multi_label", "regression")
    task = "single_label"

    def __init__(self, **kwargs: Any) -> None:
        # Confidences are compared in full precision under any policy.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def build(
        self, logits_shape: tuple, presence_shape: tuple | None = None
    ) -> None:
        """Creates the temperatures and the scale."""
        self.temperature = self.add_weight(
            shape=(logits_shape[1],),
            initializer="ones",
            trainable=False,
            name="temperature",
        )
        self.scale = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="scale"
        )

    def save_own_variables(self, store: Any) -> None:
        """Saves the weights, and whose they are."""
        super().save_own_variables(store)
        store[_CLASS] = np.frombuffer(type(self).__name__.encode(), "uint8")

    def load_own_variables(self, store: Any) -> None:
        """Loads the weights of a fusion of the same class.

        Raises:
            ValueError: If they are those of another one, which would mean
                something else.
        """
        values = {name: store[name] for name in store.keys()}
        own = type(self).__name__
        saved = values.pop(_CLASS, np.frombuffer(own.encode(), "uint8"))
        saved = bytes(np.asarray(saved, "uint8")).decode()
        # Keras looks in a second place, where nothing is. A layer that was not
        # built, which is copied, has nothing anywhere.
        if not self.built and not values and saved == own:
            return
        if saved != own or not values:
            raise ValueError(
                f"These are not the weights of a model whose fusion is {own}. "
                "`calibrate(method='joint')` may have replaced the fusion "
                "before they were saved: load a `.keras` file, or call "
                "`model.replace_fusion` with a layer like the saved one."
            )
        super().load_own_variables(values)

    def calibrated(self, logits: Any) -> Any:
        """Returns logits divided by the temperatures, in float32.

        Args:
            logits: Tensor of shape `(batch, modalities, classes)`.
        """
        return self._prepared(logits) / self.temperature[:, None]

    def _prepared(self, logits: Any) -> Any:
        if not self.built:
            self.build(tuple(logits.shape))
        return ops.cast(logits, "float32")

    def weights_of(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns the weights, float32 of shape `(batch, modalities)`.

        Args:
            logits: Tensor of shape `(batch, modalities, classes)`.
            presence: Bool tensor of shape `(batch, modalities)`, or `None` if
                every modality is present. Defaults to `None`.
        """
        raise NotImplementedError

    def factors_of(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns the factors of the logits, `(batch, modalities)`.

        A factor is the weight times the scale, divided by the temperature.

        Args:
            logits: Tensor of shape `(batch, modalities, classes)`.
            presence: Bool tensor of shape `(batch, modalities)`, or `None` if
                every modality is present. Defaults to `None`.
        """
        logits = self._prepared(logits)
        weights = self.weights_of(logits, presence)
        return weights * (self.scale / self.temperature)

    def call(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns the fused logits."""
        return self.combine(self.weights_of(logits, presence), logits, presence)

    def compute_output_shape(
        self, logits_shape: tuple, presence_shape: tuple | None = None
    ) -> tuple:
        """Returns `(batch, classes)`."""
        return logits_shape[0], logits_shape[2]

    def combine(self, weights: Any, logits: Any, presence: Any | None) -> Any:
        """Returns the weighted sum of calibrated logits, times `scale`.

        Args:
            weights: Tensor of shape `(batch, modalities)`, as `weights_of`
                returns it.
            logits: Tensor of shape `(batch, modalities, classes)`, not yet
                divided by the temperatures.
            presence: Bool tensor of shape `(batch, modalities)`, or `None` if
                every modality is present.
        """
        logits = self._prepared(logits)
        if presence is not None:
            # `where`, not a product: logits of an absent modality may be NaN.
            logits = ops.where(
                presence[..., None], logits, ops.zeros_like(logits)
            )
        weights = weights * (self.scale / self.temperature)
        return ops.sum(weights[..., None] * logits, axis=1)


def check_task(fusion: Fusion, task: str) -> str:
    """Returns the name of a task, or raises if a fusion does not support it."""
    if task not in fusion.tasks:
        raise ValueError(
            f"{type(fusion).__name__} supports only the tasks "
            f"{list(fusion.tasks)}. For regression use "
            "`InverseVarianceFusion` or `AverageFusion`. "
            f"Received: task={task!r}"
        )
    return task
