"""MLA in one minute: handwritten digits as two modalities.

`image` is the 64 pixels of a digit, `profile` the 16 sums of its rows and
columns. A joint model learns from the image and neglects the profile; MLA
trains both. The test then hides the image in a part of the samples.

    python examples/quickstart.py

The script prints two small tables and saves a figure of the learning curves.
`KERAS_BACKEND` chooses tensorflow, jax or torch.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from absl import app, flags, logging
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_mla

FLAGS = flags.FLAGS
flags.DEFINE_integer("epochs", 30, "Epochs of each method.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the split and of training.")
flags.DEFINE_string("figure", "quickstart.png", "Where to save the figure.")

WIDTH = 64


def load_data(seed):
    """Returns train and test data as `(x, y)`, x keyed by modality."""
    digits = load_digits()
    pixels = digits.images.astype("float32") / 16
    profile = np.concatenate([pixels.sum(1), pixels.sum(2)], axis=1) / 8
    x = {"image": pixels.reshape(len(pixels), 64), "profile": profile}
    train, test = train_test_split(
        np.arange(len(pixels)),
        test_size=0.3,
        random_state=seed,
        stratify=digits.target,
    )
    return [
        ({name: v[rows] for name, v in x.items()}, digits.target[rows])
        for rows in (train, test)
    ]


def make_encoders():
    """Returns one small encoder per modality."""
    return {
        name: keras.Sequential(
            [keras.Input((size,)), keras.layers.Dense(WIDTH, "relu")],
            name=f"{name}_encoder",
        )
        for name, size in (("image", 64), ("profile", 16))
    }


def train(model, data, test):
    """Trains with a progress bar and returns the history."""
    print(f"\nTraining {type(model).__name__}")
    model.compile(
        optimizer=keras.optimizers.Adam(0.003),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model.fit(
        *data,
        batch_size=64,
        epochs=FLAGS.epochs,
        verbose=1,
        validation_data=test,
    )


def accuracy(logits, y):
    """Returns the share of right predictions."""
    return float((np.asarray(logits).argmax(1) == y).mean())


def draw(histories, path):
    """Draws test accuracy by epoch, a panel per method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (title, history) in zip(panels, histories.items(), strict=True):
        for label, key in (
            ("image", "val_image_accuracy"),
            ("profile", "val_profile_accuracy"),
            ("both", "val_accuracy"),
        ):
            values = 100 * np.array(history.history[key])
            panel.plot(range(1, len(values) + 1), values, label=label)
        panel.set(title=title, xlabel="epoch")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test accuracy (%)")
    panels[1].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


def main(_):
    """Trains both methods and prints what each modality has learned."""
    logging.set_verbosity(logging.WARNING)
    keras.utils.set_random_seed(FLAGS.seed)
    data, test = load_data(FLAGS.seed)
    x, y = test
    models = {
        "joint training": keras_mla.models.ConcatFusion(
            make_encoders(), head=10
        ),
        "MLA": keras_mla.MLA(make_encoders(), head=10),
    }
    histories = {
        title: train(model, data, test) for title, model in models.items()
    }

    print("\nTest accuracy (%)      image   profile   both")
    for title, model in models.items():
        scores = model.evaluate(x, y, verbose=0, return_dict=True)
        names = ("image_accuracy", "profile_accuracy", "accuracy")
        values = [100 * scores[name] for name in names]
        print(f"{title:20s}" + "".join(f"{value:8.1f}" for value in values))

    print("\nTest accuracy (%) with the image hidden in a part of the samples")
    rates = (0, 30, 60, 90)
    print("hidden              " + "".join(f"{rate:8d}%" for rate in rates))
    order = np.random.default_rng(FLAGS.seed).random(len(y))
    for title, model in models.items():
        values = []
        for rate in rates:
            seen = order >= rate / 100
            presence = np.stack([seen, np.ones(len(y), bool)], axis=1)
            logits = model.predict({**x, "presence": presence}, verbose=0)
            values.append(100 * accuracy(logits, y))
        print(f"{title:20s}" + "".join(f"{value:9.1f}" for value in values))

    draw(histories, FLAGS.figure)
    print(f"\nLearning curves: {FLAGS.figure}")


if __name__ == "__main__":
    app.run(main)
