import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from keras_mla.analysis.figure import panels, saved


@dataclasses.dataclass
class Spectrum:
    """The spectrum of a projection P.

    Attributes:
        eigenvalues: float64 array `(features,)`, in descending order. Without
            rescaling (`forgetting`, `normalize`) they lie between 0, a
            direction in which the head cannot learn any more, and 1, an open
            direction.
        trace: float. The sum of the eigenvalues: the number of directions
            that are still open.
        open_share: float. The trace, divided by the number of features.
        effective_rank: float. The exponential of the entropy of the
            eigenvalues, divided by their sum.
    """

    eigenvalues: np.ndarray
    trace: float
    open_share: float
    effective_rank: float


def projection_spectrum(model: Any) -> dict[str, Spectrum]:
    """Returns the trace and the spectrum of each projection P of a model.

    Args:
        model: A built model with gradient projectors, such as `keras_mla.MLA`.

    Returns:
        dict from a projector's name to its `Spectrum`. The name is
        `"projector"`; if the head has several kernels, `"projector_0"` and so
        on, in the head's order.

    Raises:
        ValueError: If the model has no projectors, or is not built.

    Example:
    >>> encoders = {"image": keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8)]
    ... )}
    >>> model = keras_mla.MLA(encoders, head=3)
    >>> spectrum = keras_mla.analysis.projection_spectrum(model)["projector"]
    >>> spectrum.trace, spectrum.open_share
    (8.0, 1.0)

    Reference:
        Roy and Vetterli, "The effective rank: A measure of effective
        dimensionality", EUSIPCO 2007.
    """
    projectors = list(getattr(model, "projectors", None) or [])
    if not projectors or not all(p.built for p in projectors):
        raise ValueError(
            "A spectrum needs a built model with gradient projectors, such as "
            "`keras_mla.MLA` with a `projector`. "
            f"Received: {type(model).__name__} with {len(projectors)} "
            "projectors"
        )
    return {
        f"projector_{index}" if len(projectors) > 1 else "projector": _spectrum(
            np.asarray(ops.convert_to_numpy(projector.P), "float64")
        )
        for index, projector in enumerate(projectors)
    }


def plot_projection_spectrum(
    models: Mapping[str, Any], history: Any = None, path: Any = None
) -> Any:
    """Draws the eigenvalues of each projection P, in descending order.

    A second panel shows the trace of P, epoch by epoch, if a history is given.

    Args:
        models: dict from a model's name to the model, as for
            `projection_spectrum`, or to what `projection_spectrum` returned.
        history: The `History` of a `fit` with `callbacks.ProjectorTrace`, or
            its `history` dict. Defaults to `None`.
        path: File to save the figure to; the extension sets the format.
            Defaults to `None`, which saves nothing.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If `models` is empty, `projection_spectrum` refuses a
            model, or the history holds no trace.

    Example:
    ```python
    trace = keras_mla.callbacks.ProjectorTrace()
    history = model.fit(x, y, epochs=20, callbacks=[trace])
    keras_mla.analysis.plot_projection_spectrum({"MLA": model}, history)
    ```
    """
    if not models:
        raise ValueError(
            "`models` must hold at least one model. Received: models={}"
        )
    logs = getattr(history, "history", history)
    traces = [name for name in logs or () if name.endswith("_trace")]
    if logs is not None and not traces:
        raise ValueError(
            "The history has no trace of P: pass "
            "`keras_mla.callbacks.ProjectorTrace()` to `fit`. "
            f"Received: history with {sorted(logs)}"
        )
    figure, (axis, *others) = panels(2 if traces else 1)
    for title, model in models.items():
        found = model
        if not isinstance(model, Mapping):
            found = projection_spectrum(model)
        for name, spectrum in found.items():
            label = title if len(found) == 1 else f"{title}, {name}"
            numbers = range(1, len(spectrum.eigenvalues) + 1)
            axis.plot(
                numbers,
                spectrum.eigenvalues,
                label=f"{label}: trace {spectrum.trace:.1f}",
            )
    axis.set_xlabel("direction")
    axis.set_ylabel("eigenvalue of P")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
    for name in traces:
        first = next(iter(getattr(history, "epoch", [])), 0) + 1
        epochs = range(first, first + len(logs[name]))
        label = name.removesuffix("_trace")
        others[0].plot(epochs, logs[name], label=label)
        others[0].set_xlabel("epoch")
        others[0].set_ylabel("trace of P")
        others[0].legend(frameon=False)
    return saved(figure, path)


def _spectrum(P: np.ndarray) -> Spectrum:
    # P is float32: its smallest eigenvalues may be slightly negative.
    eigenvalues = np.linalg.eigvalsh(P)[::-1]
    trace = float(np.trace(P))
    shares = np.maximum(eigenvalues, 0)
    shares = shares / max(float(shares.sum()), 1e-300)
    positive = shares[shares > 0]
    entropy = float(-(positive * np.log(positive)).sum())
    rank = float(np.exp(entropy)) if positive.size else 0.0
    return Spectrum(eigenvalues, trace, trace / len(P), rank)
