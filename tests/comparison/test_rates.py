"""Comparisons at missing rates: what is hidden, the table and the figure."""

import csv

import numpy as np
import pytest
from utils import only_on

from keras_mla.comparison import command, compare_rates, tables
from keras_mla.comparison.data import Division
from keras_mla.comparison.hiding import at_rate, at_rates, without
from keras_mla.comparison.sources import load

pytest.importorskip("jinja2")

NAMES = ("text", "audio", "image")


def arrays(rows=60):
    rng = np.random.default_rng(0)
    y = np.arange(rows) % 2
    x = {
        n: rng.normal(y[:, None], 1, (rows, 3)).astype("float32") for n in NAMES
    }
    return x, y


@pytest.mark.parametrize("folds", [None, 3])
def test_each_split_has_the_rate(folds):
    data = load(arrays(), division=Division(folds=folds))
    hidden = at_rate(data, 0.4, "keep_one", seed=1)
    for fold, before in zip(hidden.folds, data.folds, strict=True):
        for split, part in fold.parts.items():
            presence = part.x["presence"]
            assert presence.any(axis=1).all()
            if folds is None:
                rate = round(0.4 * presence.size) / presence.size
                assert 1 - presence.mean() == pytest.approx(rate)
            # Values are as they were.
            np.testing.assert_array_equal(
                part.x["text"], before.parts[split].x["text"]
            )
    if folds:
        # A sample lacks the same in all folds.
        whole = {}
        for fold in hidden.folds:
            for part in fold.parts.values():
                for row, there in zip(
                    part.rows, part.x["presence"], strict=True
                ):
                    assert (
                        whole.setdefault(row, there.tolist()) == there.tolist()
                    )
        assert 1 - np.mean(list(whole.values())) == pytest.approx(0.4)
    again = at_rate(data, 0.4, "keep_one", seed=1)
    np.testing.assert_array_equal(
        again.folds[0].parts["test"].x["presence"],
        hidden.folds[0].parts["test"].x["presence"],
    )


def test_what_was_absent_stays_absent_and_one_is_kept():
    x, y = arrays()
    known = np.ones((60, 3), bool)
    known[:30, 0] = known[10:30, 1] = False
    data = load(({**x, "presence": known}, y))
    for draw in ("keep_one", "independent"):
        hidden = at_rate(data, 0.6, draw, seed=0)
        empty = 0
        for part in hidden.folds[0].parts.values():
            presence = part.x["presence"]
            assert not (presence & ~known[part.rows]).any()
            empty += (~presence.any(axis=1)).sum()
        assert (empty == 0) == (draw == "keep_one")


@pytest.mark.parametrize("folds", [None, 3])
def test_training_alone_lacks_a_modality(folds):
    data = load(arrays(), division=Division(folds=folds))
    hidden = without(data, "audio", 0.75, seed=1)
    for fold in hidden.folds:
        for split, part in fold.parts.items():
            if split == "train":
                presence = part.x["presence"]
                lacking = (~presence[:, 1]).sum()
                assert lacking == round(0.75 * len(part.y))
                assert presence[:, [0, 2]].all()
            else:
                assert "presence" not in part.x
    with pytest.raises(ValueError, match="Received: 'sound'"):
        without(data, "sound", 0.5, seed=0)


def test_independent_entries_may_leave_nothing():
    data = load(arrays())
    hidden = at_rate(data, 0.7, "independent", seed=0)
    presence = hidden.folds[0].parts["train"].x["presence"]
    assert not presence.any(axis=1).all()


def test_one_model_for_all_rates_is_tested_at_each():
    data = load(arrays(90))
    mixed = at_rates(data, [0.2, 0.6], "keep_one", seed=1)
    parts = mixed.folds[0].parts
    for split in ("train", "validation"):
        hidden = 1 - parts[split].x["presence"].mean()
        assert hidden == pytest.approx(0.4, abs=0.02)
    assert "presence" not in parts["test"].x
    assert list(parts["test"].patterns) == ["20 % missing", "60 % missing"]
    for rate, pattern in zip(
        (0.2, 0.6), parts["test"].patterns.values(), strict=True
    ):
        alone = at_rate(data, rate, "keep_one", seed=1).folds[0].parts["test"]
        np.testing.assert_array_equal(pattern, alone.x["presence"])
    assert not data.folds[0].parts["test"].patterns


def test_batches_of_a_table_lack_what_arrays_lack(monkeypatch):
    x, y = arrays()
    rows = {f"{n}{i}": x[n][:, i] for n in NAMES for i in range(2)}
    rows["text0"] = rows["text1"] = np.where(y == 0, x["text"][:, 0], np.nan)
    given = {n: [f"{n}0", f"{n}1"] for n in NAMES}
    options = {"modalities": given, "label": "y"}
    in_memory = load({**rows, "y": y}, **options)
    monkeypatch.setattr(tables, "MOST_BYTES", -1)
    streamed = load({**rows, "y": y}, **options)
    with_what = [
        at_rate(data, 0.5, "keep_one", seed=3).folds[0].parts
        for data in (in_memory, streamed)
    ]
    for split, part in with_what[1].items():
        whole = with_what[0][split].x["presence"]
        assert not part.in_memory
        batches = list(part.batches(0))
        found = np.concatenate([np.asarray(b[0]["presence"]) for b in batches])
        order = np.arange(len(whole))
        if split == "train":  # Shuffled.
            order = np.concatenate([b[0]["sample_id"] for b in batches])
        np.testing.assert_array_equal(found, whole[order])


@only_on("torch")
def test_settings_of_one_rate_serve_the_others(tmp_path):
    given = arrays(90)
    found = compare_rates(
        given,
        [0.2, 0.6],
        chosen_at=0.6,
        once=True,
        methods=["Concat", "MLA"],
        learning_rate=[1e-4, 1e-1],
        weight_decay=[1e-4],
        trials=2,
        seeds=1,
        epochs=2,
        width=8,
        out=tmp_path,
        verbose=0,
        report=False,
    )
    chosen = found.results[0.6].settings()
    for result in (found.results[0.2], found.once):
        assert result.settings() == chosen
    tried = [
        len((tmp_path / name / "runs.jsonl").read_text().splitlines()) - 1
        for name in ("0.6", "0.2", "once")
    ]
    assert tried == [4, 2, 2]
    # Independently: the model of a run, with what the rate leaves.
    [run] = found.once.runs_of("MLA")
    model = found.once.model_of(run)
    for rate, [score] in found.scores_once("MLA", "accuracy").items():
        part = at_rate(load(given), rate, "keep_one", 0).folds[0].parts["test"]
        right = model.predict(part.x, verbose=0).argmax(1) == part.y
        assert score == pytest.approx(right.mean())
    text = found.markdown()
    assert text.count("trained once for all rates") == 3


@only_on("torch")
def test_the_command_makes_a_table_and_a_figure(tmp_path, capsys):
    x, y = arrays()
    np.savez(tmp_path / "data.npz", **x, y=y)
    given = [
        "compare",
        f"--data={tmp_path / 'data.npz'}",
        "--missing=0.2,0.5",
        "--methods=mla,ae",
        "--seeds=2",
        "--trials=1",
        "--epochs=2",
        "--width=8",
        f"--out={tmp_path / 'out'}",
    ]
    assert command.run(given) == 0
    printed = capsys.readouterr().out
    text = (tmp_path / "out" / "missing.md").read_text()
    assert text in printed and "20 % missing | 50 % missing" in text
    assert text.count("| MLA |") == 3  # Accuracy, balanced accuracy, F1.
    assert "<svg" in (tmp_path / "out" / "missing.svg").read_text()
    assert (tmp_path / "out" / "0.5" / "report.html").exists()
    assert "trained at each rate" in text and "once" not in text
    assert "which training hides at random: AE.\n" in text
    with (tmp_path / "out" / "missing.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [
        float(row["value"])
        for row in rows
        if (row["method"], row["missing_rate"], row["metric"])
        == ("MLA", "0.5", "accuracy")
    ]
    mean = f"{100 * np.mean(found):.1f} ± {100 * np.std(found, ddof=1):.1f}"
    assert len(found) == 2 and mean in text


@only_on("torch")
@pytest.mark.parametrize(
    "rates, options, message",
    [
        ([1.0], {}, "less than 1"),
        ([0.1], {"draw": "some"}, "draw"),
        ([], {}, "rates"),
        (["much"], {}, "rates"),
        ([0.1], {"chosen_at": 0.2}, "chosen_at"),
        ([0.1], {"chosen_at": 0.1, "folds": 3}, "folds"),
    ],
)
def test_wrong_rates(tmp_path, rates, options, message):
    with pytest.raises(ValueError, match=message):
        compare_rates(arrays(), rates, out=tmp_path, **options)
