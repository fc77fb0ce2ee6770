import contextlib
import dataclasses
import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_mla import training
from keras_mla.models import checks, means
from keras_mla.models.batch import Batch, presence_weight, split_targets
from keras_mla.models.modality_metrics import ModalityMetrics


@dataclasses.dataclass
class Update:
    """One optimizer step of a batch.

    Attributes:
        modalities: Names of the modalities that it encodes.
        layers: Layers whose trainable variables it moves.
        variables: These variables, each once.
    """

    modalities: tuple[str, ...]
    layers: tuple[keras.layers.Layer, ...]
    variables: list = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        found = {
            id(v): v for layer in self.layers for v in layer.trainable_variables
        }
        self.variables = list(found.values())


class Outputs(NamedTuple):
    """What a forward pass yields, each a dict keyed by modality.

    Attributes:
        features: Encoded features, `(batch, features)`.
        logits: Unimodal logits, float32 of shape `(batch, classes)`.
        extra: Whatever else a method's `unimodal_pass` wants to keep.
        fused: The fused logits `(batch, classes)`, for a method that computes
            them in its `forward_pass`; else `None`.
    """

    features: dict[str, Any]
    logits: dict[str, Any]
    extra: dict[str, Any]
    fused: Any | None = None


class MultimodalTrainer(keras.Model):
    """The part of a multimodal model that trains: `compile` and the steps.

    A batch is trained by the model's `updates()` in turn. Each encodes its
    modalities with the weights as they then are, and moves its own variables
    alone. See `MultimodalClassifier` for what a method defines.
    """

    # Set by `compile`. In a namespace, whose content Keras does not track:
    # metrics and optimizer belong to the compilation, not to the model.
    _plan: Any = None
    # Keras's, of any type.
    optimizer: Any
    train_function: Any
    test_function: Any

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute, one that Keras tracks but for JAX's state.

        Keras's `fit` keeps that in an attribute, anew at each step: values of
        variables, among which tracking finds nothing, slowly.
        """
        if name == "_jax_state":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # === Compile ===

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: list | None = None,
        weighted_metrics: list | None = None,
        learning_rate_multiplier: Mapping[str, float] | None = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Configures training, as `keras.Model.compile` with one addition.

        Args:
            optimizer: Name or `keras.optimizers.Optimizer`. Where a method
                makes several updates per batch, `gradient_accumulation_steps`,
                Nadam and MultiOptimizer are refused.
            loss: A single loss that takes logits, such as
                `SparseCategoricalCrossentropy(from_logits=True)`.
            metrics: List of metrics, computed for the fused prediction and,
                as `<modality>_<metric>`, for each modality
                (`<modality>_<metric>_<key>` if its result is a dict).
            weighted_metrics: The same, weighted by `sample_weight`.
            learning_rate_multiplier: dict of factors to the learning rate,
                keyed by modality (its encoder) and `"head"` (all the rest);
                1 where not given. For pretrained encoders beside a new head.
            run_eagerly: bool. Whether to run steps without compiling them.
            steps_per_execution: int. Batches per call of the compiled step.
            jit_compile: bool or `"auto"`.
            auto_scale_loss: bool. Whether a `mixed_float16` policy wraps the
                optimizer in a `LossScaleOptimizer`.

        Raises:
            ValueError: If an argument does not fit the model.
        """
        checks.check_loss(loss)
        checks.check_metrics("metrics", metrics)
        checks.check_metrics("weighted_metrics", weighted_metrics)
        multiplier = checks.check_multiplier(
            learning_rate_multiplier, [*self.modalities, "head"]
        )
        optimizer = keras.optimizers.get(optimizer)
        checks.check_optimizer(optimizer, len(self.updates()), multiplier)
        arguments = dict(
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        super().compile(**arguments)
        self._plan = types.SimpleNamespace(
            # As given, `jit_compile="auto"` too: what it means is for the
            # backend to say on which the model is loaded.
            arguments={
                **arguments,
                "learning_rate_multiplier": learning_rate_multiplier,
            },
            multiplier=multiplier,
            updates=None,
            reported=None,
            # Not through the container of losses, where there is a choice: it
            # is made for several outputs, and takes its time on each step.
            loss=self.loss
            if isinstance(self.loss, keras.losses.Loss)
            else self._compile_loss,
            loss_is_mean=getattr(loss, "reduction", "mean")
            in ("mean", "sum_over_batch_size"),
            loss_is_plain=_is_plain(self.loss),
            metrics=ModalityMetrics(
                self.modalities,
                type(self._compile_metrics) if self._compile_metrics else None,
                metrics,
                weighted_metrics,
            ),
        )

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """Callbacks that a method adds to every `fit`. Defaults to none."""
        return []

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains the model, as `keras.Model.fit`.

        `class_weight` is not supported with unpaired data (`y` a dict).
        """
        call = inspect.signature(super().fit).bind(*args, **kwargs)
        given = call.arguments
        if given.get("class_weight") is not None:
            labels = _peek_labels(given.get("x"), given.get("y"))
            if isinstance(labels, dict):
                raise ValueError(
                    "`class_weight` is not supported with `y` a dict "
                    "(unpaired training). Give batches with a dict of sample "
                    "weights, keyed by modality."
                )
        own = self.own_callbacks()
        callbacks = given.get("callbacks")
        if isinstance(callbacks, keras.callbacks.CallbackList):
            for callback in own:
                callbacks.append(callback)
        elif own:
            # First, so that the user's callbacks see what they do.
            callbacks = keras.tree.flatten(callbacks) if callbacks else []
            given["callbacks"] = [*own, *callbacks]
        try:
            return super().fit(*call.args, **call.kwargs)
        except ValueError:
            # What TensorFlow traced up to an error is of no further use.
            self.train_function = self.test_function = None
            raise

    def get_compile_config(self) -> dict | None:
        """Returns the arguments of `compile`, serialized."""
        if self._plan is None:
            return None
        arguments = keras.saving.serialize_keras_object(self._plan.arguments)
        return _portable(arguments)

    def compile_from_config(self, config: dict) -> None:
        """Compiles a loaded model as the saved one was."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            # Before weights are loaded, so that there is where to put them.
            self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function that trains one batch."""
        if self.train_function is not None and not force:
            return self.train_function
        self._prepare_plan()
        super().make_train_function(force=force)
        if self.jit_compile:
            self.train_function = training.compile_step(
                self, self.train_function
            )
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Makes the function that evaluates one batch."""
        if self.test_function is None or force:
            self._prepare_plan()
        return super().make_test_function(force=force)

    def _prepare_plan(self) -> None:
        """Looks up, once, what every step needs and what costs time to find.

        It also keeps from a step what `torch.compile` cannot follow.
        """
        if self.built:
            self._plan.updates = list(self.updates())
        if self._compile_metrics is None or self._compile_metrics.built:
            self._plan.reported = self._by_name()

    # === Metrics ===

    @property
    def metrics(self) -> list:
        """The loss, compiled metrics, and those of each modality."""
        metrics = super().metrics
        if self._plan is None:
            return metrics
        return [*metrics, *self._plan.metrics.metrics]

    def get_metrics_result(self) -> dict:
        """Returns the current value of each metric, by name."""
        metrics = self._plan.reported or self._by_name()
        return means.results(metrics, self._plan.metrics.names)

    def _unimodal_results(self) -> dict:
        """Returns what `get_metrics_result` does, without fused metrics."""
        fused = self._compile_metrics
        hidden = {id(metric) for metric in (fused, *fused.metrics)}
        metrics = self._plan.reported or self._by_name()
        shown = {k: m for k, m in metrics.items() if id(m) not in hidden}
        return means.results(shown, self._plan.metrics.names)

    def _by_name(self) -> dict:
        container = self._compile_metrics
        return means.by_name(self.metrics, container and type(container))

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict:
        """Adds logits, or a dict of each modality's, to the compiled metrics.

        Keras calls it with symbolic tensors, which builds the metrics.
        """
        labels, _ = split_targets(self.modalities, y, sample_weight)
        logits = _by_modality(y_pred, self.modalities)
        for name in self.modalities:
            checks.check_labels(
                name if isinstance(y, dict) else "",
                labels[name],
                logits[name],
                self.loss,
            )
            self._plan.metrics.build(name, labels[name], logits[name])
            for container in self._plan.metrics.compiled[name]:
                container.update_state(labels[name], logits[name])
        if self._compile_metrics is not None:
            self._compile_metrics.update_state(labels[name], logits[name])
        return self.get_metrics_result()

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the compiled loss of logits, without regularisers.

        Args:
            x: Not used.
            y: Labels, or a dict of each modality's.
            y_pred: Logits `(batch, classes)`, or a dict of each modality's.
            sample_weight: Tensor of shape `(batch,)`, or a dict, or `None`.
            training: Not used.
        """
        if not isinstance(y, dict):
            return self._compile_loss(y, y_pred, sample_weight)
        labels, weights = split_targets(self.modalities, y, sample_weight)
        logits = _by_modality(y_pred, self.modalities)
        losses = [
            self._compile_loss(labels[name], logits[name], weights[name])
            for name in self.modalities
        ]
        return sum(losses) / len(losses)

    def _unimodal_loss(self, name: str, batch: Batch, logits: Any) -> Any:
        checks.check_labels(
            "" if batch.paired else name, batch.labels[name], logits, self.loss
        )
        return self._loss_of_present(name, batch, logits, batch.present(name))

    def fused_loss(self, outputs: Outputs, batch: Batch) -> Any:
        """Returns the loss of the fused logits, for use in `update_loss`.

        It is one over the samples that have any modality.

        Raises:
            ValueError: If the batch is unpaired, so that nothing is fused.
        """
        if not batch.paired:
            raise ValueError(
                f"{type(self).__name__} trains on the fused prediction, which "
                "needs all modalities of the same samples: `y` must be one "
                "array, not a dict keyed by modality. For unpaired data use "
                "`keras_mla.MLA` or `LateFusion`."
            )
        present = None
        if batch.presence is not None:
            present = ops.any(batch.presence, axis=1)
        fused = self.fuse(outputs, batch.presence)
        return self._loss_of_present(self.modalities[0], batch, fused, present)

    def _loss_of_present(
        self, name: str, batch: Batch, logits: Any, present: Any | None
    ) -> Any:
        weight = presence_weight(
            batch.sample_weight[name], present, self._plan.loss_is_mean
        )
        if weight is None and self._plan.loss_is_plain:
            return _plain_loss(self._plan.loss, batch.labels[name], logits)
        return self._plan.loss(batch.labels[name], logits, weight)

    # === Steps ===

    @training.stateful_step(
        "trainable_variables",
        "non_trainable_variables",
        "optimizer_variables",
        "metrics_variables",
    )
    def train_step(self, data: Any) -> dict:
        """Trains one batch: each update in turn, then the metrics."""
        batch = Batch.from_data(self.modalities, data, training=True)
        self.build_for(batch.inputs)
        if not self.optimizer.built:
            # On all variables, before the first update of some of them.
            self.optimizer.build(self.trainable_variables)
        updates = self._plan.updates or self.updates()
        # The optimizer counts batches, whatever the number of updates.
        iterations = self.optimizer.iterations
        start = ops.copy(iterations)
        results: list[tuple] = []
        taken: list[Any] = []
        for update in updates:
            if results:
                iterations.assign(start)
            with self._average_paused(update is not updates[-1]):
                *result, applied = self._train_update(update, batch)
            results.append((update, *result))
            taken.append(applied)
        if any(applied is not None for applied in taken):
            any_taken = ops.any(ops.stack(taken))
            iterations.assign(start + ops.cast(any_taken, start.dtype))
        return self._record(batch, results)

    @training.stateful_step(
        "trainable_variables", "non_trainable_variables", "metrics_variables"
    )
    def test_step(self, data: Any) -> dict:
        """Evaluates one batch: the loss of each update, and the metrics."""
        batch = Batch.from_data(self.modalities, data, training=False)
        self.build_for(batch.inputs)
        outputs = self.forward_pass(
            self.modalities, batch.inputs, False, batch.presence
        )
        return self._record(
            batch,
            [
                (update, *self._objective(update, outputs, batch), outputs)
                for update in self._plan.updates or self.updates()
            ],
        )

    def _objective(
        self, update: Update, outputs: Outputs, batch: Batch
    ) -> tuple[Any, dict[str, Any]]:
        """The scalar to minimise, and each modality's own loss."""
        losses = {
            name: self._unimodal_loss(name, batch, outputs.logits[name])
            for name in update.modalities
        }
        loss = self.update_loss(update, outputs, losses, batch)
        for layer in update.layers:
            for penalty in layer.losses:
                loss = loss + ops.cast(
                    ops.sum(penalty) / training.num_replicas(), loss.dtype
                )
        return loss, losses

    def _train_update(self, update: Update, batch: Batch) -> tuple:
        active = batch.active(update.modalities)
        statistics = [] if active is None else self._statistics(update, batch)

        def objective() -> tuple[Any, Any]:
            outputs = self.forward_pass(
                update.modalities, batch.inputs, True, batch.presence
            )
            loss, losses = self._objective(update, outputs, batch)
            return self.optimizer.scale_loss(loss), (loss, losses, outputs)

        gradients, (loss, losses, outputs) = training.value_and_grad(
            self, objective, update.variables
        )
        gradients, advances = self.modify_gradients(
            update, gradients, outputs, batch
        )
        taken = active
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            finite = self.optimizer.check_finite(gradients)
            taken = (
                finite if active is None else ops.logical_and(active, finite)
            )
        with self._scaled_learning_rates(update):
            training.apply_gradients(self, gradients, update.variables, active)
        for advance in advances:
            advance(taken)
        for variable, before, seen in statistics:
            training.assign_where(ops.logical_not(seen), variable, before)
        return loss, losses, outputs, taken

    def _record(self, batch: Batch, results: list) -> dict:
        """Adds a batch's results to the metrics and returns these."""
        losses: dict[str, Any] = {}
        logits: dict[str, Any] = {}
        features: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        fused = results[-1][-1].fused
        for _, _, unimodal, outputs in results:
            losses.update(unimodal)
            features.update(outputs.features)
            logits.update(outputs.logits)
            extra.update(outputs.extra)
        loss, count = self._mean_loss(batch, results)
        means.add_to_mean(
            self._loss_tracker, training.num_replicas() * loss, count
        )
        for name in self.modalities:
            self._plan.metrics.update(
                name,
                batch.labels[name],
                logits[name],
                training.num_replicas() * losses[name],
                batch.count(name),
                batch.present(name),
                batch.sample_weight[name],
            )
        if self._compile_metrics is None:
            return self.get_metrics_result()
        name = self.modalities[0]
        if not batch.paired:
            # No fused prediction: its metrics exist, and stay out of the logs.
            if not self._compile_metrics.built:
                self._compile_metrics.build(batch.labels[name], logits[name])
            return self._unimodal_results()
        fused = self.fuse(
            Outputs(features, logits, extra, fused), batch.presence
        )
        labels, weight = batch.labels[name], batch.sample_weight[name]
        if weight is None and self._compile_metrics.built:
            for metric in self._compile_metrics.metrics:
                means.update_state(metric, labels, fused, None)
        else:
            self._compile_metrics.update_state(labels, fused, weight)
        return self.get_metrics_result()

    def _mean_loss(self, batch: Batch, results: list) -> tuple[Any, Any]:
        """The mean of a batch's update losses, and how many samples it has.

        Updates without any sample are left out; a batch of none counts zero.
        """
        size = batch.size(self.modalities[0])
        losses = [loss for _, loss, *_ in results]
        if batch.presence is None:
            return sum(losses) / len(losses), size
        weights = [
            ops.cast(batch.active(update.modalities), "float32")
            for update, *_ in results
        ]
        total = sum(weights)
        loss = sum(w * loss for w, loss in zip(weights, losses, strict=True))
        any_sample = ops.cast(total > 0, "float32")
        return loss / ops.maximum(total, 1), any_sample * ops.cast(
            size, "float32"
        )

    # === Details of an optimizer step ===

    def _statistics(self, update: Update, batch: Batch) -> list:
        """Non-trainable weights of an update's layers.

        Returns:
            A list of `(variable, copy, seen)`: whether any sample has the
            modality of the variable's encoder, or any of the update's.
        """
        owners = {
            id(v): (name,)
            for name in update.modalities
            for v in self.encoders[name].non_trainable_weights
        }
        return [
            (
                v,
                ops.copy(v.value),
                batch.active(owners.get(id(v), update.modalities)),
            )
            for layer in update.layers
            for v in layer.non_trainable_weights
        ]

    @contextlib.contextmanager
    def _average_paused(self, paused: bool) -> Iterator[None]:
        """Leaves an optimizer's moving average of weights out of a step.

        It covers all weights, so it is taken once a batch, in the last update.
        """
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if not (paused and optimizer.use_ema):
            yield
            return
        optimizer.use_ema = False
        try:
            yield
        finally:
            optimizer.use_ema = True

    @contextlib.contextmanager
    def _scaled_learning_rates(self, update: Update) -> Iterator[None]:
        """Scales what a step adds to variables by their multipliers."""
        scaled = []
        if self._plan.multiplier:
            owners = {
                id(v): name
                for name in self.modalities
                for v in self.encoders[name].trainable_variables
            }
            for variable in update.variables:
                part = owners.get(id(variable), "head")
                factor = self._plan.multiplier.get(part, 1.0)
                if factor != 1:
                    scaled.append((variable, factor, ops.copy(variable.value)))
        yield
        for variable, factor, before in scaled:
            variable.assign(before + factor * (variable.value - before))


def _is_plain(loss: Any) -> bool:
    """Whether a loss is the mean over samples of what its `call` returns."""
    return (
        isinstance(loss, keras.losses.Loss)
        and type(loss).__call__ is keras.losses.Loss.__call__
        and loss.reduction != "sum"
    )


def _plain_loss(loss: keras.losses.Loss, y: Any, logits: Any) -> Any:
    """Returns `loss(y, logits)`, by less than that does on each call."""
    values = loss.call(
        ops.convert_to_tensor(y, loss.dtype),
        ops.convert_to_tensor(logits, loss.dtype),
    )
    if training.may_be_masked(logits) or training.may_be_masked(values):
        return loss(y, logits)  # A mean over some of the samples.
    return training.mean_loss(values)


def _portable(config: Any) -> Any:
    """Names Keras's optimizers by their public module.

    On PyTorch, Keras writes down the class that is PyTorch's own, which no
    other backend can use.
    """
    if not isinstance(config, dict):
        return config
    config = {key: _portable(value) for key, value in config.items()}
    if str(config.get("module")).startswith("keras.src.backend.torch.optim"):
        config |= {"module": "keras.optimizers", "registered_name": None}
    return config


def _peek_labels(x: Any, y: Any) -> Any:
    """The labels of a first batch, where they can be had without using it."""
    if y is not None:
        return y
    if isinstance(x, keras.utils.PyDataset):
        return keras.utils.unpack_x_y_sample_weight(x[0])[1]
    spec = getattr(x, "element_spec", None)  # Of a tf.data.Dataset.
    return keras.utils.unpack_x_y_sample_weight(spec)[1]


def _by_modality(value: Any, modalities: Sequence[str]) -> dict[str, Any]:
    return (
        value if isinstance(value, dict) else dict.fromkeys(modalities, value)
    )
