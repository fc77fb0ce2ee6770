import pytest
from utils import compiled, mainly_on, make_data, make_model

import keras_mla

pytest.importorskip("matplotlib")


@mainly_on("torch")
def test_draws_a_run(tmp_path):
    model = compiled(make_model())
    x, y = make_data()
    history = model.fit(
        x,
        y,
        epochs=3,
        verbose=0,
        validation_split=0.25,
        callbacks=[keras_mla.callbacks.ProjectorTrace()],
    )
    path = tmp_path / "run.png"
    figure = keras_mla.analysis.plot_history(
        history, model.modalities, path=path
    )
    losses, accuracies, trace = figure.axes
    assert path.read_bytes().startswith(b"\x89PNG")
    labels = [t.get_text() for t in accuracies.get_legend().get_texts()]
    assert labels == ["text", "audio", "image", "fused"]
    labels = [t.get_text() for t in losses.get_legend().get_texts()]
    assert labels == ["text", "audio", "image", "training", "validation"]
    lines = {tuple(line.get_ydata()) for line in losses.lines}
    assert tuple(history.history["val_text_loss"]) in lines
    assert tuple(history.history["text_loss"]) in lines
    assert (
        list(trace.lines[0].get_ydata()) == history.history["projector_trace"]
    )


@mainly_on("torch")
def test_counts_epochs_over_a_resumption():
    model = compiled(make_model())
    x, y = make_data()
    history = model.fit(
        x,
        y,
        initial_epoch=5,
        epochs=9,
        validation_data=(x, y),
        validation_freq=2,
        verbose=0,
    )
    figure = keras_mla.analysis.plot_history(history, model.modalities)
    training, validation = figure.axes[0].lines[:2]
    assert list(training.get_xdata()) == [6, 7, 8, 9]
    assert training.get_linestyle() == "--"
    assert list(validation.get_xdata()) == [6, 8]
    assert validation.get_linestyle() == "-"
    assert list(validation.get_ydata()) == history.history["val_text_loss"]


def test_without_validation_solid_lines_are_training():
    logs = {"a_loss": [1.0, 0.5], "a_accuracy": [0.1, 0.2], "accuracy": [0, 1]}
    figure = keras_mla.analysis.plot_history(logs, ["a"])
    (line, legend) = figure.axes[0].lines
    assert (line.get_linestyle(), legend.get_label()) == ("-", "training")
    assert list(line.get_xdata()) == [1, 2]


def test_takes_a_dict_and_needs_losses():
    logs = {"a_loss": [1.0, 0.5], "a_accuracy": [0.1, 0.2], "accuracy": [0, 1]}
    figure = keras_mla.analysis.plot_history(logs, ["a"])
    assert len(figure.axes) == 2
    with pytest.raises(ValueError, match="no 'b_loss'"):
        keras_mla.analysis.plot_history(logs, ["b"])
    with pytest.raises(ValueError, match="no metric 'acc'"):
        keras_mla.analysis.plot_history(logs, ["a"], metric="acc")
