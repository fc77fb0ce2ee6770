"""Arguments of a comparison: errors before any data are read."""

import functools

import keras
import numpy as np
import pandas as pd
import pytest
from test_engine import arrays, small, splits, streamed
from utils import only_on

from keras_mla.comparison import arguments, command, compare, engine, sources
from keras_mla.datasets import table

pytestmark = only_on("torch")


def nothing(*_, **__):
    raise AssertionError("Data are read.")


@pytest.mark.parametrize(
    "given, message",
    [
        ({"seeds": 0}, "Received: seeds=0"),
        ({"seeds": []}, "Received: seeds=\\[\\]"),
        ({"seeds": [0, 0]}, "different"),
        ({"seeds": [0, -1]}, "from 0 on"),
        ({"seeds": True}, "Received: seeds=True"),
        ({"seeds": [0.5]}, "whole numbers"),
        ({"folds": 3, "split": "part"}, "pass one of them.*'part'"),
        ({"metric": "acuracy"}, "`metric` must be one.*mean 'accuracy'"),
        ({"trials": 0}, "`trials` must be a whole number, at least 1"),
        ({"trial_seeds": 0}, "`trial_seeds`"),
        ({"epochs": 0}, "`epochs`"),
        ({"epochs": 2.5}, "Received: epochs=2.5"),
        ({"width": 0}, "`width`"),
        ({"batch_size": -1}, "`batch_size`"),
        ({"folds": 1}, "`folds` must be a whole number, at least 2"),
        ({"split_seed": -1}, "`split_seed`"),
        ({"learning_rate": []}, "`learning_rate` must be a list of numbers"),
        ({"learning_rate": 1e-3}, "`learning_rate` must be a list"),
        ({"learning_rate": [-1e-3]}, "above 0"),
        ({"learning_rate": [float("nan")]}, "above 0"),
        ({"weight_decay": []}, "`weight_decay`"),
        ({"weight_decay": [-1.0]}, "of at least 0"),
        ({"weight_decay": [np.inf]}, "of at least 0"),
        ({"time_budget": float("nan")}, "`time_budget`"),
        ({"time_budget": "20m"}, "`time_budget` must be a number of seconds"),
        ({"optimizer": "adamv"}, "Did you mean 'adamw'"),
        ({"optimizer": 3}, "Received: 3"),
        ({"encoders": {"text": "mpl"}}, "Did you mean 'mlp'"),
        ({"encoders": ["mlp"]}, "`encoders` must be a dict"),
        ({"callbacks": [keras.callbacks.History()]}, "must be a function"),
        ({"methods": "concatt"}, "Did you mean 'Concat'"),
        ({"task": "regresion"}, "Did you mean 'regression'"),
        ({"label": "kind"}, "`label` means nothing for arrays"),
        ({"columns": {"text": ["a"]}}, "`columns` means nothing for arrays"),
        ({"id": "name"}, "`id` means nothing for arrays"),
        ({"root": "files"}, "Received: root='files'"),
    ],
)  # fmt: skip
def test_wrong_arguments(monkeypatch, given, message):
    monkeypatch.setattr(engine.sources, "load", nothing)
    with pytest.raises(ValueError, match=message):
        compare(arrays(), **{"methods": ["Concat"], **given})


@pytest.mark.parametrize("name", ["split", "group", "folds", "label"])
def test_what_means_nothing_for_given_splits(name):
    value = 3 if name == "folds" else "split"
    with pytest.raises(ValueError, match=f"`{name}` means nothing for given"):
        compare(splits(), ["Concat"], **{name: value})
    data = sources.load(splits())
    with pytest.raises(ValueError, match=f"`{name}` means nothing for a `Da"):
        compare(data, ["Concat"], **{name: value})


def test_weights_of_samples_are_refused():
    x, y = arrays()
    weights = np.ones(len(y))
    with pytest.raises(ValueError, match="`data` must be `\\(x, y\\)`"):
        compare((x, y, weights), ["Concat"])
    given = splits()
    given["train"] = (*given["train"], np.ones(30))
    with pytest.raises(ValueError, match="no weights.* a tuple of 3"):
        compare(given, ["Concat"])
    with pytest.raises(ValueError, match="a dict of modality to array"):
        compare((x["text"], y), ["Concat"])


def test_an_encoder_of_no_modality():
    with pytest.raises(ValueError, match="Did you mean 'text'"):
        compare(splits(), ["Concat"], encoders={"texts": "mlp"})


def test_numbers_of_numpy(tmp_path):
    result = small(
        splits(), ["Concat"], out=tmp_path, trials=np.int64(1),
        epochs=np.int32(1), seeds=np.array([3, 1]),
        learning_rate=np.array([1e-3, 1e-2]), weight_decay=[np.float32(0.5)],
    )  # fmt: skip
    assert [run.seed for run in result.runs] == [1, 3]
    assert result.runs[0].setting["learning_rate"] == 1e-2
    assert small(splits(), ["Concat"], seeds=np.int64(1)).runs[0].seed == 0
    # Whole numbers stay as a log has them.
    assert repr(arguments.rates("weight_decay", [0], zero=True)) == "[0]"


def test_functions_have_names_by_which_they_are_told_apart():
    def encoder(width, name=None):
        return width

    first = lambda: encoder(1)  # noqa: E731
    second = lambda: encoder(2)  # noqa: E731
    names = {
        arguments.named(function)
        for function in (
            first,
            second,
            functools.partial(encoder, 1),
            functools.partial(encoder, 2),
            functools.partial(encoder, 2, name="a"),
            functools.partial(first),
            functools.partial(second),
            functools.partial(encoder, first),
        )
    }
    assert len(names) == 8 and not any("0x" in name for name in names)
    assert __name__ in arguments.named(first)
    part = functools.partial(encoder, 2, name=object())
    assert arguments.named(part).endswith("encoder, 2, name=<object object>)")
    # A plain name is as older logs have it.
    assert arguments.named(splits) == "splits"
    assert arguments.named(keras.callbacks.History) == "History"


# === Tasks ===


def test_whole_numbers_as_targets(tmp_path):
    x, y = arrays()
    ages = 20 + np.arange(90)
    result = small((x, ages), ["MLA"], task="regression", out=tmp_path)
    assert result.task == "regression" and result.metric == "mae"
    assert result.y.dtype == np.float32 and result.classes is None
    with pytest.raises(ValueError, match="other settings: .*'task'"):
        small((x, ages.astype("float32")), ["MLA"], out=tmp_path)
    given = {s: (x, 20 + y) for s, (x, y) in splits().items()}
    assert small(given, ["Concat"], task="regression").task == "regression"
    stream = streamed(x, ages)
    assert small(stream, ["Concat"], task="regression").task == "regression"


def test_labels_of_each_task():
    x, y = arrays()
    both = np.stack([y > 0, y > 1], axis=1).astype("int64")
    found = sources.load((x, both), task="regression")
    assert (found.task, found.units, found.classes) == ("regression", 2, None)
    found = sources.load((x, both[:, :1]), task="multi_label")
    assert (found.task, found.units) == ("multi_label", 1)
    found = sources.load((x, y.astype("float64")), task="single_label")
    assert (found.task, found.units) == ("single_label", 3)
    for labels, task in (
        (y, "multi_label"),
        (both, "single_label"),
        (y + 0.5, "single_label"),
        (y.astype(str), "regression"),
    ):
        with pytest.raises(ValueError, match=f"must suit task='{task}'"):
            sources.load((x, labels), task=task)


def test_a_task_of_a_table(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.integers(20, 60, 60)})
    frame["a"] = frame["age"] + rng.normal(size=60)
    frame["b"] = rng.normal(size=60)
    given = {"label": "age", "columns": {"numeric": ["a", "b"]}}
    found = sources.load(frame, task="regression", **given)
    assert found.task == "regression"
    given["label"] = table.Label("age", "regression")
    with pytest.raises(ValueError, match="not both"):
        compare(frame, ["Concat"], task="regression", **given)
    path = tmp_path / "table.csv"
    frame.to_csv(path)
    flags = [f"--data={path}", "--label=age", "--task=regression"]
    flags += ["--numeric=a,b", "--methods=concat", "--seeds=1", "--trials=1"]
    flags += ["--epochs=1", f"--out={tmp_path / 'out'}"]
    assert command.run(["compare", *flags]) == 0
    assert "MAE" in (tmp_path / "out" / "table.md").read_text()
