"""Models and batches for tests of several devices and micro-batches.

The modalities' names are not in alphabetical order.
"""

import keras
import numpy as np

import keras_mla

WIDTHS = {"text": 3, "audio": 5, "image": 8}
CLASSES = 4
# Cases of the loss that are called as its reduction is.
REDUCTIONS = ("sum", "mean_with_sample_weight")


def data(rows=24, seed=0):
    """Returns inputs of random numbers, and labels."""
    rng = np.random.default_rng(seed)
    x = {
        name: rng.normal(size=(rows, width)).astype("float32")
        for name, width in WIDTHS.items()
    }
    return x, rng.integers(0, CLASSES, rows)


def encoder(width, case="plain"):
    """Returns an encoder with a regulariser."""
    of_activity = "l2" if case == "activity" else None
    parts = [
        keras.Input((width,)),
        keras.layers.Dense(7, "relu", kernel_regularizer="l2"),
        keras.layers.Dense(6, activity_regularizer=of_activity),
    ]
    if case == "normalized":
        parts.insert(2, keras.layers.BatchNormalization(synchronized=True))
    return keras.Sequential(parts)


def method(name="MLA", seed=1, optimizer=None, case="plain", **settings):
    """Returns a compiled model of a method, for a case."""
    keras.utils.set_random_seed(seed)
    encoders = {name: encoder(width, case) for name, width in WIDTHS.items()}
    cls = getattr(keras_mla.models, name)
    given = {"feature_dim": 5} if name in ("BiGatedFusion", "MMIN") else {}
    if name == "OGMGE":
        given["noise"] = False
    if name == "AEFusion":  # Else each process hides other values.
        given["targets"] = "hidden"
    model = cls(encoders, CLASSES, **given)
    loss = {"from_logits": True}
    if case in REDUCTIONS:
        loss["reduction"] = case
    if case == "ignored":
        loss["ignore_class"] = -1
    rate = 0.01 if case == "sum" else 0.1
    model.compile(
        optimizer or keras.optimizers.SGD(rate, momentum=0.5),
        keras.losses.SparseCategoricalCrossentropy(**loss),
        metrics=["accuracy"] if case != "ignored" else None,
        weighted_metrics=["accuracy"],
        **settings,
    )
    return model


# One method of each family, and each kind of updates and losses.
METHODS = (
    "MLA",
    "ConcatFusion",
    "LateFusion",
    "MultiLossFusion",
    "OGMGE",
    "MLB",
    "MMPareto",
    "UnimodalEnsemble",
    "AEFusion",
)


def presence(rows, seed=1):
    """Returns a pattern in which each sample has a modality."""
    rng = np.random.default_rng(seed)
    found = rng.uniform(size=(rows, len(WIDTHS))) < 0.6
    found[np.arange(rows), rng.integers(0, len(WIDTHS), rows)] = True
    return found


def batches(case, rows=24):
    """Returns the batches of a case, `(x, y)` or `(x, y, sample_weight)`.

    - `plain`, `weights`, `presence`: three batches of `rows`.
    - `sum`, `mean_with_sample_weight`: as `weights`, with this reduction.
    - `activity`: as `gap`, with a regulariser of the encoders' outputs.
    - `gap`: in the second half of each batch, and so on a device, no sample
      has "text"; in the second batch none has it at all. `turns`: the same in
      each second row, and so in a process.
    - `true`: as `presence`, with the true values of what is absent.
    - `unpaired`: each modality has rows and labels of its own.
    - `uneven`: the last batch has 5 rows fewer.
    - `few`: the last batch has one row.
    - `first`: each batch has an odd number of rows.
    - `ignored`: the loss ignores most labels of the first half of each batch.
    - `normalized`: as `uneven`, for encoders with batch normalization over all
      replicas.
    """
    found = []
    for index in range(3):
        size = rows
        if index == 2:
            shorter = {"uneven": rows - 5, "normalized": rows - 5, "few": 1}
            size = shorter.get(case, rows)
        if case == "first":
            size = rows - 1
        x, y = data(size, seed=index)
        if case in ("presence", "gap", "turns", "true", "activity"):
            there = presence(size, seed=index)
            if case in ("gap", "turns", "activity"):
                lacks = slice(1, None, 2)
                if case != "turns":
                    lacks = slice(size // 2, None)
                there[lacks, 0] = False
                there[:, 0] &= index != 1
                there[:, 1] |= ~there.any(1)
            for column, name in enumerate(WIDTHS if case != "true" else ()):
                x[name][~there[:, column]] = np.nan
            x["presence"] = there
        if case == "ignored":
            y[: size // 2][np.arange(size // 2) % 4 > 0] = -1
        if case == "unpaired":
            y = {name: data(size, seed=9 + i)[1] for i, name in enumerate(x)}
        if case == "weights" or case in REDUCTIONS:
            rng = np.random.default_rng(index)
            found.append((x, y, rng.uniform(size=size).astype("float32")))
        else:
            found.append((x, y))
    return found


class Batches(keras.utils.PyDataset):
    """The batches of a case, as a data set."""

    def __init__(self, case):
        super().__init__()
        self.found = batches(case)

    def __len__(self):
        return len(self.found)

    def __getitem__(self, index):
        return self.found[index]


def state(model, history):
    """Returns weights, P, slots and history, as arrays by name."""
    variables = [*model.variables, *model.optimizer.variables]
    found = {
        str(index): keras.ops.convert_to_numpy(v.value)
        for index, v in enumerate(variables)
        if "seed" not in v.name
    }
    for name, values in history.items():
        found[f"history {name}"] = np.array(values)
    return found


def differences(first, second):
    """Returns the largest difference of two states, by kind.

    That of the history is relative above 1.
    """
    assert set(first) == set(second), set(first) ^ set(second)
    found = {"weights": 0.0, "history": 0.0}
    for name, value in first.items():
        kind = "history" if name.startswith("history") else "weights"
        assert value.shape == second[name].shape, name
        gap = np.abs(value.astype("float64") - second[name])
        if kind == "history":
            gap = gap / np.maximum(1, np.abs(value))
        gap = np.max(gap, initial=0)
        # NaN must not pass.
        found[kind] = max(found[kind], gap if np.isfinite(gap) else np.inf)
    return found
