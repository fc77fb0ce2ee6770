"""The base class of methods that hide modalities, and learn from them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_mla.core.arrays import check_no_nan
from keras_mla.core.batch import Batch
from keras_mla.core.filling import fill_absent
from keras_mla.models.missing.terms import TermsModel

TARGETS = ("present", "hidden")


class HidingModel(TermsModel):
    """Base class of methods that learn from the true values of hidden entries.

    A subclass defines `true_features`, which are computed before the update,
    without gradients.

    - `targets="present"`: In training, present modalities are hidden at
      random. One modality of each sample stays. It is right for any data.
      Nothing is hidden in evaluation, and nothing that depends on hidden
      entries is a part of its loss.
    - `targets="hidden"`: The entries that `presence` marks as absent are the
      hidden ones. Their values in `x` must be the true ones, as in published
      experiments where missing modalities are simulated. NaN is refused: in
      arrays before training, in batches of data sets it makes the loss NaN.

    A sample without any modality is in no loss. `sample_weight` weights the
    loss of the prediction alone.

    Args:
        encoders: dict of modality name to Keras layer or model.
        head: int, the number of classes; or a layer, as for `JointModel`.
        feature_dim: int. If given, the width of projected features.
        targets: `"present"` or `"hidden"`: which entries are hidden. Defaults
            to `"present"`.
        hide_rate: float in (0, 1). With `targets="present"`, the probability
            that a present value is hidden in training. Defaults to `0.5`.
        train_complete: bool. Whether samples are also trained with nothing
            hidden from them, with `targets="present"`. Defaults to `True`.
        **kwargs: Arguments of `JointModel`.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        targets: str = "present",
        hide_rate: float = 0.5,
        train_complete: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        if len(self.modalities) < 2:
            raise ValueError(
                "This method reconstructs modalities from others, and needs at "
                f"least two. Received: encoders for {list(self.modalities)}"
            )
        if targets not in TARGETS:
            raise ValueError(
                f"`targets` must be one of {list(TARGETS)}. "
                f"Received: targets={targets!r}"
            )
        if not 0 < hide_rate < 1:
            raise ValueError(
                "`hide_rate` must be greater than 0 and less than 1. "
                f"Received: hide_rate={hide_rate}"
            )
        # === Config ===
        self.targets = targets
        self.hide_rate = float(hide_rate)
        self.train_complete = bool(train_complete)
        self.hide_seed = keras.random.SeedGenerator()

    def prepare_batch(self, batch: Batch) -> Batch:
        """Hides values in training, and computes what losses compare with.

        `Batch.extra` becomes a dict of `"hidden"`, the hidden entries, bool of
        shape `(batch, modalities)`; `"known"`, the entries with a true value;
        and what `true_features` returns. It stays empty if no entry is hidden.
        """
        if not batch.paired:
            return batch  # The loss says that paired data are needed.
        given = batch.presence
        if batch.hidden is not None:  # By `modality_dropout`.
            given = ops.logical_or(batch.presence, batch.hidden)
        if self.targets == "present" and batch.training:
            batch = batch.drop(
                self.hide_rate, self.hide_seed, not self.train_complete
            )
        hidden, values = batch.hidden, dict(batch.values)
        if self.targets == "hidden" and batch.presence is not None:
            some = ops.any(batch.presence, axis=1, keepdims=True)
            hidden = ops.logical_and(some, ops.logical_not(batch.presence))
            given = ops.broadcast_to(some, ops.shape(batch.presence))
        elif given is not None:
            for index, name in enumerate(self.modalities):
                values[name] = fill_absent(
                    values[name], given[:, index], batch.training
                )
        if hidden is None:
            return batch
        known = ops.ones_like(hidden) if given is None else given
        extra = {
            "hidden": hidden,
            "known": known,
            **self.true_features(values, known),
        }
        return dataclasses.replace(batch, extra=extra)

    def true_features(self, values: dict[str, Any], known: Any) -> dict:
        """Returns what losses compare with, without gradients.

        Args:
            values: dict of each modality's true values. Where there is none,
                it holds a copy of another row.
            known: Bool tensor of shape `(batch, modalities)`: the entries that
                have a true value.
        """
        raise NotImplementedError

    def check_data(self, x: Any, y: Any, sample_weight: Any = None) -> None:
        """Raises unless arrays can be trained on."""
        super().check_data(x, y, sample_weight)
        if self.targets == "present" or self.allow_nan:
            return
        if isinstance(x, dict) and all(name in x for name in self.modalities):
            everything = {name: x[name] for name in self.modalities}
            try:
                check_no_nan(self.modalities, everything)
            except ValueError as error:
                raise ValueError(
                    "With `targets='hidden'` the values of absent modalities "
                    "are learned from too, and must be the true ones. For "
                    "data that really lack modalities, pass "
                    f"`targets='present'`. Received: {error}"
                ) from None

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "targets": self.targets,
            "hide_rate": self.hide_rate,
            "train_complete": self.train_complete,
        }
