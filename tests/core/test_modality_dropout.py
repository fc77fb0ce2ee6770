"""Modality dropout: rates, and what a batch becomes."""

import keras
import numpy as np
import pytest
from utils import WIDTHS, compiled, encoder, make_data, to_numpy

from keras_mla.core.batch import Batch
from keras_mla.models import MLA, ConcatFusion

NAMES = ("text", "audio", "image")


def dropped(presence, rate, rows=6000):
    x = {name: np.ones((rows, 2), "float32") for name in NAMES}
    if presence is not None:
        x["presence"] = np.tile(presence, (rows, 1))
    batch = Batch.from_data(NAMES, (x, np.zeros(rows, "int32")))
    return batch.drop(rate, keras.random.SeedGenerator(1))


@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_rates_of_modality_dropout(rate):
    batch = dropped(None, rate)
    there = to_numpy(batch.presence)
    assert there.any(axis=1).all()
    hidden = 1 - there.mean(axis=0)
    np.testing.assert_allclose(hidden, rate - rate**3 / 3, atol=0.025)
    # Those that lose all but one lose each pair equally often.
    alone = there[there.sum(axis=1) == 1].mean(axis=0)
    np.testing.assert_allclose(alone, 1 / 3, atol=0.05)
    np.testing.assert_array_equal(to_numpy(batch.hidden), ~there)


def test_what_is_absent_is_not_dropped():
    batch = dropped([True, False, True], 0.5)
    there = to_numpy(batch.presence)
    assert not there[:, 1].any() and there.any(axis=1).all()
    np.testing.assert_allclose(
        1 - there[:, [0, 2]].mean(axis=0), 0.5 - 0.25 / 2, atol=0.025
    )
    assert not to_numpy(batch.hidden)[:, 1].any()
    nothing = dropped([False, False, False], 0.5, rows=4)
    assert not to_numpy(nothing.presence).any()


@pytest.mark.parametrize("cls", [MLA, ConcatFusion])
def test_a_model_drops_in_training_alone(cls, tmp_path):
    parts = {name: encoder(WIDTHS[name]) for name in NAMES}
    model = compiled(cls(parts, 4, modality_dropout=0.6), "adam")
    x, y = make_data(32, NAMES)
    seen = []
    model.prepare_batch = lambda batch: seen.append(batch) or batch
    model.run_eagerly = True
    model.fit(x, y, batch_size=32, verbose=0)
    if keras.backend.backend() != "jax":  # JAX traces.
        assert to_numpy(seen[-1].hidden).any()
    seen.clear()
    first = model.evaluate(x, y, batch_size=32, verbose=0)
    assert seen[-1].hidden is None
    assert first == model.evaluate(x, y, batch_size=32, verbose=0)
    del model.prepare_batch
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.modality_dropout == 0.6
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_unpaired_data_are_not_dropped():
    parts = {name: encoder(WIDTHS[name]) for name in NAMES}
    model = compiled(MLA(parts, 4, modality_dropout=0.6), "adam")
    x, y = make_data(8, NAMES)
    model.fit(x, {name: y for name in NAMES}, verbose=0)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_wrong_rates(rate):
    with pytest.raises(ValueError, match="modality_dropout"):
        MLA({"a": encoder(3)}, 2, modality_dropout=rate)
