"""Runs of a comparison: what is lost, ranked, kept, and left out."""

import json

import keras
import numpy as np
import pytest
from made_up import made_up
from outside_methods import TaughtImputation
from test_engine import arrays, small, splits, streamed
from utils import mainly_on, only_on

from keras_mla import models
from keras_mla.comparison import (
    choice,
    command,
    engine,
    plan,
    ranking,
    sources,
    tables,
    training,
    words,
)
from keras_mla.comparison.folder import Folder, locked
from keras_mla.comparison.log import Log
from keras_mla.comparison.metrics import METRICS
from keras_mla.comparison.report.sections import circumstances
from keras_mla.models import registry

ACCURACY = METRICS["single_label"]["accuracy"]
DIVERGED = FloatingPointError("Training diverged.")


@pytest.fixture
def scored(monkeypatch):
    """Returns a function that replaces training by scores that are given."""

    def use(score, seconds=lambda title: 1.0):
        clock, made = [0.0], []

        def train(method, data, fold, setting, seed, options, folder=None):
            clock[0] += seconds(method.title)
            made.append((method.title, setting["learning_rate"], seed))
            place = [known is fold for known in data.folds].index(True)
            found = score(method.title, setting["learning_rate"], seed, place)
            if isinstance(found, Exception):
                raise found
            given = method, data, fold, setting, seed, options
            model = training.make_model(*given)
            training.build(model, data, fold.parts["train"])
            found = {"accuracy": found, "log_loss": 1.0}
            took = seconds(method.title)
            return training.Trained(model, {"all": 0}, found, {}, took)

        monkeypatch.setattr(plan.training, "train", train)
        monkeypatch.setattr(plan.time, "monotonic", lambda: clock[0])
        return made

    return use


# === What is lost ===


@only_on("torch")
def test_a_setting_that_diverged_with_a_seed_is_not_chosen(tmp_path, scored):
    def score(title, rate, seed, fold):
        if rate == 1e-3:
            return 0.5
        return DIVERGED if seed == 1 else 0.9

    scored(score)
    result = small(
        splits(), ["Concat"], out=tmp_path, trials=2, seeds=2, trial_seeds=2,
        learning_rate=[1e-4, 1e-3], weight_decay=[0.0],
    )  # fmt: skip
    assert {run.setting["learning_rate"] for run in result.runs} == {1e-3}
    told = result.facts["settings that diverged with some seed"]
    assert told == {"Concat": "1 of 2"} and not result.notes


@only_on("torch")
@pytest.mark.parametrize(
    "error, note",
    [
        (DIVERGED, "Concat: training diverged with 1 of 3 seeds"),
        (RuntimeError("no memory"), "Concat: training failed with 1 of 3"),
    ],
)
def test_a_method_that_lacks_a_seed_does_not_win(tmp_path, scored, error, note):
    def score(title, rate, seed, fold):
        if title == "Sum":
            return 0.5
        return error if seed == 2 else 0.9

    scored(score)
    result = small(splits(), ["Concat", "Sum"], out=tmp_path, seeds=3)
    assert result.winner == "Sum" and len(result.runs_of("Concat")) == 2
    assert len(result.notes) == 1 and result.notes[0].startswith(note)
    assert ("Concat" in result.failures) == isinstance(error, RuntimeError)
    # A log tells the same.
    again = small(splits(), ["Concat", "Sum"], out=tmp_path, seeds=3)
    assert again.notes == result.notes and again.winner == "Sum"


@only_on("torch")
def test_a_method_that_always_diverges_fails(tmp_path, scored):
    made = scored(lambda title, *_: DIVERGED if title == "Sum" else 0.5)
    result = small(splits(), ["Concat", "Sum"], out=tmp_path, seeds=2)
    assert result.methods == ("Concat",) and not result.notes
    assert "Training diverged" in result.failures["Sum"]
    # The log knows it: nothing is trained once more.
    count = len(made)
    assert [m for m, _, _ in made].count("Sum") == 1
    small(splits(), ["Concat", "Sum"], out=tmp_path, seeds=2)
    assert len(made) == count
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()[1:]
    [lost] = [r for r in map(json.loads, lines) if "diverged" in r]
    assert lost["run"]["method"] == "Sum" and "validation" not in lost


@only_on("torch")
def test_a_fold_that_diverges_counts_for_each_seed(tmp_path, scored):
    def score(title, rate, seed, fold):
        if title == "Sum":
            return 0.5
        return DIVERGED if fold == 1 else 0.9

    scored(score)
    result = small(
        arrays(60), ["Concat", "Sum"], folds=3, seeds=2, out=tmp_path
    )
    assert result.winner == "Sum"
    assert result.notes == [
        "Concat: training diverged with 2 of 2 seeds (fold 1)"
    ]


@only_on("torch")
def test_ranks_of_methods():
    def records(scores, folds=1):
        return [
            {
                "run": {"seed": i // folds, "fold": i % folds},
                "validation": {"accuracy": score},
            }
            for i, score in enumerate(scores)
        ]

    def rank(scores, folds=1, lost=0):
        return ranking.of_method(ACCURACY, records(scores, folds), folds, lost)

    assert rank([0.5, 0.6]) > rank([0.5, 0.5])
    assert rank([0.1, 0.1, 0.1]) > rank([0.9, 0.9], lost=1)
    # Seeds that lack folds do not count beside one that has all.
    assert rank([0.5, 0.6, 0.9], folds=2) == rank([0.5, 0.6], folds=2)
    assert rank([0.1, 0.1], folds=2) > rank([0.9], folds=2)
    tried = [
        ranking.Tried({"rate": 1}, records([0.9]), diverged=1),
        ranking.Tried({"rate": 2}, [], diverged=2),
        ranking.Tried({"rate": 3}, records([0.2, 0.1])),
    ]
    assert ranking.best_of(ACCURACY, tried).setting == {"rate": 3}
    assert ranking.best_of(ACCURACY, tried[:2]).setting == {"rate": 1}
    assert ranking.best_of(ACCURACY, tried[1:2]) is None


@only_on("torch")
def test_report_and_command_tell_what_is_lost(tmp_path, monkeypatch, capsys):
    note = "QMF: training diverged with 1 of 3 seeds"
    found = made_up(notes=[note])
    assert f"{note}." in [b.text for b in circumstances.left_out(found)]
    (tmp_path / "table.md").write_text("")
    monkeypatch.setattr(engine, "compare", lambda *_, **__: found)
    assert command.run(["compare", f"--out={tmp_path}"]) == 0
    assert f"{note}.\n" in capsys.readouterr().out


@only_on("torch")
def test_an_error_of_the_test_split_is_told(tmp_path, monkeypatch):
    examine = plan.examine

    def broken(model, *arguments):
        if isinstance(model, models.SumFusion):
            raise RuntimeError("a fault in predicting")
        return examine(model, *arguments)

    monkeypatch.setattr(plan, "examine", broken)
    result = small(splits(), ["Sum", "Concat"], out=tmp_path)
    assert result.methods == ("Concat",)
    assert "a fault in predicting" in result.failures["Sum"]
    assert "Traceback" in (tmp_path / "errors.txt").read_text()
    lost = {"Sum": [("unseen", {"seed": 0, "fold": 0})]}
    assert words.notes(lost, ["Sum"], 2, 1) == [
        "Sum: predicting the test split failed with 1 of 2 seeds"
    ]


# === Rounds ===


@only_on("torch")
def test_no_round_begins_after_one_that_did_not_fit(tmp_path, scored):
    took = {"Concat": 10.0, "Sum": 100.0}
    made = scored(lambda title, rate, *_: 0.5, took.get)
    result = small(
        splits(), ["Concat", "Sum"], out=tmp_path, trials=6, seeds=4,
        time_budget=275, weight_decay=[0.0, 1e-2],
    )  # fmt: skip
    # Third round: Concat fits, Sum does not. So ends the choice of settings,
    # and of the seeds there is one round.
    assert [title for title, _, _ in made] == [
        "Concat", "Sum", "Concat", "Sum", "Concat", "Concat",
    ]  # fmt: skip
    assert [seed for _, _, seed in made] == [0, 0, 0, 0, 0, 1]
    assert result.facts["settings tried"] == {"Concat": "3", "Sum": "2"}
    assert len(result.missing) == 3 + 4 + 2 + 3 and not result.notes


@only_on("torch")
def test_facts_tell_how_many_settings_each_method_tried(tmp_path, scored):
    scored(lambda *_: 0.5)
    result = small(splits(), ["Concat", "MLA"], out=tmp_path, trials=8)
    assert result.facts["settings tried"] == {"Concat": "6", "MLA": "8"}
    result = small(splits(), ["Concat", "MLA"], out=tmp_path / "2", trials=6)
    assert "settings tried" not in result.facts


# === What is kept ===


@only_on("torch")
def test_files_of_a_deleted_log_are_not_those_of_new_runs(tmp_path):
    expected = small(splits(), ["Concat"], out=tmp_path / "new", epochs=3)
    out = tmp_path / "old"
    small(splits(), ["Concat"], out=out, epochs=1)
    old = set((out / "runs").iterdir())
    (out / "runs.jsonl").unlink()
    found = small(splits(), ["Concat"], out=out, epochs=3)
    for a, b in zip(found.runs, expected.runs, strict=True):
        for key, outputs in a.predictions.outputs.items():
            np.testing.assert_array_equal(outputs, b.predictions.outputs[key])
    # Nothing needs the old files.
    left = set((out / "runs").iterdir())
    assert len(left) == 3 and not left & old


@only_on("torch")
def test_a_log_without_an_id_keeps_its_names(tmp_path):
    header = {"epochs": 2}
    log = Log(tmp_path / "runs.jsonl", header)
    assert log.id and Log(log.path, header).id == log.id
    what = {"method": "MLA", "fold": 0, "setting": {}, "seed": 0}
    named = Folder(tmp_path, header).weights(what)
    log.path.write_text('{"epochs": 2}\n')
    assert Log(log.path, header).id == ""
    old = Folder(tmp_path, header).weights(what)
    assert old.name == "MLA-ea89b248fb39.weights.h5" and named != old


@only_on("torch")
def test_two_comparisons_do_not_share_a_folder(tmp_path):
    with locked(tmp_path):
        with pytest.raises(ValueError, match="Another comparison is writing"):
            small(splits(), ["Concat"], out=tmp_path)
    assert small(splits(), ["Concat"], out=tmp_path).winner == "Concat"


@only_on("torch")
def test_files_that_nothing_needs_are_deleted(tmp_path, scored):
    scored(lambda title, rate, *_: rate)
    result = small(
        splits(), ["Concat"], out=tmp_path, trials=3, seeds=2,
        weight_decay=[0.0], report=True,
    )  # fmt: skip
    runs = tmp_path / "runs"
    kept = {path.name for path in runs.iterdir()}
    assert len(kept) == 2 * 3
    digest = "0123456789ab"
    (runs / f"Concat-{digest}.weights.h5").write_text("")
    (runs / f"Concat-{digest}.weights.backup").mkdir()
    (runs / f"Sum-{digest}.weights.h5").write_text("")
    small(
        splits(), ["Concat"], out=tmp_path, trials=3, seeds=2,
        weight_decay=[0.0],
    )  # fmt: skip
    left = {path.name for path in runs.iterdir()}
    assert left == kept | {f"Sum-{digest}.weights.h5"}
    assert result.model_of(result.runs[0]).built
    assert (tmp_path / "model.keras").exists()
    card = (tmp_path / "model.md").read_text(encoding="utf-8")
    assert card.count(f"# {result.winner} on ") == 1
    scores = card.partition("## Scores")[2]
    [run] = [
        run
        for run in result.runs_of(result.winner)
        if f"with seed {run.seed}," in card
    ]
    right = run.predictions.outputs[result.everything].argmax(1)
    accuracy = (right == result.y[run.predictions.rows]).mean()
    assert f"| all modalities | {accuracy:.4f} |" in scores


@mainly_on("torch")
def test_seconds_count_what_came_before_a_kill(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(choice.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(choice, "BACKUP_EVERY", 0)

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            clock[0] += 10
            if epoch == 3 and clock[0] < 1000:
                raise KeyboardInterrupt

    data = sources.load(splits())
    options = training.Options(ACCURACY, {}, 6, 5, 16, "adamw", (Clock,))
    given = (registry.METHODS["MLA"], data, data.folds[0])
    given += ({"learning_rate": 1e-2, "weight_decay": 1e-4}, 0, options)
    with pytest.raises(KeyboardInterrupt):
        training.train(*given, tmp_path / "backup")
    clock[0] = 1000.0
    assert training.train(*given, tmp_path / "backup").seconds == 50.0


# === Streams ===


@only_on("torch")
def test_a_stream_cannot_be_for_a_method_that_needs_complete_samples(tmp_path):
    method = registry.Method(
        TaughtImputation, "Taught", "missing", "", needs=("complete",)
    )
    data = streamed(*arrays())
    result = small(data, [method, "Concat"], out=tmp_path)
    assert "give arrays" in result.failures["Taught"]
    assert result.methods == ("Concat",)


@only_on("torch")
def test_files_of_a_table_come_in_an_order_of_each_seed(tmp_path, monkeypatch):
    import pandas as pd
    from small_table import write

    monkeypatch.setattr(tables, "MOST_BYTES", 0)
    monkeypatch.setattr(tables, "_BATCH_SIZE", 4)
    frame = pd.read_csv(write(tmp_path, rows=30))
    frame = frame.dropna(subset=["photo", "title"], how="all")
    given = {
        "label": "kind",
        "columns": {"image": ["photo"], "text": ["title"]},
        "root": str(tmp_path),
    }
    parts = sources.load(frame, **given).folds[0].parts

    def order(part, seed):
        batches = parts[part].batches(seed)
        photos = [np.asarray(x["photo"]).mean((1, 2, 3)) for x, _ in batches]
        return np.concatenate(photos).tolist()

    assert order("train", 0) == order("train", 0) != order("train", 1)
    assert order("test", 0) == order("test", 1)
    result = small(frame, ["QMF"], out=tmp_path / "out", **given)
    assert result.winner == "QMF" and not result.failures
