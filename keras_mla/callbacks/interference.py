from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mla.core.arrays import full_presence
from keras_mla.core.rehearsal import Rehearsal


class Interference(keras.callbacks.Callback):
    """Measures what a step for one modality does to the others' losses.

    Now and then, before a batch is trained, the callback makes the model's
    updates on a batch of its own, one after another as a training step does,
    and evaluates the losses of all modalities before and after each update.
    Then it undoes the updates: training ends with the same weights, to the
    last bit, as without the callback. Each measurement copies all weights,
    makes all updates, and evaluates the losses once more than there are
    updates. The first one compiles a step for each update.

    Args:
        x: dict of inputs on which losses are evaluated, as for `evaluate`, in
            one batch; `presence` may be among them.
        y: Labels of `x`.
        batch: `(x, y)` on which the measured updates are made. Defaults to
            `None`, which takes `x` and `y` themselves.
        every: int. The number of batches between measurements, counted over
            all epochs and calls of `fit`. If `steps_per_execution` is greater
            than 1, a measurement waits until the compiled step returns.
            Defaults to `100`.

    Attributes:
        history: dict of lists with an entry for each measurement. `"batch"`
            is the number of batches trained before; `"loss"` a dict of each
            modality's loss before the updates; `"change"` a dict from each
            update's name to a dict of what it adds to each modality's loss.
        mean_change: dict from each update to a dict of the means over
            measurements.
        forgetting: dict from each modality to a list: the sum of what the
            updates of other modalities add to its loss in one training step,
            which is how much the loss rises between two steps of its own.

    Raises:
        ValueError: If `every` is less than 1, or no sample of `x` or of
            `batch` has some modality.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.MLA(encoders, head=3)
    >>> model.compile(
    ...     "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ... )
    >>> x = {"image": np.ones((6, 4)), "text": np.ones((6, 4))}
    >>> y = np.array([0, 1, 2, 0, 1, 2])
    >>> interference = keras_mla.callbacks.Interference(x, y, every=2)
    >>> history = model.fit(
    ...     x, y, batch_size=2, verbose=0, callbacks=[interference]
    ... )
    >>> interference.history["batch"]
    [0, 2]
    >>> list(interference.mean_change["image"])
    ['image', 'text']

    Reference:
        Fifty et al., "Efficiently Identifying Task Groupings for Multi-Task
        Learning", NeurIPS 2021, section 3: the inter-task affinity, which
        moves shared weights alone and divides the change by the loss.
    """

    def __init__(
        self,
        x: dict[str, Any],
        y: Any,
        batch: Sequence | None = None,
        every: int = 100,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(
                f"`every` must be at least 1 batch. Received: every={every}"
            )
        self.probe = x, y
        self.batch = (x, y) if batch is None else tuple(batch)
        self.every = every
        self.history: dict[str, list] = {"batch": [], "loss": [], "change": []}
        self._updates: dict[str, tuple[str, ...]] = {}
        self._seen = self._next = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Raises unless each modality has samples."""
        for x, _ in (self.probe, self.batch):
            names = self.model.modalities
            present = full_presence(names, self.model.prepare_inputs(x))
            for index, name in enumerate(names):
                if not present[:, index].any():
                    raise ValueError(
                        "`Interference` needs samples of each modality. "
                        f"Received: no sample with {name!r}"
                    )
        # What was compiled for an earlier `fit` may be out of date.
        self._rehearsal = Rehearsal(self.model)

    def on_train_batch_begin(
        self, batch: int, logs: dict | None = None
    ) -> None:
        """Measures the updates, before every `every`-th batch."""
        if self._seen >= self._next:
            self._measure()
            self._next += self.every
        self._seen += self.model.steps_per_execution

    def _measure(self) -> None:
        changes: dict[str, dict[str, float]] = {}
        with self._rehearsal.undone() as updates:
            before = first = self._rehearsal.losses(*self.probe)
            for update in updates:
                if not update.variables:
                    continue
                self._rehearsal.make(update, *self.batch)
                after = self._rehearsal.losses(*self.probe)
                changes[update.name] = {
                    name: after[name] - before[name] for name in before
                }
                self._updates[update.name] = update.modalities
                before = after
        self.history["batch"].append(self._seen)
        self.history["loss"].append(first)
        self.history["change"].append(changes)

    @property
    def mean_change(self) -> dict[str, dict[str, float]]:
        """What each update adds to each modality's loss, on average."""
        return {
            update: {
                name: float(
                    np.mean(
                        [
                            change[update][name]
                            for change in self.history["change"]
                            if update in change
                        ]
                    )
                )
                for name in self.history["loss"][0]
            }
            for update in self._updates
        }

    @property
    def forgetting(self) -> dict[str, list[float]]:
        """The rise of each modality's loss between its own steps."""
        return {
            name: [
                float(
                    sum(
                        of_update[name]
                        for update, of_update in change.items()
                        if name not in self._updates[update]
                    )
                )
                for change in self.history["change"]
            ]
            for name in (self.history["loss"] or [{}])[0]
        }
