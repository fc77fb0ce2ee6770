"""IEMOCAP with missing modalities (paper, Table 2).

The folder holds the official release, see `keras_mla.datasets.iemocap`. At
each missing rate, a share of all sounds, pictures and texts is missing from
training, validation and test alike, drawn anew for each seed:

- `--missing=keep_one`: every sample keeps at least one modality, so that the
  highest rate is two thirds;
- `--missing=independent`: each modality is missing with the same probability,
  as in the paper; samples without any modality are guessed.

Without further flags, small encoders learn from scratch. The paper's encoders
are pretrained, CAV-MAE for sound and M3AE for the others;
`python -m keras_mla.encoders.convert` makes them:

```shell
KERAS_BACKEND=jax python experiments/iemocap_missing.py \
    --data_dir=IEMOCAP_full_release --audio_encoder=cavmae_audio.keras \
    --image_encoder=m3ae_image.keras --text_encoder=m3ae_text.keras \
    --vocabulary=bert-base-uncased/vocab.txt --image_size=256 \
    --text_length=256 --audio_frames=1024 --mels=128 --learning_rate=1e-5
```
"""

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import common  # noqa: E402
import keras  # noqa: E402
import m3ae  # noqa: E402
import runs  # noqa: E402
from absl import app, flags  # noqa: E402

import keras_mla  # noqa: E402
from keras_mla.datasets import audio, iemocap, missing, pipeline  # noqa: E402

FLAGS = flags.FLAGS
MODALITIES = ("audio", "image", "text")
common.define_flags(
    "out/iemocap", epochs=30, batch_size=32, learning_rate="3e-4"
)
common.define_stream_flags()
m3ae.define_flags(MODALITIES)
flags.DEFINE_list(
    "rates", [f"0.{i}" for i in range(1, 8)], "Missing rates to try."
)
flags.DEFINE_enum(
    "missing",
    "keep_one",
    ["keep_one", "independent"],
    "Whether a sample keeps at least one modality.",
)
flags.DEFINE_enum("protocol", "random", ["random", "session"], "The split.")
flags.DEFINE_integer("classes", 4, "Number of emotions, 4 or 6.")
flags.DEFINE_integer("audio_frames", 512, "Length in steps of 10 ms.")
flags.DEFINE_integer("mels", 64, "Height of a spectrogram.")
flags.DEFINE_float("weight_decay", 0.05, "Weight decay of AdamW.")


def presence(samples: dict[str, list], rate: float, seed: int) -> dict:
    """Draws which modalities the samples of each split have."""
    return {
        split: missing.missing_presence(
            len(part),
            MODALITIES,
            rate,
            seed=3 * seed + index,
            keep_one=FLAGS.missing == "keep_one",
        )
        for index, (split, part) in enumerate(samples.items())
    }


def draw(path: Any, values: dict[str, dict[str, list[float]]]) -> None:
    """Draws accuracy over the missing rate, a line for each method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for method, parts in values.items():
        pairs = [common.tables.mean_and_deviation(v) for v in parts.values()]
        means, errors = zip(*pairs, strict=True)
        axes.errorbar(list(parts), means, errors, label=method, capsize=2)
    axes.set_xlabel("Missing rate")
    axes.set_ylabel("Test accuracy")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main(_: Any) -> None:
    """Trains at each rate, prints and saves."""
    output = common.prepare(free=("rates",))
    share = 0.1 if FLAGS.protocol == "session" else 0.0
    samples = {
        split: iemocap.files(
            FLAGS.data_dir,
            split,
            classes=FLAGS.classes,
            protocol=FLAGS.protocol,
            validation_share=share,
            on_error=FLAGS.on_error,
        )
        for split in common.SPLITS
    }
    words = m3ae.vocabulary(output, samples["train"])
    fbank = audio.Fbank(frames=FLAGS.audio_frames, mels=FLAGS.mels)
    readers = {
        "audio": pipeline.audio_reader(fbank),
        "image": pipeline.video_reader(m3ae.image_settings(), None, "image"),
        "text": m3ae.text_reader(words),
    }
    cavmae = keras_mla.encoders.CAVMAE

    def model(method: str) -> Any:
        sound = m3ae.encoder("audio", cavmae, input_shape=fbank.shape)
        encoders = {"audio": sound, **m3ae.image_and_text(words)}
        return common.make_method(method, encoders, FLAGS.classes)

    values: dict[str, dict[str, list[float]]] = {}
    for rate in map(float, FLAGS.rates):

        def data(seed: int, rate: float = rate) -> dict[str, Any]:
            drawn = presence(samples, rate, seed)
            return common.streams(samples, readers, seed, drawn)

        results = runs.compare(
            output / f"missing-{rate:g}",
            common.method_names(),
            model,
            data,
            lambda rate: keras.optimizers.AdamW(
                rate, weight_decay=FLAGS.weight_decay
            ),
        )
        for method, records in results.items():
            column = common.accuracies(records, MODALITIES)["all"]
            values.setdefault(method, {})[f"{100 * rate:g} %"] = column
    common.report(output, values, "IEMOCAP, missing rate")
    draw(output / "rates.png", values)


if __name__ == "__main__":
    app.run(main)
