"""Predict any number of labels for a sample: the loss tells the task.

Made-up documents have several topics. Their words are split into a title and a
body, two modalities.

    python examples/multi_label.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from sklearn.datasets import make_multilabel_classification

import keras_mla

keras.utils.set_random_seed(0)


def encoder(size):
    """Returns an encoder of one layer."""
    return keras.Sequential(
        [keras.Input((size,)), keras.layers.Dense(32, "relu")]
    )


words, topics = make_multilabel_classification(
    3000, n_features=40, n_classes=6, n_labels=3, random_state=0
)
words, topics = words.astype("float32"), topics.astype("float32")
x = {"title": words[:, :10], "body": words[:, 10:]}
train, test = slice(0, 2000), slice(2000, 3000)

model = keras_mla.MLA({"title": encoder(10), "body": encoder(30)}, head=6)
model.compile(
    optimizer=keras.optimizers.Adam(0.003),
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    # "accuracy" counts logits above 0.
    metrics=["accuracy", keras.metrics.AUC(from_logits=True, name="auc")],
)
model.fit(
    {name: v[train] for name, v in x.items()},
    topics[train],
    batch_size=64,
    epochs=15,
    verbose=0,
)
scores = model.evaluate(
    {name: v[test] for name, v in x.items()},
    topics[test],
    verbose=0,
    return_dict=True,
)
for name in ("title_", "body_", ""):
    print(
        f"{name.rstrip('_') or 'both':6s} "
        f"accuracy {100 * scores[f'{name}accuracy']:5.1f} %, "
        f"AUC {scores[f'{name}auc']:.3f}"
    )
