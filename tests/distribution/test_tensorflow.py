import json
import subprocess
import sys
from pathlib import Path

import device_cases as cases
import pytest
import utils

HERE = Path(__file__).parent

pytestmark = utils.only_on("tensorflow")


def check_equal(replicas, *runs):
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore"),
            *(str(HERE / "tensorflow_runs.py"), str(replicas), *runs),
        ],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(runs)
    for name, gaps in found.items():
        assert max(gaps.values()) < 1e-6, (name, gaps)


def test_two_replicas_train_as_one_device():
    check_equal(2, "MLA:gap", "ConcatFusion:gap")


@utils.long()
@pytest.mark.parametrize("replicas", [2, 4])
def test_every_case(replicas):
    names = ("plain", "weights", "presence", "gap", "unpaired", "uneven", "few")
    names = (*names, "first", "normalized", "arrays", "loaded", "ignored")
    names = (*names, *cases.REDUCTIONS)
    check_equal(replicas, *(f"MLA:{case}" for case in names))


@utils.long()
@pytest.mark.parametrize("replicas", [2, 4])
def test_each_kind_of_method(replicas):
    runs = [
        f"{name}:{case}"
        for name in cases.METHODS[1:]
        for case in ("uneven", "gap")
        if (name, case) != ("AEFusion", "gap")
    ]
    check_equal(replicas, *runs)


def test_workers_of_several_machines_are_refused():
    import tensorflow as tf

    model = cases.method()
    x, y = cases.data(4)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    model._distribute_strategy = strategy
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="issues/20585"):
            call(x, y, verbose=0)
