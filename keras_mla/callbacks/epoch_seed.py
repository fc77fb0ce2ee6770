from typing import Any

import keras
import numpy as np


class EpochSeed(keras.callbacks.Callback):
    """Makes the randomness of an epoch depend on a seed and the epoch alone.

    At the start of each epoch the callback sets the global seed, which orders
    shuffled data, and the state of every seed generator in the model, which
    layers such as dropout draw from. Neither is part of a checkpoint. With
    this callback, training that was killed after any epoch and resumes from a
    checkpoint ends with the same weights, to the last bit, as training that
    never stopped.

    Resume at the end of an epoch, with `keras.callbacks.BackupAndRestore`, or
    from a `.keras` file and `fit(initial_epoch=...)`. Make the callback
    before you call `fit`: TensorFlow reads the global seed when `fit` makes
    its data pipeline. Layers that draw random numbers in the data pipeline,
    outside the model, are not covered.

    Args:
        seed: int. Runs with the same seed draw the same numbers.

    Example:
    ```python
    model.fit(
        x,
        y,
        epochs=100,
        callbacks=[
            keras_mla.callbacks.EpochSeed(0),
            keras.callbacks.BackupAndRestore("backup", double_checkpoint=True),
        ],
    )
    ```
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = int(seed)
        keras.utils.set_random_seed(self.seed)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Seeds everything from `(seed, epoch)`."""
        drawn = np.random.SeedSequence([self.seed, epoch]).generate_state(1)
        # The global seed of every backend accepts 31 bits.
        keras.utils.set_random_seed(int(drawn[0] >> 1))
        for index, state in enumerate(_seed_states(self.model)):
            sequence = np.random.SeedSequence([self.seed, epoch, index])
            state.assign(sequence.generate_state(2).astype("uint32"))


def _seed_states(model: keras.Model) -> list[Any]:
    """Returns the states of the seed generators of a model and its layers."""
    known = {id(v) for v in [*model.weights, *model.metrics_variables]}
    return [v for v in model.variables if id(v) not in known]
