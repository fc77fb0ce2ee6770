from collections.abc import Mapping, Sequence
from typing import Any

from keras_mla.analysis.figure import panels, saved


def plot_history(
    history: Any,
    modalities: Sequence[str],
    metric: str = "accuracy",
    path: Any = None,
) -> Any:
    """Draws the losses and metrics of each modality, epoch by epoch.

    One panel shows the loss of each modality, one a metric of each modality
    and of their fusion, and one the trace of P if `callbacks.ProjectorTrace`
    was used. Dashed lines are training and solid lines are validation; without
    validation, solid lines are training, as the legend says. Epochs are
    counted from 1, also across resumptions.

    Args:
        history: The `History` that `fit` returned, or its `history` dict,
            which does not hold the epoch at which training began.
        modalities: Names of the modalities, such as `model.modalities`.
        metric: Name of a compiled metric. Defaults to `"accuracy"`.
        path: File to save the figure to; the extension sets the format.
            Defaults to `None`, which saves nothing.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the history lacks a modality's loss, or the metric.

    Example:
    ```python
    history = model.fit(x, y, validation_data=(x_val, y_val), epochs=20)
    keras_mla.analysis.plot_history(history, model.modalities, path="run.png")
    ```
    """
    logs: Mapping[str, Sequence[float]] = getattr(history, "history", history)
    for name in modalities:
        if f"{name}_loss" not in logs:
            raise ValueError(
                f"The history has no '{name}_loss'. Received: history with "
                f"{sorted(logs)}, modalities={list(modalities)}"
            )
    if metric not in logs and f"{modalities[0]}_{metric}" not in logs:
        raise ValueError(
            f"The history has no metric '{metric}'. Received: "
            f"metric={metric!r}, history with {sorted(logs)}"
        )
    traces = [name for name in logs if name.endswith("_trace")]
    recorded = len(logs[f"{modalities[0]}_loss"])
    epochs = [epoch + 1 for epoch in getattr(history, "epoch", [])]
    epochs = epochs or list(range(1, recorded + 1))
    validated = any(name.startswith("val_") for name in logs)
    figure, axes = panels(3 if traces else 2)
    for index, name in enumerate([*modalities, ""]):
        color = f"C{index}" if name else "black"
        for axis, key in (
            (axes[0], f"{name}_loss" if name else ""),
            (axes[1], f"{name}_{metric}" if name else metric),
        ):
            _draw(axis, logs, epochs, key, color, name or "fused")
    axes[0].set_ylabel("loss")
    axes[1].set_ylabel(metric)
    for index, key in enumerate(traces):
        name = key.removesuffix("_trace")
        _draw(axes[2], logs, epochs, key, f"C{index}", name)
        axes[2].set_ylabel("trace of P")
    for name, style in (
        (("training", "--"), ("validation", "-"))
        if validated
        else (("training", "-"),)
    ):
        axes[0].plot([], [], style, color="gray", label=name)
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.legend(frameon=False)
    return saved(figure, path)


def _draw(
    axis: Any,
    logs: Mapping,
    epochs: Sequence[int],
    key: str,
    color: str,
    label: str,
) -> None:
    validated = f"val_{key}" in logs
    for name, style in ((key, "--" if validated else "-"), (f"val_{key}", "-")):
        if name in logs:
            last = name == (f"val_{key}" if validated else key)
            axis.plot(
                _epochs_of(logs[name], epochs),
                logs[name],
                style,
                color=color,
                alpha=1 if last else 0.5,
                label=label if last else None,
            )


def _epochs_of(values: Sequence[float], epochs: Sequence[int]) -> list[int]:
    """Returns the epochs of values, which `validation_freq` makes fewer."""
    if len(values) == len(epochs) or not values:
        return list(epochs)[: len(values)]
    every = round(len(epochs) / len(values))
    regular = [epoch for epoch in epochs if epoch % every == 0]
    if len(regular) == len(values):
        return regular
    return list(epochs)[-len(values) :]
