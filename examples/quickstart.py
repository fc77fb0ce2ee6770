"""MLA in one minute: handwritten digits as two modalities.

`image` is the 64 pixels of a digit, `profile` the 16 sums of its rows and
columns. A joint model learns from the image and leaves the profile alone; MLA
trains both. Then a modality is hidden in part of the test set.

    python examples/quickstart.py

`KERAS_BACKEND` chooses tensorflow, jax or torch. Prints two small tables and
saves a figure of the learning curves.
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


class Joint(keras.Model):
    """Concatenated features and one Dense: the usual joint model."""

    def __init__(self, encoders):
        super().__init__(name="joint")
        self.encoders = encoders
        self.head = keras.layers.Dense(10)

    def call(self, inputs):
        """Returns logits, `(batch, 10)`."""
        features = [e(inputs[name]) for name, e in self.encoders.items()]
        return self.head(keras.ops.concatenate(features, axis=-1))

    def unimodal(self, x, name):
        """Scores one modality by its slice of the head."""
        names = list(self.encoders)
        kernel, bias = self.head.get_weights()
        start = WIDTH * names.index(name)
        feature = self.encoders[name].predict(x[name], verbose=0)
        return feature @ kernel[start : start + WIDTH] + bias / len(names)

    def hide(self, x, presence):
        """Fills in what is absent by zeros, as one has to."""
        return {
            name: np.where(presence[:, i, None], value, 0)
            for i, (name, value) in enumerate(x.items())
        }


def train(model, data, test):
    """Trains with a progress bar and returns the history."""
    print(f"\nTraining {model.name}")
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
        callbacks=[UnimodalScores(test)]
        if isinstance(model, Joint)
        else [keras_mla.callbacks.ProjectorTrace()],
        validation_data=test,
    )


class UnimodalScores(keras.callbacks.Callback):
    """Adds each modality's accuracy to the joint model's logs."""

    def __init__(self, test):
        super().__init__()
        self.x, self.y = test

    def on_epoch_end(self, epoch, logs=None):
        """Scores the modalities; a few milliseconds."""
        for name in self.x:
            logits = self.model.unimodal(self.x, name)
            logs[f"val_{name}_accuracy"] = accuracy(logits, self.y)


def accuracy(logits, y):
    """Share of right predictions."""
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
    joint = Joint(make_encoders())
    mla = keras_mla.MLA(make_encoders(), head=10)
    histories = {
        "joint training": train(joint, data, test),
        "MLA": train(mla, data, test),
    }

    scores = mla.evaluate(x, y, verbose=0, return_dict=True)
    print("\nTest accuracy (%)      image   profile   both")
    rows = {
        "joint training": [
            accuracy(joint.unimodal(x, "image"), y),
            accuracy(joint.unimodal(x, "profile"), y),
            accuracy(joint.predict(x, verbose=0), y),
        ],
        "MLA": [
            scores["image_accuracy"],
            scores["profile_accuracy"],
            scores["accuracy"],
        ],
    }
    for title, values in rows.items():
        print(f"{title:20s}" + "".join(f"{100 * v:8.1f}" for v in values))

    print("\nTest accuracy (%) with the image hidden in a part of the samples")
    print("hidden              " + "".join(f"{r:8d}%" for r in (0, 30, 60, 90)))
    rng = np.random.default_rng(FLAGS.seed)
    order = rng.random(len(y))
    kept = {title: [] for title in rows}
    for rate in (0.0, 0.3, 0.6, 0.9):
        presence = np.stack([order >= rate, np.ones(len(y), bool)], axis=1)
        logits = joint.predict(joint.hide(x, presence), verbose=0)
        kept["joint training"].append(accuracy(logits, y))
        logits = mla.predict({**x, "presence": presence}, verbose=0)
        kept["MLA"].append(accuracy(logits, y))
    for title, values in kept.items():
        print(f"{title:20s}" + "".join(f"{100 * v:9.1f}" for v in values))

    draw(histories, FLAGS.figure)
    print(f"\nLearning curves: {FLAGS.figure}")


if __name__ == "__main__":
    app.run(main)
