"""IEMOCAP with missing modalities (paper, Table 2).

The folder holds the official release, see `keras_mla.datasets.iemocap`. At
each rate of `--missing`, a share of all sounds, pictures and texts is missing
from training, validation and test alike, the same for all methods and seeds:

- `--draw=keep_one`: every sample keeps at least one modality, so that the
  highest rate is two thirds;
- `--draw=independent`: each modality is missing with the same probability, as
  the paper's text says; samples without any modality are guessed.

The methods are those of the paper's Table 2, and controls beside them.
`--chosen_at=0.4` tries settings at that rate alone; `--once` also trains one
model of each method for all rates.

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

Each rate is a comparison of its own, with its report, in a folder of `--out`;
`missing.md`, `missing.csv` and `missing.svg` are over all rates. The same
command goes on after a kill. The flags of `keras-mla compare` mean the same
here, as `table1.py` says.
"""

import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import streams  # noqa: E402
import table1_sets as sets  # noqa: E402
from absl import flags  # noqa: E402

from keras_mla.comparison import command, compare_rates  # noqa: E402

SET = sets.SETS["iemocap"]


def define_flags(values: flags.FlagValues) -> list[str]:
    """Defines the flags; returns those that every comparison has."""
    streams.define_flags(values)
    SET.define(values)
    command.define_missing_flags(values, [f"0.{i}" for i in range(1, 8)])
    defaults = {"methods": ["missing"], "trials": None}
    defaults["out"] = "out/iemocap_missing"
    return command.define_flags(values, **{**defaults, **SET.defaults})


def run(arguments: list[str]) -> None:
    """Trains at each rate, prints and saves."""
    values = flags.FlagValues()
    shared = define_flags(values)
    streams.parse(values, "iemocap_missing.py", arguments)
    given = command.arguments(values)
    missing = command.missing_arguments(values)
    output = pathlib.Path(given.pop("out")).expanduser()
    samples: Any = SET.samples(values)
    inputs = SET.inputs(values, output, samples["train"])
    data = streams.streamed(
        SET.title,
        streams.readable(samples, inputs.readers, values),
        inputs.readers,
        SET.classes(values),
        values,
        streams.facts(values, shared),
    )
    found = compare_rates(
        data, encoders=inputs.encoders, out=output, **missing, **given
    )
    command.tell_rates(found)


def main(arguments: list[str]) -> int:
    """Runs the script; returns the exit status."""
    return command.status("iemocap_missing.py", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
