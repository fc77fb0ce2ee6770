"""A model keeps the table that makes its inputs, on every backend."""

import keras
import numpy as np
import pytest
from utils import words_encoder

import keras_mla
from keras_mla.datasets import Table
from keras_mla.datasets.table import Text

ROWS = {
    "title": ["red shoe", "blue shirt", None, "old red hat"] * 6,
    "price": [2.0, 4.0, 6.0, None] * 6,
    "kind": ["shoe", "shirt", "shirt", "hat"] * 6,
}
EXPECTED = [[-1.224745, 0.0], [0.0, 0.0], [1.224745, 0.0], [0.0, 0.0]]


def make_model(method="MLA"):
    table = Table({"words": Text("title", length=5), "facts": "price"}, "kind")
    table.adapt(ROWS, verbose=0)
    ids = keras.Input((5,), dtype="int32", name="token_ids")
    mask = keras.Input((5,), dtype="bool", name="padding_mask")
    words = keras.layers.Embedding(table.fields["words"].vocabulary_size, 4)(
        ids
    )
    words = keras.layers.GlobalAveragePooling1D()(words, mask=mask)
    facts = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    encoders = {"words": words_encoder(table, "words"), "facts": facts}
    return getattr(keras_mla.models, method)(
        encoders, head=table.units, table=table
    )


@pytest.mark.every_case
@pytest.mark.parametrize("method", ["MLA", "ConcatFusion"])
def test_a_model_keeps_its_table(tmp_path, method):
    model = make_model(method)
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    x, y = model.table.arrays(ROWS)
    np.testing.assert_allclose(x["facts"][:4], EXPECTED, rtol=1e-5)
    model.fit(x, y, epochs=1, verbose=0)
    model.fit(
        model.table.batches(ROWS, batch_size=6, training=True, engine="python"),
        epochs=1,
        verbose=0,
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    rows = [{"title": "red shoe"}, {"price": 3}]
    outputs = loaded.predict(loaded.table.inputs(rows), verbose=0)
    np.testing.assert_allclose(
        outputs, model.predict(model.table.inputs(rows), verbose=0), atol=1e-6
    )
    names = loaded.table.decode_predictions(outputs)
    assert names == [["hat", "shirt", "shoe"][i] for i in outputs.argmax(1)]
    assert loaded.table.get_config() == model.table.get_config()


def test_a_table_that_does_not_fit_is_refused():
    table = make_model().table
    encoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match="makes the modalities"):
        keras_mla.MLA({"facts": encoder}, head=3, table=table)
    table = Table({"facts": "price"}, "kind").adapt(ROWS, verbose=0)
    with pytest.raises(ValueError, match="head=table.units"):
        keras_mla.MLA({"facts": encoder}, head=2, table=table)
    with pytest.raises(ValueError, match="not adapted"):
        table = Table({"facts": "price"}, "kind")
        keras_mla.MLA({"facts": encoder}, head=3, table=table)
    with pytest.raises(ValueError, match="must be a"):
        keras_mla.MLA({"facts": encoder}, head=2, table={"a": 1})
