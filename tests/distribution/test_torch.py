import json
import subprocess
import sys
from pathlib import Path

import device_cases as cases
import numpy as np
import pytest
import utils

HERE = Path(__file__).parent

pytestmark = utils.only_on("torch")


def run(script, processes, *arguments):
    """Returns the exit status and the output of processes."""
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "torch.distributed.run"),
            *("--standalone", f"--nproc-per-node={processes}"),
            *(str(HERE / script), *map(str, arguments)),
        ],
        capture_output=True,
        text=True,
        timeout=500,
    )
    return done.returncode, done.stdout, done.stderr


def check_equal(processes, *runs):
    status, output, errors = run("torch_runs.py", processes, *runs)
    assert status == 0, errors[-3000:]
    found = json.loads(output)
    assert set(found) == set(runs)
    for name, gaps in found.items():
        # Equal weights, bit for bit, in all processes.
        assert gaps.pop("ranks") == 0, name
        assert max(gaps.values()) < 1e-6, (name, gaps)


def test_two_processes_train_as_one():
    check_equal(2, "MLA:gap", "MLA:few", "ConcatFusion:turns")


@utils.long()
@pytest.mark.parametrize("processes", [2, 4])
def test_every_case(processes):
    names = ("plain", "weights", "presence", "gap", "unpaired", "uneven", "few")
    names = (*names, "turns", "first", "loaded", "ignored", *cases.REDUCTIONS)
    check_equal(processes, *(f"MLA:{case}" for case in names))


@utils.long()
@pytest.mark.parametrize("processes", [2, 4])
def test_each_kind_of_method(processes):
    runs = [
        f"{name}:{case}"
        for name in cases.METHODS[1:]
        for case in ("uneven", "turns")
        if (name, case) != ("AEFusion", "turns")
    ]
    check_equal(processes, *runs)


def lines(mode, folder, processes=2):
    """Returns whether it failed, and what each process told."""
    status, output, errors = run("torch_faults.py", processes, mode, folder)
    told = {}
    for line in output.splitlines():
        if line.startswith("rank "):
            _, rank, text = line.split(maxsplit=2)
            told[int(rank)] = text
    assert told, errors[-3000:]
    return status != 0, told


@pytest.mark.parametrize(
    "mode, words",
    [
        pytest.param("more_batches", "different numbers of batches"),
        pytest.param(
            "more_batches_of_validation",
            "1: the end of the data",
            marks=utils.long(),
        ),
        pytest.param("stops_alone", "stopped by a call", marks=utils.long()),
        pytest.param(
            "other_modalities", "The modalities of", marks=utils.long()
        ),
        pytest.param("other_arrays", "differ in rows", marks=utils.long()),
        pytest.param(
            "presence_in_one", "differ in presence", marks=utils.long()
        ),
        pytest.param("compiled", "`jit_compile=True`", marks=utils.long()),
        pytest.param("whole_batch", "all rows of a batch", marks=utils.long()),
        pytest.param(
            "evaluates_alone", "called `evaluate`", marks=utils.long()
        ),
        pytest.param("split_off", "`validation_split`", marks=utils.long()),
    ],
)
def test_an_error_on_every_process(tmp_path, mode, words):
    failed, told = lines(mode, tmp_path)
    assert failed
    assert set(told) == {0, 1}
    for text in told.values():
        assert words in text


@utils.long()
def test_a_killed_process_ends_the_others(tmp_path):
    failed, told = lines("killed", tmp_path)
    assert failed
    assert "A process cannot be reached" in told[0]


@utils.long()
def test_a_restart_resumes(tmp_path):
    (tmp_path / "a").mkdir()
    failed, told = lines("resumed", tmp_path / "a")
    assert failed and "A process cannot be reached" in told[0]
    failed, again = lines("resumed", tmp_path / "a")
    assert not failed
    assert again[0] == again[1]
    assert again[0].startswith("epochs [2, 3]")
    # The same as without an end in between.
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "ended").touch()
    _, whole = lines("resumed", tmp_path / "b")
    assert whole[0].startswith("epochs [0, 1, 2, 3]")
    assert whole[0].rpartition(" ")[2] == again[0].rpartition(" ")[2]


def test_arrays_are_shared_out(tmp_path):
    x, y = cases.data(45)
    model = cases.method(seed=0)
    history = model.fit(
        x, y, 16, 2, verbose=0, shuffle=False, validation_data=(x, y)
    ).history
    result = model.evaluate(x, y, batch_size=16, verbose=0)[0]
    _, told = lines("arrays", tmp_path)
    wanted = [history["loss"][-1], history["val_loss"][-1], result]
    for text in told.values():
        found = list(map(float, text.split()))
        np.testing.assert_allclose(found, wanted, atol=2e-6)


@utils.long()
def test_each_row_is_seen_once(tmp_path):
    _, told = lines("shuffled", tmp_path)
    assert told[0] == told[1]
    x, y = cases.data(45)
    history = cases.method(seed=0).fit(x, y, 16, 2, verbose=0, shuffle=False)
    # Another order of the same rows.
    assert abs(float(told[0]) - history.history["loss"][-1]) < 0.05


@utils.long()
def test_train_on_batch(tmp_path):
    x, y = cases.data(24)
    model = cases.method(seed=0)
    loss = [model.train_on_batch(x, y)[0] for _ in range(2)][-1]
    wanted = f"{float(loss):.6f} {model.test_on_batch(x, y)[0]:.6f}"
    _, told = lines("on_batches", tmp_path)
    assert told == {0: wanted, 1: wanted}


@utils.long()
def test_a_data_loader_with_the_rows_of_a_process(tmp_path):
    x, y = cases.data(24)
    history = cases.method(seed=0).fit(x, y, 12, 2, shuffle=False, verbose=0)
    _, told = lines("loader", tmp_path)
    for text in told.values():
        assert abs(float(text) - history.history["loss"][-1]) < 2e-6


@utils.long()
@pytest.mark.parametrize("mode", ["half_normalized", "few_normalized"])
def test_statistics_are_of_samples_alone(tmp_path, mode):
    _, told = lines(mode, tmp_path)
    assert told[0] == told[1]
    found = list(map(float, told[0].split()))
    x, _ = cases.data(9)
    # The first process has rows 0, 2, 4, 6 of the first batch of eight.
    if mode == "half_normalized":
        wanted = 0.01 * x["text"][:8:2].mean(0)
    else:
        steps = x["text"][:8].mean(0), x["text"][8]
        wanted = 0.99 * 0.01 * steps[0] + 0.01 * steps[1]
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@utils.long()
def test_statistics_of_batch_normalization_are_means(tmp_path):
    _, told = lines("normalized", tmp_path)
    x, _ = cases.data(24)
    # One step of the moving mean, with Keras's momentum.
    wanted = 0.01 * x["audio"].mean(0)
    for text in told.values():
        np.testing.assert_allclose(
            list(map(float, text.split())), wanted, atol=2e-5
        )


def test_the_rows_of_a_process():
    from keras_mla import ProcessRows

    data = cases.Batches("uneven")
    shares = [ProcessRows(data, worker=(i, 3)) for i in range(3)]
    x, y = data[2]
    rows = [share[2] for share in shares]
    found = np.concatenate([part["audio"] for part, _ in rows])
    assert len(found) == len(y) == sum(len(labels) for _, labels in rows)
    assert sorted(found[:, 0]) == sorted(x["audio"][:, 0])
    assert len(shares[0]) == 3
    with pytest.raises(TypeError, match="DistributedSampler"):
        ProcessRows([1, 2])


def test_keras_that_shares_batches_itself(monkeypatch):
    import keras

    from keras_mla.backend.distribution import torch as distribution

    model = cases.method()
    monkeypatch.setattr(distribution, "num_replicas", lambda: 2)
    distribution.check_placed(model)
    monkeypatch.setattr(keras, "__version__", "3.16.0")
    with pytest.raises(RuntimeError, match="keras<3.16"):
        model.fit(*cases.data(4), verbose=0)
