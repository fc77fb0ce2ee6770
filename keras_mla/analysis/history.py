from collections.abc import Mapping, Sequence
from typing import Any


def plot_history(
    history: Any,
    modalities: Sequence[str],
    metric: str = "accuracy",
    path: Any = None,
) -> Any:
    """Draws what each modality learns, epoch by epoch.

    One panel for the loss of each modality, one for a metric of each and of
    their fusion, and one for the trace of P if `callbacks.ProjectorTrace` was
    used. Dashed lines are training, solid ones validation.

    Args:
        history: What `fit` returned, or its `history` dict.
        modalities: Names of the modalities, such as `model.modalities`.
        metric: Name of a compiled metric. Defaults to `"accuracy"`.
        path: Where to save the figure; its ending says the format. Not saved
            if `None`.

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
    panels = 3 if traces else 2
    figure = figure_class()(figsize=(4.2 * panels, 3.4), layout="constrained")
    axes = figure.subplots(1, panels)
    for index, name in enumerate([*modalities, ""]):
        color = f"C{index}" if name else "black"
        for axis, key in (
            (axes[0], f"{name}_loss" if name else ""),
            (axes[1], f"{name}_{metric}" if name else metric),
        ):
            _draw(axis, logs, key, color, name or "fused")
    axes[0].set_ylabel("loss")
    axes[1].set_ylabel(metric)
    for index, key in enumerate(traces):
        _draw(axes[2], logs, key, f"C{index}", key.removesuffix("_trace"))
        axes[2].set_ylabel("trace of P")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _draw(axis: Any, logs: Mapping, key: str, color: str, label: str) -> None:
    validated = f"val_{key}" in logs
    for name, style in ((key, "--" if validated else "-"), (f"val_{key}", "-")):
        if name in logs:
            epochs = range(1, len(logs[name]) + 1)
            last = name == (f"val_{key}" if validated else key)
            axis.plot(
                epochs,
                logs[name],
                style,
                color=color,
                alpha=1 if last else 0.5,
                label=label if last else None,
            )


def figure_class() -> Any:
    """Returns matplotlib's `Figure`, or says what to install."""
    try:
        # Not pyplot: it keeps figures alive and wants a display.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Figures need matplotlib: install `keras-mla[plot]`."
        ) from error
    return Figure
