"""Training on several devices equals training on one; on JAX.

The number of fake devices must be known before JAX starts, so runs are in
processes of their own, several cases in each.
"""

import json
import socket
import subprocess

import pytest
from utils import ROOT, in_process, long, only_on

HERE = ROOT / "tests" / "distribution"
LIMITS = {"state": 1e-6, "history": 1e-6, "logits": 1e-5}


def environment(devices):
    # As in conftest: programs are small.
    flags = (
        f"--xla_force_host_platform_device_count={devices}",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    )
    return {"XLA_FLAGS": " ".join(flags)}


def run(*cases):
    done = in_process(HERE / "jax_runs.py", *cases, more=environment(8))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def run_processes(folder, *cases, number=2, devices=2):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        in_process(
            HERE / "jax_processes.py",
            index,
            number,
            port,
            folder,
            *cases,
            more=environment(devices),
            start=subprocess.Popen,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(number)
    ]
    try:
        outputs = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def check(results, **limits):
    limits = {**LIMITS, **limits}
    too_large = {
        (case, name): value
        for case, result in results.items()
        for name, value in result.items()
        if name in limits and value > limits[name]
    }
    assert not too_large


@only_on("jax")
def test_several_devices_equal_one():
    results = run("one_batch", "sharded", "gathers", "errors")
    check({name: results[name] for name in ("one_batch", "sharded")})
    assert results["one_batch"]["parts"] == []
    parts = results["sharded"]["parts"]
    assert parts[:3] == ["text_dense/kernel", "kernel", "P"]
    assert [part.rsplit("_", 1)[1] for part in parts[3:]] == ["momentum"] * 2
    # Eight flags, of which devices have rows. An encoder's inputs have 192.
    assert max(results["gathers"].values()) <= 8
    early, unpaired, average, plain = results["errors"]
    assert "before the current distribution was set" in early
    assert "drop the remainder" in unpaired
    assert "use_ema" in average and "drop the remainder" in average
    assert plain.startswith("Sharding")  # JAX's own message.


@only_on("jax")
def test_two_processes_equal_one(tmp_path):
    first, _ = run_processes(tmp_path, "small", devices=1)
    assert set(first["small"]) == {"history", "logits"}
    check(first)


@long()
@only_on("jax")
def test_several_devices_in_all_cases():
    check(run("plain", "presence", "unpaired", "small_batches"))
    check(run("sharded_presence"))
    check(run("adam"), state=1e-4, history=1e-4, logits=1e-4)


@long()
@only_on("jax")
def test_what_a_model_does_after_training():
    # A fit to 13 samples is not exact.
    check(run("use"), loaded=1e-6, calibrated=1e-2)


@long()
@pytest.mark.every_case
@pytest.mark.parametrize(
    "methods",
    [
        ("ConcatFusion", "OGMGE"),
        ("LateFusion", "MultiLossFusion", "QMF"),
        ("MMIN",),
    ],
)
@only_on("jax")
def test_a_method_of_each_family(methods):
    # QMF divides by differences of losses, and MMIN is deep: rounding grows.
    limits = {"QMF": {"state": 2e-6}, "MMIN": {"history": 3e-6}}
    check(run(*methods), **limits.get(methods[-1], {}))


@long()
@only_on("jax")
@pytest.mark.parametrize("case", ["data_parallel", "model_parallel"])
def test_two_processes_in_all_cases(case, tmp_path):
    limits = {
        "scores": 1e-6,
        "fused": 1e-5,
        "weights": 1e-6,
        "loaded": 1e-6,
        "temperature": 1e-3,
        "after": 1e-3,
    }
    for results in run_processes(tmp_path, case):
        check(results, **limits)


@long()
@only_on("jax")
def test_what_two_processes_refuse(tmp_path):
    for results in run_processes(tmp_path, "refused"):
        unequal, data_set = results["refused"]
        assert "as many batches as the others" in unequal
        assert "drop the remainder" in data_set
