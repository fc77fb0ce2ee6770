"""Checks before a step, and the state of a model after an error."""

import keras
import numpy as np
import pytest
from utils import (
    CLASSES,
    WIDTHS,
    compiled,
    encoder,
    largest_difference,
    mainly_on,
    make_data,
    make_model,
    only_on,
    some,
    weights_of,
)

import keras_mla
from keras_mla import models

NAMES = tuple(WIDTHS)
CALLS = {
    "fit": lambda model, x, y: model.fit(x, y, verbose=0),
    "evaluate": lambda model, x, y: model.evaluate(x, y, verbose=0),
    "predict": lambda model, x, y: model.predict(x, verbose=0),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
    "test_on_batch": lambda model, x, y: model.test_on_batch(x, y),
    "predict_on_batch": lambda model, x, y: model.predict_on_batch(x),
    "predict_modalities": lambda model, x, y: model.predict_modalities(x),
}
TRAINING = ("fit", "evaluate", "train_on_batch", "test_on_batch")


class Batches(keras.utils.PyDataset):
    """Two batches, the second one as given."""

    def __init__(self, first, second):
        super().__init__()
        self.batches = first, second

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.batches[index]


def wrong_inputs(x):
    lacking = {n: v for n, v in x.items() if n != "audio"}
    yield lacking, "lack modality 'audio'"
    yield {**x, "smell": x["audio"]}, "unknown key 'smell'"
    yield x["audio"], "must be a dict keyed by modality"
    yield {**x, "presence": np.ones((8, 2), bool)}, r"shape \(batch, 3\)"
    yield {**x, "presence": np.ones((5, 3), bool)}, "5 rows.*has 8"


@pytest.mark.parametrize(
    "call", some(CALLS, "fit", "predict", "predict_modalities")
)
def test_wrong_inputs_are_told_and_harm_nothing(call):
    model = compiled(make_model())
    x, y = make_data(8)
    expected = model.predict(x, verbose=0)
    for wrong, message in wrong_inputs(x):
        with pytest.raises(ValueError, match=message) as error:
            CALLS[call](model, wrong, y)
        assert "call()" not in str(error.value)  # It is in our words alone.
        np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


@pytest.mark.parametrize(
    "call", some(["fit", "evaluate", "predict"], "fit", "predict")
)
@pytest.mark.parametrize("good", [0, 1])
def test_an_error_in_a_stream_leaves_the_weights(call, good):
    model = compiled(make_model(), "adam")
    x, y = make_data(8)
    model.train_on_batch(x, y)
    model.set_weights([w + 1 for w in model.get_weights()])
    before = weights_of(model)
    bad = {n: v for n, v in x.items() if n != "audio"}, y
    batches = [(x, y), bad] if good else [bad, (x, y)]
    with pytest.raises(Exception, match="audio"):
        CALLS[call](model, Batches(*batches), None)
    after = weights_of(model)
    if call != "fit" or not good:
        assert largest_difference(before, after) == 0
    assert all(np.isfinite(w).all() for w in after)
    model.predict(x, verbose=0)
    model.train_on_batch(x, y)


@pytest.mark.parametrize("call", some(TRAINING, "fit"))
def test_rows_must_agree(call):
    model = compiled(make_model())
    x, y = make_data(8)
    x["image"] = x["image"][:5]
    with pytest.raises(ValueError, match="'image' with 5 rows"):
        CALLS[call](model, x, y)


@pytest.mark.parametrize("call", some(TRAINING, "fit"))
@pytest.mark.parametrize("label", [-1, CLASSES])
def test_labels_must_be_classes(call, label):
    model = compiled(make_model())
    x, y = make_data(8)
    y[3] = label
    before = weights_of(model)
    with pytest.raises(ValueError, match=f"0 to {CLASSES - 1}.*{label}"):
        CALLS[call](model, x, y)
    assert largest_difference(before, weights_of(model)) == 0
    # The label of a sample that does not count may be anything.
    presence = np.ones((8, 3), bool)
    presence[3] = False
    CALLS[call](model, {**x, "presence": presence}, y)
    if call == "fit":
        weight = presence[:, 0].astype("float32")
        model.fit(x, y, sample_weight=weight, verbose=0)


def test_labels_of_validation_and_of_each_modality():
    model = compiled(make_model())
    x, y = make_data(8)
    bad = np.where(np.arange(8) == 3, CLASSES, y)
    with pytest.raises(ValueError, match="0 to 3"):
        model.fit(x, y, validation_data=(x, bad), verbose=0)
    labels = {**dict.fromkeys(NAMES, y), "audio": bad}
    with pytest.raises(ValueError, match="of modality 'audio'.*0 to 3"):
        model.train_on_batch(x, labels)


@pytest.mark.parametrize("where", ["training", "validation", "evaluate"])
def test_labels_of_a_stream_must_be_classes(where):
    # Negative labels, which not every backend refuses by itself.
    x, y = make_data(8)
    stream = Batches((x, y), (x, np.where(np.arange(8) == 3, -1, y)))
    good = Batches((x, y), (x, y))
    model = compiled(make_model())
    with pytest.raises(Exception, match=r"0 to 3|\[0, 4\)|out of bounds"):
        if where == "evaluate":
            model.evaluate(stream, verbose=0)
        else:
            data = (stream, good) if where == "training" else (good, stream)
            model.fit(data[0], validation_data=data[1], verbose=0)


@pytest.mark.parametrize("stream", [False, True])
def test_labels_between_two_classes(stream):
    x, y = make_data(8)
    # Whole numbers may be floats.
    whole = y.astype("float32")
    broken = np.where(np.arange(8) == 3, y + 0.5, y).astype("float32")
    model = compiled(make_model())
    model.fit(x, whole, verbose=0)
    data = [Batches((x, whole), (x, broken))] if stream else [x, broken]
    with pytest.raises(ValueError, match="0 to 3"):
        model.fit(*data, verbose=0)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch alone.")
@pytest.mark.parametrize("label", [-1, CLASSES])
def test_labels_that_a_gpu_would_not_survive(monkeypatch, label):
    from keras_mla.backend import kernels

    for module in (kernels, kernels.torch):
        monkeypatch.setattr(module, "refuses_labels", lambda logits: False)
    x, y = make_data(8)
    stream = Batches((x, y), (x, np.where(np.arange(8) == 3, label, y)))
    with pytest.raises(ValueError, match="1 labels are outside 0 to 3"):
        compiled(make_model()).fit(stream, verbose=0)
    # The loss ignores what it is told to ignore.
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=label
    )
    compiled(make_model(), loss=loss, metrics=None).fit(stream, verbose=0)


def test_labels_that_are_ignored_or_weigh_nothing():
    x, y = make_data(8)
    y[3] = -1
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=-1
    )
    model = compiled(make_model(), loss=loss, metrics=None)
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"][0])
    assert np.isfinite(model.evaluate(Batches((x, y), (x, y)), verbose=0)[0])


def test_labels_of_any_dtype():
    x, y = make_data(8, ("image",))
    model = compiled(keras_mla.MLA({"image": encoder(8)}, 256))
    model.fit(x, y.astype("uint8"), verbose=0)
    model.fit(x, y > 1, verbose=0)
    with pytest.raises(ValueError, match="0 to 255"):
        model.fit(x, y - 1, verbose=0)


def test_a_sample_weight_by_position():
    x, y = make_data(8)
    y[3] = -1
    weight = (np.arange(8) != 3).astype("float32")
    model = compiled(make_model())
    by_name = model.evaluate(x, y, verbose=0, sample_weight=weight)
    np.testing.assert_allclose(model.evaluate(x, y, 32, 0, weight), by_name)


def test_wrong_lengths_and_types_are_told_by_what_knows_them():
    x, y = make_data(8)
    y[3] = -1
    model = compiled(make_model())
    with pytest.raises(Exception) as error:
        model.fit(x, y, sample_weight=np.ones(5), verbose=0)
    assert "broadcast" not in str(error.value)
    assert "has no attribute" not in str(error.value)


@mainly_on("torch")
def test_an_interrupted_epoch_does_not_accuse_the_next_evaluation():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    x, y = make_data(8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = compiled(make_model(), loss=loss)
    model.loss_tracker.strays.assign(1)
    assert np.isfinite(model.evaluate(x, y, verbose=0)[0])
    before = model.predict(x, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, verbose=0, callbacks=[Interrupt()])
    assert (model.predict(x, verbose=0) != before).any()


def test_what_version_0_1_took_can_be_loaded(tmp_path):
    # Names and heads that are refused now.
    config = keras_mla.MLA({"a": encoder(4), "b": encoder(4)}, 3).get_config()
    del config["keras_mla_version"]
    config["encoders"] = {
        "my text": config["encoders"]["a"],
        "weighted": config["encoders"]["b"],
    }
    config["head"]["config"]["units"] = 1
    config["head"].pop("build_config", None)
    model = keras_mla.MLA.from_config(config)
    assert model.modalities == ("my text", "weighted")
    with pytest.raises(ValueError, match="must be named"):
        keras_mla.MLA.from_config({**config, "keras_mla_version": "0.2"})
    with pytest.warns(UserWarning, match="is not compiled.*probabilities"):
        model.compile_from_config({"loss": "bce", "optimizer": "sgd"})


def test_class_weight_of_unpaired_labels():
    model = compiled(make_model())
    x, y = make_data(8)
    labels = dict.fromkeys(NAMES, y)
    for call in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match="`class_weight` is not supported"):
            call(x, labels, class_weight=dict.fromkeys(range(4), 1.0))


@only_on("tensorflow")
def test_class_weight_of_unpaired_labels_in_a_tf_dataset():
    import tensorflow as tf

    x, y = make_data(8)
    data = tf.data.Dataset.from_tensor_slices((x, dict.fromkeys(NAMES, y)))
    with pytest.raises(ValueError, match="`class_weight` is not supported"):
        compiled(make_model()).fit(data.batch(4), class_weight={0: 2.0})


def test_a_batch_is_predicted_as_all_samples_are():
    model = make_model()
    x, _ = make_data(8)
    np.testing.assert_allclose(
        model.predict_on_batch(x),
        model.predict(x, verbose=0),
        atol=1e-6,
    )


@only_on("torch")
def test_a_step_called_directly_prepares_what_fit_does():
    x, y = make_data(8)
    x = {name: keras.ops.convert_to_tensor(value) for name, value in x.items()}
    model = compiled(make_model(), "adam")
    logs = model.train_step((x, keras.ops.convert_to_tensor(y)))
    assert {f"{name}_accuracy" for name in NAMES} < set(logs)
    assert len(model.optimizer.variables) > 2 * len(model.trainable_variables)


def test_labels_are_needed():
    x, _ = make_data(8)
    with pytest.raises(ValueError, match="need labels"):
        compiled(make_model()).fit(x, verbose=0)


@pytest.mark.parametrize(
    "name",
    [
        "my text",
        "texte-écrit",
        "image:1",
        "text.en",
        "a/b",
        "_a",
        "",
        "val_image",
    ],
)
def test_names_that_some_backend_does_not_take(name):
    with pytest.raises(ValueError, match="must be named"):
        keras_mla.MLA({name: encoder(4), "image": encoder(4)}, 3)


def test_names_that_every_backend_takes():
    names = ("Image-2", "0", "text_en")
    model = compiled(
        keras_mla.MLA({n: encoder(4) for n in names}, 3, feature_dim=5)
    )
    x = {n: np.ones((4, 4), "float32") for n in names}
    model.fit(x, np.zeros(4, "int32"), verbose=0)


def test_logs_of_one_name_are_refused():
    metric = keras.metrics.SparseCategoricalAccuracy(name="image_loss")
    model = compiled(make_model(("text", "image")), metrics=[metric])
    x, y = make_data(8, ("text", "image"))
    with pytest.raises(ValueError, match="called 'image_loss'"):
        model.fit(x, y, verbose=0)


def test_layers_that_two_unbuilt_encoders_share():
    dense = keras.layers.Dense(6)
    parts = {n: keras.Sequential([dense]) for n in NAMES}
    with pytest.raises(ValueError, match="'text' and 'audio' share"):
        keras_mla.MLA(parts, 4)
    # A layer without weights can be shared.
    flat = keras.layers.Flatten()
    flat.build((None, 3))
    parts = {n: keras.Sequential([flat, keras.layers.Dense(6)]) for n in NAMES}
    keras_mla.MLA(parts, 4)


@pytest.mark.parametrize("head", [1, keras.layers.Dense(1, name="one")])
def test_a_head_of_one_unit(head):
    with pytest.raises(ValueError, match="at least 2"):
        compiled(keras_mla.MLA({"image": encoder(8)}, head))
    with pytest.raises(ValueError, match="at least 2"):
        keras_mla.MLA({"image": encoder(8)}, head, task="single_label")


def test_lora_in_the_head():
    model = make_model()
    model.head.enable_lora(2)
    with pytest.raises(ValueError, match="LoRA cannot be projected"):
        compiled(model)
    plain = make_model(projector=None)
    plain.head.enable_lora(2)
    x, y = make_data(8)
    compiled(plain).fit(x, y, verbose=0)


def test_errors_of_a_constructor_are_our_own():
    parts = {"image": encoder(8, 6), "text": encoder(3, 5)}
    with pytest.raises(ValueError, match="^A shared head needs") as error:
        keras_mla.MLA(parts, 4)
    assert "compute_output_spec" not in str(error.value)


# === Callbacks ===


class Watch(keras.callbacks.Callback):
    """Records when it is called."""

    def __init__(self, log, name):
        super().__init__()
        self.log, self.name = log, name

    def on_train_begin(self, logs=None):
        self.log.append((self.name, "train begin"))

    def on_train_end(self, logs=None):
        self.log.append((self.name, "train end"))

    def on_epoch_begin(self, epoch, logs=None):
        self.log.append((self.name, "epoch begin"))

    def on_epoch_end(self, epoch, logs=None):
        self.log.append((self.name, "epoch end"))

    def on_train_batch_end(self, batch, logs=None):
        self.log.append((self.name, "batch end"))


@pytest.mark.parametrize("as_list", some([False, True], True))
def test_a_method_s_callbacks_begin_first_and_end_last(as_list):
    log = []

    class Method(keras_mla.MLA):
        def own_callbacks(self):
            return [Watch(log, "method")]

    model = compiled(
        Method({name: encoder(WIDTHS[name]) for name in NAMES}, CLASSES)
    )
    x, y = make_data(8)
    callbacks = [Watch(log, "user")]
    if as_list:
        callbacks = keras.callbacks.CallbackList(
            callbacks, add_history=True, model=model
        )
    for _ in range(2):  # The second time, a list is not wrapped again.
        log.clear()
        history = model.fit(x, y, verbose=0, callbacks=callbacks)
        assert "loss" in history.history
        assert log == [
            ("method", "train begin"),
            ("user", "train begin"),
            ("method", "epoch begin"),
            ("user", "epoch begin"),
            ("user", "batch end"),
            ("method", "batch end"),
            ("user", "epoch end"),
            ("method", "epoch end"),
            ("user", "train end"),
            ("method", "train end"),
        ]


@mainly_on("torch")
def test_an_ensemble_s_best_epochs_outlast_early_stopping():
    x, y = make_data(24)
    model = models.UnimodalEnsemble(
        {name: encoder(WIDTHS[name]) for name in NAMES}, CLASSES
    )
    # One learns slowly, others diverge: their best epochs are far apart.
    compiled(
        model,
        keras.optimizers.SGD(1.0),
        learning_rate_multiplier={"text": 0.02, "audio": 5.0},
    )
    weights = {name: [] for name in NAMES}

    def keep(epoch, logs):
        for name in NAMES:
            weights[name].append(
                [
                    np.array(w)
                    for p in model.parts(name)
                    for w in p.get_weights()
                ]
            )

    history = model.fit(
        x,
        y,
        validation_data=make_data(24, seed=1),
        epochs=6,
        verbose=0,
        callbacks=[
            keras.callbacks.EarlyStopping(
                "val_loss", patience=6, restore_best_weights=True
            ),
            keras.callbacks.LambdaCallback(on_epoch_end=keep),
        ],
    ).history
    for name in NAMES:
        best = int(np.argmin(history[f"val_{name}_loss"]))
        assert model.best_epochs[name] == best
        now = [w for part in model.parts(name) for w in part.get_weights()]
        assert largest_difference(weights[name][best], now) == 0
    assert len(set(model.best_epochs.values())) > 1


def test_a_score_that_is_nan_is_beaten():
    model = models.UnimodalEnsemble(
        {name: encoder(WIDTHS[name]) for name in NAMES}, CLASSES
    )
    compiled(model)
    (callback,) = model.own_callbacks()
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, score in enumerate((np.nan, 2.0, 1.0, np.nan)):
        logs = {f"val_{name}_loss": score for name in NAMES}
        callback.on_epoch_end(epoch, logs)
    assert model.best_epochs == dict.fromkeys(NAMES, 2)


@pytest.mark.parametrize(
    "monitor",
    some(["val_text_loss", "text_loss", "val_text_accuracy"], "val_text_loss"),
)
@pytest.mark.parametrize("metrics", [["accuracy"], None])
def test_callbacks_find_the_direction(monitor, metrics):
    if metrics is None and "accuracy" in monitor:
        pytest.skip("No such metric.")
    model = compiled(make_model(), metrics=metrics)
    x, y = make_data(8)
    stopping = keras.callbacks.EarlyStopping(monitor)
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[stopping])
    rises = "accuracy" in monitor
    assert (stopping.monitor_op is keras.ops.greater) == rises or (
        stopping.monitor_op(2.0, 1.0) == rises
    )


def test_a_callback_s_own_error_stays():
    class Raise(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            try:
                int("abc")
            except ValueError:
                raise TypeError("my own message")  # noqa: B904

    x, y = make_data(8)
    with pytest.raises(TypeError, match="my own message"):
        compiled(make_model()).fit(x, y, verbose=0, callbacks=[Raise()])
