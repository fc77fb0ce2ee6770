"""Trains on eight devices and on one, and prints how much they differ.

Run it as `python jax_runs.py CASE ...` in an environment with eight fake
devices. It prints one JSON object of each case's results.
"""

import json
import re
import sys
import tempfile

import jax
import keras
import numpy as np
from utils import (
    ARGUMENTS,
    CLASSES,
    WIDTHS,
    compiled,
    encoder,
    half_presence,
    make_data,
    make_of,
    to_numpy,
    weights_of,
)

import keras_mla

BATCH = 24
LACKING = list(WIDTHS).index("image")


def data_parallel():
    return keras.distribution.DataParallel()


def model_parallel():
    """Two parts of a batch; weights, P among them, in four parts."""
    mesh = keras.distribution.DeviceMesh((2, 4), ["batch", "model"])
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*text_dense/kernel"] = (None, "model")
    layout[".*head/kernel"] = ("model", None)
    layout[".*projector.*/P"] = ("model", None)
    return keras.distribution.ModelParallel(layout_map=layout)


def named_encoder(name, features=8):
    return keras.Sequential(
        [
            keras.Input((WIDTHS[name],)),
            keras.layers.Dense(features, "relu", name=f"{name}_dense"),
        ]
    )


def make_mla():
    parts = {name: named_encoder(name) for name in WIDTHS}
    head = keras.layers.Dense(CLASSES, name="head")
    return keras_mla.MLA(parts, head)


def make_small(method):
    """Returns a function that makes a model of a method."""

    def make():
        parts = lambda: {n: encoder(WIDTHS[n]) for n in WIDTHS}
        return make_of(method, parts, CLASSES, 64)

    return make


def with_nan(x, presence):
    hidden = {
        name: np.where(presence[:, m, None], value, np.nan).astype("float32")
        for m, (name, value) in enumerate(x.items())
    }
    return {**hidden, "presence": presence}


def some_presence(rows):
    """Presence in which a shard, and a batch, lack a modality."""
    presence = half_presence(rows)
    presence[3:9, LACKING] = False  # The second and the third shard.
    presence[BATCH : 2 * BATCH, 0] = False
    return presence


def differences(first, second):
    return max(
        float(np.abs(np.asarray(a, "float64") - b).max())
        for a, b in zip(first, second, strict=True)
        if np.size(a)
    )


def state_of(model):
    values = [to_numpy(v) for v in model.optimizer.variables]
    return [*weights_of(model), *values]


def equal(
    make, x, y, weight=None, distribution=data_parallel, optimizer=None, **more
):
    """Trains on one device and on several; returns the differences."""
    rows = len(y) if not isinstance(y, dict) else None
    found = []
    initial = None
    for scope in (None, distribution()):
        keras.distribution.set_distribution(scope)
        keras.utils.set_random_seed(0)
        model = make()
        if initial is None:
            initial = model.get_weights()
        model.set_weights(initial)
        compiled(
            model,
            optimizer() if optimizer else keras.optimizers.SGD(0.1, 0.9),
            weighted_metrics=["accuracy"],
        )
        if rows is None:  # Unpaired: a data set.
            data = keras_mla.UnpairedDataset(
                {n: (x[n], y[n]) for n in x}, BATCH, shuffle=False
            )
            history = model.fit(data, epochs=2, verbose=0).history
            found.append((state_of(model), history, []))
            continue
        held = {k: v[: rows - 7] for k, v in x.items()}
        history = model.fit(
            x,
            y,
            batch_size=BATCH,
            epochs=2,
            shuffle=False,
            sample_weight=weight,
            validation_data=(held, y[: rows - 7]),
            verbose=0,
            **more,
        ).history
        logits = model.predict(x, batch_size=BATCH, verbose=0)
        found.append((state_of(model), history, [logits]))
    keras.distribution.set_distribution(None)
    one, several = found
    assert list(one[1]) == list(several[1])
    assert all(np.isfinite(v).all() for v in several[0])
    return {
        "state": differences(one[0], several[0]),
        "history": differences(one[1].values(), several[1].values()),
        "logits": differences(one[2], several[2]) if one[2] else 0.0,
    }


def case_plain():
    """The last batch has 12 rows: 16 on eight devices."""
    x, y = make_data(60)
    weight = np.random.default_rng(0).random(60).astype("float32")
    return equal(make_mla, x, y, weight)


def case_presence():
    """The last batch has fewer rows than there are devices."""
    x, y = make_data(51)
    return equal(make_mla, with_nan(x, some_presence(51)), y)


def case_unpaired():
    x, y = make_data(48)
    return equal(make_mla, x, {name: y for name in x})


def case_model_parallel():
    x, y = make_data(51)
    return equal(
        make_mla,
        with_nan(x, some_presence(51)),
        y,
        distribution=model_parallel,
    )


CASES = {
    name.removeprefix("case_"): function
    for name, function in dict(globals()).items()
    if name.startswith("case_")
}

if __name__ == "__main__":
    import time

    results = {}
    for name in sys.argv[1:]:
        start = time.time()
        results[name] = CASES[name]()
        print(name, results[name], time.time() - start, file=sys.stderr)
    print(json.dumps(results))
