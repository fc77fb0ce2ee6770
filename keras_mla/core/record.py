"""The record of a batch: losses and metrics of each expert."""

from typing import Any

import keras
from keras import ops

from keras_mla.backend import distribution, internals, kernels
from keras_mla.core import metrics, tasks
from keras_mla.core.batch import Batch, split_targets
from keras_mla.core.compile import CompiledModel
from keras_mla.core.heads import number_of_units
from keras_mla.core.losses import MeanLoss
from keras_mla.core.update import Outputs, Step


class RecordedModel(CompiledModel):
    """The part of a multimodal model that measures: losses and metrics."""

    # === Losses ===

    def loss_of(
        self, logits: Any, batch: Batch, expert: str | None = None
    ) -> MeanLoss:
        """Returns the compiled loss of logits.

        Args:
            logits: Tensor of shape `(batch, units)`.
            batch: The batch.
            expert: Name of a modality or another expert. The loss is over the
                samples that have the expert, with its labels. `None` stands
                for the samples that have any modality.

        Returns:
            The loss, with the number of samples that it is the mean of.

        Raises:
            ValueError: If there is no such expert, or `expert` is `None` and
                each modality has labels of its own.
        """
        if expert is None and not batch.paired:
            raise ValueError(
                "In unpaired data each modality has labels of its own: pass "
                "the name of an expert. Received: expert=None"
            )
        if expert is not None and expert not in self.experts:
            raise ValueError(
                f"`expert` must be one of {list(self.experts)}, or None. "
                f"Received: expert={expert!r}"
            )
        name = expert if expert in batch.labels else self.modalities[0]
        labels = batch.labels[name]
        self.check_labels("" if batch.paired else name, labels, logits)
        return self.plan.loss(
            labels,
            logits,
            batch.sample_weight[name],
            self._present(batch, expert),
            batch.size(name),
        )

    def fused_loss(self, outputs: Outputs, batch: Batch) -> MeanLoss:
        """Returns the loss of the fused logits, for use in `update_losses`.

        The loss is over the samples that have any modality.

        Raises:
            ValueError: If the batch is unpaired, so that nothing is fused.
        """
        self.check_paired(batch)
        return self.loss_of(self.fuse(outputs, batch.presence), batch)

    def check_paired(self, batch: Batch) -> None:
        """Raises if the batch is unpaired, so that nothing is fused."""
        if not batch.paired:
            raise ValueError(
                f"{type(self).__name__} trains on the fused prediction, which "
                "needs all modalities of the same samples: `y` must be one "
                "array, not a dict keyed by modality. For unpaired data use "
                "`keras_mla.MLA` or `LateFusion`."
            )

    def _present(self, batch: Batch, expert: str | None) -> Any | None:
        """Returns which samples have an expert, bool `(batch,)`.

        Returns `None` if no modality is missing.
        """
        if batch.presence is None:
            return None
        if expert is None:
            return batch.known()
        if expert in self.modalities:
            return batch.present(expert)
        presence = self.expert_presence(batch.presence)
        return presence[:, self.experts.index(expert)]

    # === The record of a batch ===

    def record(self, batch: Batch, steps: list[Step]) -> dict:
        """Adds a batch to the metrics, and returns the metrics' results."""
        losses: dict[str, MeanLoss] = {}
        for made in steps:
            losses.update(made.result.experts)
            for name, value in made.result.logs.items():
                self.plan.metrics.add(name, value)
        self.loss_tracker.update_state(
            {made.update.name: made.result.regularised for made in steps}
        )
        outputs = _merged([made.result.outputs for made in steps])
        outputs = self._completed(outputs, losses, batch)
        for name, loss in losses.items():
            of_modality = name if name in batch.labels else self.modalities[0]
            self.plan.metrics.update(
                name,
                batch.labels[of_modality],
                outputs.logits[name],
                loss,
                self._present(batch, name),
                batch.sample_weight[of_modality],
            )
        self._count_strays(batch, outputs.logits[self.experts[0]])
        if not batch.paired:
            self._build_metrics(batch, outputs.logits[self.modalities[0]])
            return self.unpaired_results()
        fused = self.fuse(outputs, batch.presence)
        self.plan.metrics.add("fused_loss", self.loss_of(fused, batch))
        self._update_fused_metrics(batch, fused)
        return self.get_metrics_result()

    def _completed(
        self, outputs: Outputs, losses: dict[str, MeanLoss], batch: Batch
    ) -> Outputs:
        """Adds the experts that no update of the current stage reports."""
        experts = self.experts if batch.paired else self.modalities
        left = tuple(name for name in experts if name not in outputs.logits)
        if not left:
            return outputs
        # A fused prediction needs all modalities.
        others = self.forward_pass(
            self.modalities if batch.paired else left,
            batch.inputs,
            False,
            batch.presence,
        )
        for name in left:
            losses[name] = self.loss_of(others.logits[name], batch, name)
        return _merged([others, outputs])

    def _build_metrics(self, batch: Batch, logits: Any) -> None:
        """Builds the metrics that unpaired data do not update.

        Such metrics stay out of the logs.
        """
        labels = batch.labels[self.modalities[0]]
        for name in self.experts:
            if name not in self.modalities:
                self.plan.metrics.build(name, labels, logits)
        metrics = self.metrics_container
        if metrics is not None and not metrics.built:
            metrics.build(labels, logits)

    def _update_fused_metrics(self, batch: Batch, fused: Any) -> None:
        container = self.metrics_container
        if container is None:
            return
        name = self.modalities[0]
        labels, weight = batch.labels[name], batch.sample_weight[name]
        if batch.counted is not None:
            self._update_of_counted(container, batch, fused)
        elif weight is None and container.built:
            for metric in container.metrics:
                kernels.update_metric(metric, labels, fused, None)
        else:
            container.update_state(labels, fused, weight)

    def _update_of_counted(
        self, container: Any, batch: Batch, fused: Any
    ) -> None:
        """Leaves rows out that fill the batch up.

        Samples without any modality do count in the fused metrics.
        """
        name = self.modalities[0]
        labels, given = batch.labels[name], batch.sample_weight[name]
        if not container.built:
            container.build(labels, fused)
        counted = ops.cast(batch.counted, "float32")
        weighted = counted
        if given is not None:
            weighted = counted * ops.reshape(ops.cast(given, "float32"), (-1,))
        groups = internals.without_and_with_weights(container)
        for metrics_of, weight in zip(groups, (counted, weighted), strict=True):
            for metric in metrics_of:
                kernels.update_metric(metric, labels, fused, weight)

    def _count_strays(self, batch: Batch, logits: Any) -> None:
        """Counts labels that are not classes, if the backend accepts them."""
        if not tasks.wants_classes(self.loss):
            return
        refused = kernels.refuses_labels(logits)
        classes = number_of_units(self.head)
        ignored = getattr(self.loss, "ignore_class", None)
        for name in self.modalities[:1] if batch.paired else self.modalities:
            given = ops.reshape(batch.labels[name], (-1,))
            broken = "float" in keras.backend.standardize_dtype(given.dtype)
            if refused and not broken:
                continue
            labels = ops.cast(given, "int32")  # No class overflows it.
            stray = ops.logical_or(labels < 0, labels >= classes)
            if broken:
                # Every backend cuts a half off.
                whole = ops.cast(labels, given.dtype) == given
                stray = ops.logical_or(stray, ops.logical_not(whole))
            if ignored is not None:
                stray = ops.logical_and(stray, labels != ignored)
            for counted in (batch.known(), batch.sample_weight[name]):
                if counted is not None:
                    counted = ops.cast(ops.reshape(counted, (-1,)), "bool")
                    stray = ops.logical_and(stray, counted)
            kernels.add_to(
                self.loss_tracker.strays, ops.sum(ops.cast(stray, "int32"))
            )

    # === Metrics ===

    @property
    def metrics(self) -> list:
        """The loss, the compiled metrics, and the metrics of each expert."""
        found = super().metrics
        if self._plan is None:
            return found
        return [*found, *self._plan.metrics.metrics]

    def get_metrics_result(self) -> dict:
        """Returns the current value of each metric, by name."""
        reported = self.plan.reported or metrics.by_name(self.metrics)
        with distribution.whole(self):
            return metrics.results(reported, self.plan.metrics.names)

    def unpaired_results(self) -> dict:
        """Returns the results of `get_metrics_result` that unpaired data have.

        Unpaired data have no fused prediction, and no expert on all modalities.
        """
        own = self.plan.metrics
        hidden = [
            own.of_mean(name) for name in ("fused_loss", *self.plan.paired_logs)
        ]
        for name in self.experts:
            if name not in self.modalities:
                hidden += own.of_expert(name)
        if self.metrics_container is not None:
            hidden.append(self.metrics_container)
        ids = {id(m) for c in hidden for m in (c, *c.metrics)}
        reported = self.plan.reported or metrics.by_name(self.metrics)
        shown = {k: m for k, m in reported.items() if id(m) not in ids}
        with distribution.whole(self):
            return metrics.results(shown, own.names)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict:
        """Updates the compiled metrics with logits, or a dict of logits.

        Keras calls it with symbolic tensors, which builds the metrics.
        """
        labels, _ = split_targets(self.modalities, y, sample_weight)
        first = self.modalities[0]
        for name in self.experts:
            of_modality = name if name in labels else first
            label = labels[of_modality]
            logits = y_pred[of_modality] if isinstance(y_pred, dict) else y_pred
            self.check_labels(
                name if isinstance(y, dict) else "", label, logits
            )
            self.plan.metrics.build(name, label, logits)
            for container in self.plan.metrics.compiled[name]:
                container.update_state(label, logits)
        if self.metrics_container is not None:
            self.metrics_container.update_state(label, logits)
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
            y: Labels, or a dict of each modality's labels.
            y_pred: Logits `(batch, units)`, or a dict of each modality's
                logits.
            sample_weight: Tensor of shape `(batch,)`, or a dict, or `None`.
            training: Not used.
        """
        if not isinstance(y, dict):
            # Keras calls this first, with symbolic tensors.
            self.check_labels("", y, y_pred)
            return self.loss_container(y, y_pred, sample_weight)
        labels, weights = split_targets(self.modalities, y, sample_weight)
        losses = [
            self.loss_container(
                labels[name],
                y_pred[name] if isinstance(y_pred, dict) else y_pred,
                weights[name],
            )
            for name in self.modalities
        ]
        return sum(losses) / len(losses)


def _merged(outputs: list[Outputs]) -> Outputs:
    """Merges the outputs of several passes; the later pass has precedence."""
    features: dict[str, Any] = {}
    logits: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    fused, kept = None, ()
    for one in outputs:
        features.update(one.features)
        logits.update(one.logits)
        extra.update(one.extra)
        fused = one.fused if one.fused is not None else fused
        kept = one.kept if keras.tree.flatten(one.kept) else kept
    return Outputs(features, logits, extra, fused, kept)
