from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mla.analysis.figure import panels, saved


def modality_gap(features: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    r"""Measures how far apart modalities lie in their common feature space.

    The features of each modality are scaled to length 1; the gap between two
    modalities is the distance of their means,
    $\lVert \bar f_m - \bar f_n \rVert$: 0 if the means coincide, at most 2.

    Args:
        features: dict from each modality to an array `(samples, width)`, all
            of one width. A row of zeros has no direction and stays zeros.

    Returns:
        dict from each pair of modalities, in the order of `features`, to the
        gap.

    Raises:
        ValueError: If there are fewer than two modalities, or features have a
            wrong shape or are not finite.

    Example:
    >>> from keras_mla.analysis import modality_gap
    >>> modality_gap({"image": [[3.0, 0.0]], "text": [[-1.0, 0.0]]})
    {('image', 'text'): 2.0}

    Reference:
        Liang et al., "Mind the Gap: Understanding the Modality Gap in
        Multi-modal Contrastive Representation Learning", NeurIPS 2022,
        section 4.1.
    """
    means = {name: x.mean(axis=0) for name, x in _directions(features).items()}
    names = list(means)
    return {
        (first, second): float(np.linalg.norm(means[first] - means[second]))
        for index, first in enumerate(names)
        for second in names[index + 1 :]
    }


def plot_modality_gap(
    models: Mapping[str, Mapping[str, Any]],
    path: Any = None,
    samples: int = 500,
) -> Any:
    """Draws the features of each modality, in a panel for each model.

    The features are scaled to length 1 and projected on the first two
    principal components of all features of the model. A line joins the means
    of the modalities; the title gives the gaps.

    Args:
        models: dict from a model's name to its features, as for `modality_gap`.
        path: File to save the figure to; the extension sets the format.
            Defaults to `None`, which saves nothing.
        samples: int. The largest number of points to draw per modality, from
            its first samples. Means and components use all samples. Defaults
            to `500`.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If `models` is empty, or `modality_gap` refuses features.

    Example:
    ```python
    features = {name: model.encoders[name].predict(x[name]) for name in x}
    keras_mla.analysis.plot_modality_gap({"MLA": features}, path="gap.png")
    ```
    """
    if not models:
        raise ValueError(
            "`models` must hold at least one model. Received: models={}"
        )
    figure, axes = panels(len(models), size=(4, 4))
    for axis, (title, features) in zip(axes, models.items(), strict=True):
        gaps = modality_gap(features)
        directions = _directions(features)
        points = _principal(np.concatenate(list(directions.values())))
        means = []
        start = 0
        for name, x in directions.items():
            mine = points[start : start + len(x)]
            start += len(x)
            means.append(mine.mean(axis=0))
            axis.scatter(*mine[:samples].T, s=6, alpha=0.5, label=name)
        axis.plot(*np.transpose(means), "k.-")
        numbers = ", ".join(f"{gap:.2f}" for gap in gaps.values())
        axis.set_title(f"{title}: gap {numbers}")
        axis.legend(frameon=False)
    return saved(figure, path)


def _directions(features: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns checked features, float64, each row of length 1."""
    arrays = {n: np.asarray(x, "float64") for n, x in features.items()}
    shapes = {name: x.shape for name, x in arrays.items()}
    widths = {shape[1:] for shape in shapes.values()}
    if len(arrays) < 2 or len(widths) != 1 or len(widths.pop()) != 1:
        raise ValueError(
            "A modality gap needs features `(samples, width)` of at least two "
            f"modalities, of one width. Received: features of shape {shapes}"
        )
    for name, x in arrays.items():
        if not len(x) or not np.isfinite(x).all():
            raise ValueError(
                f"The features of '{name}' must be finite, and of at least "
                f"one sample. Received: features of shape {x.shape}"
            )
    return {
        name: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        for name, x in arrays.items()
    }


def _principal(x: np.ndarray) -> np.ndarray:
    """Projects centred rows on their first two principal components."""
    x = x - x.mean(axis=0)
    # Decompose the small square matrix: there may be very many samples.
    _, vectors = np.linalg.eigh(x.T @ x)
    return x @ vectors[:, ::-1][:, :2]
