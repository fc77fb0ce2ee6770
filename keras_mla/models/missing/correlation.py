"""Canonical correlation as a loss, and the base class that trains by it."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers, ops

from keras_mla.backend import distribution
from keras_mla.core.batch import Batch
from keras_mla.core.losses import MeanLoss
from keras_mla.core.update import Outputs, Update
from keras_mla.models.missing.projected import ProjectedModel


def canonical_correlation_loss(
    features: Sequence[Any],
    presence: Any | None = None,
    smooth: bool = True,
    ridge: float = 1e-3,
    fewest: int = 2,
) -> Any:
    r"""Returns minus the canonical correlations of all pairs of modalities.

    For each pair, with $S$ the covariances over the rows that have both
    modalities,

    $$T = L_1^{-1} S_{12} L_2^{-T}, \qquad L_i L_i^T = S_{ii} + r I.$$

    The canonical correlations are the singular values of $T$. The loss is
    $-\|T\|_F^2$, minus the sum of their squares; or minus their sum. To the
    ridge $r$ a millionth of the trace of $S_{ii}$ is added, so that rounding
    cannot make the matrix indefinite.

    The loss is no sum over rows, so a batch must not be shared by replicas.

    Args:
        features: Tensors of shape `(batch, width)`, one for each modality.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` if no
            modality is missing. Features of absent modalities may be anything.
        smooth: bool. Whether the correlations are squared. Defaults to `True`.
        ridge: float > 0. The number $r$. Defaults to `1e-3`.
        fewest: int. A pair with fewer common rows is left out. Defaults to
            `2`.

    Returns:
        Scalar, float64 for float64 features, else float32.

    Raises:
        ValueError: If replicas share the batch.

    Reference:
        Andrew et al., "Deep Canonical Correlation Analysis", ICML 2013,
        section 3.
    """
    replicas = distribution.num_replicas()
    if replicas > 1:
        raise ValueError(
            "A correlation is no sum over the rows of a batch, so replicas "
            "cannot share a batch: train on one device. "
            f"Received: {replicas} replicas"
        )
    total: Any = 0.0
    for i, j in itertools.combinations(range(len(features)), 2):
        both = None
        if presence is not None:
            both = ops.logical_and(presence[:, i], presence[:, j])
        found = _correlation(features[i], features[j], both, smooth, ridge)
        value, count = found
        enough = count >= fewest
        total = total - ops.where(enough, value, ops.zeros_like(value))
    return total


def _correlation(
    first: Any, second: Any, both: Any | None, smooth: bool, ridge: float
) -> tuple[Any, Any]:
    """Returns the correlation of one pair, and its number of rows."""
    types = {keras.backend.standardize_dtype(f.dtype) for f in (first, second)}
    dtype = "float64" if types == {"float64"} else "float32"
    if both is None:
        both = ops.ones_like(first[:, 0], dtype="bool")
    count = ops.sum(ops.cast(both, dtype))

    def centred(values: Any) -> Any:
        values = ops.cast(values, dtype)
        nothing = ops.zeros_like(values)
        sums = ops.sum(ops.where(both[:, None], values, nothing), axis=0)
        mean = sums / ops.maximum(count, 1)
        return ops.where(both[:, None], values - mean, nothing)

    def root(values: Any) -> Any:
        covariance = ops.matmul(ops.transpose(values), values) / rows
        more = ridge + 1e-6 * ops.trace(covariance)
        identity = ops.eye(covariance.shape[0], dtype=dtype)
        return ops.cholesky(covariance + more * identity)

    first, second = centred(first), centred(second)
    rows = ops.maximum(count - 1, 1)
    cross = ops.matmul(ops.transpose(first), second) / rows
    half = ops.solve_triangular(root(first), cross, lower=True)
    whole = ops.solve_triangular(root(second), ops.transpose(half), lower=True)
    if smooth:
        return ops.sum(ops.square(whole)), count
    return ops.sum(ops.svd(whole, compute_uv=False)), count


def dense_network(
    inputs: int, hidden: int, outputs: int, name: str
) -> keras.Sequential:
    """Returns two blocks of Dense, BatchNormalization and ReLU, and a Dense.

    Args:
        inputs: int. Width of the inputs.
        hidden: int. Width of each block.
        outputs: int. Width of the linear outputs.
        name: Name of the network.
    """
    parts: list[Any] = [keras.Input((inputs,))]
    for _ in range(2):
        parts += [
            layers.Dense(hidden),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
    return keras.Sequential([*parts, layers.Dense(outputs)], name=name)


class CorrelatedModel(ProjectedModel):
    """Base class of methods that train networks to correlate modalities.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        width: int. Width k of the projections. Defaults to `10`.
        hidden: int. Width of each network's hidden layers. Defaults to `256`.
        smooth: bool. Whether correlations are squared. Defaults to `True`.
        ridge: float > 0. What is added to variances. Defaults to `1e-3`.
        **kwargs: Arguments of `JointModel`.
    """

    whole_batch = "a correlation is no sum over rows"

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        width: int = 10,
        hidden: int = 256,
        smooth: bool = True,
        ridge: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        if width < 1 or hidden < 1 or not ridge > 0:
            raise ValueError(
                "`width` and `hidden` must be at least 1, and `ridge` greater "
                f"than 0. Received: width={width}, hidden={hidden}, "
                f"ridge={ridge}"
            )
        self.width = width
        self.hidden = hidden
        self.smooth = bool(smooth)
        self.ridge = float(ridge)

    def network_sizes(self, widths: dict[str, int]) -> dict[str, int]:
        """Returns the width of each modality's projection."""
        return dict.fromkeys(widths, self.width)

    def make_network(
        self, name: str, inputs: int, outputs: int
    ) -> keras.layers.Layer:
        """Returns a modality's network, with two hidden layers."""
        return dense_network(inputs, self.hidden, outputs, f"{name}_network")

    def updates(self) -> Sequence[Update]:
        """Returns one update of all layers, by two losses."""
        return [Update(self.modalities, (self,), ("fused", "correlation"))]

    def update_losses(
        self,
        update: Update,
        outputs: Outputs,
        losses: dict[str, MeanLoss],
        batch: Batch,
    ) -> list[MeanLoss]:
        """Returns the head's loss, and minus the correlations."""
        fused = self.fused_loss(outputs, batch)
        correlation = canonical_correlation_loss(
            outputs.kept,
            batch.presence,
            self.smooth,
            self.ridge,
            2 * self.width,
        )
        size = batch.samples(self.modalities[0])
        return [fused, MeanLoss(correlation, size)]

    # === Batches that are too small ===

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Checks the batch size, and trains as `keras.Model.fit` does."""
        names = ("x", "y", "batch_size")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        self._check_rows(
            _rows_of(given.get("x"), given.get("batch_size") or 32)
        )
        return super().fit(*args, **kwargs)

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Trains one batch, as `keras.Model.train_on_batch` does."""
        self._check_rows(_rows_of(x, None))
        return super().train_on_batch(x, *args, **kwargs)

    def _check_rows(self, rows: int | None) -> None:
        if rows is not None and rows < 2 * self.width:
            raise ValueError(
                f"Batches of {type(self).__name__} need at least "
                f"{2 * self.width} rows, twice the width of the projections: "
                "fewer rows seem correlated whatever they are. Use a larger "
                "`batch_size` or a smaller `width`. "
                f"Received: {rows} rows, width={self.width}"
            )

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "width": self.width,
            "hidden": self.hidden,
            "smooth": self.smooth,
            "ridge": self.ridge,
        }


def _rows_of(x: Any, batch_size: int | None) -> int | None:
    """Returns the rows of the first batch, if reading consumes nothing."""
    if isinstance(x, Mapping):
        rows = _rows(x)
        return rows and min(rows, batch_size or rows)
    if isinstance(x, keras.utils.PyDataset):
        return _rows(x[0][0])
    spec = getattr(x, "element_spec", None)  # A `tf.data.Dataset` has it.
    if spec is not None:
        return _rows(spec[0])
    size = getattr(x, "batch_size", None)  # A `DataLoader` has it.
    return size if isinstance(size, int) else None


def _rows(x: Any) -> int | None:
    """Returns the rows of inputs, or `None` if they are unknown."""
    leaves = keras.tree.flatten(x) if isinstance(x, Mapping) else []
    shapes = [leaf.shape for leaf in leaves if hasattr(leaf, "shape")]
    return shapes[0][0] if shapes else None
