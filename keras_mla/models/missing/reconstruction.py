"""The base class of methods that reconstruct features of absent modalities."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.backend import distribution
from keras_mla.core.arrays import check_no_nan
from keras_mla.core.batch import Batch
from keras_mla.core.filling import fill_absent
from keras_mla.core.joint import JointModel
from keras_mla.core.losses import MeanLoss
from keras_mla.core.update import Outputs, Update

TARGETS = ("present", "hidden")


def reconstruction_loss(
    guesses: Mapping[str, Any],
    targets: Mapping[str, Any],
    counted: Any | None,
    modalities: Sequence[str],
) -> MeanLoss:
    """Returns the squared error of guessed features, over counted entries.

    It is the mean over a modality's features, and then over the counted
    entries of all samples and modalities. Entries that are not counted may
    hold anything, NaN included.

    Args:
        guesses: dict of each modality's guesses, `(batch, width)`.
        targets: dict of each modality's true features, `(batch, width)`.
        counted: Bool tensor of shape `(batch, modalities)`, or `None` to count
            all entries.
        modalities: Names of the modalities, in the order of `counted`.
    """
    errors = []
    for index, name in enumerate(modalities):
        guess = ops.cast(guesses[name], "float32")
        gap = guess - ops.cast(targets[name], "float32")
        if counted is not None:
            # Before the square: behind it, the gradient of NaN is NaN.
            gap = ops.where(counted[:, index, None], gap, ops.zeros_like(gap))
        errors.append(ops.mean(ops.square(gap), axis=-1))
    far = ops.stack(errors, axis=1)
    ones = ops.ones_like(far)
    if counted is not None:
        ones = ops.cast(counted, far.dtype)
    number = ops.sum(ones)
    replicas = distribution.num_replicas()
    # The number on all replicas; the mean is a replica's part of the whole.
    whole = number
    if replicas > 1:
        rows = ops.cast(ops.shape(far)[0], far.dtype)
        share = distribution.global_mean(ops.sum(ones, axis=1), None)
        whole = share * rows * replicas
    return MeanLoss(ops.sum(far) / ops.maximum(whole, 1), number)


NOTHING = MeanLoss(0.0, 0.0)


class ReconstructionModel(JointModel):
    r"""Base class of methods that reconstruct features of absent modalities.

    A subclass defines `joined`, which keeps guessed features by modality, a
    dict `{"guesses": ...}`. Their loss is

    $$R = \frac1{|H|} \sum_{(i, m) \in H} \frac1{d_m}
      \lVert \hat f_{i,m} - \mathrm{sg}(f_{i,m}) \rVert^2,$$

    with H the hidden entries, $\hat f$ the guesses, and $f_{i,m}$ the $d_m$
    features of the true value. Their gradient is stopped. They are computed
    as in prediction, before the update.

    - `targets="present"`: In training, present modalities are hidden at
      random, and H are these entries. One modality of each sample stays. It
      is right for any data. Nothing is hidden in evaluation, and no
      reconstruction is a part of its loss.
    - `targets="hidden"`: H are the entries that `presence` marks as absent.
      Their values in `x` must be the true ones, as in published experiments
      where missing modalities are simulated. NaN is refused: in arrays before
      training, in batches of data sets it makes the loss NaN.

    A sample without any modality is in no loss. `sample_weight` weights the
    loss of the prediction alone.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`.
        head: int, the number of classes; or a layer, as for `JointModel`.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        targets: `"present"` or `"hidden"`: what is reconstructed. Defaults to
            `"present"`.
        hide_rate: float in (0, 1). With `targets="present"`, the probability
            that a present value is hidden in training. Defaults to `0.5`.
        train_complete: bool. Whether samples are also trained with nothing
            hidden from them, with `targets="present"`. Defaults to `True`.
        reconstruction_weight: float >= 0. The weight of R in the loss.
            Defaults to `1.0`.
        **kwargs: Arguments of `JointModel`.
    """

    # Names of the terms of the loss besides the loss of the prediction.
    terms_named: tuple[str, ...] = ("reconstruction",)

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        targets: str = "present",
        hide_rate: float = 0.5,
        train_complete: bool = True,
        reconstruction_weight: float = 1.0,
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
        self.reconstruction_weight = check_weight(
            "reconstruction_weight", reconstruction_weight
        )
        self.hide_seed = keras.random.SeedGenerator()

    # === What is reconstructed ===

    def prepare_batch(self, batch: Batch) -> Batch:
        """Hides values in training, and computes the features to reconstruct.

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
        """Returns what is to be reconstructed, without gradients.

        By default, it is a dict from `"features"` to a dict of the features
        that the model's own encoders return.

        Args:
            values: dict of each modality's true values. Where there is none,
                it holds a copy of another row.
            known: Bool tensor of shape `(batch, modalities)`: the entries that
                have a true value.
        """
        features = {
            name: ops.stop_gradient(
                self.encode(name, values[name], False, known[:, index])
            )
            for index, name in enumerate(self.modalities)
        }
        return {"features": features}

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
                    "are reconstructed too, and must be the true ones. For "
                    "data that really lack modalities, pass "
                    f"`targets='present'`. Received: {error}"
                ) from None

    # === Parts of a pass ===

    def shown(
        self, features: dict[str, Any], presence: Any | None, training: Any
    ) -> dict[str, Any]:
        """Returns features to reconstruct from: zeros for absent modalities.

        `impute` may put other values in their place.
        """
        if presence is None:
            if training and self.imputation is not None:
                self.imputation(features, None, training=training)
            return features
        return self.complete(features, presence, training)[0]

    def split(self, joined: Any) -> dict[str, Any]:
        """Returns each modality's part of features side by side."""
        parts, start = {}, 0
        for name in self.modalities:
            parts[name] = joined[:, start : start + self.widths[name]]
            start += self.widths[name]
        return parts

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Returns the prediction with all other modalities absent."""
        features, presence = self.alone(name, feature)
        return self.joined(features, presence, False)[0], ()

    # === Losses ===

    def updates(self) -> Sequence[Update]:
        """Returns one update of all layers, by all terms of the loss."""
        logs = [f"{name}_loss" for name in self.terms_named]
        losses = ("fused", *self.terms_named)
        return [Update(self.modalities, (self,), losses, logs=tuple(logs))]

    def terms(
        self, outputs: Outputs, batch: Batch
    ) -> dict[str, tuple[float, MeanLoss]]:
        """Returns the weight and the value of each term in `terms_named`."""
        loss = NOTHING
        if batch.extra:
            loss = reconstruction_loss(
                outputs.kept["guesses"],
                batch.extra["features"],
                batch.extra["hidden"],
                self.modalities,
            )
        return {"reconstruction": (self.reconstruction_weight, loss)}

    def update_losses(
        self,
        update: Update,
        outputs: Outputs,
        losses: dict[str, MeanLoss],
        batch: Batch,
    ) -> list[MeanLoss]:
        """Returns the loss of the prediction, and the weighted terms."""
        fused = self.fused_loss(outputs, batch)
        found = self.terms(outputs, batch)
        weighted = [
            MeanLoss(weight * ops.cast(term.mean, fused.mean.dtype), term.count)
            for weight, term in (found[name] for name in self.terms_named)
        ]
        return [fused, *weighted]

    def update_logs(
        self, update: Update, outputs: Outputs, batch: Batch
    ) -> dict[str, MeanLoss]:
        """Returns each term without its weight, as `<term>_loss`."""
        terms = self.terms(outputs, batch).items()
        return {f"{name}_loss": term for name, (_, term) in terms}

    # === Prediction ===

    def imputed(
        self, x: dict[str, Any], batch_size: int | None = None
    ) -> dict[str, Any]:
        """Returns features, with guesses for absent modalities.

        Args:
            x: Inputs as for `predict`; `presence` may be among them.
            batch_size: int. Defaults to 32.

        Returns:
            dict keyed by modality, of NumPy arrays `(samples, features)`. If a
            sample lacks a modality, its features are what the method guesses
            from the modalities that the sample has.
        """
        return self.predict_view("imputed", x, batch_size)

    def view(self, what: str, outputs: Outputs, presence: Any | None) -> dict:
        """Returns what a further prediction consists of, by name."""
        if what != "imputed":
            return super().view(what, outputs, presence)
        if presence is None:
            return outputs.features
        guesses = outputs.kept["guesses"]
        return {
            name: ops.where(
                presence[:, index, None],
                outputs.features[name],
                ops.cast(guesses[name], outputs.features[name].dtype),
            )
            for index, name in enumerate(self.modalities)
        }

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "targets": self.targets,
            "hide_rate": self.hide_rate,
            "train_complete": self.train_complete,
            "reconstruction_weight": self.reconstruction_weight,
        }


def check_weight(name: str, weight: float) -> float:
    """Returns the weight of a loss, and raises unless it is at least 0."""
    if not weight >= 0:
        raise ValueError(
            f"`{name}` must be at least 0. Received: {name}={weight}"
        )
    return float(weight)
