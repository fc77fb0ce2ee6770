"""CREMA-D or Kinetics-Sounds with ResNet-18 (paper, Table 1).

The folder holds the data set as `keras_mla.datasets.crema_d` or
`keras_mla.datasets.kinetics_sounds` describes it. Decoding is cheapest after
`python -m keras_mla.datasets.prepare`. Both encoders start from random weights.
Neither data set publishes a validation split, so a share of the training list
serves as one. In the customary split of CREMA-D, every actor is in training and
in test; `--protocol=actor` keeps actors apart.

```shell
KERAS_BACKEND=torch python experiments/crema_d_resnet18.py --data_dir=CREMA-D
KERAS_BACKEND=torch python experiments/crema_d_resnet18.py --data_dir=KS \
    --dataset=kinetics_sounds --output_dir=out/kinetics_sounds
```
"""

import dataclasses
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import common  # noqa: E402
import keras  # noqa: E402
import runs  # noqa: E402
from absl import app, flags  # noqa: E402

from keras_mla import encoders  # noqa: E402
from keras_mla.datasets import (  # noqa: E402
    audio,
    crema_d,
    image,
    kinetics_sounds,
    pipeline,
)

FLAGS = flags.FLAGS
common.define_flags(
    "out/crema_d", epochs=100, batch_size=64, learning_rate="1e-3"
)
common.define_stream_flags()
SETS = {"crema_d": crema_d, "kinetics_sounds": kinetics_sounds}
flags.DEFINE_enum("dataset", "crema_d", list(SETS), "Which data set.")
flags.DEFINE_enum("protocol", "list", ["list", "actor"], "CREMA-D's split.")
flags.DEFINE_float("validation_share", 0.1, "Share of the training list.")
flags.DEFINE_integer("frames", 3, "Frames of a clip.")
flags.DEFINE_integer("image_size", 224, "Height and width of a frame.")
flags.DEFINE_integer("audio_frames", 1024, "Length in steps of 10 ms.")
flags.DEFINE_integer("mels", 128, "Height of a spectrogram.")
flags.DEFINE_float("momentum", 0.9, "Momentum of SGD.")
flags.DEFINE_float("weight_decay", 1e-4, "Weight decay of SGD.")
flags.DEFINE_integer("decay_every", 70, "Epochs until a tenth of the rate.")

MODALITIES = ("audio", "video")


def decayed(epoch: int, rate: float) -> float:
    """Returns the rate of an epoch, given the rate of the epoch before."""
    steps = epoch > 0 and epoch % FLAGS.decay_every == 0
    return rate * 0.1 if steps else rate


def main(_: Any) -> None:
    """Trains, prints and saves."""
    output = common.prepare()
    chosen: Any = SETS[FLAGS.dataset]
    kinetics = FLAGS.dataset == "kinetics_sounds"
    mean, std = audio.KINETICS_SOUNDS if kinetics else audio.AUDIOSET
    fbank = audio.Fbank(
        frames=FLAGS.audio_frames, mels=FLAGS.mels, mean=mean, std=std
    )
    frames = dataclasses.replace(image.RESNET, size=FLAGS.image_size)
    options: dict[str, Any] = {"validation_share": FLAGS.validation_share}
    if kinetics:
        names = kinetics_sounds.class_names(FLAGS.data_dir)
    else:
        names = crema_d.class_names
        options["protocol"] = FLAGS.protocol
    samples = {
        split: chosen.files(
            FLAGS.data_dir, split, on_error=FLAGS.on_error, **options
        )
        for split in common.SPLITS
    }
    readers = {
        "audio": pipeline.audio_reader(fbank),
        "video": pipeline.video_reader(frames, FLAGS.frames),
    }

    def model(method: str) -> Any:
        shape = (FLAGS.frames, *frames.shape)
        return common.make_method(
            method,
            {
                "audio": encoders.audio_resnet18(fbank.shape),
                "video": encoders.video_resnet18(shape),
            },
            len(names),
        )

    results = runs.compare(
        output,
        common.method_names(),
        model,
        lambda seed: common.streams(samples, readers, seed),
        lambda rate: keras.optimizers.SGD(
            rate, FLAGS.momentum, weight_decay=FLAGS.weight_decay
        ),
        [keras.callbacks.LearningRateScheduler(decayed)],
    )
    values = {
        method: common.accuracies(records, MODALITIES)
        for method, records in results.items()
    }
    # The paper's Table 1 has methods side by side.
    common.report(output, values, FLAGS.dataset, transposed=True)


if __name__ == "__main__":
    app.run(main)
