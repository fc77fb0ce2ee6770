from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.layers.fusion.additive import AdditiveFusion
from keras_mla.layers.fusion.base import check_task


@keras.saving.register_keras_serializable(package="keras_mla")
class ProductFusion(AdditiveFusion):
    r"""Multiplies the modalities' predictions, and counts the prior once.

    With the class prior $\pi$ and the set $P$ of the modalities that a sample
    has,

    $$z = s \Big(\sum_{m \in P} \frac{z_m}{T_m}
          - (|P| - 1) \log \pi\Big).$$

    If modalities are independent given the class, and each $z_m$ is a
    logarithm of the posterior given modality $m$ alone, the softmax of $z$ is
    the posterior given all of them (Bayes' rule). One modality alone gives its
    own prediction, and none gives the prior. If a sample has any number of
    labels, each label has a probability $\pi_j$ of its own, and its log-odds
    stand for $\log \pi$. The temperatures $T_m$ and the factor $s$ are 1 until
    a model's `calibrate` fits them.

    Networks that are trained with weights for samples or classes, or on
    batches with equally many samples of each class, predict for the prior
    that these make, and not for that of the data.

    Args:
        prior: Sequence of float, the probability of each class or label.
            Defaults to `None`, which means equal probabilities until `adapt`
            is called.
        task: `"single_label"` or `"multi_label"`. A model sets it to its own
            task. Defaults to `"single_label"`.
        **kwargs: Arguments of `keras.layers.Layer`. Weights and results are
            float32 under any dtype policy.

    Call arguments:
        logits: Tensor of shape `(batch, modalities, classes)`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` if
            every modality is present.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Raises:
        ValueError: If `prior` holds anything but numbers between 0 and 1, or
            has another length than there are classes.

    Example:
    >>> p = np.array([[[0.5, 0.5], [0.8, 0.2]]], "float32")
    >>> fusion = keras_mla.layers.ProductFusion(prior=[0.8, 0.2])
    >>> fused = keras.ops.softmax(fusion(np.log(p)))
    >>> keras.ops.convert_to_numpy(fused).round(3)
    array([[0.5, 0.5]], dtype=float32)

    Reference:
        Kittler et al., "On Combining Classifiers", IEEE TPAMI 1998, Eq. 7
        (the product rule).
    """

    tasks = ("single_label", "multi_label")

    def __init__(
        self,
        prior: Sequence[float] | None = None,
        task: str = "single_label",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.task = check_task(self, task)
        self.given_prior = None if prior is None else _checked(prior)

    def build(
        self, logits_shape: tuple, presence_shape: tuple | None = None
    ) -> None:
        """Creates the prior."""
        super().build(logits_shape, presence_shape)
        # A half is no preference, among classes as for a label. Not `assign`:
        # JAX forgets what is assigned while a model is traced.
        first: Any = 0.5
        if self.given_prior is not None:
            self._check_length(self.given_prior, logits_shape[2])
            first = np.array(self.given_prior, "float32")
        self.prior = self.add_weight(
            shape=(logits_shape[2],),
            initializer=keras.initializers.Constant(first),
            trainable=False,
            name="prior",
        )

    def adapt(self, labels: Any, sample_weight: Any | None = None) -> None:
        """Sets the prior to how frequent classes, or labels, are.

        So that no probability is 0, each class counts half a sample more, and
        of several labels each yes and each no does. The layer must know its
        task: it does in a model that has been compiled.

        Args:
            labels: Training labels: classes `(samples,)` or `(samples, 1)`, or
                one-hot or of several labels `(samples, classes)`.
            sample_weight: array `(samples,)`, how often each sample counts.
                Defaults to once.

        Raises:
            ValueError: If there are no labels, or they do not fit the layer.
        """
        labels = np.asarray(ops.convert_to_numpy(labels))
        if not len(labels):
            raise ValueError("A prior needs labels. Received: no label")
        weight = np.ones(len(labels))
        if sample_weight is not None:
            weight = np.asarray(sample_weight, "float64").reshape(len(labels))
        several = self.task == "multi_label"
        if labels.ndim == 1 or (labels.shape[1] == 1 and not several):
            counts = self._counts(labels.reshape(-1), weight)
        else:
            counts = weight @ labels.astype("float64")
        more = 2 if several else len(counts)
        self.given_prior = _checked(
            (counts + 0.5) / (weight.sum() + 0.5 * more)
        )
        if self.built:
            self._assign(self.given_prior)

    def _counts(self, labels: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Returns how often each class is there, or the only label."""
        if self.task == "multi_label":
            return np.array([weight @ labels.astype("float64")])
        if not self.built:
            raise ValueError(
                "`adapt` needs to know how many classes there are: call the "
                "model first, or pass one-hot labels. Received: classes for a "
                "layer that is not built"
            )
        classes = self.prior.shape[0]
        inside = np.isin(labels, np.arange(classes))
        if not inside.all():
            raise ValueError(
                f"Labels must be classes from 0 to {classes - 1}. "
                f"Received: {labels[~inside][0]}"
            )
        return np.bincount(labels.astype(int), weight, classes)

    def _assign(self, prior: Sequence[float]) -> None:
        self._check_length(prior, self.prior.shape[0])
        self.prior.assign(np.array(prior, "float32"))

    def _check_length(self, prior: Sequence[float], classes: int) -> None:
        if len(prior) != classes:
            raise ValueError(
                "`prior` must have a probability for each class. Received: "
                f"{len(prior)} probabilities for {classes} classes"
            )

    def combine(self, weights: Any, logits: Any, presence: Any | None) -> Any:
        """Returns the sum of calibrated logits, less that of the prior."""
        fused = super().combine(weights, logits, presence)
        log_prior = ops.log(self.prior)
        if self.task == "multi_label":
            log_prior = log_prior - ops.log1p(-self.prior)
        count = ops.sum(weights, axis=1, keepdims=True)
        return fused - self.scale * (count - 1) * log_prior

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        config = {"prior": self.given_prior, "task": self.task}
        return {**super().get_config(), **config}


def _checked(prior: Any) -> list[float]:
    """Returns probabilities as a list, or raises if they are none."""
    found = np.asarray(prior, "float64")
    inside = np.float32(found)  # As the layer keeps them.
    if found.ndim != 1 or not ((inside > 0) & (inside < 1)).all():
        raise ValueError(
            "`prior` must hold a probability between 0 and 1 for each class. "
            f"Received: prior={prior}"
        )
    return found.tolist()
