"""IEMOCAP with missing modalities (paper, Table 2).

The folder holds the official release, see `keras_mla.datasets.iemocap`. At
each missing rate, a share of all sounds, pictures and texts is missing from
training, validation and test alike, the same for all methods and seeds:

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

Each rate is a comparison of its own, with its report, in a folder of `--out`.
The same command goes on after a kill. The flags of `keras-mla compare` mean the
same here, as `table1.py` says.
"""

import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import paper_tables  # noqa: E402
import streams  # noqa: E402
import table1_sets as sets  # noqa: E402
from absl import flags  # noqa: E402

from keras_mla.comparison import command, compare  # noqa: E402
from keras_mla.datasets import missing  # noqa: E402

METHODS = ("Concat", "Late fusion", "MLA; no projection", "MLA")
SET = sets.SETS["iemocap"]


def define_flags(values: flags.FlagValues) -> list[str]:
    """Defines the flags; returns those that every comparison has."""
    own: dict[str, Any] = {"flag_values": values}
    streams.define_flags(values)
    SET.define(values)
    rates = [f"0.{i}" for i in range(1, 8)]
    flags.DEFINE_list("rates", rates, "Missing rates to try.", **own)
    flags.DEFINE_enum(
        "missing",
        "keep_one",
        ["keep_one", "independent"],
        "Whether a sample keeps at least one modality.",
        **own,
    )
    defaults = {"methods": list(METHODS), "trials": None}
    defaults["out"] = "out/iemocap_missing"
    return command.define_flags(values, **{**defaults, **SET.defaults})


def rates_of(values: flags.FlagValues) -> list[float]:
    """Returns the missing rates.

    Raises:
        ValueError: If one is no number.
    """
    given = values["rates"].value
    try:
        return [float(rate) for rate in given]
    except ValueError:
        raise command.UsageError(
            f"--rates takes numbers. Received: {','.join(given)}"
        ) from None


def draw(path: pathlib.Path, values: paper_tables.Values) -> None:
    """Draws accuracy over the missing rate, a line for each method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for method, parts in values.items():
        pairs = [paper_tables.mean_and_deviation(v) for v in parts.values()]
        means, errors = zip(*pairs, strict=True)
        axes.errorbar(list(parts), means, errors, label=method, capsize=2)
    axes.set_xlabel("Missing rate")
    axes.set_ylabel("Test accuracy")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def run(arguments: list[str]) -> None:
    """Trains at each rate, prints and saves."""
    values = flags.FlagValues()
    shared = define_flags(values)
    streams.parse(values, "iemocap_missing.py", arguments)
    given, rates = command.arguments(values), rates_of(values)
    output = pathlib.Path(given.pop("out")).expanduser()
    samples: Any = SET.samples(values)
    inputs = SET.inputs(values, output, samples["train"])
    samples = streams.readable(samples, inputs.readers, values)
    found: dict[str, dict[str, list[float]]] = {}
    for rate in rates:
        presence = {
            split: missing.missing_presence(
                len(part),
                tuple(inputs.readers),
                rate,
                seed=index,
                keep_one=values["missing"].value == "keep_one",
            )
            for index, (split, part) in enumerate(samples.items())
        }
        data = streams.streamed(
            f"{SET.title}, {100 * rate:g} % missing",
            samples,
            inputs.readers,
            SET.classes(values),
            values,
            {**streams.facts(values, shared), "rate": rate},
            presence,
        )
        result = compare(
            data,
            encoders=inputs.encoders,
            out=output / f"missing-{rate:g}",
            **given,
        )
        for method, parts in paper_tables.accuracies(result).items():
            found.setdefault(method, {})[f"{100 * rate:g} %"] = parts["all"]
        paper_tables.tell(result)
    text = paper_tables.markdown("IEMOCAP, missing rate", found)
    paper_tables.show(output / "table2.md", text, found)
    draw(output / "rates.png", found)


def main(arguments: list[str]) -> int:
    """Runs the script; returns the exit status."""
    return command.status("iemocap_missing.py", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
