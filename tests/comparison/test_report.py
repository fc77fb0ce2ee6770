import csv
import dataclasses
import html.parser
import itertools
import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import sklearn.metrics
from made_up import CLASSES, FACTS, METHODS, MODALITIES, made_up
from utils import only_on

import keras_mla
from keras_mla.comparison import metrics, report, statistics
from keras_mla.comparison.report import drawing, numbers, registry
from keras_mla.comparison.report.sections import (
    answer,
    differences,
    errors,
    fusion,
    hardest,
    methods,
    missing,
    reliability,
    weights,
)
from keras_mla.comparison.results import (
    Comparison,
    Predictions,
    Run,
)

pytestmark = only_on("torch")  # The report is NumPy alone.

HTML = "<script>alert(1)</script>"


class Page(html.parser.HTMLParser):
    """What a report has: tags, attributes, texts, ids and titles."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.titles, self.scope = [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.ids = [value for key, value in self.attributes if key == "id"]
        self.text = " ".join(self.texts)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.scope.append(tag)

    def handle_endtag(self, tag):
        while self.scope and self.scope.pop() != tag:
            pass

    def handle_data(self, data):
        if self.scope[-1:] != ["style"]:
            self.texts.append(data)
        if self.scope[-1:] == ["h2"]:
            self.titles.append(data)


@pytest.fixture
def sections(monkeypatch):
    """Registered sections, which a test may change."""
    kept = dict(registry.SECTIONS)
    yield registry.SECTIONS
    registry.SECTIONS.clear()
    registry.SECTIONS.update(kept)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A comparison with everything, and its report."""
    comparison = made_up(
        methods={"MLA": 0.7, "OGM-GE": 0.4},
        seeds=(0, 1),
        failures={"QMF": "ValueError: no"},
        missing=["OGM-GE, seed 2"],
        facts=FACTS,
    )
    folder = tmp_path_factory.mktemp("report")
    return comparison, report.write(comparison, folder)


def by_hand(**fields):
    """Two methods with two seeds on four samples, of known predictions."""
    right = {"A": [[0, 1, 1, 0], [0, 1, 1, 1]], "B": [[0, 0, 0, 0]] * 2}
    runs = [
        Run(
            method=method,
            setting={"alpha": 0.5},
            seed=seed,
            fold=0,
            epochs={"all": 0},
            seconds=1.0,
            validation={"accuracy": 0.9},
            curves={},
            gap={},
            worth={},
            predictions=Predictions(
                np.arange(4), {"x": np.eye(2)[classes].astype("float32")}
            ),
        )
        for method, found in right.items()
        for seed, classes in enumerate(found)
    ]
    values = {
        "name": "four",
        "task": "single_label",
        "metric": "accuracy",
        "modalities": ("x",),
        "classes": ["no", "yes"],
        "y": np.array([0, 1, 1, 0]),
        "ids": ["a", "b", "c", "d"],
        "presence": np.ones((4, 1), bool),
        "runs": runs,
        "winner": "A",
    }
    return Comparison(**values | fields)


def test_sections_are_in_their_order(whole):
    _, path = whole
    page = Page(path)
    assert page.titles == [
        "The answer",
        "The methods",
        "Which differences are real",
        "Each modality alone",
        "Learning curves",
        "What the winner confuses",
        "How sure the winner is",
        "Subsets of modalities",
        "Missing modalities",
        "What each modality is worth",
        "The gap between modalities",
        "Samples that no modality gets right",
        "How the winner weighs modalities",
        "How to fuse",
        "What failed or was left out",
        "Settings",
        "Facts",
    ]
    links = [v for k, v in page.attributes if k == "href" and v[:2] == "#s"]
    assert [link.removeprefix("#") for link in links] == [
        i for i in page.ids if re.match(r"s\d+-", i)
    ]
    for text in ("ValueError: no", "OGM-GE, seed 2", FACTS["command"]):
        assert text in " ".join(page.text.split())


def test_page_needs_nothing_else(whole):
    _, path = whole
    page = Page(path)
    assert "script" not in page.tags
    assert not [v for k, v in page.attributes if k == "src"]
    links = [v for k, v in page.attributes if k in ("href", "xlink:href")]
    assert all(v.startswith("#") or v == "data:," for v in links)
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "@import" not in text and "url(http" not in text


def test_figures_follow_the_page(whole):
    _, path = whole
    page = Page(path)
    assert len(page.ids) == len(set(page.ids))
    pictures = page.tags.count("svg")
    assert pictures == page.attributes.count(("role", "img"))
    names = sorted((path.parent / "figures").iterdir())
    assert len(names) == pictures > 10
    text = path.read_text(encoding="utf-8")
    assert drawing.INK not in text and "currentColor" in text
    assert "DejaVu" not in text
    for name in names:
        root = ElementTree.parse(name).getroot()
        assert root.get("aria-label")
        assert root.find(".//{*}text") is not None
    used = re.findall(r'(?:xlink:href="|url\()#([^")]+)', text)
    assert set(used) <= set(page.ids)


@pytest.mark.filterwarnings("error")
def test_everything_is_escaped(tmp_path):
    odd = "$x$ & 猫 \x01 _\ud800"
    comparison = made_up(
        methods=[f"_{HTML}", f"B{odd}", "C|`*"],
        modalities=('"><b>', "_<i>&"),
        seeds=(0,),
        n=20,
        classes=(HTML, odd, "c"),
        name=HTML,
        failures={HTML: HTML, "x" * 300: "y" * 300},
        missing=[HTML],
        facts={HTML: {HTML: [HTML]}, "command": HTML, "z" + HTML: HTML},
        constant=True,
    )
    comparison.ids[:] = [f"{HTML}{odd}"] * 20
    path = report.write(comparison, tmp_path)
    page = Page(path)
    assert not {"script", "b", "i", "img"} & set(page.tags)
    assert not [k for k, _ in page.attributes if k.startswith("on")]
    assert page.text.count(HTML) > 10
    assert "<script" not in (tmp_path / "table.md").read_text("utf-8")
    for name in (tmp_path / "figures").iterdir():
        tags = {e.tag.split("}")[1] for e in ElementTree.parse(name).iter()}
        assert not {"script", "b", "i"} & tags
    assert drawing.label("a" * 100) == "aaaaaaaaaa…aaaaaaaaaaa"


def test_a_single_seed_has_no_deviation(tmp_path):
    comparison = made_up(seeds=(0,), n=30)
    blocks = [f(comparison) or () for f in registry.SECTIONS.values()]
    assert len(blocks) == 19
    assert "±" not in repr(blocks)
    comparison = made_up(seeds=(0,), n=30, extras=False)
    path = report.write(comparison, tmp_path)
    assert "±" not in Page(path).text
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["deviation"] for row in rows} == {""}
    assert {row["runs"] for row in rows} == {"1"}


def test_numbers_of_the_table(tmp_path):
    comparison = by_hand()
    found = methods.table(comparison)
    assert found.columns[:2] == ["Method", "Accuracy (%)"]
    # 1 and 3/4 have the mean 7/8 and the deviation sqrt(1/32).
    assert found.rows[0][1] == "87.5 ± 17.7"
    assert found.rows[1][1] == "50.0 ± 0.0"
    assert list(found.marked) == [0]
    path = report.write(comparison, tmp_path)
    page = Page(path)
    assert "87.5 ± 17.7" in page.text
    assert page.attributes.count(("class", "marked")) == 1
    lines = (tmp_path / "table.md").read_text("utf-8").splitlines()
    assert lines[0].startswith("| Method | Accuracy (%) |")
    assert lines[1].startswith("| :-- | --: |")
    assert lines[2].startswith("| **A** | **87.5 ± 17.7** |")
    assert lines[3].startswith("| B | 50.0 ± 0.0 |")
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    assert first == {
        "method": "A",
        "part": "all",
        "metric": "accuracy",
        "mean": "0.875",
        "deviation": repr(float(np.std([1, 0.75], ddof=1))),
        "runs": "2",
    }


def test_deviations_are_over_folds(tmp_path):
    # Of two folds with three seeds each, the deviation is of two numbers.
    comparison = made_up(seeds=(0, 1, 2), folds=2, n=40)
    metric = metrics.named("single_label")
    scores = [
        [
            metric(comparison.y[p.rows], p.outputs[comparison.everything])
            for p in (
                run.predictions
                for run in comparison.runs_of("MLA")
                if run.fold == fold
            )
        ]
        for fold in range(2)
    ]
    means = np.mean(scores, axis=1)
    assert comparison.scores("MLA", metric) == pytest.approx(means)
    report.write(comparison, tmp_path)
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    assert float(first["mean"]) == pytest.approx(means.mean())
    assert float(first["deviation"]) == pytest.approx(means.std(ddof=1))
    assert first["folds"] == "2" and "runs" not in first
    found = methods.table(comparison)
    assert found.rows[0][1] == numbers.spread(means, metric.text)
    assert (found.columns[-1], found.rows[0][-1]) == ("Runs (± over folds)", 6)
    assert "Runs (± over folds)" in (tmp_path / "table.md").read_text("utf-8")
    note = methods.methods(comparison)[-1].text
    assert "deviation over folds" in note and "mean over its seeds" in note
    worth = numbers.collected(comparison, "worth")["MLA"]["text"]
    runs = comparison.runs_of("MLA")
    assert worth == pytest.approx(
        [
            np.mean([r.worth["text"] for r in runs if r.fold == fold])
            for fold in range(2)
        ]
    )
    found = weights.mean_weights(comparison)
    assert {len(v) for means in found.values() for v in means.values()} == {2}
    # One fold: over seeds.
    comparison = made_up(seeds=(0, 1, 2), n=40)
    assert len(comparison.scores("MLA", metric)) == 3
    assert "over seeds" in methods.methods(comparison)[-1].text


def test_each_label_over_folds():
    comparison = made_up("multi_label", seeds=(0, 1), folds=2, n=40)
    runs = comparison.runs_of("MLA")
    scores = np.stack(
        [
            errors.label_scores(
                comparison.y[p.rows], p.outputs[comparison.everything]
            )
            for p in (run.predictions for run in runs)
        ]
    )
    folds = np.array([run.fold for run in runs])
    means = [scores[folds == fold].mean(axis=0)[1, 2] for fold in range(2)]
    table = errors.labels(comparison)[2]
    assert table.rows[1][3] == numbers.spread(means, lambda v: f"{100 * v:.1f}")


def test_groups_are_drawn_and_told():
    groups = np.arange(60) % 12
    comparison = made_up(groups=groups)
    found = numbers.differences(comparison)
    expected = statistics.compare_rows(
        metrics.named("single_label"),
        comparison.y,
        {m: comparison.outputs_of(m) for m in comparison.methods},
        "MLA",
        groups=groups,
    )
    assert found == expected
    note = differences.differences(comparison)[-1].text
    assert "of the 12 groups of test samples, with 10,000 draws" in note
    assert "rough" not in note + answer.answer(comparison)[0].text
    few = dataclasses.replace(comparison, groups=groups % 6)
    note = differences.differences(few)[-1].text
    assert "6 groups" in note
    assert "With fewer than 10 groups, the intervals are rough." in note
    assert "(rough 95" in answer.answer(few)[0].text
    plain = differences.differences(made_up())[-1].text
    assert "group" not in plain and "rough" not in plain


def test_fewer_draws_of_many_samples():
    comparison = made_up(seeds=(0,))
    assert numbers.draws(comparison) == 10_000
    many = made_up(seeds=(0,), n=100_000, extras=False)
    assert numbers.draws(many) == 3_333
    ranked = dataclasses.replace(many, metric="auroc")
    assert numbers.draws(ranked) == 1_000


def test_figures_of_an_earlier_report_are_deleted(tmp_path):
    report.write(made_up(seeds=(0, 1), n=30), tmp_path)
    figures = tmp_path / "figures"
    before = {path.name for path in figures.iterdir()}
    assert "worth.svg" in before
    # Neither a figure of someone else's nor a copy of one of the report's.
    (figures / "mine.svg").write_text("<svg/>")
    (figures / "paper.svg").write_bytes((figures / "worth.svg").read_bytes())
    (figures / "worth.png").write_text("no figure of the report")
    report.write(by_hand(), tmp_path)
    now = {path.name for path in figures.iterdir()}
    kept = {"mine.svg", "paper.svg", "worth.png"}
    assert kept < now and "worth.svg" not in now
    assert now - kept < before | {"differences.svg"}
    # A report that someone has changed names nothing outside the folder.
    outside = tmp_path / "outside.svg"
    outside.write_text("")
    page = tmp_path / "report.html"
    names = '<meta name="figures" content="../outside">'
    page.write_text(
        re.sub('<meta name="figures"[^>]*>', names, page.read_text())
    )
    report.write(by_hand(), tmp_path)
    assert outside.exists()


def test_csv_has_every_part(whole):
    comparison, path = whole
    with (path.parent / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    parts = ("all", "calibrated", "pooled", *MODALITIES)
    expected = [
        (method, *what)
        for method in comparison.methods
        for what in [
            *itertools.product(parts, metrics.METRICS["single_label"]),
            ("validation", "accuracy"),
            ("validation, calibrated", "accuracy"),
            ("validation, calibrated", "log_loss"),
            ("validation, calibrated", "ece"),
            ("validation, joint", "accuracy"),
            ("validation, joint", "log_loss"),
            ("validation, joint", "ece"),
        ]
    ]
    assert [(r["method"], r["part"], r["metric"]) for r in rows] == expected
    found = {(r["part"], r["metric"]): r["mean"] for r in rows}
    # As `made_up` has them: of all modalities, and of the pool, which is kept.
    assert float(found["validation", "accuracy"]) == pytest.approx(0.2)
    assert float(found["validation, joint", "log_loss"]) == pytest.approx(0.81)
    calibrated = float(found["validation, calibrated", "accuracy"])
    assert calibrated == pytest.approx(0.92)
    audio = metrics.named("single_label", "auroc")
    scores = comparison.scores("OGM-GE", audio, "audio")
    (row,) = (
        r
        for r in rows
        if [r["method"], r["part"], r["metric"]] == ["OGM-GE", "audio", "auroc"]
    )
    assert float(row["mean"]) == pytest.approx(np.mean(scores))
    assert float(row["deviation"]) == pytest.approx(np.std(scores, ddof=1))


def test_sections_without_data_are_left_out(tmp_path):
    comparison = made_up(seeds=(0, 1), n=30, extras=False)
    page = Page(report.write(comparison, tmp_path))
    assert page.titles == [
        "The answer",
        "The methods",
        "Which differences are real",
        "What the winner confuses",
        "How sure the winner is",
        "Settings",
    ]


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_one_method_and_constant_predictions(task, tmp_path):
    comparison = made_up(
        task, methods=["MLA"], seeds=(0, 1), n=24, constant=True
    )
    page = Page(report.write(comparison, tmp_path))
    assert "Which differences are real" not in page.titles
    assert "the only method" in page.text and "failed" not in page.text


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_other_tasks(task, tmp_path):
    comparison = made_up(
        task, methods=["A", "B"], seeds=(0,), n=24, extras=False
    )
    page = Page(report.write(comparison, tmp_path))
    title = {
        "multi_label": "Each label",
        "regression": "Predicted against true",
    }
    assert title[task] in page.titles
    assert "What the winner confuses" not in page.titles
    assert "How sure the winner is" not in page.titles


def test_nothing_has_finished(tmp_path):
    comparison = made_up(methods=[], failures={"MLA": "ValueError: no"})
    page = Page(report.write(comparison, tmp_path))
    assert page.titles == ["The answer", "What failed or was left out"]
    assert "No method has finished. Failed: MLA." in page.text


def test_own_section(sections, tmp_path):
    @report.section("My <section>", before="Settings")
    def mine(comparison):
        return [
            report.Text(f"{comparison.name} & more"),
            report.Figure(
                "a/b", lambda f: f.subplots().plot([1, 2]), "A line."
            ),
            report.Figure(
                "A b", lambda f: f.subplots().plot([1, 2]), "A line."
            ),
            report.Table(["a"], [["<b>"]]),
        ]

    report.section("Nothing")(lambda comparison: None)
    for title in list(sections):
        if title not in ("My <section>", "Nothing", "Settings"):
            del sections[title]
    page = Page(report.write(by_hand(), tmp_path))
    assert page.titles == ["My <section>", "Settings"]
    assert "four & more" in page.text and "<b>" in page.text
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["a-b-2.svg", "a-b.svg"]
    again = report.section("My <section>")(lambda comparison: None)
    assert list(sections) == ["My <section>", "Settings", "Nothing"]
    assert sections["My <section>"] is again
    with pytest.raises(ValueError, match="Received: before='no'"):
        report.section("x", before="no")


def test_a_section_that_fails_leaves_the_others(sections, tmp_path):
    for title in list(sections):
        del sections[title]

    @report.section("Wrong")
    def wrong(comparison):
        raise ZeroDivisionError("by <0>")

    report.section("Fine")(lambda comparison: [report.Text("fine")])
    with pytest.warns(UserWarning, match="Wrong: This section failed"):
        path = report.write(by_hand(), tmp_path)
    page = Page(path)
    assert page.titles == ["Wrong", "Fine"]
    assert "ZeroDivisionError: by <0>" in page.text


def test_blocks_refuse_what_they_cannot_show():
    with pytest.raises(ValueError, match="Received: kind='big'"):
        report.Text("a", "big")
    with pytest.raises(ValueError, match=r"columns=\['a'\], row=\[1, 2\]"):
        report.Table(["a"], [[1, 2]])


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_a_missing_package(module, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"keras-mla\[compare\]"):
        report.write(by_hand(), tmp_path)


# === What the sections compute ===


def test_missing_modalities_are_computed_directly():
    comparison = made_up(methods=["A"], seeds=(0, 1), n=25, folds=2)
    (_, table, _) = missing.by_rate(comparison)
    rate = 0.3
    patterns = missing.kept_modalities(comparison, rate)
    scores = {}
    for run in comparison.runs:
        stored = run.predictions
        right = []
        for kept in patterns:
            for place, row in enumerate(stored.rows):
                names = [
                    m for m, k in zip(MODALITIES, kept[row], strict=True) if k
                ]
                logits = stored.outputs["+".join(names)][place]
                right.append(logits.argmax() == comparison.y[row])
        scores.setdefault(run.fold, []).append(np.mean(right))
    scores = [np.mean(found) for found in scores.values()]
    text = numbers.spread(scores, metrics.named("single_label").text)
    assert table.rows[0][1 + missing.RATES.index(rate)] == text
    metric = metrics.named("single_label")
    plain = comparison.scores("A", metric)
    assert table.rows[0][1] == numbers.spread(plain, metric.text)


def test_missing_modalities_of_many_samples(monkeypatch):
    comparison = made_up(methods=["A"], seeds=(0, 1), n=60)
    monkeypatch.setattr(missing, "FEWEST_SAMPLES", 10)
    # 2 runs with 4 outputs for each of 120 samples.
    monkeypatch.setattr(missing, "OUTPUTS", 2 * 4 * 120)
    (_, _, note) = missing.by_rate(comparison)
    assert "means over 2 draws" in note.text
    assert "chosen at random" not in note.text
    monkeypatch.setattr(missing, "OUTPUTS", 2 * 4 * 40)
    draws, sampled = missing.measured(comparison, runs=2)
    assert (draws, sampled.sum()) == (1, 40)
    assert (sampled == missing.measured(comparison, runs=2)[1]).all()
    (_, table, note) = missing.by_rate(comparison)
    assert "of one draw" in note.text and "40 of the 60 test" in note.text
    right = [
        (
            run.predictions.outputs[comparison.everything].argmax(axis=1)
            == comparison.y[run.predictions.rows]
        )[sampled[run.predictions.rows]].mean()
        for run in comparison.runs
    ]
    text = metrics.named("single_label").text
    assert table.rows[0][1] == numbers.spread(right, text)


def test_kept_modalities():
    comparison = made_up(n=2000, methods=[])
    has = comparison.presence
    assert (missing.kept_modalities(comparison, 0.0) == has).all()
    for rate in missing.RATES[1:]:
        kept = missing.kept_modalities(comparison, rate, draws=4)
        assert kept.shape == (4, 2000, 3)
        assert kept.any(axis=2).all() and not (kept & ~has).any()
        full = kept[:, has.all(axis=1)]
        # One of three is kept where all would have been hidden.
        assert (~full).mean() == pytest.approx(rate - rate**3 / 3, abs=0.01)
        assert full.mean(axis=(0, 1)) == pytest.approx(full.mean(), abs=0.03)
    again = missing.kept_modalities(comparison, 0.7, draws=4)
    assert (again == kept).all()


def test_missing_modalities_need_all_subsets():
    comparison = made_up(methods=["A", "B"], seeds=(0,), n=20)
    for run in comparison.runs_of("B"):
        del run.predictions.outputs["text+image"]
    (_, table, _) = missing.by_rate(comparison)
    assert [row[0] for row in table.rows] == ["A"]
    for run in comparison.runs_of("A"):
        del run.predictions.outputs["text+image"]
    assert missing.by_rate(comparison) is None
    names = tuple("abcdef")
    assert missing.by_rate(made_up(modalities=names, n=20)) is None


def test_calibration_error_is_the_metric():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 200)
    logits = rng.normal(size=(200, 4)) * 3
    metric = keras_mla.metrics.ExpectedCalibrationError()
    metric.update_state(y, logits)
    points, error = reliability.calibration(y, logits)
    assert error == pytest.approx(float(metric.result()), abs=1e-5)
    assert ((0 <= points) & (points <= 1)).all()


def test_samples_that_no_modality_gets_right():
    skills = {"MLA": 0.4, "B": 0.4}
    comparison = made_up(methods=skills, n=80, seeds=(0, 1))
    expected = []
    for row in range(80):
        right = False
        for run in comparison.runs_of("MLA"):
            stored = run.predictions
            place = list(stored.rows).index(row)
            for index, name in enumerate((*MODALITIES, comparison.everything)):
                if index < 3 and not comparison.presence[row, index]:
                    continue
                guess = stored.outputs[name][place].argmax()
                right |= guess == comparison.y[row]
        if not right:
            expected.append(row)
    assert expected
    text, table = hardest.hardest(comparison)
    assert [row[0] for row in table.rows] == [
        comparison.ids[row] for row in expected
    ]
    assert f"for {len(expected)} of 80 test samples" in text.text
    assert [row[1] for row in table.rows] == [
        CLASSES[comparison.y[row]] for row in expected
    ]
    row, place = expected[0], table.columns.index("audio")
    assert (table.rows[0][place] == "–") == (not comparison.presence[row, 1])


def test_scores_of_labels():
    comparison = made_up("multi_label", n=50, seeds=(0,))
    stored = comparison.runs[0].predictions
    y, logits = comparison.y[stored.rows], stored.outputs["text+audio+image"]
    found = errors.label_scores(y, logits)
    expected = sklearn.metrics.precision_recall_fscore_support(y, logits > 0)
    assert found.T == pytest.approx(np.stack(expected[:3]))
    assert errors.label_scores(0 * y, -abs(logits)).tolist() == [[0, 0, 0]] * 4


def test_confusions():
    comparison = made_up(n=60, seeds=(0, 1))
    expected = sum(
        sklearn.metrics.confusion_matrix(
            comparison.y[run.predictions.rows],
            run.predictions.outputs[comparison.everything].argmax(axis=1),
        )
        for run in comparison.runs_of("MLA")
    )
    counts = errors.confusion_matrix(comparison)
    assert (counts == expected).all()
    _, figure, table = errors.confusion(comparison)
    assert figure.name == "confusion"
    wrong = expected * (1 - np.eye(4, dtype=int))
    true, said, share, count = table.rows[0]
    assert count == wrong.max()
    place = CLASSES.index(true), CLASSES.index(said)
    assert wrong[place] == count
    assert share == f"{100 * count / expected[place[0]].sum():.1f}"
    many = made_up(classes=[f"c{i}" for i in range(40)], n=80, methods=["A"])
    assert [type(block) for block in errors.confusion(many)] == [
        report.Text,
        report.Table,
    ]


def test_mean_weights():
    comparison = made_up(n=40, seeds=(3,))
    found = weights.mean_weights(comparison)
    stored = comparison.runs[0].predictions
    right = stored.outputs[comparison.everything].argmax(axis=1)
    right = right == comparison.y[stored.rows]
    has = comparison.presence[stored.rows, 1]
    assert found["right"]["audio"] == [
        pytest.approx(stored.weights["audio"][right & has].mean())
    ]
    assert found["wrong"]["audio"] == [
        pytest.approx(stored.weights["audio"][~right & has].mean())
    ]


def test_a_run_that_lacks_a_fold_has_no_difference():
    comparison = made_up(seeds=(0,), folds=2, n=40)
    runs = [r for r in comparison.runs if (r.method, r.fold) != ("OGM-GE", 1)]
    comparison = dataclasses.replace(comparison, runs=runs)
    table = differences.differences(comparison)[2]
    assert [row[0] for row in table.rows] == ["ConcatFusion"]
    alone = dataclasses.replace(comparison, winner="OGM-GE")
    assert differences.differences(alone) is None


# === Fusion ===


def test_fusions_of_the_best_method_that_fuses():
    comparison = made_up(methods={"A": 1}, seeds=(0, 1))
    text, whole, parts, covariance, kept = fusion.fusion(comparison)
    assert "predictions of A" in text.text
    heads = ["Fusion", "Accuracy (%)", "Log loss ↓", "ECE (%) ↓"]
    assert whole.columns == heads
    assert whole.rows == [
        ["average", "80.0 ± 0.0", "0.800 ± 0.000", "80.0 ± 0.0"],
        ["pool", "81.0 ± 0.0", "0.810 ± 0.000", "81.0 ± 0.0"],
    ]
    assert parts.columns == ["Modalities", "average", "pool"]
    assert parts.rows[0] == ["text", "50.0 ± 0.0", "51.0 ± 0.0"]
    assert parts.rows[-1][0] == "text+audio+image"
    assert "text −0.2500 (standard error 0.1250)" in covariance.text
    assert "kept the pool in 2 runs; a weight of 0 switched off text in 2" in (
        kept.text
    )
    assert fusion.fusion(made_up(extras=False)) is None
    # One run's validation data lacked a class.
    found = comparison.runs_of("A")[0].fusion["scores"]
    for scores in found.values():
        scores["pool with bias"] = scores["pool"]
    _, whole, *_ = fusion.fusion(comparison)
    assert [row[0] for row in whole.rows] == [
        "average",
        "pool",
        "pool with bias",
    ]
    assert whole.rows[2][1] == "81.0"


def test_the_best_single_modality_is_a_row():
    comparison = made_up(methods=["A", "B"], seeds=(0, 1))
    method, name = numbers.best_alone(comparison)
    *_, last = methods.table(comparison).rows
    assert last[0] == f"{name} alone, of {method}"
    metric = numbers.metric_of(comparison)
    expected = comparison.scores(method, metric, name)
    assert last[1] == numbers.spread(expected, metric.text)
    (*_, note) = methods.methods(comparison)
    assert "The last row" in note.text
    one = made_up(modalities=("text",))
    assert [row[0] for row in methods.table(one).rows] == list(METHODS)
    (*_, note) = methods.methods(one)
    assert "last row" not in note.text


# === The answer ===


def test_the_best_single_modality_is_chosen_on_validation_data():
    comparison = made_up(methods=["A", "B"], seeds=(0,), n=40)
    for run in comparison.runs:
        for name in MODALITIES:
            run.curves[f"val_{name}_accuracy"] = [0.1] * 12
    # Image is the worst on test data.
    comparison.runs_of("B")[0].curves["val_image_accuracy"][9] = 0.3
    assert numbers.best_alone(comparison) == ("B", "image")
    (first, _, _) = answer.answer(comparison)
    assert "better than B's image alone" in first.text
    # Only the best epoch counts.
    comparison.runs_of("A")[0].curves["val_text_accuracy"][8] = 0.9
    assert numbers.best_alone(comparison) == ("B", "image")


def test_answer_of_equal_methods():
    comparison = made_up(methods={"A": 1, "B": 1}, seeds=(0,), n=40)
    for one, other in zip(
        comparison.runs_of("A"), comparison.runs_of("B"), strict=True
    ):
        other.predictions.outputs.update(one.predictions.outputs)
    first, second, third = (b.text for b in answer.answer(comparison))
    assert "as good as B, the next on validation data" in first
    assert "(text)" in second and "points" in second
    assert third.startswith("No method is reliably better than A")
    assert "do not separate A from B" in third


@pytest.mark.parametrize("task", ["single_label", "regression"])
def test_answer_of_unequal_methods(task):
    skills = {"A": 0.9, "B": 0.1} if task == "regression" else {"A": 2, "B": 0}
    comparison = made_up(task, methods=skills, seeds=(0,), n=60)
    metric = numbers.metric_of(comparison)
    first, _, third = (b.text for b in answer.answer(comparison))
    assert re.search(r"[\d.]+( points)? better than B", first)
    assert "B is reliably worse" in third
    scores = comparison.scores("A", metric)
    assert metric.text(scores[0]) in first
    turned = dataclasses.replace(comparison, winner="B")
    first, _, third = (b.text for b in answer.answer(turned))
    assert re.search(r"[\d.]+( points)? worse than A", first)
    assert "A is reliably better than B, which validation data" in third
