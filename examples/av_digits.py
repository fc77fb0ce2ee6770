"""Spoken and written digits: what MLA does when one modality is much easier.

The folder holds `recordings/{digit}_{speaker}_{index}.wav`, as the Free Spoken
Digit Dataset publishes them, and `mnist_10k.npz` with `image` (n, 28, 28)
uint8 and `label` (n,). Each recording is paired with a picture of the same
digit; no picture is in two splits.

- `--pairing=official`: the recordings with index 0-4 are the test set, a tenth
  of the others validation.
- `--pairing=speaker`: trained on some speakers and tested on others. Sound is
  then the weak modality.

Trained are MLA, MLA without projection ("alternation"), and concatenated
features jointly. Which epoch counts is chosen on validation data.

```shell
KERAS_BACKEND=torch python examples/av_digits.py --data_dir=av_digits
```
"""

import csv
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

import keras_mla  # noqa: E402
from keras_mla.datasets import audio  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder of the data.", required=True)
flags.DEFINE_string("output_dir", "out/av_digits", "Results, checkpoints.")
flags.DEFINE_enum("pairing", "speaker", ["speaker", "official"], "The split.")
flags.DEFINE_integer("epochs", 20, "Epochs of each run.")
flags.DEFINE_integer("batch_size", 64, "Samples in a batch.")
flags.DEFINE_float("learning_rate", 1e-3, "Of Adam.")
flags.DEFINE_integer("seeds", 3, "Runs of each method.")

KEYS = ("audio_accuracy", "image_accuracy", "accuracy")
METHODS = ("concatenation", "alternation", "mla")
SPEAKERS = {"validation": ["nicolas"], "test": ["theo", "yweweler"]}
SPEAKERS = {"train": ["george", "jackson", "lucas"], **SPEAKERS}
FBANK = audio.Fbank(rate=8000, frames=64, mels=40, mean=-8.0, std=3.0)
SHAPES = {"audio": FBANK.shape, "image": (28, 28, 1)}


def read(folder):
    """Returns spectrograms, digits, speakers and indices of all recordings."""
    sounds, rows = [], []
    files = sorted((folder / "recordings").glob("*_*_*.wav"))
    bar = keras.utils.Progbar(len(files), unit_name="recording")
    for path in files:
        digit, speaker, index = path.stem.split("_")
        wave = audio.decode(path, FBANK.rate, seconds=FBANK.seconds)
        sounds.append(np.asarray(FBANK(wave)))
        rows.append((int(digit), speaker, int(index)))
        bar.add(1)
    digits, speakers, indices = map(np.array, zip(*rows, strict=True))
    return np.stack(sounds), digits, speakers, indices


def split(digits, speakers, indices):
    """Returns the rows of each split."""
    if FLAGS.pairing == "speaker":
        rows = {k: np.isin(speakers, who) for k, who in SPEAKERS.items()}
        return {name: np.flatnonzero(row) for name, row in rows.items()}
    rest = np.random.default_rng(0).permutation(np.flatnonzero(indices >= 5))
    held, kept = np.split(rest, [len(rest) // 10])
    test = np.flatnonzero(indices < 5)
    return {"train": kept, "validation": held, "test": test}


def load(folder, cache):
    """Returns `{split: ({"audio", "image"}, label)}`."""
    if not cache.exists():  # Written under its name only when it is whole.
        part = cache.with_suffix(".partial.npz")
        np.savez(part, *read(folder))
        part.replace(cache)
    with np.load(cache, allow_pickle=False) as file:
        sounds, digits, speakers, indices = (file[k] for k in file.files)
    with np.load(folder / "mnist_10k.npz", allow_pickle=False) as file:
        images, labels = file["image"], file["label"]
    rows = split(digits, speakers, indices)
    # Pictures are dealt out to the splits before they are drawn from.
    rng = np.random.default_rng(0)
    pool = np.array_split(rng.permutation(len(images)), len(rows))
    data = {}
    for (name, chosen), mine in zip(rows.items(), pool, strict=True):
        y = digits[chosen]
        pictures = np.zeros(len(y), int)
        for digit in np.unique(y):
            same = mine[labels[mine] == digit]
            where = np.flatnonzero(y == digit)
            pictures[where] = np.resize(rng.permutation(same), len(where))
        image = images[pictures][..., None].astype("float32") / 255
        data[name] = ({"audio": sounds[chosen], "image": image}, y)
    return data


def encoder(shape, name):
    """Returns a small convolutional encoder with 64 features."""
    layers = keras.layers
    blocks = [keras.Input(shape)]
    for width in (16, 32):
        blocks += [layers.Conv2D(width, 3, padding="same", activation="relu")]
        blocks += [layers.MaxPooling2D()]
    blocks += [layers.Flatten(), layers.Dense(64, activation="relu")]
    return keras.Sequential(blocks, name=name)


def build(method):
    """Returns a compiled model."""
    encoders = {m: encoder(s, f"{m}_encoder") for m, s in SHAPES.items()}
    if method == "concatenation":
        inputs = {m: keras.Input(s, name=m) for m, s in SHAPES.items()}
        features = [e(inputs[m]) for m, e in encoders.items()]
        joined = keras.layers.Concatenate()(features)
        model = keras.Model(inputs, keras.layers.Dense(10)(joined))
    else:
        projector = "auto" if method == "mla" else None
        model = keras_mla.MLA(encoders, head=10, projector=projector)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(FLAGS.learning_rate)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def train(method, seed, data, folder):
    """Trains one model, or goes on with it, and returns its test scores."""
    result = folder / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    seeds = keras_mla.callbacks.EpochSeed(seed)
    model = build(method)
    best, log = str(folder / "best.weights.h5"), folder / "log.csv"
    backup = str(folder / "backup")
    # What a run that was killed had reached.
    rows = list(csv.DictReader(log.open())) if log.exists() else []
    reached = max((float(row["val_accuracy"]) for row in rows), default=-1.0)
    keep = {"save_best_only": True, "save_weights_only": True, "mode": "max"}
    callbacks = [
        seeds,
        keras.callbacks.BackupAndRestore(backup, double_checkpoint=True),
        keras.callbacks.CSVLogger(str(log), append=True),
        keras.callbacks.ModelCheckpoint(
            best, "val_accuracy", initial_value_threshold=reached, **keep
        ),
    ]
    model.fit(
        *data["train"],
        validation_data=data["validation"],
        epochs=FLAGS.epochs,
        batch_size=FLAGS.batch_size,
        callbacks=callbacks,
        verbose=2,
    )
    model.load_weights(best)
    scores = model.evaluate(*data["test"], return_dict=True, verbose=0)
    scores = {k: v for k, v in scores.items() if k.endswith("accuracy")}
    result.write_text(json.dumps(scores))
    return scores


def main(_):
    """Trains every method with every seed; prints and saves the table."""
    output = pathlib.Path(FLAGS.output_dir) / FLAGS.pairing
    output.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(FLAGS.data_dir).expanduser()
    data = load(folder, output / "spectrograms.npz")
    lines = ["method | audio | image | both", "--- | --- | --- | ---"]
    for method in METHODS:
        runs = []
        for seed in range(FLAGS.seeds):
            print(f"{method}, seed {seed}", flush=True)
            runs.append(train(method, seed, data, output / f"{method}{seed}"))
        values = 100 * np.array(
            [[r.get(k, np.nan) for k in KEYS] for r in runs]
        )
        pairs = zip(values.mean(axis=0), values.std(axis=0), strict=True)
        cells = [f"{mean:.2f} ± {std:.2f}" for mean, std in pairs]
        lines.append(" | ".join([method, *cells]).replace("nan ± nan", "-"))
    print("\n".join(lines))
    (output / "table.md").write_text("\n".join(lines) + "\n")
    rows = list(csv.DictReader((output / "mla0" / "log.csv").open()))
    history = {key: [float(row[key]) for row in rows] for key in rows[0]}
    keras_mla.analysis.plot_history(
        history, ("audio", "image"), path=output / "mla.png"
    )


if __name__ == "__main__":
    app.run(main)
