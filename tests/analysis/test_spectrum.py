import keras
import numpy as np
import pytest
from utils import compiled, mainly_on, make_data, make_model, to_numpy

import keras_mla
from keras_mla.analysis import (
    plot_projection_spectrum,
    projection_spectrum,
)


def test_spectrum_before_and_after_known_features():
    model = make_model()
    spectrum = projection_spectrum(model)["projector"]
    np.testing.assert_array_equal(spectrum.eigenvalues, np.ones(6))
    assert (spectrum.trace, spectrum.open_share) == (6, 1)
    assert spectrum.effective_rank == pytest.approx(6)
    # P = (I + sum h h^T / alpha)^-1 has closed the direction of h.
    feature = np.array([3.0, 0, 0, 0, 0, 0], "float32")
    gradient = np.zeros((6, 4), "float32")
    for _ in range(2):
        model.projectors[0](gradient, feature)
    spectrum = projection_spectrum(model)["projector"]
    np.testing.assert_allclose(
        spectrum.eigenvalues, [1, 1, 1, 1, 1, 0.1], rtol=1e-5
    )
    assert spectrum.trace == pytest.approx(5.1, rel=1e-5)
    assert spectrum.open_share == pytest.approx(0.85, rel=1e-5)
    shares = np.array([1, 1, 1, 1, 1, 0.1]) / 5.1
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert spectrum.effective_rank == pytest.approx(expected, rel=1e-5)


@mainly_on("torch")
def test_a_fitted_deep_head():
    head = keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(4)])
    model = compiled(make_model(head=head))
    model.fit(*make_data(), verbose=0)
    spectra = projection_spectrum(model)
    assert list(spectra) == ["projector_0", "projector_1"]
    for spectrum, projector in zip(
        spectra.values(), model.projectors, strict=True
    ):
        P = to_numpy(projector.P).astype("float64")
        expected = np.sort(np.linalg.eigvals(P).real)[::-1]
        np.testing.assert_allclose(spectrum.eigenvalues, expected, atol=1e-6)
        assert spectrum.trace == pytest.approx(projector.trace, rel=1e-6)
        assert spectrum.eigenvalues.sum() == pytest.approx(spectrum.trace)
        assert 1 <= spectrum.effective_rank <= len(P)


@mainly_on("torch")
def test_draws_and_refuses(tmp_path):
    pytest.importorskip("matplotlib")
    model = compiled(make_model())
    history = model.fit(
        *make_data(),
        epochs=3,
        verbose=0,
        callbacks=[keras_mla.callbacks.ProjectorTrace()],
    )
    spectrum = projection_spectrum(model)
    figure = plot_projection_spectrum(
        {"now": model, "same": spectrum}, history, tmp_path / "P.png"
    )
    assert (tmp_path / "P.png").read_bytes().startswith(b"\x89PNG")
    eigenvalues, trace = figure.axes
    first, second = eigenvalues.lines
    for line in (first, second):
        assert list(line.get_ydata()) == list(spectrum["projector"].eigenvalues)
    assert first.get_label().startswith("now: trace")
    assert list(trace.lines[0].get_xdata()) == [1, 2, 3]
    assert (
        list(trace.lines[0].get_ydata()) == history.history["projector_trace"]
    )
    assert len(plot_projection_spectrum({"MLA": model}).axes) == 1
    with pytest.raises(ValueError, match="Received: models"):
        plot_projection_spectrum({})
    with pytest.raises(ValueError, match="no trace of P"):
        plot_projection_spectrum({"MLA": model}, {"loss": [1.0]})
    with pytest.raises(ValueError, match="with gradient projectors"):
        projection_spectrum(make_model(projector=None))
