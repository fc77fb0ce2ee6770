"""The compilation of a model: task, losses, metrics and stages."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla import backend
from keras_mla.core import building, checks, heads, optimizers, tasks
from keras_mla.core.batch import split_targets
from keras_mla.core.entrances import CheckedModel, check_samples
from keras_mla.core.losses import SampleLoss, UpdateLosses
from keras_mla.core.metrics import ExpertMetrics, by_name
from keras_mla.core.tasks import Task
from keras_mla.core.update import Stage, Update


@dataclasses.dataclass
class Plan:
    """The state of a compiled model, which Keras does not track.

    Metrics and optimizer belong to the compilation, not to the model.

    Attributes:
        arguments: The arguments of `compile`, `jit_compile` unresolved: the
            backend that loads the model decides what `"auto"` means.
        multiplier: dict of factors to the learning rate, by part of the model.
        loss: The loss over the samples that count.
        micro_batches: int. The number of parts that a batch is computed in.
        metrics: Losses and metrics of each expert.
        paired_logs: Names of the logs of updates that unpaired data skip.
        stage: int. The index of the current stage: in `fit` the stage of the
            epoch, before `fit` the last stage.
        stages: The stages to train, with their variables. Set when the train
            function is made.
        tested: The stages to evaluate. Set when the test function is made.
        reported: dict of metrics by the names of their results. Set when all
            metrics are built.
    """

    arguments: dict
    multiplier: dict[str, float]
    loss: SampleLoss
    micro_batches: int
    metrics: ExpertMetrics
    paired_logs: list[str]
    stage: int
    stages: list[Stage] | None = None
    tested: list[Stage] | None = None
    reported: dict | None = None


class CompiledModel(backend.internals.Compiled, CheckedModel):
    """The part of a multimodal model that `compile` configures."""

    _plan: Plan | None = None
    # Keras sets it.
    optimizer: Any

    @property
    def plan(self) -> Plan:
        """The plan that `compile` has made.

        Raises:
            ValueError: If the model is not compiled.
        """
        if self._plan is None:
            raise ValueError(
                f"{type(self).__name__} is not compiled: call `compile` first."
            )
        return self._plan

    def use_task(self, task: Task) -> None:
        """Sets the task, and makes the fusion serve it."""
        raise NotImplementedError

    # === Compile ===

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: list | None = None,
        weighted_metrics: list | None = None,
        learning_rate_multiplier: Mapping[str, float] | None = None,
        micro_batches: int = 1,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Configures training like `keras.Model.compile`, with two additions.

        The loss determines the task, unless the model was given one: binary
        losses are for several labels, losses such as `MeanSquaredError` are
        for regression, and all other losses are for one class of several.

        Args:
            optimizer: Name or `keras.optimizers.Optimizer`. If a method makes
                several updates per batch, `gradient_accumulation_steps`, Nadam
                and MultiOptimizer are refused. Defaults to `"rmsprop"`.
            loss: A single loss that takes logits, such as
                `SparseCategoricalCrossentropy(from_logits=True)`.
            metrics: List of metrics, computed for the fused prediction and,
                as `<modality>_<metric>`, for each modality
                (`<modality>_<metric>_<key>` if its result is a dict).
            weighted_metrics: List of metrics that are weighted by
                `sample_weight`.
            learning_rate_multiplier: dict of factors to the learning rate,
                keyed by modality (its encoder, without a projection) and
                `"head"` (all other weights); a factor that is not given is 1.
                Useful for pretrained encoders with a new head.
            micro_batches: int. Each update computes its batch in so many parts,
                one after the other, and adds their gradients, so that a batch
                need not fit into memory at once. The step is that of the whole
                batch, but for layers that couple samples: batch normalization
                sees the parts. Defaults to `1`.
            run_eagerly: bool. Whether to run steps without compiling them.
            steps_per_execution: int. Batches per call of the compiled step.
            jit_compile: bool or `"auto"`. Whether to compile the step.
            auto_scale_loss: bool. Whether a `mixed_float16` policy wraps the
                optimizer in a `LossScaleOptimizer`.

        Raises:
            ValueError: If an argument does not fit the model.
        """
        checks.check_loss(loss)
        checks.check_metrics("metrics", metrics)
        checks.check_metrics("weighted_metrics", weighted_metrics)
        multiplier = optimizers.check_multiplier(
            learning_rate_multiplier, [*self.modalities, "head"]
        )
        task = tasks.task_of(loss, self.given_task)
        self.check_task(task)
        # Keras's container of losses handles several outputs and is slow.
        sample_loss = SampleLoss(loss, in_parts=micro_batches != 1)
        checks.check_micro_batches(micro_batches, self, sample_loss)
        optimizer = keras.optimizers.get(optimizer)
        stages = list(self.stages())
        for stage in stages:
            optimizers.check_optimizer(
                optimizer, len(stage.updates), multiplier
            )
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
        units = heads.number_of_units(self.head)
        of_task = {
            group: [task.metric(metric, units) for metric in arguments[group]]
            for group in ("metrics", "weighted_metrics")
            if arguments[group] is not None
        }
        self.use_task(task)
        super().compile(**{**arguments, **of_task})
        self.forget_graphs()
        self.loss_tracker = UpdateLosses(_sizes(stages))
        logs = {name: u for s in stages for u in s.updates for name in u.logs}
        checks.check_experts(self.experts, self.modalities, logs)
        self._plan = Plan(
            {
                **arguments,
                "learning_rate_multiplier": learning_rate_multiplier,
                "micro_batches": micro_batches,
            },
            multiplier,
            sample_loss,
            micro_batches,
            ExpertMetrics(self.experts, ["fused_loss", *logs], **of_task),
            [name for name, update in logs.items() if update.paired],
            len(stages) - 1,
        )

    def check_task(self, task: Task) -> None:
        """Raises unless the method supports the task and its head fits it."""
        if task.name not in self.tasks:
            raise ValueError(
                f"{type(self).__name__} is a method for the tasks "
                f"{list(self.tasks)} only. Other methods, such as "
                f"`LateFusion`, support all tasks. Received: the task "
                f"{task.name!r}"
            )
        task.check_units(heads.number_of_units(self.head))

    def get_compile_config(self) -> dict | None:
        """Returns the arguments of `compile`, serialized."""
        if self._plan is None:
            return None
        arguments = keras.saving.serialize_keras_object(self._plan.arguments)
        return building.portable(arguments)

    def compile_from_config(self, config: dict) -> None:
        """Compiles a loaded model as the saved one was.

        If this version refuses arguments that an earlier version took, the
        model can be used, and a warning says why it is not compiled.
        """
        try:
            self.compile(**keras.saving.deserialize_keras_object(config))
        except ValueError as error:
            warnings.warn(
                f"The loaded model is not compiled: {error}", stacklevel=2
            )
            return
        if self.built:
            # The optimizer needs its variables before their values are loaded.
            self.optimizer.build(self.trainable_variables)

    # === Stages ===

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function that trains one batch."""
        if self.train_function is not None and not force:
            return self.train_function
        self._cache_results()
        if self.built and self.plan.stages is None:
            # The variables to move are fixed here, until `compile` is called.
            self.plan.stages = list(self.stages())
            updates = [u for stage in self.plan.stages for u in stage.updates]
            optimizers.check_optimized(self.optimizer, updates)
            optimizers.check_moved(self.trainable_variables, updates)
        with backend.step.traced_anew(self, "train_step"):
            super().make_train_function(force=force)
        if self.jit_compile:
            self.train_function = backend.step.compile_step(
                self, self.train_function
            )
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Makes the function that evaluates one batch."""
        if self.test_function is None or force:
            self._cache_results()
            if self.built:
                self.plan.tested = list(self.stages())
        with backend.step.traced_anew(self, "test_step"):
            return super().make_test_function(force=force)

    def _cache_results(self) -> None:
        """Caches the metrics by the names of their results.

        Looking the names up is slow, and `torch.compile` cannot trace it.
        """
        if self.metrics_container is None or self.metrics_container.built:
            self.plan.reported = by_name(self.metrics)

    def current_updates(self, training: bool) -> Sequence[Update]:
        """Returns the updates of the current stage.

        Args:
            training: bool. Whether the updates are to train or to evaluate.
        """
        stages = self.plan.stages if training else self.plan.tested
        return (stages or list(self.stages()))[self.plan.stage].updates

    def use_stage(self, epoch: int) -> None:
        """Switches to the stage of an epoch, counted from 0.

        Only the updates change. Weights, trainable variables and the
        optimizer's state stay.
        """
        stages = self.plan.stages or list(self.stages())
        index, end = 0, 0.0
        while index < len(stages) - 1:
            epochs = stages[index].epochs
            end += float("inf") if epochs is None else epochs
            if epoch < end:
                break
            index += 1
        self._switch_to(index)

    def use_last_stage(self) -> None:
        """Switches to the last stage, which counts outside of `fit`."""
        stages = self.plan.stages or list(self.stages())
        self._switch_to(len(stages) - 1)

    def _switch_to(self, index: int) -> None:
        if index != self.plan.stage:
            self.plan.stage = index
            self.make_train_function(force=True)
            self.test_function = None

    def house_callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callbacks of the library itself."""
        return [_UseStage(), *super().house_callbacks()]

    # === Data ===

    def check_data(self, x: Any, y: Any, sample_weight: Any = None) -> None:
        """Raises unless arrays can be trained on. Data sets are not checked."""
        if not check_samples(self.modalities, x, y):
            return
        labels, weights = split_targets(self.modalities, y, sample_weight)
        units = heads.number_of_units(self.head)
        for name in self.modalities if isinstance(y, dict) else ("",):
            first = name or self.modalities[0]
            self.task.check_values(
                _where(name),
                labels[first],
                units,
                self.loss,
                weights[first],
                x.get("presence"),
            )

    def check_labels(self, name: str, y: Any, logits: Any) -> None:
        """Raises unless labels fit the logits and the loss, by their shapes.

        Args:
            name: The modality, or `""` for all.
            y: Labels.
            logits: Tensor of shape `(batch, units)`.
        """
        self.task.check_labels(_where(name), y, logits.shape[-1], self.loss)

    def check_labels_seen(self) -> None:
        """Raises if steps since the last reset met labels out of range."""
        if self._plan is None:
            return
        backend.distribution.meet("the end of an epoch")
        # A tensor: with several replicas, a variable has a part of each.
        strays = ops.convert_to_tensor(self.loss_tracker.strays)
        (strays,) = backend.distribution.total([strays])
        strays = int(ops.convert_to_numpy(strays))
        if strays:
            self.loss_tracker.strays.assign(0)
            last = heads.number_of_units(self.head) - 1
            raise ValueError(
                f"{strays} labels are outside 0 to {last}, the classes of the "
                f"head, or no whole numbers. {tasks.UNLABELLED}"
            )


class _UseStage(keras.callbacks.Callback):
    """Switches to the stage of each epoch."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.model.use_stage(epoch)

    def on_train_end(self, logs: dict | None = None) -> None:
        self.model.use_last_stage()


def _sizes(stages: Sequence[Stage]) -> dict[str, int]:
    """Returns the number of losses of each update, by its name."""
    sizes: dict[str, int] = {}
    endless = [stage.epochs is None for stage in stages]
    if not all(stage.updates for stage in stages) or any(endless[:-1]):
        raise ValueError(
            "Each stage needs at least one update, and each stage but the "
            "last one a number of epochs. Received: "
            f"{[(len(s.updates), s.epochs) for s in stages]}, the number of "
            "updates and of epochs of each stage"
        )
    for stage in stages:
        names = [update.name for update in stage.updates]
        for update in stage.updates:
            size = sizes.setdefault(update.name, len(update.losses))
            if names.count(update.name) > 1 or size != len(update.losses):
                raise ValueError(
                    "Each update of a stage needs a name of its own, and the "
                    "same number of losses in each stage. Received: "
                    f"updates {names}"
                )
    return sizes


def _where(name: str) -> str:
    return f" of modality {name!r}" if name else ""
