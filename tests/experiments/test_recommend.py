"""What other data sets choose, and what it is worth on the one left out."""

import importlib

import pytest
import script_runs  # noqa: F401 (puts the scripts on the path)
from utils import only_on

recommend = importlib.import_module("recommend")
pytestmark = only_on("torch")

# Validation and test accuracy of each recipe, in percent: the method's own
# fusion, and joint calibration.
SCORES = {
    "one": {"A": (80, 70, 82, 71), "B": (70, 75, 71, 90)},
    "two": {"A": (60, 50, 61, 52), "B": (66, 58, 65, 57)},
    "three": {"A": (90, 91, 88, 80), "B": (89, 85, 91, 84), "C": (99, 99)},
}
PARTS = ("validation", "all", "validation, joint", "pooled")


@pytest.fixture
def data(tmp_path):
    found = {}
    for name, methods in SCORES.items():
        folder = tmp_path / name
        folder.mkdir()
        lines = ["method,part,metric,mean,deviation,seeds"]
        for method, values in methods.items():
            for part, value in zip(PARTS, values, strict=False):
                where = f'{method},"{part}"'
                lines.append(f"{where},accuracy,{value / 100},0.01,3")
                lines.append(f"{where},ece,0.5,,1")
        (folder / "table.csv").write_text("\n".join(lines))
        found[name] = recommend.read(folder, "accuracy")
    return found


def test_validation_of_the_others_chooses(data):
    # Regrets on validation, for A, B, and both with joint calibration:
    # one 2, 12, 0, 11; two 6, 0, 5, 1; three 9, 10, 11, 8, against C's.
    regret = recommend.mean_regrets(data)
    assert regret == pytest.approx(
        {
            ("A", ""): 17 / 3,
            ("A", ", joint"): 16 / 3,
            ("B", ""): 22 / 3,
            ("B", ", joint"): 20 / 3,
        }
    )
    found = recommend.left_out(data)
    # Without "one": 7.5, 8, 5, 4.5. Without "two": 5.5, 5.5, 11, 9.5.
    recipe, score, below = found["one"]
    assert recipe == ("B", ", joint")
    assert (score, below) == pytest.approx((0.9, 0))
    # Without "three": 4, 2.5, 6, 6.
    recipe, score, below = found["three"]
    assert recipe == ("A", ", joint")
    assert (score, below) == pytest.approx((0.8, 19))


def test_tables(data):
    text = recommend.markdown(data, "accuracy")
    assert "| A | 70.0 ± 1.0 | 50.0 ± 1.0 | 91.0 ± 1.0 | 5.67 |" in text
    assert "| C | – | – | 99.0 ± 1.0 | – |" in text
    assert "| one | B, joint | 90.0 | 0.0 |" in text
    rows = [line for line in text.splitlines() if line.startswith("| A, joint")]
    assert text.index(rows[0]) < text.index("| A | 70.0")


def test_folders_without_scores(tmp_path):
    with pytest.raises(ValueError, match="There is no .*table.csv: run"):
        recommend.read(tmp_path, "accuracy")
    (tmp_path / "table.csv").write_text(
        "method,part,metric,mean,deviation,seeds\nA,all,accuracy,0.5,,1\n"
    )
    with pytest.raises(ValueError, match="no validation scores of 'accuracy'"):
        recommend.read(tmp_path, "accuracy")
