"""Tables in the paper's form."""

import script_runs  # noqa: F401 (puts the scripts on the path)
from utils import only_on


@only_on("torch")
def test_means_and_deviations(tmp_path):
    import paper_tables

    values = {
        "Concat": {"audio": [0.5, 0.7], "all": [0.9, 0.9]},
        "MLA": {"audio": [0.25, 0.25], "all": [1.0, 0.0]},
        "Sum": {"all": [0.5]},
    }
    text = paper_tables.markdown("Digits", values, transposed=True)
    assert text.splitlines() == [
        "| Digits | Concat | MLA | Sum |",
        "| --- | --- | --- | --- |",
        "| audio | 60.0 ± 14.1 | 25.0 ± 0.0 | – |",
        "| all | 90.0 ± 0.0 | 50.0 ± 70.7 | 50.0 ± 0.0 |",
    ]
    paper_tables.write_csv(tmp_path / "table.csv", values)
    rows = (tmp_path / "table.csv").read_text().splitlines()
    assert rows[1].startswith("Concat,audio,accuracy,0.6,0.1414")
