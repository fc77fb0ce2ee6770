import numpy as np
import pytest

from keras_mla import analysis


def cloud(mean, samples=40, scale=1.0, seed=0):
    noise = np.random.default_rng(seed).normal(size=(samples, len(mean)))
    return scale * (np.asarray(mean) + 0.1 * noise)


def test_gap_is_the_distance_of_mean_directions():
    # Two rows at right angles average to (1/2, 1/2), whatever their lengths.
    features = {
        "image": np.array([[5.0, 0.0], [0.0, 0.1]], "float32"),
        "text": np.array([[0.0, -7.0]]),
        "audio": np.array([[0.0, 0.0]]),
    }
    gaps = analysis.modality_gap(features)
    assert list(gaps) == [
        ("image", "text"),
        ("image", "audio"),
        ("text", "audio"),
    ]
    np.testing.assert_allclose(
        list(gaps.values()), [np.sqrt(0.25 + 2.25), np.sqrt(0.5), 1.0]
    )


@pytest.mark.parametrize(
    "features",
    [
        {"image": np.zeros((3, 2))},
        {"image": np.zeros((3, 2)), "text": np.zeros((3, 4))},
        {"image": np.zeros(3), "text": np.zeros(3)},
        {"image": np.zeros((3, 2)), "text": np.zeros((0, 2))},
        {"image": np.zeros((3, 2)), "text": np.full((3, 2), np.nan)},
    ],
)
def test_refuses_what_has_no_gap(features):
    with pytest.raises(ValueError, match="Received: features of shape"):
        analysis.modality_gap(features)


def test_figure_shows_principal_components(tmp_path):
    decomposition = pytest.importorskip("sklearn.decomposition")
    pytest.importorskip("matplotlib")
    features = {
        "image": cloud([1, 0, 1, 0]),
        "text": cloud([0, 1, 0, 2], samples=30, scale=9.0, seed=1),
    }
    figure = analysis.plot_modality_gap(
        {"first": features, "second": features}, tmp_path / "gap.png", 25
    )
    assert (tmp_path / "gap.png").read_bytes().startswith(b"\x89PNG")
    axis = figure.axes[1]
    gap = analysis.modality_gap(features)["image", "text"]
    assert axis.get_title() == f"second: gap {gap:.2f}"
    rows = np.concatenate(list(features.values()))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = decomposition.PCA(2, svd_solver="full").fit_transform(rows)
    drawn = [points.get_offsets() for points in axis.collections]
    for points, part in zip(
        drawn, (expected[:25], expected[40:65]), strict=True
    ):
        # A component's sign is arbitrary.
        np.testing.assert_allclose(np.abs(points), np.abs(part), atol=1e-10)
    with pytest.raises(ValueError, match="Received: models"):
        analysis.plot_modality_gap({})
