"""Trains on several virtual devices of TensorFlow, and on one.

    python tests/distribution/tensorflow_runs.py 2 MLA:plain MLA:gap

Prints the largest differences of each run, as JSON. TensorFlow mixes the
messages of two strategies of a process up, so there is one.
"""

import json
import os
import sys
import tempfile

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import device_cases as cases
import keras
import numpy as np
import tensorflow as tf


def batches(case):
    """Returns the case as a data set, which a strategy distributes."""
    found = cases.batches(case)
    spec = keras.tree.map_structure(
        lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), found[0]
    )

    def copies():
        # TensorFlow computes in place, in the memory of a generator's arrays,
        # if several replicas are on CPUs.
        for batch in found:
            yield keras.tree.map_structure(np.copy, batch)

    dataset = tf.data.Dataset.from_generator(copies, output_signature=spec)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(found)))


def trained(scope, other, name, case):
    with scope:
        model = cases.method(name, case=case)
    if case == "arrays":
        x, y = cases.data(61)
        history = model.fit(x, y, 24, 2, shuffle=False, verbose=0).history
    else:
        history = model.fit(batches(case), epochs=2, verbose=0).history
    if case == "loaded":
        # What several replicas have saved, one device loads, and the reverse.
        with tempfile.TemporaryDirectory() as folder:
            model.save(f"{folder}/m.keras")
            with other:
                model = keras.saving.load_model(f"{folder}/m.keras")
        history = model.fit(batches(case), epochs=1, verbose=0).history
    found = {f"fit {k}": v for k, v in history.items()}
    result = model.evaluate(batches(case), return_dict=True, verbose=0)
    found |= {f"evaluate {k}": v for k, v in result.items()}
    state = cases.state(model, found)
    x, _ = cases.data(7)
    state["history logits"] = np.asarray(model.predict(x, verbose=0))
    return model, state


def main(replicas, *runs):
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * int(replicas)
    )
    devices = [f"CPU:{index}" for index in range(int(replicas))]
    strategy, found = tf.distribute.MirroredStrategy(devices), {}
    for run in runs:
        scopes = tf.distribute.get_strategy().scope(), strategy.scope()
        _, single = trained(*scopes, *run.split(":"))
        scopes = strategy.scope(), tf.distribute.get_strategy().scope()
        _, several = trained(*scopes, *run.split(":"))
        found[run] = cases.differences(single, several)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
