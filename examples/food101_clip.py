"""Food-101 on CLIP features: the paper's Table 4, and its Figure 3.

The folder holds UPMC Food-101 in one of the layouts of
`keras_mla.datasets.food101`. CLIP turns pictures and texts into features once,
and the script keeps these under `--output_dir`. `--preset` is the name of a
preset of CLIP, which is downloaded, or a local folder of one. The methods train
on the features:

- "CLIP": a linear classifier for each modality; "all" averages their logits;
- every other method: a Dense layer as each modality's encoder, then the head.

`gap.png` shows the modality gap of each method of `--gap`: how far apart the
encoders' features of the two modalities lie in the test split.

```shell
KERAS_BACKEND=jax python examples/food101_clip.py --data_dir=UPMC-Food-101 \
    --preset=clip_vit_base_patch32
```
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "experiments"))

import common  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import runs  # noqa: E402
from absl import app, flags  # noqa: E402

import keras_mla  # noqa: E402
from keras_mla import encoders  # noqa: E402
from keras_mla.datasets import food101, image  # noqa: E402

FLAGS = flags.FLAGS
common.define_flags(
    "out/food101", epochs=20, batch_size=256, learning_rate="1e-3"
)
flags.DEFINE_string("preset", "clip_vit_base_patch32", "CLIP: name or folder.")
flags.DEFINE_integer("text_length", 77, "Tokens of a text.")
flags.DEFINE_integer("feature_batch", 64, "Samples of a pass through CLIP.")
flags.DEFINE_integer("width", 512, "Features of each encoder.")
flags.DEFINE_float("validation_share", 0.1, "Share of train, without a dev.")
flags.DEFINE_enum("on_error", "raise", ["raise", "skip"], "For bad files.")
flags.DEFINE_list("gap", ["Concat", "MLA"], "Methods in the gap's figure.")

MODALITIES = ("image", "text")


class Pictures(keras.utils.PyDataset):
    """Decodes batches of pictures in parallel, as CLIP takes them."""

    def __init__(self, samples: list, size: int) -> None:
        super().__init__()
        self.samples = samples
        self.settings = dataclasses.replace(image.CLIP, size=size)

    def __len__(self) -> int:
        return -(-len(self.samples) // FLAGS.feature_batch)

    def __getitem__(self, index: int) -> np.ndarray:
        start = index * FLAGS.feature_batch
        batch = self.samples[start : start + FLAGS.feature_batch]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(self.read, batch)))

    def read(self, sample: Any) -> np.ndarray:
        """Reads a picture; returns NaN for one that cannot be read."""
        try:
            picture = image.open_image(sample.inputs["image"])
        except ValueError as error:
            if FLAGS.on_error == "raise":
                raise ValueError(f"{sample.source}: {error}") from error
            print(f"Skipped: {sample.source}: {error}", flush=True)
            return np.full(self.settings.shape, np.nan, "float32")
        return self.settings.normalize(self.settings.fit(picture))


def features(output: pathlib.Path) -> dict[str, tuple]:
    """Returns `{split: ({"image", "text"}, label)}`, from disk if there."""
    listed: dict[str, Any] = {"validation_share": FLAGS.validation_share}
    if (pathlib.Path(FLAGS.data_dir).expanduser() / "dev.jsonl").exists():
        listed = {}
    towers = {
        "image": encoders.clip_image_encoder(FLAGS.preset, trainable=False),
        "text": encoders.clip_text_encoder(FLAGS.preset, trainable=False),
    }
    tokenize = encoders.clip_tokenizer(FLAGS.preset, FLAGS.text_length)
    size = towers["image"].tower.image_shape[0]
    data = {}
    for split in common.SPLITS:
        samples = food101.files(
            FLAGS.data_dir, split, on_error=FLAGS.on_error, **listed
        )
        texts = tokenize([s.inputs["text"] for s in samples])["token_ids"]
        inputs = {"image": Pictures(samples, size), "text": texts}
        x = {}
        for name in MODALITIES:
            print(f"Features of {split}, {name}", flush=True)
            x[name] = encoders.cache_features(
                towers[name],
                inputs[name],
                output / "features" / f"{split}_{name}",
                batch_size=FLAGS.feature_batch,
                # Another choice of samples is another cache.
                preprocessing=f"{FLAGS.data_dir} {split} {listed}",
            )
        y = np.array([s.label for s in samples], "int32")
        fine = np.isfinite(x["image"]).all(axis=1)
        if not fine.all():
            print(f"{split}: left out {np.sum(~fine)} broken pictures")
        # CLIP's features have no meaningful length. This one gives their
        # numbers a deviation of about 1.
        scaled = {
            name: f[fine] / np.linalg.norm(f[fine], axis=1, keepdims=True)
            for name, f in x.items()
        }
        data[split] = (
            {name: f * f.shape[1] ** 0.5 for name, f in scaled.items()},
            y[fine],
        )
    return data


def make_model(method: str, widths: dict[str, int], classes: int) -> Any:
    """Returns the model of a method, or linear classifiers for `"CLIP"`."""
    layers = keras.layers
    clip = method == "CLIP"
    return common.make_method(
        "Late fusion" if clip else method,
        {
            name: keras.Sequential(
                [
                    keras.Input((width,)),
                    layers.Identity()
                    if clip
                    else layers.Dense(FLAGS.width, activation="relu"),
                ],
                name=f"{name}_encoder",
            )
            for name, width in widths.items()
        },
        classes,
    )


def main(_: Any) -> None:
    """Makes the features, trains, prints and saves."""
    output = common.prepare(free=("gap",))
    data = features(output)
    x_test = data["test"][0]
    classes = len(food101.class_names(FLAGS.data_dir))
    widths = {name: x.shape[1] for name, x in x_test.items()}

    def make(method: str) -> Any:
        return make_model(method, widths, classes)

    methods = ["CLIP", *common.method_names()]
    results = runs.compare(output, methods, make, lambda seed: data)
    values = {
        method: common.accuracies(records, MODALITIES)
        for method, records in results.items()
    }
    common.report(output, values, "Food-101, CLIP")
    learned = {}
    for method in [name for name in FLAGS.gap if name in results]:
        model = make(method)
        model.load_weights(results[method][0]["folder"] / "best.weights.h5")
        learned[method] = {
            name: model.encoders[name].predict(x_test[name], verbose=0)
            for name in MODALITIES
        }
        gap = keras_mla.analysis.modality_gap(learned[method])[MODALITIES]
        print(f"Modality gap of {method}: {gap:.3f}")
    if learned:
        keras_mla.analysis.plot_modality_gap(learned, output / "gap.png")


if __name__ == "__main__":
    app.run(main)
