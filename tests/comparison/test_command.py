"""The command line on a table of files: killed, resumed, and predicting."""

import io
import json
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pandas as pd
import pytest
import small_table
from utils import in_process, long_on, only_on

from keras_mla.comparison import command

# One for each seed.
RUNS = 2
# MLA has an update, which is compiled, for each of the modalities.
METHOD = "MLA" if keras.backend.backend() == "torch" else "Concat"
SMALL = (
    f"--methods={METHOD}",
    "--seeds=2",
    "--trials=1",
    "--epochs=4",
    # One batch: another size would be compiled once more.
    "--batch_size=32",
    "--width=4",
    # Convolutions of spectrograms are most of the time without it.
    "--encoder=sound:mlp",
)
# Of the others, it predicts soonest after its start.
OTHER = "tensorflow"
LINE = ("-m", "keras_mla")


def records(folder):
    path = folder / "runs.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines[1:]]


@long_on("tensorflow")
def test_killed_resumed_and_used(tmp_path, capsys):
    data = small_table.write(tmp_path, rows=30)
    out = tmp_path / "out"
    given = ["compare", f"--data={data}", f"--out={out}"]
    given += [*small_table.FLAGS, *SMALL]
    process = in_process(
        *LINE,
        *given,
        start=subprocess.Popen,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while not records(out) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = records(out)
    assert 1 <= len(killed) < RUNS
    assert command.run(given) == 0
    # The first ones are as they were.
    assert len(records(out)) == RUNS
    assert records(out)[: len(killed)] == killed
    text = (out / "report.html").read_text()
    assert "<b>no</b>" not in text and "&lt;b&gt;no&lt;/b&gt;" in text
    table = (out / "table.md").read_text()
    assert METHOD in table and table in capsys.readouterr().out

    # Predictions for raw rows are the model's own.
    rows = pd.read_csv(data)
    found = tmp_path / "found.csv"
    model_file = str(out / "model.keras")
    assert (
        command.run(["predict", model_file, str(data), f"--out={found}"]) == 0
    )
    found = pd.read_csv(found)
    model = keras.saving.load_model(model_file)
    model.table.root = str(tmp_path)
    x = model.table.inputs(rows)
    outputs = model.predict(x, verbose=0)
    assert list(found["label"]) == model.table.decode_predictions(outputs)
    share = keras.ops.convert_to_numpy(keras.ops.softmax(outputs))
    np.testing.assert_allclose(found["probability yes"], share[:, 1], atol=1e-5)
    assert model.modalities == small_table.MODALITIES
    assert ("weight photo" in found) == (model.fusion is not None)
    if keras.backend.backend() == "torch":
        done = in_process(*LINE, "predict", model_file, data, backend=OTHER)
        assert done.returncode == 0, done.stderr
        again = pd.read_csv(io.StringIO(done.stdout))
        pd.testing.assert_frame_equal(found, again, atol=1e-5, rtol=1e-4)


@only_on("torch")
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["compere"], "Did you mean 'compare'"),
        (["compare", "--methds=MLA"], "no flag --methds. Did you mean"),
        (["compare", "--methods=concatt"], "Did you mean 'Concat'"),
        (["compare", "--seeds=many"], "--seeds takes whole numbers"),
        (["compare", "--epochs=0"], "--epochs"),
        (["compare", "--learning_rate=fast"], "--learning_rate takes numbers"),
        (["compare", "--metric=acuracy"], "accuracy"),
        (["compare", "--time_budget=soon"], "such as 20m"),
        (["compare", "--encoder=mlp"], "--encoder takes modality:kind"),
        (["compare", "--encoder=top:mpl"], "'mpl'"),
        (["compare", "--encoder=a:mlp,a:conv"], "each modality once"),
        (["compare", "--encoder=a:mlp", "--encoder=b:mlp"], "already defined"),
        (["compare", "--data=nowhere.npz"], "nowhere.npz"),
        (["compare", "--data=nowhere.csv", "--label=y"], "nowhere.csv"),
        (["compare", "digits"], "'digits' is no flag"),
        (["predict", "model.keras"], "predict model.keras new.csv"),
        (["predict", "no.keras", "no.csv"], "no file no.keras"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, capsys, arguments, message):
    if arguments[0] == "compare":
        arguments = [*arguments, f"--out={tmp_path / 'out'}"]
    assert command.run(arguments) == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert message in errors[-1]
    assert not any("Traceback" in line for line in errors)


@only_on("torch")
def test_a_missing_package_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert command.run(["compare"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("keras-mla compare: It needs jinja2: pip install")
    assert '"keras-mla[compare]"' in message
