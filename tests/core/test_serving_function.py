import threading

import keras
import numpy as np
import pytest
from utils import (
    CLASSES,
    WIDTHS,
    compiled,
    encoder,
    half_presence,
    make_data,
    make_method,
    make_model,
    some,
)

import keras_mla
from keras_mla.models import registry

ROW = {name: [[0.5] * width] for name, width in WIDTHS.items()}


def served(model, x):
    return model.serving_function()(x)


def in_threads(*works):
    """Runs functions in threads of their own, and returns their errors."""
    errors = []

    def run(work):
        try:
            work()
        except Exception as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("name", some(registry.METHODS, "MLA", "ConcatFusion"))
def test_it_equals_the_model(name):
    model = make_method(name)
    x, _ = make_data(10)
    presence = half_presence(10)
    presence[~presence.any(axis=1)] = True
    for inputs in (x, {**x, "presence": presence}):
        result = served(model, inputs)
        logits = model.predict(inputs, verbose=0)
        np.testing.assert_allclose(result["logits"], logits, atol=1e-5)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(result["probabilities"], shares, atol=1e-5)
        experts = model.predict_modalities(inputs)
        for expert in model.experts:
            for key, values in experts[expert].items():
                np.testing.assert_allclose(
                    result[f"{expert}_{key}"], values, atol=1e-5
                )
        weighted = [e for e in model.experts if "weight" in experts[e]]
        assert list(result) == [
            "logits",
            "probabilities",
            *(
                f"{e}_{key}"
                for e in model.experts
                for key in ("logits", "weight")
                if key == "logits" or e in weighted
            ),
        ]


def test_modalities_that_are_left_out_or_none_are_absent():
    model = make_model()
    x, _ = make_data(5)
    presence = np.ones((5, 3), bool)
    presence[:, 1] = False
    expected = model.predict({**x, "presence": presence}, verbose=0)
    serve = model.serving_function()
    for audio in ({}, {"audio": None}):
        request = {"text": x["text"].tolist(), "image": x["image"], **audio}
        result = serve(request)
        np.testing.assert_allclose(result["logits"], expected, atol=1e-6)
        np.testing.assert_array_equal(result["audio_weight"], 0.0)
    by_name = {**x, "presence": {"audio": [False] * 5}}
    np.testing.assert_allclose(serve(by_name)["logits"], expected, atol=1e-6)


def test_absent_rows_may_hold_anything():
    serve = make_model().serving_function()
    x, _ = make_data(3)
    x["presence"] = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1]])
    expected = serve(x)["logits"]
    x["audio"][1] = np.nan
    np.testing.assert_array_equal(serve(x)["logits"], expected)


def test_many_rows_are_computed_in_parts():
    model = make_model()
    x, _ = make_data(11)
    x["presence"] = np.arange(33).reshape(11, 3) % 7 != 0
    whole = served(model, x)
    parts = model.serving_function(batch_size=4)(x)
    for name, values in whole.items():
        assert len(values) == 11
        np.testing.assert_allclose(parts[name], values, atol=1e-6)


def test_it_keeps_its_weights_when_the_model_trains_on():
    model = compiled(make_model())
    x, y = make_data(16)
    serve = model.serving_function()
    before = serve(x)["logits"]
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(serve(x)["logits"], before)
    new = model.serving_function()(x)["logits"]
    np.testing.assert_allclose(new, model.predict(x, verbose=0), atol=1e-5)
    assert abs(new - before).max() > 1e-3


def test_many_threads_may_call_it_while_the_model_trains():
    model = compiled(make_model())
    x, y = make_data(16)
    serve = model.serving_function()
    expected = serve(x)["logits"]

    def work(seed):
        def ask():
            rng = np.random.default_rng(seed)
            for _ in range(10):
                rows = rng.integers(0, 16, rng.integers(1, 9))
                found = serve({n: v[rows] for n, v in x.items()})["logits"]
                np.testing.assert_allclose(found, expected[rows], atol=1e-5)

        return ask

    def train():
        model.fit(x, y, epochs=3, verbose=0)

    assert not in_threads(*map(work, range(4)), train)


def test_predictions_and_evaluations_of_several_threads_wait_their_turn():
    model = compiled(make_model())
    x, y = make_data(16)
    expected = model.predict(x, verbose=0)

    def predict():
        for _ in range(5):
            found = model.predict(x, verbose=0)
            np.testing.assert_allclose(found, expected, atol=1e-6)
            fused = model.predict_modalities(x)["fused"]
            np.testing.assert_allclose(fused, expected, atol=1e-6)
            model.evaluate(x, y, verbose=0)

    assert not in_threads(*[predict] * 4)


def test_threads_may_predict_while_another_trains():
    model = compiled(make_model())
    x, y = make_data(16)
    model.fit(x, y, verbose=0)

    def predict():
        for _ in range(5):
            assert np.isfinite(model.predict(x, verbose=0)).all()

    def train():
        model.fit(x, y, epochs=5, validation_data=(x, y), verbose=0)

    assert not in_threads(predict, predict, train)


class Predicts(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        # Another thread could not take the turn of `fit` on JAX.
        self.model.predict({n: np.array(v) for n, v in ROW.items()}, verbose=0)


def test_a_callback_may_predict():
    x, y = make_data(16)
    compiled(make_model()).fit(x, y, callbacks=[Predicts()], verbose=0)


def test_probabilities_are_those_of_the_task():
    x, _ = make_data(4)
    model = make_model(task="multi_label")
    result = served(model, x)
    sigmoid = 1 / (1 + np.exp(-result["logits"]))
    np.testing.assert_allclose(result["probabilities"], sigmoid, atol=1e-6)
    model = make_model(task="regression")
    assert "probabilities" not in served(model, x)


def words(length):
    return keras.Sequential(
        [
            keras.Input((length,), dtype="int32"),
            keras.layers.Embedding(20, 6),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )


def test_tokens_of_any_length():
    model = keras_mla.MLA({"words": words(None), "audio": encoder(5)}, CLASSES)
    serve = model.serving_function()
    assert serve.inputs["words"] == {"shape": [None, None], "dtype": "int32"}
    for length in (3, 7):
        x = {"words": np.arange(2 * length).reshape(2, length) % 20}
        x["audio"] = np.ones((2, 5))
        given = {**x, "words": x["words"].astype("float64").tolist()}
        expected = model.predict(x, verbose=0)
        np.testing.assert_allclose(serve(given)["logits"], expected, atol=1e-5)
    with pytest.raises(ValueError, match="values that are none, such as 0.5"):
        serve({"words": [[0.5, 1]]})
    with pytest.raises(ValueError, match="such as 1000000000000"):
        serve({"words": [[10**12]]})


def test_a_modality_of_several_inputs():
    parts = {"near": keras.Input((2,), name="near")}
    parts["far"] = keras.Input((3,), name="far")
    joined = keras.layers.Concatenate()([parts["near"], parts["far"]])
    sensors = keras.Model(parts, keras.layers.Dense(6)(joined))
    model = keras_mla.MLA({"sensors": sensors, "audio": encoder(5)}, CLASSES)
    x = {
        "sensors": {"near": np.ones((2, 2)), "far": np.ones((2, 3))},
        "audio": np.ones((2, 5)),
    }
    model(x)
    serve = model.serving_function()
    np.testing.assert_allclose(
        serve(x)["logits"], model.predict(x, verbose=0), atol=1e-5
    )
    for bad in ({"near": [[1, 2]]}, [[1, 2]]):
        with pytest.raises(ValueError, match=r"keys \['far', 'near'\]"):
            serve({"sensors": bad})
    with pytest.raises(ValueError, match="'sensors/far' .* shape .rows, 3."):
        serve({"sensors": {"near": [[1, 2]], "far": [[1, 2]]}})


BAD = {
    "a list": ([1], "must map modalities to arrays.* Received: a list"),
    "nothing": ({}, "holds no modality"),
    "None alone": ({"audio": None}, "holds no modality"),
    "an unknown key": ({"audi": [[1] * 5]}, r"unknown keys: \['audi'\]"),
    "another width": ({"audio": [[1, 2]]}, r"'audio' .*shape \(1, 2\)"),
    "no rows": ({"audio": np.ones((0, 5))}, "holds no row"),
    "a number": ({"audio": 1.0}, r"'audio' .*shape \(\)"),
    "texts": ({"audio": [["a"] * 5]}, "'audio' .*Received: texts"),
    "objects": ({"audio": [[None] * 5]}, "'audio' .*objects such as 'None'"),
    "ragged": ({"audio": [[1] * 5, [1]]}, "'audio' .*unequal lengths"),
    "NaN": ({"audio": [[1, 2, np.nan, 3, 4]]}, "'audio' .*first is row 0"),
    "infinite": ({"audio": [[1, 2, np.inf, 3, 4]]}, "'audio' .*not finite"),
    "rows": (
        {**ROW, "audio": [[1] * 5] * 2},
        "'text' with 1, 'audio' with 2, 'image' with 1",
    ),
    "presence of other rows": (
        {**ROW, "presence": [[1, 1, 1]] * 2},
        r"\(1, 3\).* Received: shape \(2, 3\)",
    ),
    "presence by name that is no bool": (
        {**ROW, "presence": {"audio": ["false"]}},
        "nothing but true and false",
    ),
    "presence by name of other rows": (
        {**ROW, "presence": {"audio": [True, False]}},
        r"Received: shape \(2,\)",
    ),
    "too large a value": ({"audio": [[3e38] * 5]}, "not finite"),
    "presence that is a number": (
        {**ROW, "presence": [[1, 2, 0]]},
        "nothing but true and false",
    ),
    "presence that is text": (
        {**ROW, "presence": "all"},
        "nothing but true and false",
    ),
    "presence of an unknown name": (
        {**ROW, "presence": {"smell": [True]}},
        "must map modalities",
    ),
    "a row without anything": (
        {**ROW, "presence": [[0, 0, 0]]},
        "1 rows have no modality at all; the first is row 0",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests(case):
    serve = make_model().serving_function()
    request, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        serve(request)
    assert np.isfinite(serve(ROW)["logits"]).all()


def test_presence_by_name_in_another_order():
    pandas = pytest.importorskip("pandas")
    serve = make_model().serving_function()
    mask = {"image": [True], "text": [False], "audio": [True]}
    expected = serve({"audio": ROW["audio"], "image": ROW["image"]})
    for presence in (mask, pandas.DataFrame(mask)):
        found = serve({**ROW, "presence": presence})
        np.testing.assert_array_equal(found["text_weight"], 0.0)
        np.testing.assert_allclose(found["logits"], expected["logits"])


def test_absent_rows_of_tokens_may_hold_anything():
    model = keras_mla.MLA({"words": words(3), "audio": encoder(5)}, CLASSES)
    serve = model.serving_function()
    x = {"audio": np.ones((2, 5)), "words": np.array([[1.0, 2, 3], [4, 5, 6]])}
    x["presence"] = [[True, True], [False, True]]
    expected = serve(x)["logits"]
    for anything in (np.nan, 999.0, 0.5):
        x["words"][1] = anything
        np.testing.assert_array_equal(serve(x)["logits"], expected)


@pytest.mark.parametrize(
    "given, dtype",
    [
        (np.int8(-1), "uint8"),
        (np.uint16(40_000), "int16"),
        (np.uint32(4_000_000_000), "int32"),
        (np.int64(5_000_000_000), "int32"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(given, dtype):
    cast = keras.Sequential(
        [
            keras.Input((1,), dtype=dtype),
            keras.layers.Rescaling(1.0),
            keras.layers.Dense(6),
        ]
    )
    model = keras_mla.MLA({"count": cast, "audio": encoder(5)}, CLASSES)
    with pytest.raises(ValueError, match="values that are none, such as"):
        model.serving_function()({"count": given.reshape(1, 1)})


def test_it_keeps_its_fusion_and_its_task():
    model = compiled(make_model())
    x, _ = make_data(40)
    serve = model.serving_function()
    before = serve(x)
    model.replace_fusion(keras_mla.layers.AverageFusion())
    model.compile("sgd", "mse")
    now = model.predict(x, verbose=0)
    assert abs(now - before["logits"]).max() > 1e-3
    for rows in (40, 3):  # JAX compiles for another number of rows.
        found = serve({name: v[:rows] for name, v in x.items()})
        assert list(found) == list(before)
        for name, values in found.items():
            np.testing.assert_allclose(values, before[name][:rows], atol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX: all wait their turn."
)
def test_an_evaluation_leaves_the_metrics_of_training_alone():
    x, y = make_data(64)
    model = compiled(make_model(), keras.optimizers.SGD(0.0))
    alone = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    other = {name: 50 * v for name, v in x.items()}
    found = []

    def train():
        found.extend(model.fit(x, y, epochs=3, verbose=0).history["loss"])

    def evaluate():
        for _ in range(5):
            model.evaluate(other, y, verbose=0)

    assert not in_threads(train, evaluate)
    np.testing.assert_allclose(found, alone, rtol=1e-5)


def test_a_thread_that_waits_says_so(monkeypatch, caplog):
    monkeypatch.setattr("keras_mla.core.entrances._PATIENCE", 0.05)
    model = make_model()
    x, _ = make_data(4)
    with model._taking_turns():
        thread = threading.Thread(target=model.predict, args=(x,))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join()
    assert "serving_function" in caplog.text


def test_nan_is_taken_where_encoders_take_it():
    model = make_model(allow_nan=True)
    result = served(model, {**ROW, "audio": [[np.nan] * 5]})
    assert np.isnan(result["audio_logits"]).all()
    assert np.isfinite(result["text_logits"]).all()


def test_an_unbuilt_model_cannot_serve():
    layers = {name: keras.layers.Dense(6) for name in WIDTHS}
    with pytest.raises(ValueError, match="needs a built model"):
        keras_mla.MLA(layers, CLASSES).serving_function()


def test_a_batch_size_of_zero():
    with pytest.raises(ValueError, match="batch_size=0"):
        make_model().serving_function(batch_size=0)
