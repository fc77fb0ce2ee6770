"""The paper's Table 1, for each of its five data sets; Table 3 by a flag.

The folder holds the data set as `keras_mla.datasets.crema_d` (or
`kinetics_sounds`, `food101`, `mvsa`, `iemocap`) describes it. The columns are
the methods of Table 1 and two controls, Multi-loss and Ensemble; the rows are
single modalities and all together. `--ablation` adds the columns of Table 3:
MLA without projection, without dynamic fusion, and without either.

- CREMA-D, Kinetics-Sounds: ResNet-18 from random weights, and SGD whose rate
  falls to a tenth after `--decay_every` epochs. Decoding is cheapest after
  `python -m keras_mla.datasets.prepare`. In the customary split of CREMA-D,
  every actor is in training and in test; `--protocol=actor` keeps actors apart.
- Food-101, MVSA: M3AE encoders. IEMOCAP: CAV-MAE for sound, M3AE for pictures
  and texts. Without further flags, small encoders learn from scratch, with a
  vocabulary made from the training texts. The paper's encoders have base size
  and are pretrained; `python -m keras_mla.encoders.convert` makes them from the
  published checkpoints.

```shell
KERAS_BACKEND=torch python experiments/table1.py --dataset=crema_d \
    --data_dir=CREMA-D --ablation
KERAS_BACKEND=jax python experiments/table1.py --dataset=mvsa \
    --data_dir=MVSA_Single --image_encoder=m3ae_image.keras \
    --text_encoder=m3ae_text.keras --vocabulary=bert-base-uncased/vocab.txt \
    --image_size=256 --text_length=256 --learning_rate=1e-5,1e-4
```

The flags of `keras-mla compare` mean the same here. By default, each method
trains with one setting, its own default; several values of `--learning_rate`
or `--weight_decay` are as many settings, of which validation chooses one.
`--dataset=mvsa --help` lists all flags and the set's defaults. The same command
goes on after a kill. `--out` gets `report.html` and `table1.md`.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import paper_tables  # noqa: E402
import streams  # noqa: E402
import table1_sets as sets  # noqa: E402
from absl import flags  # noqa: E402

from keras_mla.comparison import command, compare  # noqa: E402

METHODS = (
    "Sum",
    "Concat",
    "Late fusion",
    "FiLM",
    "BiGated",
    "OGM-GE",
    "QMF",
    "MLA",
    "Multi-loss",
    "Ensemble",
)
# Columns of Table 3 beside MLA's.
ABLATION = ("MLA, neither", "MLA, no projection", "MLA, average")


def define_dataset() -> flags.FlagValues:
    """Returns flags with `--dataset`, on which the others depend."""
    values = flags.FlagValues()
    flags.DEFINE_enum(
        "dataset", None, list(sets.SETS), "Which data set.", flag_values=values
    )
    return values


def define_flags(values: flags.FlagValues, name: str) -> list[str]:
    """Defines the flags for a data set; returns those of every comparison."""
    chosen = sets.SETS[name]
    streams.define_flags(values)
    chosen.define(values)
    flags.DEFINE_boolean(
        "ablation", False, "Add the columns of Table 3.", flag_values=values
    )
    defaults = {"methods": list(METHODS), "trials": None, "out": f"out/{name}"}
    return command.define_flags(values, **{**defaults, **chosen.defaults})


def run(arguments: list[str]) -> None:
    """Trains, prints and saves."""
    values = define_dataset()
    values(["table1.py", *arguments], known_only=True)
    name = values["dataset"].value
    if name is None:
        command.parse(
            values, "table1.py", [a for a in arguments if "help" in a]
        )
        raise command.UsageError(
            f"Say which data set: --dataset={'|'.join(sets.SETS)}."
        )
    values = define_dataset()
    shared = define_flags(values, name)
    streams.parse(values, "table1.py", arguments)
    given = command.arguments(values)
    if values["ablation"].value:
        given["methods"] += ABLATION
    chosen, output = sets.SETS[name], pathlib.Path(given["out"]).expanduser()
    samples = chosen.samples(values)
    inputs = chosen.inputs(values, output, samples["train"])
    data = streams.streamed(
        chosen.title,
        streams.readable(samples, inputs.readers, values),
        inputs.readers,
        chosen.classes(values),
        values,
        streams.facts(values, shared),
    )
    result = compare(
        data,
        encoders=inputs.encoders,
        **{**given, **inputs.compare, "out": output},
    )
    found = paper_tables.accuracies(result)
    table = {m: parts for m, parts in found.items() if m not in ABLATION}
    paper = {m: found[m] for m in (*ABLATION, "MLA") if m in found}
    for number, columns in ((1, table), (3, paper)):
        if columns and (number == 1 or values["ablation"].value):
            text = paper_tables.markdown(chosen.title, columns, transposed=True)
            paper_tables.show(output / f"table{number}.md", text, columns)
    paper_tables.tell(result)


def main(arguments: list[str]) -> int:
    """Runs the script; returns the exit status."""
    return command.status("table1.py", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
