"""Trains on eight devices and on one, and prints how much they differ.

Run it as `python jax_runs.py CASE ...` in an environment with eight fake
devices. It prints one JSON object of each case's results.
"""

import json
import pathlib
import re
import sys
import tempfile

import jax
import keras
import numpy as np
from utils import (
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
        return make_of(
            method, lambda: {n: encoder(WIDTHS[n]) for n in WIDTHS}, CLASSES, 64
        )

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
    make,
    x,
    y,
    weight=None,
    distribution=data_parallel,
    optimizer=None,
    validate=True,
):
    """Trains on one device and on several; returns the differences."""
    rows = len(y) if not isinstance(y, dict) else None
    found: list = []
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
        held = {k: v[: rows - 7] for k, v in x.items()}, y[: rows - 7]
        history = model.fit(
            x,
            y,
            batch_size=BATCH,
            epochs=2,
            shuffle=False,
            sample_weight=weight,
            validation_data=held if validate else None,
            verbose=0,
        ).history
        logits = model.predict(x, batch_size=BATCH, verbose=0)
        found.append((state_of(model), history, [logits]))
    # Optimizer slots follow their weights.
    parts = [
        v.path.split("/", 1)[-1]
        for v in [*model.variables, *model.optimizer.variables]
        if not v.value.sharding.is_fully_replicated
    ]
    keras.distribution.set_distribution(None)
    one, several = found
    assert list(one[1]) == list(several[1])
    assert all(np.isfinite(v).all() for v in several[0])
    return {
        "state": differences(one[0], several[0]),
        "history": max(
            differences([a], [b]) / max(1.0, float(np.abs(a).max()))
            for a, b in zip(one[1].values(), several[1].values(), strict=True)
        ),
        "logits": differences(one[2], several[2]) if one[2] else 0.0,
        "parts": parts,
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


def case_one_batch():
    x, y = make_data(21)
    x = with_nan(x, some_presence(21))
    return equal(make_mla, x, y, validate=False)


def case_unpaired():
    x, y = make_data(48)
    return equal(make_mla, x, {name: y for name in x})


def case_sharded():
    x, y = make_data(20)
    return equal(make_mla, x, y, distribution=model_parallel, validate=False)


def case_sharded_presence():
    x, y = make_data(51)
    x = with_nan(x, some_presence(51))
    return equal(make_mla, x, y, distribution=model_parallel)


def family(method, presence=False, **options):
    """A case of a method, with a last batch that is not divisible."""

    def run():
        x, y = make_data(60)
        if presence:
            x = with_nan(x, some_presence(60))
        if method in ("QMF", "CPMNet"):
            x["sample_id"] = np.arange(60)
        return equal(make_small(method), x, y, **options)

    return run


def case_small_batches():
    """Fewer rows than devices, without presence; loss of all rows."""
    x, y = make_data(5)
    return equal(make_mla, x, y)


def case_adam():
    x, y = make_data(60)
    return equal(
        make_mla,
        with_nan(x, some_presence(60)),
        y,
        optimizer=lambda: keras.optimizers.Adam(1e-2),
    )


def case_use():
    """What a model does after training, with 13 rows for eight devices."""
    x, y = make_data(13)
    few = with_nan(x, half_presence(13))
    found, files, calibrated = [], [], []
    folder = pathlib.Path(tempfile.mkdtemp())
    for scope in (None, data_parallel()):
        keras.distribution.set_distribution(scope)
        keras.utils.set_random_seed(0)
        model = compiled(make_mla())
        outputs = [
            model.train_on_batch(few, y, return_dict=True),
            model.test_on_batch(few, y, return_dict=True),
            model.evaluate(stream(few, y), steps=3, verbose=0),
            model.predict(stream(few), steps=3, verbose=0),
            model.predict(few, batch_size=5, verbose=0),
            model.predict_on_batch(few),
            model.predict_modalities(few, batch_size=6),
            model.features(few),
            model.unimodal("text").predict(x["text"], verbose=0),
            model.serving_function()(x)["logits"],
            keras_mla.encoders.cache_features(
                model.encoders["audio"],
                x["audio"],
                folder / str(len(files)),
                batch_size=5,
                verbose=0,
            ),
        ]
        files.append(folder / f"{len(files)}.keras")
        model.save(files[-1])
        model.calibrate((x, y))
        calibrated.append(model.predict(x, verbose=0))
        found.append(
            [np.asarray(v, "float64") for v in keras.tree.flatten(outputs)]
        )
    loaded = []
    for path, scope in zip(files, (data_parallel(), None), strict=True):
        keras.distribution.set_distribution(scope)
        model = keras.saving.load_model(path)
        loaded.append(model.predict(few, verbose=0))
    keras.distribution.set_distribution(None)
    return {
        "logits": differences(*found),
        "loaded": differences(loaded[:1], loaded[1:]),
        "calibrated": differences(calibrated[:1], calibrated[1:]),
    }


def stream(*data):
    """Yields batches of six, six and one row."""
    for start in (0, 6, 12):
        rows = slice(start, start + 6)
        yield keras.tree.map_structure(lambda v, r=rows: v[r], data)


def case_errors():
    """Returns the messages of what is refused."""
    x, y = make_data(12)
    messages = []

    def refused(call):
        try:
            call()
        except ValueError as error:
            messages.append(str(error))
        else:
            messages.append("")

    early = compiled(make_mla())
    keras.distribution.set_distribution(data_parallel())
    refused(lambda: early.fit(x, y, verbose=0))
    model = compiled(make_mla())
    unpaired = keras_mla.UnpairedDataset(
        {n: (x[n], y) for n in x}, 12, shuffle=False
    )
    refused(lambda: model.fit(unpaired, verbose=0))
    average = keras.optimizers.SGD(0.1, use_ema=True)
    refused(lambda: compiled(make_mla(), average).fit(x, y, verbose=0))
    # The model still works. A plain model, in a callback, is Keras's own.
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    inside = keras.callbacks.LambdaCallback()
    inside.on_test_end = lambda *_: refused(
        lambda: plain.predict(x["text"], verbose=0)
    )
    model.evaluate(x, y, callbacks=[inside], verbose=0)
    keras.distribution.set_distribution(None)
    return messages


def case_gathers():
    """Returns the elements of the largest thing that a step gathers."""
    x, y = make_data(64)
    keras.distribution.set_distribution(data_parallel())
    model = compiled(make_mla())
    model.test_on_batch(x, y)  # It makes the metrics.
    model.optimizer.build(model.trainable_variables)
    get_layout = keras.distribution.distribution().get_data_layout
    data = keras.tree.map_structure(
        lambda v: jax.device_put(v, get_layout(v.shape).backend_layout),
        (with_nan(x, some_presence(64)), y),
    )
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = tuple([v.value for v in group] for group in groups)
    train = jax.jit(model.train_step).lower(state, data)
    predict = jax.jit(
        lambda state, x: model.stateless_call(*state, x)[0]
    ).lower(state[:2], data[0])
    keras.distribution.set_distribution(None)
    return {
        "train": largest_gather(train.compile().as_text()),
        "predict": largest_gather(predict.compile().as_text()),
    }


MOVES = "all-gather|all-to-all|collective-permute"


def largest_gather(text):
    """Returns the most elements that devices send each other, unsummed."""
    sizes = [0]
    for shapes in re.findall(rf"= (\S.*?) (?:{MOVES})(?:-start)?\(", text):
        sizes += [
            int(np.prod([int(n) for n in shape.split(",") if n]))
            for shape in re.findall(r"\[([\d,]*)\]", shapes)
        ]
    return max(sizes)


CASES = {
    name.removeprefix("case_"): function
    for name, function in dict(globals()).items()
    if name.startswith("case_")
}
CASES |= {
    "ConcatFusion": family("ConcatFusion"),
    "OGMGE": family("OGMGE", True),
    "LateFusion": family("LateFusion", True),
    "MultiLossFusion": family("MultiLossFusion", True),
    "QMF": family("QMF"),
    "MMIN": family("MMIN", True),
    "DCCAE": family("DCCAE", True),
}

if __name__ == "__main__":
    print(json.dumps({name: CASES[name]() for name in sys.argv[1:]}))
