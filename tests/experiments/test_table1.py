"""The paper's Table 1, on small folders in the layouts of its data sets."""

import json
import signal
import subprocess
import time

import pytest
from script_runs import read_table, run
from utils import ROOT, in_process, long, only_on

pytest.importorskip("keras_hub")
pytest.importorskip("av")

import dataset_layouts  # noqa: E402

pytestmark = [
    only_on("torch"),
    # The folders hold a few of the published samples.
    pytest.mark.filterwarnings("ignore:.*published"),
]

SOUND = ("--audio_frames=32", "--mels=16")
CLIPS = (*SOUND, "--validation_share=0.4", "--frames=2", "--image_size=32")
SMALL = ("--width=8", "--depth=1", "--num_heads=2", "--image_size=32")
# Modalities, methods and flags of each data set.
CASES = {
    "crema_d": (
        ("audio", "video"),
        ("MLA",),
        (*CLIPS, "--batch_size=4", "--decay_every=1", "--protocol=actor"),
    ),
    "kinetics_sounds": (("audio", "video"), ("MLA",), CLIPS),
    "food101": (
        ("image", "text"),
        ("QMF", "MLA"),
        (*SMALL, "--validation_share=0.5", "--ablation"),
    ),
    "mvsa": (("image", "text"), None, (*SMALL, "--epochs=1")),
    "iemocap": (("audio", "image", "text"), ("Sum", "MLA"), (*SMALL, *SOUND)),
}


@pytest.mark.parametrize(
    "dataset",
    [
        # They are read as the other sets of clips, and of texts, are.
        pytest.param(d, marks=long())
        if d in ("kinetics_sounds", "food101")
        else d
        for d in CASES
    ],
)
def test_all_sets(tmp_path, capsys, dataset):
    modalities, methods, flags = CASES[dataset]
    getattr(dataset_layouts, dataset)(tmp_path / "data")
    out = tmp_path / "out"
    if methods is not None:
        flags = (f"--methods={','.join(methods)}", *flags)
    status = run(
        "table1",
        f"--dataset={dataset}",
        f"--data_dir={tmp_path / 'data'}",
        f"--out={out}",
        "--epochs=2",
        "--seeds=1",
        *flags,
    )
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert " failed: " not in printed.out
    table = read_table(out / "table1.md")
    assert [row[0] for row in table[1:]] == [*modalities, "all"]
    # Without `--methods`: the paper's eight methods, and two controls.
    assert len(table[0]) == 1 + (10 if methods is None else len(methods))
    assert methods is None or tuple(table[0][1:]) == methods
    header = json.loads((out / "runs.jsonl").read_text().splitlines()[0])
    assert header["dataset"] == dataset and header["image_size"] == 32
    if "--ablation" in flags:
        names = ["MLA, neither", "MLA, no projection", "MLA, average", "MLA"]
        assert read_table(out / "table3.md")[0][1:] == names
    if dataset == "mvsa":
        assert "##t" in (out / "vocab.txt").read_text().split()
    if dataset == "crema_d":
        record = json.loads((out / "runs.jsonl").read_text().splitlines()[1])
        rates = record["curves"]["learning_rate"]
        assert rates == pytest.approx([1e-3, 1e-4])


# The command's own test kills the same engine.
@long()
def test_killed_and_resumed(tmp_path, capsys):
    dataset_layouts.mvsa(tmp_path / "data")
    broken = tmp_path / "data" / "data" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    out = tmp_path / "out"
    log = out / "runs.jsonl"
    flags = [
        "--dataset=mvsa",
        f"--data_dir={tmp_path / 'data'}",
        f"--out={out}",
        "--methods=QMF,Late fusion",
        "--epochs=2",
        "--seeds=5,3",
        *SMALL,
        "--on_error=skip",
    ]
    process = in_process(
        ROOT / "experiments" / "table1.py",
        *flags,
        hidden=False,  # Tokenizers of keras-hub need it.
        start=subprocess.Popen,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    lines = []
    while len(lines) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = log.read_bytes().split(b"\n")[:-1]
    assert 2 <= len(killed) < 5
    assert run("table1", *flags) == 0
    printed = capsys.readouterr().out
    assert "Left out of train: " in printed and "3.jpg" in printed
    lines = log.read_bytes().split(b"\n")[:-1]
    assert lines[: len(killed)] == killed
    records = [json.loads(line)["run"] for line in lines[1:]]
    assert [(r["method"], r["seed"]) for r in records] == [
        ("QMF", 5), ("Late fusion", 5), ("QMF", 3), ("Late fusion", 3),
    ]  # fmt: skip
    assert read_table(out / "table1.md")[0][1:] == ["QMF", "Late fusion"]
    # What other flags would mean is not mixed with these runs.
    assert run("table1", *flags, "--text_length=8") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "other settings: ['encoders', 'text_length']" in error


@pytest.mark.parametrize(
    "flags, message",
    [
        ((), "Say which data set: --dataset=crema_d|"),
        (("--dataset=imagenet",), "--dataset"),
        (("--dataset=mvsa",), "Say where the data are: --data_dir."),
        (("--dataset=mvsa", "--frames=3"), "There is no flag --frames."),
        (("--dataset=mvsa", "--data_dir=x", "--seeds=a"), "--seeds takes"),
        (("--dataset=mvsa", "--data_dir=x", "--methods=Sun"), "mean 'Sum'"),
        (("--dataset=iemocap", "--protocol=list"), "--protocol"),
    ],
)
def test_wrong_flags_are_one_line(tmp_path, capsys, flags, message):
    assert run("table1", *flags) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert lines[0].startswith("table1.py: ")
