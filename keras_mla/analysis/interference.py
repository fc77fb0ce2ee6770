from typing import Any

import numpy as np

from keras_mla.analysis.figure import panels, saved


def plot_interference(callback: Any, path: Any = None) -> Any:
    """Draws what steps for one modality do to the losses of the others.

    The first panel shows the losses of the modalities over training. The
    second shows how much each loss rises between two steps for its own
    modality (forgetting). The third shows what a step of each update adds to
    each loss, on average over the measurements.

    Args:
        callback: The `keras_mla.callbacks.Interference` that `fit` was given.
        path: File to save the figure to; the extension sets the format.
            Defaults to `None`, which saves nothing.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the callback has measured nothing.

    Example:
    ```python
    interference = keras_mla.callbacks.Interference(x_val, y_val)
    model.fit(x, y, callbacks=[interference])
    keras_mla.analysis.plot_interference(interference, "interference.png")
    ```
    """
    history = callback.history
    if not history["batch"]:
        raise ValueError(
            "There is nothing to draw: pass the callback to `fit` first. "
            f"Received: a callback with the history {history}"
        )
    figure, (losses, rises, matrix) = panels(3)
    names = list(history["loss"][0])
    for index, name in enumerate(names):
        loss = [measured[name] for measured in history["loss"]]
        losses.plot(history["batch"], loss, color=f"C{index}", label=name)
        rise = callback.forgetting[name]
        rises.plot(history["batch"], rise, color=f"C{index}", label=name)
    rises.axhline(0, color="gray", linewidth=0.8)
    for axis, label in (
        (losses, "loss"),
        (rises, "rise of the loss between own steps"),
    ):
        axis.set_xlabel("batch")
        axis.set_ylabel(label)
        axis.legend(frameon=False)
    updates = list(callback.mean_change)
    values = np.array(
        [[callback.mean_change[u][name] for name in names] for u in updates]
    )
    most = float(np.abs(values).max()) or 1.0
    drawn = matrix.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most)
    matrix.set_xticks(range(len(names)), names)
    matrix.set_yticks(range(len(updates)), updates)
    matrix.set_xlabel("loss of")
    matrix.set_ylabel("step for")
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        matrix.text(
            column,
            row,
            f"{value:.2g}",
            ha="center",
            va="center",
            color="white" if abs(value) > 0.6 * most else "black",
        )
    figure.colorbar(drawn, ax=matrix, label="mean change of the loss")
    return saved(figure, path)
