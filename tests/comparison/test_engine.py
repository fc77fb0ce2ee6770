"""The engine: what it reads, chooses, keeps, and survives."""

import functools
import json

import keras
import numpy as np
import pytest
from outside_methods import TaughtImputation
from utils import mainly_on, only_on, to_numpy

from keras_mla import models
from keras_mla.comparison import (
    choice,
    compare,
    plan,
    sources,
    tables,
    training,
)
from keras_mla.comparison import data as data_lib
from keras_mla.comparison import methods as methods_lib
from keras_mla.comparison.encoders import kind_of, make_encoder
from keras_mla.comparison.log import Log
from keras_mla.comparison.metrics import METRICS
from keras_mla.comparison.results import POOLED
from keras_mla.datasets import pipeline
from keras_mla.models import registry

NAMES = ("text", "audio", "image")


def arrays(samples=90, seed=0, noise=1.0):
    """Three modalities that hint at one of three classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(samples) % 3
    x = {
        name: (rng.normal(size=(samples, w)) * noise + y[:, None]).astype(
            "float32"
        )
        for name, w in zip(NAMES, (4, 3, 5), strict=True)
    }
    return x, y


small = functools.partial(
    compare,
    seeds=1,
    trials=1,
    epochs=2,
    batch_size=16,
    width=6,
    report=False,
    verbose=0,
)


def splits(**changes):
    x, y = arrays()
    rows = np.random.default_rng(0).permutation(len(y)).reshape(3, -1)
    made = {
        split: ({n: a[r] for n, a in x.items()}, y[r])
        for split, r in zip(("train", "validation", "test"), rows, strict=True)
    }
    return {**made, **changes}


# === Data ===


@only_on("torch")
def test_splits_are_given_drawn_or_named(tmp_path):
    x, y = arrays()
    drawn = sources.load((x, y))
    sizes = [len(part.y) for part in drawn.folds[0].parts.values()]
    assert sizes == [54, 18, 18] and drawn.modalities == NAMES
    rows = [part.rows for part in drawn.folds[0].parts.values()]
    assert sorted(np.concatenate(rows)) == list(range(90))
    for part in drawn.folds[0].parts.values():
        np.testing.assert_array_equal(part.x["text"], x["text"][part.rows])
        assert set(np.bincount(part.y)) == {len(part.y) // 3}
    path = tmp_path / "data.npz"
    split = np.arange(90) // 30
    np.savez(path, **x, y=y, split=split, id=np.arange(90) + 100)
    named = sources.load(str(path))
    for index, part in enumerate(named.folds[0].parts.values()):
        np.testing.assert_array_equal(part.rows, np.flatnonzero(split == index))
    labels, ids, presence = named.test()
    assert ids == [str(i) for i in range(160, 190)] and presence.all()
    np.testing.assert_array_equal(labels, y[60:])
    np.testing.assert_array_equal(named.test_rows(), np.arange(60, 90))


@only_on("torch")
def test_folds_test_every_row_once_and_keep_groups_together():
    x, y = arrays()
    groups = np.arange(90) // 6
    found = sources.load(
        ({**x, "group": groups}, y), division=data_lib.Division(folds=5)
    )
    tested = np.concatenate([f.parts["test"].rows for f in found.folds])
    assert sorted(tested) == list(range(90)) and found.modalities == NAMES
    np.testing.assert_array_equal(found.test_groups(), groups)
    once = sources.load(({**x, "group": groups}, y))
    rows = np.sort(once.folds[0].parts["test"].rows)
    np.testing.assert_array_equal(once.test_groups(), groups[rows])
    assert sources.load((x, y)).test_groups() is None
    for fold in found.folds:
        kept = [set(groups[part.rows]) for part in fold.parts.values()]
        assert not (kept[0] & kept[1] or kept[0] & kept[2] or kept[1] & kept[2])


@only_on("torch")
def test_copies_across_splits_are_counted():
    given = splits()
    x, y = given["test"]
    again = {
        n: np.concatenate([a, given["train"][0][n][:4]]) for n, a in x.items()
    }
    given["test"] = again, np.concatenate([y, given["train"][1][:4]])
    facts = sources.load(given).facts
    [count] = [v for k, v in facts.items() if "copy" in k]
    assert count == 4


@only_on("torch")
@pytest.mark.parametrize(
    "change, message",
    [
        ({"y": None}, "has no array 'y'"),
        ({"text": np.zeros((89, 7))}, "89 in 'text' and 90 in 'y'"),
        ({"split": np.zeros(89)}, "89 in 'split' and 90 in 'y'"),
        ({"text": np.array([["a"]] * 90, object)}, "arrays of objects"),
        ({"text": np.array(["word"] * 90)}, "'text' .* cannot be a modality"),
        ({"y": np.arange(90), "split": np.arange(90) // 30}, "between 0 and"),
        ({"y": np.arange(90) % 3 - 1}, "Received: -1"),
        ({"split": np.arange(90) // 45}, "each at least once"),
        ({"y": np.array(["a"] * 90)}, "must be classes"),
    ],
)
def test_bad_arrays(tmp_path, change, message):
    x, y = arrays()
    given = {**x, "y": y, **change}
    path = tmp_path / "data.npz"
    np.savez(path, **{k: v for k, v in given.items() if v is not None})
    with pytest.raises(ValueError, match=message):
        sources.load(str(path))


# === Encoders ===


@mainly_on("torch")
def test_encoders_suit_arrays_and_scale_by_training_samples():
    rng = np.random.default_rng(0)
    present = np.arange(20) < 15
    cases = {
        "mlp": rng.normal(5, 3, (20, 7)).astype("float32"),
        "conv1d": rng.normal(size=(20, 200, 3)).astype("float32"),
        "conv2d": rng.integers(0, 255, (20, 16, 16, 3)).astype("uint8"),
        "video": rng.random((20, 2, 16, 16, 3), "float32"),
        "tokens": rng.integers(0, 9, (20, 6)).astype("int32"),
    }
    for kind, array in cases.items():
        assert kind_of(array) == kind
        encoder = make_encoder(array, present, width=5)
        assert encoder(array).shape == (20, 5)
        again = type(encoder).from_config(encoder.get_config())
        again.set_weights(encoder.get_weights())
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(encoder(array)),
            keras.ops.convert_to_numpy(again(array)),
        )
    # Absent samples do not count, and outliers are clipped.
    array = cases["mlp"].copy()
    array[15:] = 1e6
    encoder = make_encoder(array, present)
    [clip] = [op for op in encoder.operations if "clip" in op.name]
    inner = keras.Model(encoder.inputs[0], clip.output)
    scaled = keras.ops.convert_to_numpy(inner(array))
    np.testing.assert_allclose(scaled[:15].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled[:15].std(0), 1, atol=1e-4)
    assert scaled.max() == 5
    # What stays as it is only scales vectors.
    scale = make_encoder(array, present, width=4, trained=False)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(scale(array)), scaled, atol=1e-6
    )
    picture = make_encoder(cases["conv2d"], present, width=4, trained=False)
    assert picture(cases["conv2d"]).shape == (20, 4)
    # A token that training lacks is padding, and padding says nothing.
    words = np.array([[4, 5, 0, 0], [5, 4, 99, 0]], "int32")
    encoder = make_encoder(words, np.array([True, False]), width=4)
    first, second = keras.ops.convert_to_numpy(encoder(words))
    np.testing.assert_allclose(first, second, atol=1e-6)
    with pytest.raises(ValueError, match="Received: 'cnn'"):
        make_encoder(words, np.ones(2, bool), "cnn")


# === Choices ===


@only_on("torch")
def test_methods_by_any_name():
    found = methods_lib.chosen(["concatfusion", "ogm-ge", "LATE FUSION"])
    assert list(found) == ["Concat", "OGM-GE", "Late fusion"]
    assert list(methods_lib.chosen("table")) == list(methods_lib.TABLE)
    assert methods_lib.chosen(models.MLA)["MLA"] is registry.METHODS["MLA"]

    class Mine(models.ConcatFusion):
        pass

    assert methods_lib.chosen([Mine])["Mine"].cls is Mine
    with pytest.raises(ValueError, match="Did you mean 'Multi-loss'"):
        methods_lib.chosen("multilos")
    with pytest.raises(TypeError, match="Received: 3"):
        methods_lib.chosen([3])


@mainly_on("torch")
def test_the_recommended_method_is_fused_jointly():
    result = small(
        splits(), ["recommended", "MLA, no projection"], trials=1, report=False
    )
    ours, plain = (result.runs_of(title)[0] for title in result.methods)
    assert (ours.method, plain.method) == ("Recommended", "MLA, no projection")
    outputs = ours.predictions.outputs
    assert ours.curves == plain.curves  # They train in the same way.
    joint = plain.predictions.outputs[POOLED]
    np.testing.assert_allclose(outputs[result.everything], joint, atol=1e-5)
    assert abs(joint - plain.predictions.outputs[result.everything]).max() > 0.1
    made = {name: keras.layers.Dense(4) for name in NAMES}
    model = methods_lib.recommended(made, head=3)
    assert type(model) is models.MLA
    assert model.get_config()["projector"] is None


@mainly_on("torch")
def test_temperatures_are_scored_on_samples_they_are_not_fitted_to():
    result = small(splits(), ["MLA", "Concat"], trials=1, report=False)
    first, second = result.runs
    held_out = first.fusion["calibrated"]
    assert set(held_out) == {
        "accuracy",
        "negative_log_likelihood",
        "calibration_error",
    }
    assert np.isfinite(list(held_out.values())).all()
    assert second.fusion == {}


@only_on("torch")
def test_every_method_gets_as_many_settings():
    grid = methods_lib.Grid(trials=6)
    for method in methods_lib.chosen(["table", "ablation"]).values():
        settings = grid.settings(method)
        assert len(settings) == 6
        assert settings[0]["learning_rate"] == 1e-3
        for name, values in method.grid.items():
            assert settings[0][name] == values[0]
        assert len({json.dumps(s, sort_keys=True) for s in settings}) == 6
        values = {name: {s[name] for s in settings} for name in method.grid}
        assert all(values[n] == set(method.grid[n]) for n in method.grid)


@mainly_on("torch")
def test_validation_alone_chooses(tmp_path):
    given = splits()
    kwargs = {"methods": ["MLA", "Concat", "Ensemble"], "trials": 2}
    first = small(given, out=tmp_path / "first", **kwargs)
    x, y = given["test"]
    permuted = splits(test=(x, np.roll(y, 1)))
    second = small(permuted, out=tmp_path / "second", **kwargs)
    assert first.winner == second.winner
    for a, b in zip(first.runs, second.runs, strict=True):
        assert (a.setting, a.epochs) == (b.setting, b.epochs)
        assert a.validation == b.validation
    # The winner has the best validation score of all.
    best = max(first.runs, key=lambda run: run.validation["accuracy"])
    assert best.validation["accuracy"] == max(
        run.validation["accuracy"] for run in first.runs_of(first.winner)
    )
    # The curve's best epoch is the chosen one.
    for run in first.runs_of("MLA"):
        curve = run.curves["val_accuracy"]
        assert curve[run.epochs["all"]] == max(curve)
        assert run.validation["accuracy"] == max(curve)


@mainly_on("torch")
def test_predictions_are_those_of_the_model(tmp_path):
    given = splits()
    rng = np.random.default_rng(3)
    for x, _ in given.values():
        presence = rng.random((len(x["text"]), 3)) < 0.8
        presence[
            np.arange(len(presence)), rng.integers(0, 3, len(presence))
        ] = 1
        x["presence"] = presence
    result = small(given, ["MLA"], out=tmp_path, report=False)
    [run] = result.runs
    data = sources.load(given)
    options = training.Options(
        METRICS["single_label"]["accuracy"], {}, 6, 2, 16, "adamw"
    )
    trained = training.train(
        registry.METHODS["MLA"], data, data.folds[0], run.setting, 0, options
    )
    x, y = data.folds[0].parts["test"].x, data.folds[0].parts["test"].y
    outputs = run.predictions.outputs
    for subset in (("audio",), ("text", "image"), NAMES):
        kept = x["presence"] & [name in subset for name in NAMES]
        expected = trained.model.predict({**x, "presence": kept}, verbose=0)
        np.testing.assert_allclose(
            outputs["+".join(subset)], expected, atol=2e-6
        )
    assert set(run.predictions.weights) == set(NAMES)
    np.testing.assert_array_equal(result.y, y)
    np.testing.assert_array_equal(result.presence, x["presence"])
    # Shares add up to the score beyond that of the training frequencies.
    score = result.scores("MLA", METRICS["single_label"]["accuracy"])[0]
    share = np.bincount(data.folds[0].parts["train"].y).argmax()
    assert sum(run.worth.values()) == pytest.approx(score - np.mean(y == share))


# === Runs ===


@only_on("torch")
def test_the_log_survives_a_kill(tmp_path):
    path = tmp_path / "runs.jsonl"
    log = Log(path, {"epochs": 2})
    log.add({"seed": 0}, {"score": 1})
    log.add({"seed": 1}, {"score": 2})
    whole = path.read_bytes()
    for cut in range(1, 33):
        path.write_bytes(whole[:-cut])
        found = Log(path, {"epochs": 2})
        assert found.get({"seed": 0}) == {"run": {"seed": 0}, "score": 1}
        assert found.get({"seed": 1}) is None
        found.add({"seed": 1}, {"score": 2})
        assert path.read_bytes() == whole
    with pytest.raises(ValueError, match="other settings: \\['epochs'\\]"):
        Log(path, {"epochs": 3})


def streamed(x, y, seeds=None):
    """Returns splits as the pipeline reads them, each with all samples."""
    samples = [
        pipeline.Sample(str(i), int(y[i]), {n: x[n][i] for n in NAMES}, "")
        for i in range(len(y))
    ]
    readers = {
        name: pipeline.Reader(
            functools.partial(lambda name, s: s.inputs[name], name),
            "float32",
            x[name].shape[1:],
        )
        for name in NAMES
    }

    def train(seed):
        if seeds is not None:
            seeds.append(seed)
        return pipeline.build(
            samples, readers, training=True, seed=seed, sample_ids=True
        )

    whole = pipeline.build(samples, readers)
    return {"train": (train, y), "validation": (whole, y), "test": (whole, y)}


@only_on("torch")
@pytest.mark.parametrize("stream", [False, True])
def test_methods_with_frozen_encoders(tmp_path, stream):
    given = splits()
    if stream:
        given = streamed(*arrays())
    else:
        for x, _ in given.values():
            rng = np.random.default_rng(3)
            x["presence"] = rng.random((len(x["text"]), 3)) < 0.7
            x["presence"][:, 1] |= ~x["presence"].any(axis=1)
    result = small(given, ["CCA", "CPMNet"], out=tmp_path)
    assert not result.failures
    data = sources.load(given)
    options = training.Options(
        METRICS["single_label"]["accuracy"], {}, 6, 2, 16, "adamw"
    )
    for title in ("CCA", "CPM-Net"):
        [run] = result.runs_of(title)
        method = methods_lib.chosen(title)[title]
        trained = training.train(
            method, data, data.folds[0], run.setting, 0, options
        ).model
        # Features are the inputs.
        assert trained.widths == {"text": 4, "audio": 3, "image": 5}
        assert not any(e.trainable for e in trained.encoders.values())
    assert not {"CCA", "CPM-Net"}.intersection(methods_lib.chosen("table"))


@mainly_on("torch")
@pytest.mark.parametrize("stream", [False, True])
def test_a_run_goes_on_in_its_middle(tmp_path, monkeypatch, stream):
    data = sources.load(streamed(*arrays()) if stream else splits())
    metric = METRICS["single_label"]["accuracy"]
    options = training.Options(metric, {}, 6, 4, 16, "adamw")
    setting = {"learning_rate": 1e-2, "weight_decay": 1e-4}
    train = functools.partial(
        training.train, registry.METHODS["MLA"], data, data.folds[0], setting, 0
    )
    expected = train(options)
    monkeypatch.setattr(choice, "BACKUP_EVERY", 0)
    folder = tmp_path / "backup"

    class Stop(Exception):
        pass

    end = choice.Backup.on_epoch_end

    def stopped(self, epoch, logs=None):
        end(self, epoch, logs)
        if epoch == 1:
            raise Stop

    monkeypatch.setattr(choice.Backup, "on_epoch_end", stopped)
    with pytest.raises(Stop):
        train(options, folder)
    monkeypatch.setattr(choice.Backup, "on_epoch_end", end)
    resumed = train(options, folder)
    assert resumed.curves == expected.curves
    assert resumed.epochs == expected.epochs and not folder.exists()
    for a, b in zip(
        resumed.model.get_weights(), expected.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@mainly_on("torch")
def test_a_failure_ends_one_method_alone(tmp_path):
    class Broken(models.ConcatFusion):
        def losses_of(self, *args, **kwargs):
            raise RuntimeError("a fault of its author")

        forward_pass = losses_of

    result = small(splits(), [Broken, "Concat"], out=tmp_path)
    assert result.methods == ("Concat",) and result.winner == "Concat"
    assert "a fault of its author" in result.failures["Broken"]
    assert "Traceback" in (tmp_path / "errors.txt").read_text()
    with pytest.raises(ValueError, match="No method could be trained. Broken"):
        small(splits(), [Broken], out=tmp_path / "alone")


@only_on("torch")
def test_what_diverges_is_not_chosen(tmp_path):
    result = small(
        splits(), ["Concat"], out=tmp_path, trials=2,
        learning_rate=[1e-3, 1e30], optimizer="sgd", weight_decay=[0.0],
    )  # fmt: skip
    assert result.runs[0].setting["learning_rate"] == 1e-3


@only_on("torch")
def test_a_time_budget_runs_every_method_once_first(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(plan.time, "monotonic", lambda: clock[0])
    done = []

    def train(method, data, fold, setting, seed, options, folder=None):
        clock[0] += 10
        done.append((method.title, setting["learning_rate"], seed))
        model = training.make_model(method, data, fold, setting, seed, options)
        training.build(model, data, fold.parts["train"])
        score = {"accuracy": setting["learning_rate"], "log_loss": 1.0}
        return training.Trained(model, {"all": 0}, score, {}, 10.0)

    monkeypatch.setattr(plan.training, "train", train)
    result = small(
        splits(), ["Concat", "Sum"], out=tmp_path, trials=3, seeds=2,
        time_budget=45, weight_decay=[0.0],
    )  # fmt: skip
    assert done == [
        ("Concat", 1e-3, 0),
        ("Sum", 1e-3, 0),
        *(("Concat", rate, 0) for _, rate, _ in done[2:3]),
        *(("Sum", rate, 0) for _, rate, _ in done[3:4]),
    ]
    assert len(result.missing) == 4 and "Concat" in result.missing[0]


@only_on("torch")
def test_what_is_done_is_not_repeated(tmp_path, monkeypatch):
    first = small(splits(), ["Concat"], out=tmp_path, trials=2, seeds=2)
    monkeypatch.setattr(plan.training, "train", None)
    again = small(splits(), ["Concat"], out=tmp_path, trials=2, seeds=2)
    for a, b in zip(first.runs, again.runs, strict=True):
        assert a.setting == b.setting and a.worth == b.worth
        for key, outputs in a.predictions.outputs.items():
            np.testing.assert_array_equal(outputs, b.predictions.outputs[key])
    with pytest.raises(ValueError, match="other settings: \\['epochs'\\]"):
        small(splits(), ["Concat"], out=tmp_path, trials=2, epochs=3)


# === Other tasks, other data ===


@mainly_on("torch")
@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_other_tasks(tmp_path, task):
    given = splits()
    for split, (x, y) in given.items():
        labels = np.stack([y > 0, y > 1], axis=1).astype("float32")
        y = labels if task == "multi_label" else y.astype("float32")
        given[split] = x, y
    result = small(given, ["MLA", "Concat", "QMF", "Ensemble"], out=tmp_path)
    assert result.task == task
    assert result.metric == {"multi_label": "map", "regression": "mae"}[task]
    assert set(result.methods) | set(result.failures) == {
        "MLA", "Concat", "QMF", "Ensemble",
    }  # fmt: skip
    assert "Concat" in result.methods
    units = {"multi_label": 2, "regression": 1}[task]
    assert result.outputs_of("Concat")[0].shape == (30, units)


@mainly_on("torch")
def test_folds(tmp_path):
    x, y = arrays(60)
    result = small((x, y), ["Concat"], folds=3, out=tmp_path, seeds=2)
    assert [(r.fold, r.seed) for r in result.runs] == [
        (f, s) for f in range(3) for s in range(2)
    ]
    assert len(result.outputs_of("Concat")) == 2
    np.testing.assert_array_equal(result.y, y)


@mainly_on("torch")
def test_streams_and_own_encoders(tmp_path):
    class Batches(keras.utils.PyDataset):
        def __init__(self, x, y):
            super().__init__()
            self.x, self.y = x, y

        def __len__(self):
            return 3

        def __getitem__(self, i):
            rows = slice(12 * i, 12 * i + 12)
            return {n: a[rows] for n, a in self.x.items()}, self.y[rows]

    def encoder():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(6)])

    given = splits()
    streams = {split: Batches(*part) for split, part in given.items()}
    found = [
        small(data, ["MLA"], out=tmp_path / str(i), encoders={"text": encoder})
        for i, data in enumerate((given, streams))
    ]
    assert found[0].runs[0].predictions.outputs.keys() == (
        found[1].runs[0].predictions.outputs.keys()
    )
    np.testing.assert_array_equal(found[0].y, found[1].y)


@only_on("torch")
def test_tables_of_too_many_files_are_streams(tmp_path, monkeypatch):
    import pandas as pd
    from small_table import write

    frame = pd.read_csv(write(tmp_path, rows=30))
    frame = frame.dropna(subset=["photo", "title"], how="all")
    given = {
        "label": "kind",
        "columns": {"image": ["photo"], "text": ["title"]},
    }
    given["root"] = str(tmp_path)
    found = []
    for most in (1 << 30, 0):
        monkeypatch.setattr(tables, "MOST_BYTES", most)
        out = tmp_path / str(most)
        found.append(small(frame, ["MLA"], out=out, **given))
        data = sources.load(frame, **given)
        assert data.folds[0].parts["test"].in_memory == (most > 0)
    first, second = found
    np.testing.assert_array_equal(first.y, second.y)
    np.testing.assert_array_equal(first.presence, second.presence)
    assert first.ids == second.ids
    assert first.classes == ["<b>no</b>", "yes"]


@only_on("torch")
def test_a_stream_has_ids_and_an_order_of_each_seed(tmp_path):
    x, y = arrays()
    seeds = []
    given = streamed(x, y, seeds)
    rate = keras.callbacks.LearningRateScheduler
    callbacks = [lambda: rate(lambda epoch: 0.1 ** (epoch + 1))]
    result = small(
        given, ["QMF"], seeds=2, out=tmp_path, learning_rate=[1.0],
        callbacks=callbacks,
    )  # fmt: skip
    assert result.modalities == NAMES and not result.failures
    assert set(seeds) == {0, 1}
    for run in result.runs:
        assert run.curves["learning_rate"] == pytest.approx([0.1, 0.01])
        outputs = result.model_of(run).predict(x, verbose=0)
        np.testing.assert_allclose(
            run.predictions.outputs["+".join(NAMES)], outputs, atol=1e-5
        )
    # What the data say of themselves is a part of the settings.
    with pytest.raises(ValueError, match="other settings: \\['pixels'\\]"):
        data = sources.load(given)
        data.facts["pixels"] = 32
        small(data, ["QMF"], out=tmp_path, learning_rate=[1.0],
              callbacks=callbacks)  # fmt: skip


@mainly_on("torch")
def test_a_method_with_a_teacher(tmp_path):
    method = registry.Method(
        TaughtImputation, "Taught", "missing", "", needs=("teacher",),
        teacher="ConcatFusion",
    )  # fmt: skip
    result = small(splits(), [method], out=tmp_path)
    assert result.winner == "Taught" and not result.failures


@only_on("torch")
@pytest.mark.parametrize("title", ["MMIN", "IF-MMIN", "TATE"])
def test_registered_methods_with_a_teacher(title):
    """The teacher is trained first, by its registered method."""
    data = sources.load(splits())
    options = training.Options(
        METRICS["single_label"]["accuracy"], {}, 6, 2, 16, "adamw"
    )
    setting = {"learning_rate": 1e-2, "weight_decay": 0.0}
    arguments = (data, data.folds[0])
    method = methods_lib.chosen(title)[title]
    (weight,) = method.grid
    given = {**setting, weight: 2.0}
    model = training.train(method, *arguments, given, 0, options).model
    assert getattr(model, weight) == 2.0
    first = registry.METHODS[method.teacher]
    teacher = training.train(first, *arguments, setting, 0, options).model
    assert type(model.teacher.model) is type(teacher)
    for kept, expected in zip(
        model.teacher.model.weights, teacher.weights, strict=True
    ):
        np.testing.assert_array_equal(to_numpy(kept), to_numpy(expected))


@only_on("torch")
def test_methods_for_missing_modalities_are_asked_for():
    missing = methods_lib.chosen("missing")
    own = {"AE", "CRA", "MMIN", "IF-MMIN", "CCA", "DCCA", "DCCAE", "CPM-Net"}
    own.add("TATE")
    assert own | {"Concat", "Concat, dropout", "Transformer"} <= set(missing)
    assert not own & set(methods_lib.chosen("table"))
    assert methods_lib.chosen("mmin") == {"MMIN": missing["MMIN"]}


@only_on("torch")
def test_what_would_be_silently_wrong_is_refused(tmp_path):
    x, y = arrays()
    split, group = np.arange(90) // 30, np.arange(90) // 20
    with pytest.raises(ValueError, match="Group 1 of data is in 'train' and"):
        sources.load(({**x, "split": split, "group": group}, y))
    # Columns of presence follow the modalities that are chosen.
    presence = np.random.default_rng(0).random((90, 3)) < 0.7
    found = sources.load(
        ({**x, "presence": presence}, y), modalities=["image", "text"]
    )
    part = found.folds[0].parts["test"]
    np.testing.assert_array_equal(
        part.x["presence"], presence[part.rows][:, [2, 0]]
    )
    with pytest.raises(ValueError, match="a column for each"):
        sources.load(({**x, "presence": presence[:, :2]}, y))

    class Shuffled(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, i):
            rows = np.random.default_rng().permutation(30)
            return {n: a[rows] for n, a in x.items()}, y[rows]

    with pytest.raises(ValueError, match="must not be shuffled"):
        small(splits(validation=(Shuffled(), y[:30])), ["Concat"], out=tmp_path)

    class MLA(models.ConcatFusion):
        pass

    with pytest.raises(ValueError, match="Two methods have the title 'MLA'"):
        methods_lib.chosen(["MLA", MLA])
    # Other data of the same sizes are not continued.
    small((x, y), ["Concat"], out=tmp_path / "once")
    with pytest.raises(ValueError, match="fingerprint"):
        small((x, np.roll(y, 1)), ["Concat"], out=tmp_path / "once")


@only_on("torch")
def test_a_modality_that_no_test_sample_has(tmp_path):
    given = splits()
    for index, (x, _) in enumerate(given.values()):
        rows = len(x["text"])
        x["presence"] = np.ones((rows, 3), bool)
        x["presence"][:, 1] = index < 2
    result = small(given, ["MLA"], out=tmp_path)
    assert not result.runs[0].predictions.outputs["audio"].any()
