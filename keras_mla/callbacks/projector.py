import keras

from keras_mla.layers.gradient_projector import GradientProjector


class ProjectorTrace(keras.callbacks.Callback):
    """Logs the trace of P at the end of each epoch.

    The trace starts as the width of the features and counts the directions
    that are still open, in which a head can still learn. The history and
    TensorBoard show it as `projector_trace`; if the head has several kernels,
    as `projector_0_trace` and so on.

    Example:
    ```python
    history = model.fit(x, y, callbacks=[keras_mla.callbacks.ProjectorTrace()])
    history.history["projector_trace"]
    ```
    """

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Raises unless the model has projectors."""
        _projectors(self.model)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the trace of each projector to `logs`."""
        projectors = _projectors(self.model)
        for index, projector in enumerate(projectors):
            number = f"_{index}" if len(projectors) > 1 else ""
            if logs is not None:
                logs[f"projector{number}_trace"] = projector.trace


class ProjectorReset(keras.callbacks.Callback):
    """Resets P to the identity now and then, which opens all directions again.

    Args:
        every: int. The number of epochs between resets. Defaults to `1`.

    Raises:
        ValueError: If `every` is less than 1.

    Example:
    >>> callback = keras_mla.callbacks.ProjectorReset(every=10)
    >>> callback.every
    10
    """

    def __init__(self, every: int = 1) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(
                f"`every` must be at least 1 epoch. Received: every={every}"
            )
        self.every = every

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Raises unless the model has projectors."""
        _projectors(self.model)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Resets each projector before epochs `every`, `2 * every`, ..."""
        if epoch and epoch % self.every == 0:
            for projector in _projectors(self.model):
                projector.reset()


def _projectors(model: keras.Model) -> list[GradientProjector]:
    projectors = getattr(model, "projectors", None)
    if not projectors:
        raise ValueError(
            "This callback needs a model with gradient projectors, such as "
            "`keras_mla.MLA` with a `projector`. "
            f"Received: {type(model).__name__}"
        )
    return list(projectors)
