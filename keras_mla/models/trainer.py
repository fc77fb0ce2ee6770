import contextlib
import dataclasses
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_mla import training
from keras_mla.models import checks, means
from keras_mla.models.batch import Batch, split_targets
from keras_mla.models.entrances import CheckedModel, check_samples
from keras_mla.models.losses import MeanLoss, SampleLoss, UpdateLosses
from keras_mla.models.modality_metrics import ModalityMetrics


@dataclasses.dataclass
class Update:
    """One optimizer step of a batch.

    Attributes:
        modalities: Names of the modalities that it encodes.
        layers: Layers whose trainable variables it moves.
        losses: Names of the losses whose sum it minimises, as many as
            `update_losses` returns. Defaults to a loss for each modality.
        variables: These variables, each once.
        owners: The modality of each variable of an encoder, by its id, and
        moving: the variables that a pass moves by itself; filled by the
            trainer when they are needed.
    """

    modalities: tuple[str, ...]
    layers: tuple[keras.layers.Layer, ...]
    losses: tuple[str, ...] = ()
    variables: list = dataclasses.field(init=False)
    owners: dict[int, str] | None = dataclasses.field(default=None, init=False)
    moving: list | None = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        self.losses = self.losses or self.modalities
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


class MultimodalTrainer(CheckedModel):
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

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute, which Keras tracks, with two exceptions.

        Keras's `fit` reassigns `_jax_state` at each step: it holds values of
        variables alone, and searching it for layers is slow. `_loss_tracker`
        belongs to the compilation.
        """
        if name in ("_jax_state", "_loss_tracker"):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forget_graphs(self) -> None:
        """Drops compiled functions that Keras does not know of."""

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
        updates = list(self.updates())
        checks.check_optimizer(optimizer, len(updates), multiplier)
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
        self.forget_graphs()
        self._loss_tracker = UpdateLosses([len(u.losses) for u in updates])
        self._plan = types.SimpleNamespace(
            # Unresolved: the backend that loads the model decides what
            # `jit_compile="auto"` means.
            arguments={
                **arguments,
                "learning_rate_multiplier": learning_rate_multiplier,
            },
            multiplier=multiplier,
            # The updates of training, and of evaluation.
            updates=None,
            tested=None,
            reported=None,
            # Keras's container of losses handles several outputs and is slow.
            loss=SampleLoss(loss),
            metrics=ModalityMetrics(self.modalities, metrics, weighted_metrics),
        )

    def get_compile_config(self) -> dict | None:
        """Returns the arguments of `compile`, serialized."""
        if self._plan is None:
            return None
        arguments = keras.saving.serialize_keras_object(self._plan.arguments)
        return _portable(arguments)

    def compile_from_config(self, config: dict) -> None:
        """Compiles a loaded model as the saved one was.

        Where this version refuses what an earlier one took, the model can be
        used, and a warning says why it is not compiled.
        """
        try:
            self.compile(**keras.saving.deserialize_keras_object(config))
        except ValueError as error:
            warnings.warn(
                f"The loaded model is not compiled: {error}", stacklevel=2
            )
            return
        if self.built:
            # Before weights are loaded, so that there is where to put them.
            self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function that trains one batch."""
        if self.train_function is not None and not force:
            return self.train_function
        self._prepare_plan()
        if self.built and self._plan.updates is None:
            # Which variables move is settled here, until `compile` is called.
            self._plan.updates = list(self.updates())
            checks.check_optimized(self.optimizer, self._plan.updates)
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
            if self.built:
                self._plan.tested = list(self.updates())
        return super().make_test_function(force=force)

    def _prepare_plan(self) -> None:
        """Caches what every step needs.

        Looking it up is slow, and `torch.compile` cannot trace it.
        """
        if self._compile_metrics is None or self._compile_metrics.built:
            self._plan.reported = self._by_name()

    # === Data ===

    def check_data(self, x: Any, y: Any, sample_weight: Any = None) -> None:
        """Raises unless arrays can be trained on; data sets pass."""
        if not check_samples(self.modalities, x, y):
            return
        labels, weights = split_targets(self.modalities, y, sample_weight)
        classes = checks.number_of_classes(self.head)
        for name in self.modalities if isinstance(y, dict) else ("",):
            first = name or self.modalities[0]
            checks.check_classes(
                name,
                labels[first],
                classes,
                self.loss,
                weights[first],
                x.get("presence"),
            )

    def check_labels_seen(self) -> None:
        """Raises if steps since the last reset met labels out of range."""
        if self._plan is None:
            return
        strays = int(ops.convert_to_numpy(self._loss_tracker.strays.value))
        if strays:
            self._loss_tracker.strays.assign(0)
            last = checks.number_of_classes(self.head) - 1
            raise ValueError(
                f"{strays} labels are outside 0 to {last}, the classes of the "
                f"head. {checks.UNLABELLED}"
            )

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
        return means.by_name(self.metrics)

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

    def _unimodal_loss(self, name: str, batch: Batch, logits: Any) -> MeanLoss:
        checks.check_labels(
            "" if batch.paired else name, batch.labels[name], logits, self.loss
        )
        return self._plan.loss(
            batch.labels[name],
            logits,
            batch.sample_weight[name],
            batch.present(name),
            batch.size(name),
        )

    def fused_loss(self, outputs: Outputs, batch: Batch) -> MeanLoss:
        """Returns the loss of the fused logits, for use in `update_losses`.

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
        name = self.modalities[0]
        return self._plan.loss(
            batch.labels[name],
            self.fuse(outputs, batch.presence),
            batch.sample_weight[name],
            batch.known(),
            batch.size(name),
        )

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
        moving = [update for update in updates if update.variables]
        checks.check_average(self.optimizer, len(moving), batch.presence)
        # The optimizer counts batches, whatever the number of updates.
        iterations = self.optimizer.iterations
        start = ops.copy(iterations)
        results: list[tuple] = []
        taken: list[Any] = []
        for update in updates:
            if not update.variables:
                results.append((update, *self._frozen_update(update, batch)))
                continue
            if taken:
                iterations.assign(start)
            with self._average_paused(update is not moving[-1]):
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
        """Evaluates one batch: the losses of each update, and the metrics."""
        batch = Batch.from_data(self.modalities, data, training=False)
        self.build_for(batch.inputs)
        updates = self._plan.tested or self.updates()
        # A pass for each update, so that its penalties are its own.
        return self._record(
            batch,
            [
                (update, *self._losses_of(update, batch, False))
                for update in updates
            ],
        )

    def _losses_of(self, update: Update, batch: Batch, training: bool) -> tuple:
        """Makes an update's forward pass.

        Returns:
            The update's losses, regularisers in the first one; each
            modality's own loss; and the `Outputs`.
        """
        outputs = self.forward_pass(
            update.modalities, batch.inputs, training, batch.presence
        )
        unimodal = {
            name: self._unimodal_loss(name, batch, outputs.logits[name])
            for name in update.modalities
        }
        losses = self.update_losses(update, outputs, unimodal, batch)
        if len(losses) != len(update.losses):
            raise ValueError(
                f"`{type(self).__name__}.update_losses` must return as many "
                f"losses as the update names, {list(update.losses)}. "
                f"Received: {len(losses)} losses"
            )
        first, *others = losses
        mean = first.mean
        for penalty in self._penalties(update, batch):
            mean = mean + ops.cast(penalty, mean.dtype)
        return [first._replace(mean=mean), *others], unimodal, outputs

    def _penalties(self, update: Update, batch: Batch) -> Iterator[Any]:
        """Regularisers of an update's layers, a replica's part of each."""
        # Of an encoder that had no sample, what it was fed may make NaN.
        of_encoders = [
            (name, penalty)
            for name in (() if batch.presence is None else update.modalities)
            for penalty in self.encoders[name].losses
        ]
        owners = {id(penalty): name for name, penalty in of_encoders}
        for layer in update.layers:
            for penalty in layer.losses:
                total = ops.sum(penalty) / training.num_replicas()
                if id(penalty) in owners:
                    active = batch.active([owners[id(penalty)]])
                    total = ops.where(active, total, ops.zeros_like(total))
                yield total

    def _frozen_update(self, update: Update, batch: Batch) -> tuple:
        """Makes the pass of an update that has nothing to move."""
        active = batch.active(update.modalities)
        before = self._moving(update, batch, active)
        result = self._losses_of(update, batch, True)
        self._put_back(before)
        return result

    def _train_update(self, update: Update, batch: Batch) -> tuple:
        active = batch.active(update.modalities)
        before = self._moving(update, batch, active)

        def objective() -> tuple[Any, Any]:
            results = self._losses_of(update, batch, True)
            loss = sum(part.mean for part in results[0])
            return self.optimizer.scale_loss(loss), results

        gradients, (losses, unimodal, outputs) = training.value_and_grad(
            self, objective, update.variables
        )
        gradients = self._of_present(update, gradients, batch)
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
        self._put_back(before)
        return losses, unimodal, outputs, taken

    def _of_present(
        self, update: Update, gradients: list, batch: Batch
    ) -> list:
        """Replaces gradients of encoders that had no sample by zeros.

        What they were fed may have made them NaN. Where an update has one
        modality, it is not made at all.
        """
        if batch.presence is None or len(update.modalities) == 1:
            return gradients
        owners = self._owners(update)
        active = {name: batch.active([name]) for name in update.modalities}
        return [
            ops.where(active[owners[id(v)]], g, ops.zeros_like(g))
            if id(v) in owners
            else g
            for v, g in zip(update.variables, gradients, strict=True)
        ]

    def _record(self, batch: Batch, results: list) -> dict:
        """Adds a batch's results to the metrics and returns these."""
        unimodal: dict[str, MeanLoss] = {}
        merged: list[dict] = [{}, {}, {}]
        for _, _, losses, outputs in results:
            unimodal.update(losses)
            for all_updates, of_update in zip(merged, outputs, strict=False):
                all_updates.update(of_update)
        self._loss_tracker.update_state(
            [_whole(loss) for _, losses, *_ in results for loss in losses]
        )
        features, logits, extra = merged
        outputs = Outputs(features, logits, extra, results[-1][-1].fused)
        for name in self.modalities:
            self._plan.metrics.update(
                name,
                batch.labels[name],
                outputs.logits[name],
                _whole(unimodal[name]),
                batch.present(name),
                batch.sample_weight[name],
            )
        self._count_strays(batch)
        if self._compile_metrics is None:
            return self.get_metrics_result()
        name = self.modalities[0]
        labels, weight = batch.labels[name], batch.sample_weight[name]
        if not batch.paired:
            # No fused prediction: its metrics exist, and stay out of the logs.
            if not self._compile_metrics.built:
                self._compile_metrics.build(labels, outputs.logits[name])
            return self._unimodal_results()
        fused = self.fuse(outputs, batch.presence)
        if weight is None and self._compile_metrics.built:
            for metric in self._compile_metrics.metrics:
                means.update_state(metric, labels, fused, None)
        else:
            self._compile_metrics.update_state(labels, fused, weight)
        return self.get_metrics_result()

    def _count_strays(self, batch: Batch) -> None:
        """Counts labels that are no classes, if the backend takes them."""
        if training.refuses_labels() or not checks.wants_classes(self.loss):
            return
        classes = checks.number_of_classes(self.head)
        ignored = getattr(self.loss, "ignore_class", None)
        for name in self.modalities[:1] if batch.paired else self.modalities:
            labels = ops.reshape(batch.labels[name], (-1,))
            labels = ops.cast(labels, "int32")  # Which no class overflows.
            stray = ops.logical_or(labels < 0, labels >= classes)
            if ignored is not None:
                stray = ops.logical_and(stray, labels != ignored)
            for counted in (batch.known(), batch.sample_weight[name]):
                if counted is not None:
                    counted = ops.cast(ops.reshape(counted, (-1,)), "bool")
                    stray = ops.logical_and(stray, counted)
            training.add_to(
                self._loss_tracker.strays, ops.sum(ops.cast(stray, "int32"))
            )

    # === Details of an optimizer step ===

    def _moving(self, update: Update, batch: Batch, active: Any) -> list:
        """Variables that an update's pass moves by itself, as they are.

        Returns:
            A list of `(variable, copy, seen)`: whether any sample has the
            modality of the variable's encoder, or any of the update's. It is
            empty where no modality is missing.
        """
        if active is None:
            return []
        if update.moving is None:
            update.moving = training.internals.moving_variables(
                update.layers, self
            )
        owners = self._owners(update) if update.moving else {}
        return [
            (
                v,
                ops.copy(v.value),
                batch.active([owners[id(v)]]) if id(v) in owners else active,
            )
            for v in update.moving
        ]

    def _owners(self, update: Update) -> dict[int, str]:
        """Tells the modality of each variable of an update's encoders."""
        if update.owners is None:
            update.owners = {
                id(variable): name
                for name in update.modalities
                for variable in self.encoders[name].variables
            }
        return update.owners

    def _put_back(self, before: list) -> None:
        """Undoes what a pass moved for modalities that had no sample."""
        for variable, value, seen in before:
            training.assign_where(ops.logical_not(seen), variable, value)

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
        """Scales what a step adds to variables by their multipliers.

        Keras applies a variable's constraint to what it has added, so that
        is left until the step is scaled.
        """
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
                    constraint = variable.constraint
                    variable.constraint = None
                    before = ops.copy(variable.value)
                    scaled.append((variable, factor, before, constraint))
        try:
            yield
        finally:
            for variable, _, _, constraint in scaled:
                variable.constraint = constraint
        for variable, factor, before, constraint in scaled:
            variable.assign(before + factor * (variable.value - before))
            if constraint is not None:
                variable.assign(constraint(variable.value))


def _whole(loss: MeanLoss) -> MeanLoss:
    """Returns the loss of a batch, of which a replica computes a part."""
    replicas = training.num_replicas()
    return loss if replicas == 1 else loss._replace(mean=replicas * loss.mean)


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


def _by_modality(value: Any, modalities: Sequence[str]) -> dict[str, Any]:
    return (
        value if isinstance(value, dict) else dict.fromkeys(modalities, value)
    )
