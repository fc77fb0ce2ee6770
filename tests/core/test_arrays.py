"""Inputs as users pass them: presence by name, None, NaN."""

import keras
import numpy as np
import pytest
from utils import (
    CLASSES,
    WIDTHS,
    compiled,
    half_presence,
    make_data,
    make_model,
)

import keras_mla
from keras_mla import datasets

pd = pytest.importorskip("pandas")
NAMES = list(WIDTHS)


class Batches(keras.utils.PyDataset):
    """Two batches of arrays."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 2

    def __getitem__(self, index):
        half = len(self.y) // 2
        rows = slice(index * half, (index + 1) * half)
        x = keras.tree.map_structure(lambda v: v[rows], self.x)
        return x, self.y[rows]


def by_name(presence, kind):
    """Presence by name, in another order than the model's."""
    masks = {name: presence[:, NAMES.index(name)] for name in reversed(NAMES)}
    return pd.DataFrame(masks) if kind == "frame" else masks


@pytest.mark.filterwarnings("ignore:`calibrate` ended at a bound")
@pytest.mark.parametrize("kind", ["dict", "frame"])
def test_presence_by_name_equals_presence_by_position(kind):
    x, y = make_data(24)
    presence = half_presence(24)
    positions, names = (
        {**x, "presence": p} for p in (presence, by_name(presence, kind))
    )
    results = []
    for inputs in (positions, names):
        keras.utils.set_random_seed(0)
        model = compiled(make_model())
        history = model.fit(
            inputs, y, validation_data=(inputs, y), shuffle=False, verbose=0
        ).history
        model.train_on_batch(inputs, y)
        model.calibrate((inputs, y))
        results.append(
            [
                *(history[key] for key in sorted(history)),
                model.predict(inputs, verbose=0),
                model.predict_on_batch(inputs),
                model.evaluate(inputs, y, verbose=0),
                model.test_on_batch(inputs, y),
                *model.features(inputs).values(),
                model.predict_modalities(inputs)[NAMES[0]]["weight"],
            ]
        )
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(
            np.asarray(ours), np.asarray(theirs), atol=1e-6
        )


def test_data_sets_may_hold_presence_by_name():
    x, y = make_data(24)
    presence = half_presence(24)
    results = []
    for given in (presence, by_name(presence, "dict")):
        keras.utils.set_random_seed(0)
        model = compiled(make_model())
        batches = Batches({**x, "presence": given}, y)
        model.fit(batches, shuffle=False, verbose=0)
        results.append(model.predict(batches, verbose=0))
    np.testing.assert_allclose(*results, atol=1e-6)


def test_a_modality_that_is_not_named_is_present():
    x, _ = make_data(6)
    model = make_model()
    presence = np.ones((6, 3), bool)
    presence[:4, 1] = False
    named = model.predict(
        {**x, "presence": {NAMES[1]: presence[:, 1]}}, verbose=0
    )
    expected = model.predict({**x, "presence": presence}, verbose=0)
    np.testing.assert_array_equal(named, expected)


@pytest.mark.parametrize(
    ("presence", "message"),
    [
        ({"sound": np.ones(6, bool)}, r"Received: \['sound'\]"),
        ({}, "must map modalities to masks"),
        ({NAMES[0]: np.ones((6, 1), bool)}, r"\(samples,\).*\(6, 1\)"),
        (
            {NAMES[0]: np.ones(6, bool), NAMES[1]: np.ones(5, bool)},
            r"\(6,\).*\(5,\)",
        ),
        ({NAMES[0]: np.ones(5, bool)}, "has 5 rows, but modality"),
    ],
)
def test_wrong_presence_by_name(presence, message):
    x, _ = make_data(6)
    with pytest.raises(ValueError, match=message):
        make_model().predict({**x, "presence": presence}, verbose=0)


@pytest.mark.parametrize("make", [np.asarray, keras.ops.convert_to_tensor])
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_samples_without_any_modality_are_refused(method, make):
    model = compiled(make_model())
    x, y = make_data(8)
    presence = {name: make(np.zeros(8, bool)) for name in WIDTHS}
    data = ({**x, "presence": presence},) + (
        (y,) if method != "predict" else ()
    )
    with pytest.raises(ValueError, match="marks every modality of every"):
        getattr(model, method)(*data, verbose=0)


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_lists_and_empty_arrays(method):
    model = compiled(make_model())
    x, y = make_data(8)
    labels = (y,) if method != "predict" else ()
    call = getattr(model, method)
    with pytest.raises(ValueError, match="must be an array.*a list of float"):
        call({**x, "audio": x["audio"].tolist()}, *labels, verbose=0)
    empty = {name: value[:0] for name, value in x.items()}
    with pytest.raises(ValueError, match="holds no sample"):
        call(empty, *(y[:0] for y in labels), verbose=0)
    presence = half_presence(8)
    scores = call({**x, "presence": presence.tolist()}, *labels, verbose=0)
    if method == "predict":
        expected = model.predict({**x, "presence": presence}, verbose=0)
        np.testing.assert_array_equal(scores, expected)


def test_none_is_absent_in_all_samples():
    x, y = make_data(6)
    model = compiled(make_model())
    presence = np.ones((6, 3), bool)
    presence[0, 0] = presence[:, 1] = False
    expected = model.predict({**x, "presence": presence}, verbose=0)
    given = {**x, NAMES[1]: None, "presence": {NAMES[0]: presence[:, 0]}}
    found = model.predict(given, verbose=0)
    np.testing.assert_array_equal(found, expected)
    assert given[NAMES[1]] is None  # What the user passed stays as it was.
    scores = model.evaluate(given, y, verbose=0, return_dict=True)
    wanted = model.evaluate(
        {**x, "presence": presence}, y, verbose=0, return_dict=True
    )
    assert scores == pytest.approx(wanted)
    experts = model.predict_modalities(given)
    np.testing.assert_array_equal(experts[NAMES[1]]["weight"], 0)


def test_none_of_a_modality_that_is_a_dict():
    ids = keras.Input((4,), name="ids", dtype="int32")
    mask = keras.Input((4,), name="mask", dtype="bool")
    cast = keras.ops.cast
    text = keras.Model(
        {"ids": ids, "mask": mask},
        keras.layers.Dense(5)(cast(ids, "float32") * cast(mask, "float32")),
    )
    model = keras_mla.MLA(
        {
            "text": text,
            "image": keras.Sequential(
                [keras.Input((3,)), keras.layers.Dense(5)]
            ),
        },
        CLASSES,
    )
    image = np.ones((2, 3), "float32")
    tokens = {"ids": np.ones((2, 4), "int32"), "mask": np.ones((2, 4), "bool")}
    model.predict({"text": tokens, "image": image}, verbose=0)
    found = model.predict({"text": None, "image": image}, verbose=0)
    alone = model.unimodal("image").predict(image, verbose=0)
    np.testing.assert_allclose(found, alone, atol=1e-6)


def test_none_is_refused_where_it_says_nothing():
    x, y = make_data(6)
    model = compiled(make_model())
    with pytest.raises(ValueError, match="Training needs an array"):
        model.fit({**x, NAMES[1]: None}, y, verbose=0)
    with pytest.raises(ValueError, match="At least one modality"):
        model.predict(dict.fromkeys(NAMES), verbose=0)
    unbuilt = keras_mla.MLA(
        {name: keras.Sequential([keras.layers.Dense(4)]) for name in NAMES},
        CLASSES,
    )
    with pytest.raises(ValueError, match="not built yet"):
        unbuilt.predict({**x, NAMES[1]: None}, verbose=0)


def with_nan(x, rows=(2, 5)):
    """Inputs with NaN in some rows of the second modality."""
    value = x[NAMES[1]].copy()
    value[list(rows), -1] = np.nan
    return {**x, NAMES[1]: value}


@pytest.mark.parametrize("as_tensor", [False, True])
def test_nan_that_is_marked_present_is_an_error(as_tensor):
    x, y = make_data(6)
    x = with_nan(x)
    if as_tensor:
        x = {name: keras.ops.convert_to_tensor(v) for name, v in x.items()}
    model = compiled(make_model())
    message = f"'{NAMES[1]}' holds NaN in 2 samples.*first is row 2"
    for call in (
        lambda: model.fit(x, y, verbose=0),
        lambda: model.train_on_batch(x, y),
        lambda: model.evaluate(x, y, verbose=0),
        lambda: model.predict(x, verbose=0),
        lambda: model.predict_modalities(x),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    good, labels = make_data(6)
    with pytest.raises(ValueError, match=message):
        model.fit(good, labels, validation_data=(x, y), verbose=0)
    presence = np.ones((6, 3), bool)
    presence[2, 1] = False
    with pytest.raises(ValueError, match="NaN in 1 samples.*first is row 5"):
        model.predict({**x, "presence": presence}, verbose=0)


def test_what_holds_nan_is_found_and_marked():
    x, y = make_data(6)
    x = with_nan(x)
    x["presence"] = datasets.presence_of(x)
    assert x["presence"][NAMES[1]].tolist() == [
        i not in (2, 5) for i in range(6)
    ]
    model = compiled(make_model())
    model.fit(x, y, verbose=0)
    assert np.isfinite(model.predict(x, verbose=0)).all()


class ZeroForNaN(keras.layers.Layer):
    """An encoder's own way with NaN."""

    def call(self, x):
        return keras.ops.where(keras.ops.isnan(x), 0.0, x)


def test_an_encoder_may_take_nan(tmp_path):
    x, y = make_data(6)

    def encoders():
        return {
            name: keras.Sequential(
                [
                    keras.Input(x[name].shape[1:]),
                    ZeroForNaN(),
                    keras.layers.Dense(4),
                ]
            )
            for name in NAMES
        }

    model = compiled(keras_mla.MLA(encoders(), CLASSES, allow_nan=True))
    model.fit(with_nan(x), y, verbose=0)
    found = model.predict(with_nan(x), verbose=0)
    assert np.isfinite(found).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(
        tmp_path / "model.keras", custom_objects={"ZeroForNaN": ZeroForNaN}
    )
    assert loaded.allow_nan
    np.testing.assert_allclose(
        loaded.predict(with_nan(x), verbose=0), found, atol=1e-6
    )


def test_arrays_on_disk_are_checked_at_their_beginning(tmp_path):
    x, _ = make_data(6)
    value = with_nan(x)[NAMES[1]]
    disk = np.memmap(tmp_path / "x", value.dtype, "w+", shape=value.shape)
    disk[:] = value
    with pytest.raises(ValueError, match="holds NaN in 2 samples"):
        make_model().predict({**x, NAMES[1]: disk}, verbose=0)
