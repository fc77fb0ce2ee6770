"""Comparisons at missing rates: what is hidden, the table and the figure."""

import csv

import numpy as np
import pytest
from utils import only_on

from keras_mla.comparison import command, compare_rates
from keras_mla.comparison.data import Division
from keras_mla.comparison.hiding import at_rate, without
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


@only_on("torch")
def test_the_command_makes_a_table_and_a_figure(tmp_path, capsys):
    x, y = arrays()
    np.savez(tmp_path / "data.npz", **x, y=y)
    given = [
        "compare",
        f"--data={tmp_path / 'data.npz'}",
        "--missing=0.2,0.5",
        "--methods=mla,concat",
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
    ],
)
def test_wrong_rates(tmp_path, rates, options, message):
    with pytest.raises(ValueError, match=message):
        compare_rates(arrays(), rates, out=tmp_path, **options)
