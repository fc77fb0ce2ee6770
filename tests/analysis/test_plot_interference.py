import types

import pytest
from utils import compiled, mainly_on, make_data, make_model

from keras_mla.analysis import plot_interference
from keras_mla.callbacks import Interference

pytest.importorskip("matplotlib")


@mainly_on("torch")
def test_draws_a_run(tmp_path):
    x, y = make_data()
    callback = Interference(x, y, every=2)
    model = compiled(make_model())
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[callback])
    figure = plot_interference(callback, tmp_path / "steps.png")
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")
    losses, rises, matrix, _ = figure.axes
    names = list(model.modalities)
    for index, name in enumerate(names):
        assert losses.lines[index].get_label() == name
        assert list(losses.lines[index].get_xdata()) == [0, 2, 4]
        drawn = list(rises.lines[index].get_ydata())
        assert drawn == callback.forgetting[name]
    values = matrix.images[0].get_array()
    assert values[2, 0] == callback.mean_change["image"]["text"]
    assert [t.get_text() for t in matrix.get_yticklabels()] == names


def test_needs_measurements():
    empty = types.SimpleNamespace(history={"batch": []})
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_interference(empty)
