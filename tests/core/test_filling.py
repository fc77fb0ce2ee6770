"""Absent rows are filled with present ones; without any, nothing is harmed."""

import keras
import numpy as np
import pytest
from keras import ops
from utils import (
    CLASSES,
    METHODS,
    WIDTHS,
    compiled,
    encoder,
    make_data,
    make_of,
    some,
    to_numpy,
)

import keras_mla
from keras_mla.core.filling import (
    fill_absent,
    fill_in_groups,
    first_rows,
    rows_in_turn,
)
from keras_mla.core.losses import SampleLoss


def in_turn(present):
    """Returns the row that replaces each row, computed by a loop."""
    rows = np.flatnonzero(present)
    return [
        i if here or not len(rows) else rows[i % len(rows)]
        for i, here in enumerate(present)
    ]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_present_rows_are_taken_in_turn(groups):
    rng = np.random.default_rng(0)
    size = 24 // groups
    for rate in (0.2, 0.5, 1.0):
        present = rng.random(24) < rate
        present[::size] = True  # Each group has a row.
        expected = np.concatenate(
            [
                start + np.array(in_turn(present[start : start + size]))
                for start in range(0, 24, size)
            ]
        )
        rows = np.where(present, np.arange(24.0), np.nan).astype("float32")
        filled = fill_in_groups(
            ops.convert_to_tensor(rows),
            ops.convert_to_tensor(present),
            rows_in_turn,
            groups,
        )
        np.testing.assert_array_equal(to_numpy(filled), rows[expected])


def test_the_row_itself_stays_without_a_present_one():
    index = rows_in_turn(ops.zeros((4,), "bool"))
    np.testing.assert_array_equal(to_numpy(index), np.arange(4))


@pytest.mark.parametrize("find", [first_rows, rows_in_turn])
def test_a_group_without_a_present_row_borrows_one(find):
    present = np.array([False, False, False, True, False, False, True, True])
    values = {
        "ids": np.arange(8, dtype="int32"),
        "mask": np.arange(8) == 3,
        "bytes": np.arange(16, dtype="uint8").reshape(8, 2),
        "x": np.where(present, np.arange(8.0), np.nan).astype("float32"),
    }
    tensors = keras.tree.map_structure(ops.convert_to_tensor, values)
    filled = fill_in_groups(tensors, ops.convert_to_tensor(present), find, 4)
    for name, value in values.items():
        expected = value[[3, 3, 3, 3, 3, 3, 6, 7]]
        np.testing.assert_array_equal(to_numpy(filled[name]), expected)
        assert to_numpy(filled[name]).dtype == value.dtype


def test_a_prediction_copies_the_first_present_row():
    present = np.array([False, True, False, True])
    values = {
        "ids": np.arange(8, dtype="int32").reshape(4, 2),
        "mask": np.array([True, False, True, False]),
        "x": np.array([np.nan, 1, np.nan, 3], "float32"),
    }
    filled = fill_absent(values, ops.convert_to_tensor(present), False)
    for name, value in values.items():
        np.testing.assert_array_equal(
            to_numpy(filled[name]), value[[1, 1, 1, 3]]
        )


@pytest.mark.parametrize("training", [False, True])
def test_an_empty_batch(training):
    empty = {"x": np.zeros((0, 3), "float32"), "ids": np.zeros((0,), "int32")}
    present = ops.convert_to_tensor(np.zeros(0, bool))
    filled = fill_absent(empty, present, training)
    assert {n: tuple(v.shape) for n, v in filled.items()} == {
        "x": (0, 3),
        "ids": (0,),
    }
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    mean, count = SampleLoss(loss)(
        ops.zeros((0,), "int32"), ops.zeros((0, 3)), None, present, 0
    )
    assert (float(mean), float(count)) == (0.0, 0.0)


@pytest.mark.parametrize("training", [False, True])
def test_without_a_present_row_everything_stays(training):
    value = np.array([[1.0], [np.nan], [3.0]], "float32")
    filled = fill_absent(value, ops.zeros((3,), "bool"), training)
    np.testing.assert_array_equal(to_numpy(filled), value)


@keras.saving.register_keras_serializable("tests")
class UnitNorm(keras.layers.Layer):
    """Divides by the norm: of rows of zeros it makes NaN."""

    def __init__(self, penalty=False, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(6)
        self.penalty = penalty

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        y = self.dense(x / ops.sqrt(ops.sum(x**2, -1, keepdims=True)))
        if self.penalty:
            self.add_loss(0.01 * ops.mean(y**2))
        return y


def dividing(method, penalty=False):
    def parts():
        return {
            "text": UnitNorm(penalty),
            "audio": encoder(5),
            "image": encoder(8),
        }

    model = make_of(method, parts, CLASSES)
    return compiled(model, keras.optimizers.SGD(0.1, momentum=0.9))


@pytest.mark.parametrize("penalty", some([False, True], True))
@pytest.mark.parametrize("method", some(METHODS, "OGMGE", "MLA"))
def test_a_batch_without_a_modality_harms_nothing(method, penalty):
    x, y = make_data(8)
    x["sample_id"] = np.arange(8)
    model = dividing(method, penalty)
    everything = np.ones((8, 3), bool)
    model.adapt((x, y))
    model.train_on_batch({**x, "presence": everything}, y)
    nothing = {**x, "text": np.zeros_like(x["text"])}
    nothing["text"][::2] = np.nan
    no_text = everything & [False, True, True]
    before = [to_numpy(v) for v in model.encoders["text"].weights]
    history = model.fit({**nothing, "presence": no_text}, y, verbose=0).history
    scores = model.evaluate(
        {**nothing, "presence": no_text}, y, verbose=0, return_dict=True
    )
    for logs in (history, scores):
        assert all(np.isfinite(v).all() for v in logs.values()), logs
    assert all(np.isfinite(to_numpy(v)).all() for v in model.weights)
    if method in (
        "MLA",
        "LateFusion",
    ):  # Other weights still move by their momentum.
        for value, v in zip(
            before, model.encoders["text"].weights, strict=True
        ):
            np.testing.assert_array_equal(value, to_numpy(v))
    predicted = model.predict({**nothing, "presence": no_text}, verbose=0)
    assert np.isfinite(predicted).all()


def test_gradients_of_a_joint_update_are_those_of_what_is_present():
    # Compares with a model that gets other values for absent samples.
    x, y = make_data(8)
    presence = np.ones((8, 3), bool)
    presence[:, list(WIDTHS).index("text")] = False
    weights = []
    for absent in (np.nan, 1.0):
        keras.utils.set_random_seed(3)
        model = dividing("ConcatFusion")
        model.build_for(x)
        hidden = {**x, "text": np.full_like(x["text"], absent)}
        model.fit({**hidden, "presence": presence}, y, verbose=0)
        weights.append([to_numpy(v) for v in model.weights])
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)


def test_seeds_and_statistics_of_a_skipped_update_stay():
    parts = {
        name: encoder(
            WIDTHS[name],
            layers=[
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5, seed=1),
            ],
        )
        for name in WIDTHS
    }
    model = compiled(keras_mla.MLA(parts, CLASSES))
    x, y = make_data(8)
    presence = np.ones((8, 3), bool)
    model.fit({**x, "presence": presence}, y, verbose=0)
    held = {n: [to_numpy(v) for v in e.variables] for n, e in parts.items()}
    presence[:, list(WIDTHS).index("audio")] = False
    model.fit({**x, "presence": presence}, y, verbose=0)
    for name, part in parts.items():
        same = [
            (to_numpy(v) == before).all()
            for v, before in zip(part.variables, held[name], strict=True)
        ]
        assert all(same) if name == "audio" else not any(same)
