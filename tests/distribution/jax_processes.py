"""Trains in several processes and in each alone, and prints the differences.

Run it in each process as `python jax_processes.py NUMBER PROCESSES PORT FOLDER
CASE ...`.
"""

import json
import pathlib
import sys

import jax

jax.config.update("jax_cpu_collectives_implementation", "gloo")
NUMBER, PROCESSES = int(sys.argv[1]), int(sys.argv[2])
jax.distributed.initialize(f"localhost:{sys.argv[3]}", PROCESSES, NUMBER)

import keras  # noqa: E402
import numpy as np  # noqa: E402
from jax_runs import (  # noqa: E402
    BATCH,
    differences,
    make_mla,
    some_presence,
    with_nan,
)
from utils import compiled, make_data, to_numpy, weights_of  # noqa: E402

FOLDER = pathlib.Path(sys.argv[4])


def own_rows(values, batch=BATCH):
    """Returns a process's part of each global batch."""
    parts = []
    for start in range(0, len(values), batch):
        rows = values[start : start + batch]
        size = len(rows) // PROCESSES
        parts.append(rows[NUMBER * size : (NUMBER + 1) * size])
    return np.concatenate(parts)


def trained(distribution, x, y, batch):
    keras.distribution.set_distribution(distribution)
    keras.utils.set_random_seed(0)
    model = compiled(make_mla(), keras.optimizers.SGD(0.1, 0.9))
    history = model.fit(
        x, y, batch_size=batch, epochs=2, shuffle=False, verbose=0
    ).history
    return model, history


def data_parallel():
    return keras.distribution.DataParallel(auto_shard_dataset=False)


def model_parallel():
    """Weights in parts that are on devices of different processes."""
    devices = np.array(keras.distribution.list_devices())
    mesh = keras.distribution.DeviceMesh(
        (1, len(devices)), ["batch", "model"], devices
    )
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*head/kernel"] = ("model", None)
    layout[".*projector.*/P"] = ("model", None)
    return keras.distribution.ModelParallel(
        layout_map=layout, auto_shard_dataset=False
    )


def equal(make, presence=True, rows=60):
    """Compares with training on one device, with the same global batches."""
    x, y = make_data(rows)
    if presence:
        x = with_nan(x, some_presence(rows))
    distribution = make()
    # Each process has its own rows, unless a batch is not shared.
    parted = distribution.num_model_replicas > 1
    own = own_rows if parted else lambda values: values
    own_x, own_y = {k: own(v) for k, v in x.items()}, own(y)
    batch = BATCH // PROCESSES if parted else BATCH
    model, history = trained(distribution, own_x, own_y, batch)
    scores = model.evaluate(own_x, own_y, batch_size=batch, verbose=0)
    weights = None
    if parted:
        weights = [to_numpy(v.value) for v in model.trainable_variables]
        path = FOLDER / f"model{NUMBER}.keras"
        model.save(path)
    # Other numbers of rows than the devices divide, another one in each.
    few = {k: v[: 9 + 2 * NUMBER] for k, v in x.items()}
    logits = model.predict(few, verbose=0)
    of_each = model.predict_modalities(few)
    on_batch = model.predict_on_batch(few)
    values = model.calibrate((x, y))
    temperature = list(values["temperature"].values())
    after = model.evaluate(own_x, own_y, batch_size=batch, verbose=0)
    keras.distribution.set_distribution(None)
    one, one_history = trained(None, x, y, BATCH)
    one_scores = one.evaluate(x, y, batch_size=BATCH, verbose=0)
    one_logits = one.predict(few, verbose=0)
    result = {
        "history": differences(history.values(), one_history.values()),
        "scores": differences(scores, one_scores),
        "logits": differences([logits, on_batch], [one_logits] * 2),
        "fused": differences([of_each["fused"]], [one_logits]),
    }
    if weights is not None:
        own_weights = [to_numpy(v.value) for v in one.trainable_variables]
        result["weights"] = differences(weights, own_weights)
        loaded = keras.saving.load_model(path)
        result["loaded"] = differences(weights_of(loaded), weights_of(one))
    one_values = one.calibrate((x, y))
    result["temperature"] = differences(
        temperature, list(one_values["temperature"].values())
    )
    result["after"] = differences(
        after, one.evaluate(x, y, batch_size=BATCH, verbose=0)
    )
    return result


def small():
    """Trains on one batch."""
    x, y = make_data(8)
    batch = 8 // PROCESSES
    own_x, own_y = {k: own_rows(v, 8) for k, v in x.items()}, own_rows(y, 8)
    model, history = trained(data_parallel(), own_x, own_y, batch)
    logits = model.predict(x, verbose=0)
    if NUMBER:
        return {}
    one, one_history = trained(None, x, y, 8)
    return {
        "history": differences(history.values(), one_history.values()),
        "logits": differences([logits], [one.predict(x, verbose=0)]),
    }


def refused():
    """Returns the messages of what several processes cannot do."""
    messages = []
    keras.distribution.set_distribution(data_parallel())
    keras.utils.set_random_seed(0)  # Processes must start from equal weights.
    model = compiled(make_mla())
    x, y = make_data(16 + 2 * NUMBER)
    data_set = (pair for pair in [make_data(5)])
    for data in ((x, y), (data_set,)):
        try:
            model.fit(*data, shuffle=False, verbose=0)
        except ValueError as error:
            messages.append(str(error))
    return messages


CASES = {
    "data_parallel": lambda: equal(data_parallel),
    "model_parallel": lambda: equal(model_parallel),
    "small": small,
    "refused": refused,
}

if __name__ == "__main__":
    print(json.dumps({name: CASES[name]() for name in sys.argv[5:]}))
