"""The line that `fit` and `evaluate` print."""

import re

import keras
import pytest
from utils import CLASSES, WIDTHS, encoder, mainly_on, make_data

import keras_mla

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def model_with(metrics, weak="audio", cls=keras_mla.MLA):
    """Returns a model in which one modality tells nothing."""
    model = cls({n: encoder(w) for n, w in WIDTHS.items()}, CLASSES)
    # Every prediction of the weak one is far off.
    model.compile(keras.optimizers.SGD(0.0), LOSS, metrics=metrics)
    x, y = make_data(16)
    x[weak] = x[weak] * 1e4
    return model, x, y


def printed(capsys):
    lines = capsys.readouterr().out.replace("\r", "\n").splitlines()
    return [re.sub(r"\x1b\[[0-9;]*m|\x08", "", line) for line in lines]


def keys(line):
    return re.findall(r"- ([A-Za-z_][\w, ]*): ", line)


def test_the_line_of_fit_is_short(capsys):
    model, x, y = model_with(None)
    history = model.fit(
        x, y, epochs=2, batch_size=8, validation_data=(x, y), verbose=1
    )
    steps = [line for line in printed(capsys) if "loss" in line]
    assert keys(steps[-1]) == [
        "loss",
        "fused_loss",
        "val_loss",
        "val_fused_loss",
        "weakest, val_audio_loss",
    ]
    shown = float(re.search(r"val_audio_loss: ([\d.e+]+)", steps[-1])[1])
    of_modalities = {n: history.history[f"val_{n}_loss"][-1] for n in WIDTHS}
    assert max(of_modalities, key=of_modalities.get) == "audio"
    assert shown == pytest.approx(of_modalities["audio"], rel=1e-3)
    # The history has all.
    assert {f"{n}_loss" for n in WIDTHS} < set(history.history)


@mainly_on("torch")
def test_the_first_metric_judges(capsys):
    model, x, y = model_with(["accuracy"])
    logs = model.fit(x, y, batch_size=8, verbose=2).history
    [line] = [line for line in printed(capsys) if "loss" in line]
    accuracies = {f"{n}_accuracy": logs[f"{n}_accuracy"][0] for n in WIDTHS}
    worst = min(accuracies, key=accuracies.get)
    assert keys(line) == ["loss", "accuracy", f"weakest, {worst}"]


@mainly_on("torch")
def test_the_line_of_evaluate_is_short(capsys):
    model, x, y = model_with(["accuracy"])
    found = model.evaluate(x, y, batch_size=8, verbose=1, return_dict=True)
    line = [line for line in printed(capsys) if "loss" in line][-1]
    assert keys(line)[:2] == ["loss", "accuracy"]
    assert re.fullmatch(r"weakest, \w+_accuracy", keys(line)[2])
    assert len(found) > 3


@mainly_on("torch")
def test_all_numbers_as_keras_shows_them(capsys):
    model, x, y = model_with(["accuracy"])
    for run in (model.fit, model.evaluate):
        whole = [keras.callbacks.ProgbarLogger()]
        run(x, y, batch_size=8, verbose=2, callbacks=whole)
    lines = [line for line in printed(capsys) if "loss" in line]
    assert len(lines) == 2
    for line in lines:
        assert {f"{n}_accuracy" for n in WIDTHS} < set(keys(line))


@mainly_on("torch")
def test_nothing_is_shown_and_nothing_waits_without_verbose(capsys):
    model, x, y = model_with(["accuracy"])
    hooks = []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            hooks.extend(keras_mla.core.progress.with_short([], 0))

    model.fit(x, y, batch_size=8, verbose=0, callbacks=[Look()])
    model.evaluate(x, y, batch_size=8, verbose=0)
    assert printed(capsys) == [] and hooks == []


@mainly_on("torch")
def test_one_modality_has_no_weakest(capsys):
    model = keras_mla.MLA({"image": encoder(8)}, CLASSES)
    model.compile("sgd", LOSS, metrics=["accuracy"])
    x, y = make_data(16)
    model.fit({"image": x["image"]}, y, batch_size=8, verbose=2)
    [line] = [line for line in printed(capsys) if "loss" in line]
    assert keys(line) == ["loss", "accuracy"]


@mainly_on("torch")
def test_logs_of_other_callbacks_are_shown(capsys):
    model, x, y = model_with(["accuracy"])
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: 0.0)
    model.fit(x, y, batch_size=8, verbose=2, callbacks=[rate])
    [line] = [line for line in printed(capsys) if "loss" in line]
    assert "learning_rate" in keys(line)
