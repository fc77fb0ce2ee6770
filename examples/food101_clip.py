"""Food-101 on CLIP features: the paper's Table 4, and its Figure 3.

The folder holds UPMC Food-101 in one of the layouts of
`keras_mla.datasets.food101`. CLIP turns pictures and texts into features once,
and the script keeps these under `--output_dir`. `--preset` is the name of a
preset of CLIP, which is downloaded, or a local folder of one. The methods train
on the features:

- "CLIP": a linear classifier for each modality; "all" averages their logits;
- every other method: a Dense layer as each modality's encoder, then the head.

`report.html` is the comparison's report; `clip/` holds the runs of "CLIP".
`gap.png` shows the modality gap of each method of `--gap`: how far apart the
encoders' features of the two modalities lie in the test split.

```shell
KERAS_BACKEND=jax python examples/food101_clip.py --data_dir=UPMC-Food-101 \
    --preset=clip_vit_base_patch32
```

It needs the extras `hub`, `media` and `examples`.
"""

import concurrent.futures
import dataclasses
import functools
import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "experiments"))

import keras  # noqa: E402
import numpy as np  # noqa: E402
import paper_tables  # noqa: E402
import streams  # noqa: E402
from absl import flags  # noqa: E402

import keras_mla  # noqa: E402
from keras_mla import encoders  # noqa: E402
from keras_mla.comparison import Comparison, command, compare  # noqa: E402
from keras_mla.comparison.data import SPLITS  # noqa: E402
from keras_mla.datasets import food101, image  # noqa: E402

MODALITIES = ("image", "text")


class Pictures(keras.utils.PyDataset):
    """Decodes batches of pictures in parallel, as CLIP takes them."""

    def __init__(
        self, samples: list, size: int, batch: int, on_error: str
    ) -> None:
        super().__init__()
        self.samples, self.batch, self.on_error = samples, batch, on_error
        self.settings = dataclasses.replace(image.CLIP, size=size)

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch)

    def __getitem__(self, index: int) -> np.ndarray:
        start = index * self.batch
        batch = self.samples[start : start + self.batch]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(self.read, batch)))

    def read(self, sample: Any) -> np.ndarray:
        """Reads a picture; returns NaN for one that cannot be read."""
        try:
            picture = image.open_image(sample.inputs["image"])
        except ValueError as error:
            if self.on_error == "raise":
                raise ValueError(f"{sample.source}: {error}") from error
            print(f"Skipped: {sample.source}: {error}", flush=True)
            return np.full(self.settings.shape, np.nan, "float32")
        return self.settings.normalize(self.settings.fit(picture))


def features(given: dict[str, Any], output: pathlib.Path) -> dict[str, tuple]:
    """Returns `{split: ({"image", "text"}, label)}`, from disk if there.

    Args:
        given: dict of the flags' values.
        output: Folder of the results.
    """
    folder, preset = given["data_dir"], given["preset"]
    listed: dict[str, Any] = {"validation_share": given["validation_share"]}
    if (pathlib.Path(folder).expanduser() / "dev.jsonl").exists():
        listed = {}
    towers = {
        "image": encoders.clip_image_encoder(preset, trainable=False),
        "text": encoders.clip_text_encoder(preset, trainable=False),
    }
    tokenize = encoders.clip_tokenizer(preset, given["text_length"])
    size = towers["image"].tower.image_shape[0]
    batch, on_error = given["feature_batch"], given["on_error"]
    data = {}
    for split in SPLITS:
        samples = food101.files(folder, split, on_error=on_error, **listed)
        texts = tokenize([s.inputs["text"] for s in samples])["token_ids"]
        pictures = Pictures(samples, size, batch, on_error)
        inputs = {"image": pictures, "text": texts}
        x = {}
        for name in MODALITIES:
            print(f"Features of {split}, {name}", flush=True)
            x[name] = encoders.cache_features(
                towers[name],
                inputs[name],
                output / "features" / f"{split}_{name}",
                batch_size=batch,
                # Another choice of samples is another cache.
                preprocessing=f"{folder} {split} {listed}",
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


def encoder(size: int, width: int | None) -> keras.Model:
    """Returns a Dense layer; none, if there is no width."""
    layers = keras.layers
    last: Any = layers.Identity()
    if width is not None:
        last = layers.Dense(width, activation="relu")
    return keras.Sequential([keras.Input((size,)), last])


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": values}
    text, many = flags.DEFINE_string, flags.DEFINE_list
    number = functools.partial(flags.DEFINE_integer, lower_bound=1, **own)
    text("data_dir", None, "Folder of the data.", **own)
    text("output_dir", "out/food101", "Results and features.", **own)
    names = ["Concat", "Late fusion", "MLA; no projection", "MLA"]
    many("methods", names, "Names, as keras-mla compare takes them.", **own)
    many("learning_rate", ["1e-3"], "Rates to choose from.", **own)
    number("epochs", 20, "Epochs of each run.")
    number("batch_size", 256, "Samples in a batch.")
    number("seeds", 3, "Runs of each method.")
    text("preset", "clip_vit_base_patch32", "CLIP: name or folder.", **own)
    number("text_length", 77, "Tokens of a text.")
    number("feature_batch", 64, "Samples of a pass through CLIP.")
    number("width", 512, "Features of each encoder.")
    share = "Share of train, without a dev."
    flags.DEFINE_float("validation_share", 0.1, share, **own)
    kinds = ["raise", "skip"]
    flags.DEFINE_enum("on_error", "raise", kinds, "For bad files.", **own)
    many("gap", ["Concat", "MLA"], "Methods in the gap's figure.", **own)


def draw_gap(result: Comparison, x: dict, names: list, path: Any) -> None:
    """Prints the modality gap of methods, and draws their features."""
    learned = {}
    for name in names:
        for run in result.runs_of(name)[:1]:
            model = result.model_of(run)
            learned[name] = {
                m: model.encoders[m].predict(x[m], verbose=0)
                for m in MODALITIES
            }
            gap = keras_mla.analysis.modality_gap(learned[name])[MODALITIES]
            print(f"Modality gap of {name}: {gap:.3f}")
    if learned:
        keras_mla.analysis.plot_modality_gap(learned, path)


def run(arguments: list[str]) -> None:
    """Makes the features, trains, prints and saves."""
    values = flags.FlagValues()
    define_flags(values)
    streams.parse(values, "food101_clip.py", arguments)
    given = values.flag_values_dict()
    output = pathlib.Path(given["output_dir"]).expanduser()
    output.mkdir(parents=True, exist_ok=True)
    rates = [float(rate) for rate in given["learning_rate"]]
    methods = [name.replace(";", ",") for name in given["methods"]]
    gap = [name.replace(";", ",") for name in given["gap"]]
    parts = features(given, output)
    x_test = parts["test"][0]
    shared = ("output_dir", "methods", "seeds", "learning_rate")
    data = streams.data(
        "Food-101, CLIP",
        parts,
        MODALITIES,
        food101.class_names(given["data_dir"]),
        streams.facts(values, shared),
    )

    def compared(methods: list[str], width: int | None, **where: Any) -> Any:
        return compare(
            data,
            methods,
            encoders={
                name: functools.partial(encoder, x.shape[1], width)
                for name, x in x_test.items()
            },
            seeds=given["seeds"],
            trials=len(rates),
            epochs=given["epochs"],
            batch_size=given["batch_size"],
            learning_rate=rates,
            weight_decay=[0.0],
            **where,
        )

    linear = compared(["Late fusion"], None, out=output / "clip", report=False)
    result = compared(methods, given["width"], out=output)
    [clip] = paper_tables.accuracies(linear).values()
    found = {"CLIP": clip, **paper_tables.accuracies(result)}
    text = paper_tables.markdown("Food-101, CLIP", found)
    paper_tables.show(output / "table.md", text, found)
    paper_tables.write_csv(output / "table.csv", found)
    paper_tables.tell(result)
    draw_gap(result, x_test, gap, output / "gap.png")


def main(arguments: list[str]) -> int:
    """Runs the script; returns the exit status."""
    return command.status("food101_clip.py", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
