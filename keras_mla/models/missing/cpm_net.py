from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.backend import kernels
from keras_mla.core.batch import Batch
from keras_mla.core.filling import where_present
from keras_mla.core.losses import MeanLoss
from keras_mla.core.sample_ids import SampleIds
from keras_mla.core.update import Outputs, Update
from keras_mla.models.missing.frozen import FrozenEncoders


@keras.saving.register_keras_serializable(package="keras_mla")
class CPMNet(SampleIds, FrozenEncoders):
    r"""Cross partial multi-view networks.

    Each training sample has a free latent vector $h_i$, from which a linear
    decoder for each modality reconstructs the modality's frozen features.
    Latents of a class are drawn together:

    $$L_i = \sum_{m\ \text{present}} \|W_m^T h_i + b_m - f_{m,i}\|^2
      + \lambda \max\big(0,\ \theta_i + \max_c s_{ic} - s_{i y_i}\big),$$

    where $s_{ic}$ is the mean of $h_i^T h_j$ over the training samples $j \ne
    i$ of class $c$, and $\theta_i$ is 0 if $s_{ic}$ is largest for the right
    class, else 1. A sample that is alone in its class has no second term.

    A prediction needs no training sample. The latent of the modalities that a
    sample has follows in closed form, and the logits are its mean similarities
    to each class, whose mean latents are kept:

    $$h = \Big(\sum_m W_m W_m^T + r I\Big)^{-1} \sum_m W_m (f_m - b_m),
      \qquad z_c = h^T \bar h_c.$$

    The paper alternates five steps on all decoders and five on all latents.
    Here a batch makes one step of the optimizer on the decoders and then
    `latent_steps` steps of Adam on the latents of the batch's samples. Each
    latent has moments and a count of steps of its own, so an idle latent does
    not move. In a batch, the latents of all other samples, and so class means,
    count as constants. `loss` is the mean of $L_i$ before the batch's steps; in
    evaluation it is the reconstruction from latents in closed form.

    Samples need an identity: `x["sample_id"]`, ints of shape `(batch,)` from 0
    to `num_samples - 1`. Only training uses the ids. Latents, their moments
    and the class means, which are the kernel of the head, are weights of the
    model, so that each checkpoint holds them. Out-of-range ids train no latent
    and raise an error: before training if `fit` gets arrays, at the end of the
    epoch otherwise.

    Args:
        encoders: dict of modality name to frozen Keras layer or model
            (`encoder.trainable = False`), each mapping its modality to
            features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a linear `keras.layers.Dense`,
            whose kernel the method sets.
        num_samples: int. The number of training samples.
        feature_dim: int. If given, a linear projection per modality, drawn at
            random and never trained, brings its features to this width.
        width: int. Width of latents. Defaults to `128`.
        margin_weight: float >= 0. The weight $\lambda$. Defaults to `1.0`.
        latent_steps: int. Steps on latents for each batch. Defaults to `5`.
        latent_rate: float > 0. Learning rate of latents. Defaults to `0.01`.
        ridge: float > 0. The number $r$. Defaults to `1e-3`.
        **kwargs: `task`, `allow_nan`, `table` and `modality_dropout`, as for
            `MultimodalModel`; `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality; in training also `"sample_id"`, ints of
            shape `(batch,)`; optionally `"presence"`, bool of shape
            `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Logits, float32 of shape `(batch, classes)`.

    Raises:
        TypeError: If an encoder is not a Keras layer.
        ValueError: If an encoder is trainable, an argument or an id is out of
            its range, ids are missing in training, or encoders, head or inputs
            do not fit together.

    Example:
    >>> encoders = {}
    >>> for name in ("image", "text"):
    ...     encoders[name] = keras.Sequential([keras.Input((4,))])
    ...     encoders[name].add(keras.layers.Dense(3, trainable=False))
    >>> model = keras_mla.models.CPMNet(encoders, 3, num_samples=2, width=4)
    >>> model.compile(
    ...     optimizer="adam",
    ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ... )
    >>> x = {"image": np.ones((2, 4)), "text": np.ones((2, 4))}
    >>> x["sample_id"] = np.arange(2)
    >>> history = model.fit(x, np.arange(2), verbose=0)

    Reference:
        Zhang et al., "CPM-Nets: Cross Partial Multi-View Networks", NeurIPS
        2019, Eqs. 3 to 7.
    """

    tasks = ("single_label",)
    remembered = "a latent vector for each training sample"

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        num_samples: int,
        feature_dim: int | None = None,
        width: int = 128,
        margin_weight: float = 1.0,
        latent_steps: int = 5,
        latent_rate: float = 0.01,
        ridge: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        self.count_ids(num_samples)
        if not isinstance(self.head, keras.layers.Dense):
            raise ValueError(
                "The head of CPMNet holds the mean latent of each class: "
                "`head` must be a number of classes or a single Dense. "
                f"Received: head={head}"
            )
        if self.imputation is not None:
            raise ValueError(
                "CPMNet imputes nothing: a latent follows from the modalities "
                f"that a sample has. Received: impute={self.impute!r}"
            )
        if width < 1 or latent_steps < 1:
            raise ValueError(
                "`width` and `latent_steps` must be at least 1. Received: "
                f"width={width}, latent_steps={latent_steps}"
            )
        if not (margin_weight >= 0 and latent_rate > 0 and ridge > 0):
            raise ValueError(
                "`margin_weight` must be at least 0, `latent_rate` and `ridge` "
                f"greater than 0. Received: margin_weight={margin_weight}, "
                f"latent_rate={latent_rate}, ridge={ridge}"
            )
        # === Config ===
        self.width = width
        self.margin_weight = float(margin_weight)
        self.latent_steps = latent_steps
        self.latent_rate = float(latent_rate)
        self.ridge = float(ridge)
        # === State ===
        self.head.trainable = False
        self.head.kernel_initializer = keras.initializers.Zeros()
        # The last row is written for samples that do not count.
        rows = (num_samples + 1, width)
        start = keras.initializers.RandomNormal(stddev=width**-0.5)
        self.latents = self._state("latents", rows, start)
        self.moments = [self._state(name, rows) for name in ("first", "second")]
        self.steps = self._state("steps", rows[:1])
        # No sample has a class before it is seen.
        unknown = keras.initializers.Constant(self.head.units)
        self.classes = self._state("classes", rows[:1], unknown, "int32")
        self.make_strays()

    def _state(
        self,
        name: str,
        shape: tuple,
        initializer: Any = "zeros",
        dtype: str = "float32",
    ) -> Any:
        return self.add_weight(
            shape=shape,
            initializer=initializer,
            dtype=dtype,
            trainable=False,
            autocast=False,
            name=name,
        )

    # === Predictions ===

    def build_head(self, widths: dict[str, int]) -> None:
        """Makes the decoders, and builds the head for latents."""
        self.latent = LinearLatent(
            widths, self.width, self.ridge, name="latent"
        )
        self.latent.build()
        if not self.head.built:
            self.head.build((None, self.width))

    def joined(
        self,
        features: dict[str, Any],
        presence: Any | None,
        training: bool | None,
    ) -> tuple[Any, Any]:
        """Returns mean similarities to each class, and keeps latents."""
        latents = self.latent(
            {name: features[name] for name in self.modalities}, presence
        )
        return self.head(latents), latents

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Returns the similarities of one modality's latent."""
        return self.head(self.latent({name: feature})), ()

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Exports the fused prediction, as `MultimodalModel.export` does.

        Raises:
            ValueError: If the format is ONNX, which cannot solve the equations
                of a latent.
        """
        if format == "onnx":
            raise ValueError(
                "CPM-Net solves linear equations for each latent, which ONNX "
                "cannot. Export a TensorFlow SavedModel. "
                f"Received: format={format!r}"
            )
        super().export(filepath, format, *args, **kwargs)

    # === Training ===

    def updates(self) -> Sequence[Update]:
        """Returns one update of the decoders."""
        self.check_frozen()
        return [Update(self.modalities, (self,), ("latent",))]

    def update_losses(
        self,
        update: Update,
        outputs: Outputs,
        losses: dict[str, MeanLoss],
        batch: Batch,
    ) -> list[MeanLoss]:
        """Returns the mean of the samples' losses."""
        self.fused_loss(outputs, batch)  # Refuses unpaired data.
        weight, latents, margin = self._counted(batch), outputs.kept, 0.0
        if batch.training:
            sample = _Samples(self, batch)
            weight, latents = weight * sample.inside, sample.latents
            margin, _ = sample.margin(latents)
        errors = self._errors(outputs, latents, batch)
        losses_of = sum(ops.sum(e * e, axis=1) for e in errors.values())
        losses_of = losses_of + self.margin_weight * margin
        count = ops.sum(ops.cast(weight > 0, "float32"))
        mean = ops.sum(weight * losses_of) / ops.maximum(count, 1)
        return [MeanLoss(mean, count)]

    def _counted(self, batch: Batch) -> Any:
        """Returns the weight of each sample, 0 if it has no modality."""
        first = self.modalities[0]
        weight = batch.sample_weight[first]
        if weight is None:
            weight = ops.ones((batch.size(first),), "float32")
        weight = ops.cast(ops.reshape(weight, (-1,)), "float32")
        if batch.presence is None:
            return weight
        return ops.where(batch.known(), weight, ops.zeros_like(weight))

    def _errors(
        self, outputs: Outputs, latents: Any, batch: Batch
    ) -> dict[str, Any]:
        """Returns errors of reconstruction, zeros for absent modalities."""
        return {
            name: where_present(
                batch.presence,
                index,
                self.latent.decoders[name](latents)
                - ops.cast(outputs.features[name], "float32"),
            )
            for index, name in enumerate(self.modalities)
        }

    def modify_gradients(
        self, update: Update, gradients: list, outputs: Outputs, batch: Batch
    ) -> tuple[list, list]:
        """Leaves gradients unchanged, and moves latents after the decoders."""
        samples = _Samples(self, batch)
        weight = self._counted(batch) * samples.inside

        def move(taken: Any | None) -> None:
            found = self._moved(samples, weight, outputs, batch)
            rows = ops.where(weight > 0, samples.ids, self.num_samples)
            state = (self.latents, *self.moments, self.steps)
            for variable, values in zip(state, found, strict=True):
                kernels.assign_where(
                    taken, variable, _written(variable, rows, values)
                )
            known = _written(self.classes, rows, samples.classes)
            kernels.assign_where(taken, self.classes, known)
            means = ops.transpose(_class_means(self))
            means = ops.cast(means, self.head.kernel.dtype)
            kernels.assign_where(taken, self.head.kernel, means)
            strays = ops.sum(ops.cast(samples.inside == 0, "int32"))
            kernels.assign_where(taken, self.strays, self.strays + strays)

        return gradients, [move]

    def _moved(
        self, samples: "_Samples", weight: Any, outputs: Outputs, batch: Batch
    ) -> tuple[Any, ...]:
        """Returns latents, moments and counts after their steps."""
        latents = samples.latents
        first, second = (
            ops.take(moment, samples.ids, axis=0) for moment in self.moments
        )
        steps = ops.take(self.steps, samples.ids, axis=0)
        # Rows of one sample add up their gradients and move together.
        same = ops.cast(samples.ids[:, None] == samples.ids[None], "float32")
        for _ in range(self.latent_steps):
            errors = self._errors(outputs, latents, batch)
            gradient = sum(
                2 * ops.matmul(error, ops.transpose(self.latent.kernel(name)))
                for name, error in errors.items()
            )
            _, of_margin = samples.margin(latents)
            gradient = gradient + self.margin_weight * of_margin
            gradient = ops.matmul(same, weight[:, None] * gradient)
            steps = steps + 1
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            mean = first / (1 - 0.9**steps)[:, None]
            spread = ops.sqrt(second / (1 - 0.999**steps)[:, None])
            latents = latents - self.latent_rate * mean / (spread + 1e-7)
        return latents, first, second, steps

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "width": self.width,
            "margin_weight": self.margin_weight,
            "latent_steps": self.latent_steps,
            "latent_rate": self.latent_rate,
            "ridge": self.ridge,
        }


class _Samples:
    """The samples of a batch: their latents, and those of all other samples.

    Args:
        model: The `CPMNet`.
        batch: The batch, with ids.

    Attributes:
        ids: int32 tensor `(batch,)`, clipped to the range of ids.
        inside: float32 tensor `(batch,)`: 1 if the id is in range, else 0.
        latents: float32 tensor `(batch, width)`, before the batch's steps.
        classes: int32 tensor `(batch,)`: the number of classes for a label
            that is no class.
    """

    def __init__(self, model: CPMNet, batch: Batch) -> None:
        self.ids, inside = model.ids_of(batch)
        self.inside = ops.cast(inside, "float32")
        units = model.head.units
        self.latents = ops.take(model.latents, self.ids, axis=0)
        self.classes = _classes_of(model, batch)
        counted = ops.logical_and(inside, model._counted(batch) > 0)
        rows = ops.where(counted, self.ids, model.num_samples)
        known = _written(model.classes, rows, self.classes)
        self.sums, self.counts = _class_sums(model, known)
        self.own = ops.one_hot(self.classes, units, dtype="float32")

    def margin(self, latents: Any) -> tuple[Any, Any]:
        """Returns the samples' margin terms, and their gradients.

        Args:
            latents: The samples' latents, `(batch, width)`. All others are as
                before the batch.
        """
        itself = ops.sum(latents * self.latents, axis=1, keepdims=True)
        products = ops.matmul(latents, ops.transpose(self.sums))
        counts = self.counts[None] - self.own
        similar = (products - self.own * itself) / ops.maximum(counts, 1)
        shown = ops.where(counts > 0, similar, -1e30)
        best = ops.argmax(shown, axis=1)
        best = ops.one_hot(best, self.own.shape[1], dtype="float32")
        # Alone in its class, a sample is similar to nothing.
        others = ops.sum(self.own * counts, axis=1)
        wrong = ops.logical_and(ops.sum(best * self.own, 1) == 0, others > 0)
        toward = (best - self.own) / ops.maximum(counts, 1)
        excess = 1 + ops.sum((best - self.own) * similar, axis=1)
        gradient = ops.matmul(toward, self.sums) - self.latents * ops.sum(
            toward * self.own, axis=1, keepdims=True
        )
        return (
            ops.where(wrong, ops.relu(excess), ops.zeros_like(excess)),
            ops.where(wrong[:, None], gradient, ops.zeros_like(gradient)),
        )


def _classes_of(model: CPMNet, batch: Batch) -> Any:
    """Returns the class of each sample, or the number of classes if none."""
    units = model.head.units
    labels = ops.convert_to_tensor(batch.labels[model.modalities[0]])
    if len(labels.shape) == 2 and labels.shape[1] == units:
        return ops.cast(ops.argmax(labels, axis=1), "int32")
    labels = ops.cast(ops.reshape(labels, (-1,)), "int32")
    known = ops.logical_and(labels >= 0, labels < units)
    ignored = getattr(model.loss, "ignore_class", None)
    if ignored is not None:
        known = ops.logical_and(known, labels != ignored)
    return ops.where(known, labels, units)


def _class_sums(model: CPMNet, classes: Any) -> tuple[Any, Any]:
    """Returns the sum of each class's latents, and their number."""
    units = model.head.units
    # The last row belongs to no sample, and the last segment to no class.
    classes = classes[: model.num_samples]
    latents = model.latents.value[: model.num_samples]
    sums = ops.segment_sum(latents, classes, num_segments=units + 1)
    ones = ops.ones_like(latents[:, 0])
    counts = ops.segment_sum(ones, classes, num_segments=units + 1)
    return sums[:units], counts[:units]


def _class_means(model: CPMNet) -> Any:
    """Returns the mean latent of each class, zeros for an unseen class."""
    sums, counts = _class_sums(model, model.classes.value)
    return sums / ops.maximum(counts, 1)[:, None]


def _written(variable: Any, rows: Any, values: Any) -> Any:
    """Returns a variable's value with some rows replaced."""
    return ops.scatter_update(
        variable.value, rows[:, None], ops.cast(values, variable.dtype)
    )


@keras.saving.register_keras_serializable(package="keras_mla")
class LinearLatent(keras.layers.Layer):
    """Linear decoders of a latent, and the latent that they explain best.

    Args:
        widths: dict of modality to the width of its features.
        width: int. Width of latents.
        ridge: float > 0. What is added to the diagonal of the equations.
        **kwargs: Arguments of `keras.layers.Layer`. Weights and outputs are
            float32 under any dtype policy.

    Call arguments:
        features: dict of some modalities to tensors `(batch, features)`.
        presence: Bool tensor of shape `(batch, modalities)`, for all
            modalities, or `None`.

    Returns:
        Latents `(batch, width)`, without a gradient for the decoders.
    """

    def __init__(
        self, widths: Mapping[str, int], width: int, ridge: float, **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.decoders = {
            name: keras.layers.Dense(size, dtype="float32", name=name)
            for name, size in widths.items()
        }
        self.names = tuple(widths)
        self.width = width
        self.ridge = float(ridge)

    def build(self, features_shape: Any = None) -> None:
        """Builds the decoders."""
        for decoder in self.decoders.values():
            if not decoder.built:
                decoder.build((None, self.width))
        self.built = True

    def kernel(self, name: str) -> Any:
        """Returns a decoder's kernel `(width, features)`, a constant."""
        return ops.stop_gradient(
            ops.convert_to_tensor(self.decoders[name].kernel)
        )

    def call(self, features: dict[str, Any], presence: Any = None) -> Any:
        """Returns the latents that solve the ridge regression."""
        left: Any = self.ridge * ops.eye(self.width, dtype="float32")
        right: Any = 0.0
        for index, name in enumerate(self.names):
            if name not in features:
                continue
            kernel = self.kernel(name)
            squares = ops.matmul(kernel, ops.transpose(kernel))
            bias = ops.stop_gradient(
                ops.convert_to_tensor(self.decoders[name].bias)
            )
            part = ops.matmul(features[name] - bias, ops.transpose(kernel))
            if presence is not None:
                part = where_present(presence, index, part)
                there = ops.cast(presence[:, index], "float32")
                squares = there[:, None, None] * squares
            left, right = left + squares, right + part
        if presence is None:
            return ops.transpose(ops.solve(left, ops.transpose(right)))
        return ops.solve(left, right[:, :, None])[:, :, 0]

    def compute_output_shape(
        self, features_shape: dict[str, tuple], *args: Any
    ) -> tuple:
        """Returns the shape of the latents."""
        return (next(iter(features_shape.values()))[0], self.width)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "widths": {n: d.units for n, d in self.decoders.items()},
            "width": self.width,
            "ridge": self.ridge,
        }
