"""The ids of training samples, for methods that remember each sample."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.core.batch import Batch
from keras_mla.core.hooks import Hooks


class SampleIds(Hooks):
    """The part of a method that reads `x["sample_id"]` in training.

    It comes first among the base classes of a method. Out-of-range ids raise
    an error: before training if `fit` gets arrays, at the end of the epoch
    otherwise, if the method counts them in `strays`.

    Attributes:
        num_samples: int. The number of training samples.
        remembered: What the method keeps of samples, for errors.
        strays: Weight that counts out-of-range ids.
    """

    num_samples: int
    remembered = ""
    strays: Any
    whole_batch = "what it keeps of samples is not shared"

    def count_ids(self, num_samples: int) -> None:
        """Checks and sets `num_samples`. Call it in a constructor.

        Raises:
            ValueError: If it is not a positive int.
        """
        if not isinstance(num_samples, int) or num_samples < 1:
            raise ValueError(
                "`num_samples` must be the number of training samples. "
                f"Received: num_samples={num_samples}"
            )
        self.num_samples = num_samples

    def make_strays(self) -> None:
        """Makes the weight `strays`. Call it in a constructor."""
        self.strays = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            name="strays",
        )

    def ids_of(self, batch: Batch) -> tuple[Any, Any]:
        """Returns a batch's ids, clipped, and which of them were in range.

        Raises:
            ValueError: If the batch has no ids.
        """
        name = type(self).__name__
        if batch.sample_id is None:
            raise ValueError(
                f"{name} needs x['sample_id'] in training, because it keeps "
                f"{self.remembered}. Pass an int array of shape (samples,), "
                "such as `np.arange(len(y))`. Evaluation and prediction do "
                "not need it."
            )
        ids = ops.cast(ops.reshape(batch.sample_id, (-1,)), "int32")
        inside = ops.logical_and(ids >= 0, ids < self.num_samples)
        return ops.clip(ids, 0, self.num_samples - 1), inside

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns a callback that raises after an epoch with bad ids."""

        def check(epoch: int, logs: dict | None = None) -> None:
            strays = int(ops.convert_to_numpy(self.strays))
            if strays:
                self.strays.assign(0)
                raise ValueError(
                    f"{strays} ids in x['sample_id'] of this epoch do not lie "
                    f"between 0 and {self.num_samples - 1}, the range that "
                    f"num_samples={self.num_samples} allows."
                )

        return [keras.callbacks.LambdaCallback(on_epoch_end=check)]

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Checks the ids, and trains the model as `keras.Model.fit` does."""
        self._check_ids(args[0] if args else kwargs.get("x"))
        return super().fit(*args, **kwargs)

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Trains one batch, as `keras.Model.train_on_batch` does."""
        self._check_ids(x)
        return super().train_on_batch(x, *args, **kwargs)

    def _check_ids(self, x: Any) -> None:
        if not isinstance(x, dict) or "sample_id" not in x:
            return  # Ids of a dataset are checked batch by batch.
        ids = np.asarray(ops.convert_to_numpy(x["sample_id"]))
        if ids.dtype.kind not in "iu":
            raise ValueError(
                "x['sample_id'] must hold ints. "
                f"Received: an array of dtype {ids.dtype}"
            )
        bad = ids[(ids < 0) | (ids >= self.num_samples)]
        if bad.size:
            raise ValueError(
                f"x['sample_id'] must lie between 0 and "
                f"{self.num_samples - 1}, the range that `num_samples` "
                f"allows. Received: the id {bad[0]}, "
                f"num_samples={self.num_samples}"
            )

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {**super().get_config(), "num_samples": self.num_samples}
