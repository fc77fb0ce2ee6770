from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.core.arrays import full_presence
from keras_mla.core.batch import each_batch
from keras_mla.models.missing.frozen import FrozenEncoders
from keras_mla.models.missing.projected import ProjectedModel


@keras.saving.register_keras_serializable(package="keras_mla")
class CCA(FrozenEncoders, ProjectedModel):
    r"""Canonical correlation analysis of frozen features, and a linear head.

    `adapt` computes, from one pass over the training data, projections that
    are most correlated between modalities. For each pair of modalities, with
    $S$ the covariances of their features,

    $$T = (S_{11} + r I)^{-1/2}\, S_{12}\, (S_{22} + r I)^{-1/2}
        = U \Sigma V^T,$$
    $$W_1 = (S_{11} + r I)^{-1/2}\, U_k, \qquad
      W_2 = (S_{22} + r I)^{-1/2}\, V_k.$$

    The features of absent modalities are filled with the mean over the
    training samples that have the modality, so their projections are zeros.
    The head takes the projections of all pairs side by side, $2k$ for each
    pair:

    $$z = g([W_1^T (f_1 - \bar f_1); W_2^T (f_2 - \bar f_2); \dots]).$$

    The projections are weights that no training moves; files hold them. `fit`
    trains the head alone, with the compiled loss.

    Args:
        encoders: dict of modality name to frozen Keras layer or model
            (`encoder.trainable = False`), each mapping its modality to
            features `(batch, features)`. Widths may differ. There must be at
            least two.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality, drawn at
            random and never trained, brings its features to this width.
        width: int. The number k of projections of each pair; at most the
            smaller width of the pair's features is used. Defaults to `10`.
        ridge: float > 0. The number $r$. Defaults to `1e-4`.
        **kwargs: `impute`, as for `JointModel`, for the projections; `task`,
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
        ValueError: If an encoder is trainable, an argument is out of its
            range, there are fewer than two modalities, `adapt` was not called
            before `fit`, or encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {}
    >>> for name in ("image", "text"):
    ...     encoders[name] = keras.Sequential([keras.Input((4,))])
    ...     encoders[name].add(keras.layers.Dense(3, trainable=False))
    >>> model = keras_mla.models.CCA(encoders, 3, width=2)
    >>> model.compile(
    ...     optimizer="adam",
    ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ... )
    >>> rng = np.random.default_rng(0)
    >>> x = {name: rng.normal(size=(8, 4)) for name in encoders}
    >>> y = np.zeros(8, "int32")
    >>> model.adapt((x, y))
    >>> history = model.fit(x, y, verbose=0)

    Reference:
        Hotelling, "Relations Between Two Sets of Variates", Biometrika 1936.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        width: int = 10,
        ridge: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        if width < 1 or not ridge > 0:
            raise ValueError(
                "`width` must be at least 1, and `ridge` greater than 0. "
                f"Received: width={width}, ridge={ridge}"
            )
        # === Config ===
        self.width = width
        self.ridge = float(ridge)
        # === State ===
        self.adapted = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            name="adapted",
        )

    # === Projections ===

    def network_sizes(self, widths: dict[str, int]) -> dict[str, int]:
        """Returns the number of projections of each modality, in all pairs."""
        return {
            name: sum(
                min(self.width, size, other_size)
                for other, other_size in widths.items()
                if other != name
            )
            for name, size in widths.items()
        }

    def make_network(
        self, name: str, inputs: int, outputs: int
    ) -> keras.layers.Layer:
        """Returns a modality's projections, zeros before `adapt`."""
        return CanonicalProjection(outputs, name=f"{name}_network")

    def adapt(self, data: Any, batch_size: int | None = None) -> None:
        """Computes the projections, in one pass.

        Covariances are summed in float64. Call it before `fit`, with the
        training data alone. It may be called again: the head then needs new
        training.

        Args:
            data: `(x, y)`, or an iterable of such batches. `y` is not used.
                `presence` may be among the inputs.
            batch_size: int. Batch size of forward passes. Defaults to 32.

        Raises:
            ValueError: If fewer than two samples have any modality, or no
                sample has one of the modalities.
        """
        sums = _Sums(len(self.modalities))
        for x, *_ in each_batch(data):
            x = self.prepare_inputs(x, training=True)
            self.build_for({name: x[name] for name in self.modalities})
            features = self.features(x, batch_size)
            sums.add(
                [features[name] for name in self.modalities],
                full_presence(self.modalities, x),
            )
        for name, count in zip(self.modalities, sums.counts(), strict=True):
            if count == 0 or sums.known < 2:
                raise ValueError(
                    "`adapt` needs at least two samples, and some of each "
                    f"modality. Received: {sums.known} samples, {int(count)} "
                    f"of them with {name!r}"
                )
        means = sums.means()
        roots = [
            _inverse_root(sums.covariance(m, m), self.ridge)
            for m in range(len(self.modalities))
        ]
        kernels: list[list[np.ndarray]] = [[] for _ in roots]
        for first in range(len(roots)):
            for second in range(first + 1, len(roots)):
                cross = sums.covariance(first, second)
                u, _, v = np.linalg.svd(
                    roots[first] @ cross @ roots[second], full_matrices=False
                )
                kernels[first].append(roots[first] @ u[:, : self.width])
                kernels[second].append(roots[second] @ v[: self.width].T)
        for name, mean, parts in zip(
            self.modalities, means, kernels, strict=True
        ):
            network = self.networks[name]
            network.mean.assign(mean.astype("float32"))
            kernel = np.concatenate(parts, axis=1)
            network.kernel.assign(kernel.astype("float32"))
        self.adapted.assign(1)

    # === Training ===

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains the head, as `keras.Model.fit` does."""
        self._check_adapted()
        return super().fit(*args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Trains one batch, as `keras.Model.train_on_batch` does."""
        self._check_adapted()
        return super().train_on_batch(*args, **kwargs)

    def _check_adapted(self) -> None:
        if not int(ops.convert_to_numpy(self.adapted)):
            raise ValueError(
                "CCA has no projections yet: call `model.adapt((x, y))` with "
                "the training data before `fit`."
            )

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "width": self.width,
            "ridge": self.ridge,
        }


@keras.saving.register_keras_serializable(package="keras_mla")
class CanonicalProjection(keras.layers.Layer):
    """Subtracts a mean and multiplies by a matrix, which are never trained.

    Args:
        units: int. Width of the outputs.
        **kwargs: Arguments of `keras.layers.Layer`. Weights and outputs are
            float32 under any dtype policy.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.units = units

    def build(self, input_shape: tuple) -> None:
        """Makes mean and matrix."""
        size = input_shape[-1]
        for name, shape in (("mean", (size,)), ("kernel", (size, self.units))):
            weight = self.add_weight(
                shape=shape, initializer="zeros", trainable=False, name=name
            )
            setattr(self, name, weight)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns projections `(batch, units)`."""
        return ops.matmul(inputs - self.mean, self.kernel)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape of the projections."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "units": self.units}


class _Sums:
    """Sums over samples, from which means and covariances follow.

    Absent features count as the mean over the samples that have the modality.

    Args:
        modalities: int. The number of modalities.
    """

    def __init__(self, modalities: int) -> None:
        # The number of samples with any modality.
        self.known = 0
        self.both = np.zeros((modalities, modalities))
        # The first batch's means, which keep the sums small.
        self.shifts: list[np.ndarray] = []
        self.firsts: list[list[Any]] = [[0.0] * modalities for _ in self.both]
        self.products: list[list[Any]] = [[0.0] * modalities for _ in self.both]

    def add(self, features: list[np.ndarray], presence: np.ndarray) -> None:
        """Adds a batch.

        Args:
            features: Arrays of shape `(samples, width)`, zeros where absent.
            presence: bool array of shape `(samples, modalities)`.
        """
        there: np.ndarray = presence.astype("float64")
        values: list[Any] = [f.astype("float64") for f in features]
        if not self.shifts:
            self.shifts = [
                v.sum(0) / max(t.sum(), 1)
                for v, t in zip(values, there.T, strict=True)
            ]
        values = [
            np.where(presence[:, m, None], v - self.shifts[m], 0.0)
            for m, v in enumerate(values)
        ]
        self.known += int(presence.any(axis=1).sum())
        self.both += there.T @ there
        for i, first in enumerate(values):
            for j, second in enumerate(values):
                self.firsts[i][j] += first.T @ there[:, j]
                self.products[i][j] += first.T @ second

    def counts(self) -> np.ndarray:
        """Returns the number of samples that have each modality."""
        return np.diag(self.both)

    def _mean(self, m: int) -> np.ndarray:
        return self.firsts[m][m] / self.both[m, m]

    def means(self) -> list[np.ndarray]:
        """Returns the means over the samples that have each modality."""
        return [s + self._mean(m) for m, s in enumerate(self.shifts)]

    def covariance(self, i: int, j: int) -> np.ndarray:
        """Returns the covariance of two modalities' features."""
        first, second = self._mean(i), self._mean(j)
        centred = (
            self.products[i][j]
            - np.outer(self.firsts[i][j], second)
            - np.outer(first, self.firsts[j][i])
            + self.both[i, j] * np.outer(first, second)
        )
        return centred / (self.known - 1)


def _inverse_root(covariance: np.ndarray, ridge: float) -> np.ndarray:
    """Returns `(S + ridge I)^(-1/2)`."""
    values, vectors = np.linalg.eigh(covariance)
    # Rounding may make a value that is 0 negative.
    return vectors / np.sqrt(np.maximum(values, 0) + ridge) @ vectors.T
