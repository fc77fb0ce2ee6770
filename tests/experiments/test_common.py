"""Runs of the examples: killed ones end as if they had not been."""

import gc
import json
import types

import keras
import numpy as np
import pytest
import script_runs  # noqa: F401 (puts the examples on the path)
from utils import encoder, mainly_on

common = pytest.importorskip("common")
runs = pytest.importorskip("runs")
tf = pytest.importorskip("tensorflow")

WIDTHS = {"audio": 3, "image": 4}


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    """Ends a run in its second epoch, the first time."""

    def __init__(self):
        super().__init__()
        self.armed = True

    def on_epoch_end(self, epoch, logs=None):
        if self.armed and epoch == 1:
            self.armed = False
            raise Killed


def make_data(seed, stream):
    rng = np.random.default_rng(0)
    data = {}
    for split, samples in (("train", 20), ("validation", 12), ("test", 12)):
        y = np.arange(samples, dtype="int32") % 3
        x = {
            name: (y[:, None] + rng.normal(size=(samples, width))).astype(
                "float32"
            )
            for name, width in WIDTHS.items()
        }
        data[split] = (x, y)
        if stream:
            dataset = tf.data.Dataset.from_tensor_slices(data[split])
            if split == "train":
                dataset = dataset.shuffle(samples, seed=seed)
            data[split] = dataset.batch(8)
    return data


def make_model(method):
    encoders = {
        name: encoder(width, layers=[keras.layers.Dropout(0.2)])
        for name, width in WIDTHS.items()
    }
    return common.make_method(method, encoders, 3)


def set_flags(monkeypatch, **flags):
    values = {"learning_rate": ["0.01"], "epochs": 3, "batch_size": 8}
    namespace = types.SimpleNamespace(**{**values, "seeds": 1, **flags})
    monkeypatch.setattr(runs, "FLAGS", namespace)


# A killed run leaves its log open.
@mainly_on("torch")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("stream", [False, True])
def test_a_killed_run_goes_on(tmp_path, monkeypatch, stream):
    set_flags(monkeypatch)

    def compare(folder, *callbacks):
        data = lambda seed: make_data(seed, stream)  # noqa: E731
        results = runs.compare(
            tmp_path / folder, ["MLA"], make_model, data, callbacks=callbacks
        )
        record = results["MLA"][0]
        log = runs.history(record.pop("folder") / "log.csv")
        return record, log

    expected = compare("whole")
    kill = Kill()
    with pytest.raises(Killed):
        compare("killed", kill)
    gc.collect()
    assert len(expected[1]["loss"]) == 3
    resumed = compare("killed", kill)
    if stream:  # Shuffled otherwise: the first epoch is what was kept.
        assert {k: v[:1] for k, v in resumed[1].items()} == {
            k: v[:1] for k, v in expected[1].items()
        }
        assert resumed[1]["epoch"] == [0, 1, 2]
    else:
        assert resumed == expected
    assert not (tmp_path / "killed" / "MLA-0.01-seed0" / "backup").exists()
    # What has ended is read, not done again.
    path = tmp_path / "killed" / "MLA-0.01-seed0" / "result.json"
    path.write_text(json.dumps({"validation": 2, "test": {}}))
    assert compare("killed", kill)[0] == {"validation": 2, "test": {}}


@mainly_on("torch")
def test_validation_chooses_rate_and_epoch(tmp_path, monkeypatch):
    set_flags(monkeypatch, learning_rate=["1e-9", "0.05"], seeds=2)
    results = runs.compare(
        tmp_path, ["Concat"], make_model, lambda seed: make_data(seed, False)
    )
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "Concat-0.05-seed0",
        "Concat-0.05-seed1",
        "Concat-1e-09-seed0",
    ]
    # Only the chosen runs have read the test split.
    tried = json.loads((tmp_path / names[2] / "result.json").read_text())
    assert list(tried) == ["validation"]
    for record in results["Concat"]:
        model = make_model("Concat")
        model.load_weights(record["folder"] / "best.weights.h5")
        model.compile(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        data = make_data(0, False)
        for split in ("validation", "test"):
            scores = model.evaluate(*data[split], return_dict=True, verbose=0)
            found = record[split]
            found = found if split == "validation" else found["accuracy"]
            np.testing.assert_allclose(scores["accuracy"], found)


def test_report_gives_means_and_deviations(tmp_path, capsys):
    values = {
        "Concat": {"audio": [0.5, 0.7], "all": [0.9, 0.9]},
        "MLA": {"audio": [0.25, 0.25], "all": [1.0, 0.0]},
    }
    text = common.report(tmp_path, values, "Digits", transposed=True)
    assert text.splitlines() == [
        "| Digits | Concat | MLA |",
        "| --- | --- | --- |",
        "| audio | 60.0 ± 14.1 | 25.0 ± 0.0 |",
        "| all | 90.0 ± 0.0 | 50.0 ± 70.7 |",
    ]
    assert text in capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() == text
    rows = (tmp_path / "table.csv").read_text().splitlines()
    assert rows[1].startswith("Concat,audio,accuracy,0.6,0.1414")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
