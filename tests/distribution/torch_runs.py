"""Trains in several processes of PyTorch, and in one.

    torchrun --nproc-per-node=2 tests/distribution/torch_runs.py MLA:plain

The first process prints the largest differences of each run, as JSON.
"""

import json
import os
import sys
import tempfile

os.environ["KERAS_BACKEND"] = "torch"
os.environ["OMP_NUM_THREADS"] = "1"

import device_cases as cases
import keras
import numpy as np
import torch

from keras_mla import ProcessRows


def trained(name, case, rank=0, several=False):
    # Only the first process has the weights that all are to have.
    model = cases.method(name, seed=1 + rank, case=case)
    data = cases.Batches(case)
    data = ProcessRows(data) if several else data
    history = model.fit(data, epochs=2, shuffle=False, verbose=0).history
    if case == "loaded":
        # Each process saves and loads; the file is that of one process.
        with tempfile.TemporaryDirectory() as folder:
            model.save(f"{folder}/m.keras")
            model = keras.saving.load_model(f"{folder}/m.keras")
        history = model.fit(data, shuffle=False, verbose=0).history
    found = {f"fit {k}": v for k, v in history.items()}
    result = model.evaluate(data, return_dict=True, verbose=0)
    found |= {f"evaluate {k}": v for k, v in result.items()}
    state = cases.state(model, found)
    x, _ = cases.data(7)
    state["history logits"] = np.asarray(model.predict(x, verbose=0))
    return state


def main(*runs):
    rank = int(os.environ["RANK"])
    single = {run: trained(*run.split(":")) for run in runs} if not rank else {}
    torch.distributed.init_process_group("gloo")
    found = {}
    for run in runs:
        state = trained(*run.split(":"), rank=rank, several=True)
        states = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(states, state)
        if not rank:
            found[run] = cases.differences(single[run], state)
            between = [cases.differences(state, s) for s in states]
            found[run]["ranks"] = max(max(d.values()) for d in between)
    torch.distributed.destroy_process_group()
    if not rank:
        print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
