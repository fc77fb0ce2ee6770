"""Predict a number: the loss tells the task.

Ten values of each patient, in two modalities: what the body shows and what the
blood shows. The target is how far the disease went within a year. After
`calibrate` each modality is weighed by its inverse variance.

    python examples/regression.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

import keras_mla

keras.utils.set_random_seed(0)


def encoder(size):
    """Returns an encoder of one layer."""
    return keras.Sequential(
        [keras.Input((size,)), keras.layers.Dense(32, "relu")]
    )


data = load_diabetes()
values = (data.data / data.data.std(axis=0)).astype("float32")
target = (data.target - data.target.mean()) / data.target.std()
target = target[:, None].astype("float32")
x = {"body": values[:, :4], "blood": values[:, 4:]}
rows, test = train_test_split(np.arange(len(target)), random_state=0)
train, validation = train_test_split(rows, random_state=0)


def part(rows):
    """Returns inputs and targets of some patients."""
    return {name: v[rows] for name, v in x.items()}, target[rows]


model = keras_mla.MLA(
    {"body": encoder(4), "blood": encoder(6)},
    head=keras.layers.Dense(1),
    task="regression",
)
model.compile(
    optimizer=keras.optimizers.Adam(0.003),
    loss=keras.losses.MeanSquaredError(),
    metrics=[keras.metrics.R2Score(name="r2")],
)
model.fit(*part(train), batch_size=32, epochs=30, verbose=0)
for title in ("average", "inverse variances"):
    scores = model.evaluate(*part(test), verbose=0, return_dict=True)
    print(
        f"{title:18s} R2: body {scores['body_r2']:.2f}, "
        f"blood {scores['blood_r2']:.2f}, both {scores['r2']:.2f}"
    )
    model.calibrate(part(validation))
