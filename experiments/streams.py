"""What the scripts have in common: flags, and data as a comparison takes them.

Each script defines its flags in a `FlagValues` of its own.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from keras_mla.comparison import Data, command
from keras_mla.comparison.data import SPLITS, Fold, Part, described
from keras_mla.datasets import pipeline
from keras_mla.datasets.listing import Sample

# Flags that do not change the outcome of a run.
FREE = (
    "help",
    "cache_dir",
    "on_error",
    "ablation",
    "missing",
    "draw",
    "chosen_at",
    "once",
    "gap",
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of scripts that read files while they train."""
    text = functools.partial(flags.DEFINE_string, flag_values=values)
    text("data_dir", None, "Folder of the data.")
    text("cache_dir", None, "Folder for decoded files.")
    flags.DEFINE_enum(
        "on_error",
        "raise",
        ["raise", "skip"],
        "What to do with bad files. 'skip' looks for them before training.",
        flag_values=values,
    )


def parse(values: flags.FlagValues, name: str, arguments: list[str]) -> None:
    """Parses the flags of a script.

    Raises:
        ValueError: If there is no such flag, or `--data_dir` lacks.
    """
    left = command.parse(values, name, arguments)
    if left:
        raise command.UsageError(f"{left[0]!r} is no flag.")
    if not values["data_dir"].value:
        raise command.UsageError("Say where the data are: --data_dir.")


def facts(
    values: flags.FlagValues, shared: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the flags with which a log of runs must agree.

    Args:
        values: The flags.
        shared: Names of flags that `compare` itself keeps in the log.
    """
    kept = [n for n in values if n not in FREE and n not in shared]
    return {name: values[name].value for name in kept}


def data(
    name: str,
    parts: Mapping[str, tuple[Any, np.ndarray]],
    modalities: Sequence[str],
    classes: Sequence[str],
    facts: Mapping[str, Any],
    ids: Sequence[str] | None = None,
) -> Data:
    """Returns the data of a comparison.

    Args:
        name: The title of the report.
        parts: dict of split to inputs, as `Part` has them, and classes.
        modalities: Names of the modalities.
        classes: Names of the classes.
        facts: dict of facts, see `facts`.
        ids: Names of all samples, split by split. Defaults to numbers.
    """
    made, start = {}, 0
    for split in SPLITS:
        x, y = parts[split]
        made[split] = Part(x, y, np.arange(start, start + len(y)))
        start += len(y)
    found = Data(
        name,
        "single_label",
        len(classes),
        list(classes),
        tuple(modalities),
        [Fold(made)],
        list(ids or map(str, range(start))),
    )
    found.facts.update(facts)
    return described(found)


def streamed(
    name: str,
    samples: Mapping[str, Sequence[Sample]],
    readers: Mapping[str, pipeline.Reader],
    classes: Sequence[str],
    values: flags.FlagValues,
    facts: Mapping[str, Any],
) -> Data:
    """Returns data that are read while models train.

    Args:
        name: The title of the report.
        samples: dict of split to samples.
        readers: dict of modality to its reader.
        classes: Names of the classes.
        values: The flags.
        facts: dict of facts, see `facts`.
    """
    options = {
        "batch_size": values["batch_size"].value,
        "cache_dir": values["cache_dir"].value,
    }

    def stream(split: str, presence: np.ndarray | None) -> Any:
        own = {**options, "presence": presence}
        if split == "train":
            return functools.partial(_training, samples[split], readers, own)
        return pipeline.build(samples[split], readers, **own)

    parts = {
        split: (
            stream(split, None),
            np.array([sample.label for sample in part], "int32"),
        )
        for split, part in samples.items()
    }
    ids = [sample.id for split in SPLITS for sample in samples[split]]
    found = data(name, parts, tuple(readers), classes, facts, ids)
    for split, part in found.folds[0].parts.items():
        part.there = np.array(
            [[n in s.inputs for n in readers] for s in samples[split]]
        )
        part.hide = functools.partial(stream, split)
    return found


def readable(
    samples: Mapping[str, Sequence[Sample]],
    readers: Mapping[str, pipeline.Reader],
    values: flags.FlagValues,
) -> dict[str, Sequence[Sample]]:
    """Returns the samples that can be decoded.

    With `--on_error=raise`, these are all: a bad file ends the script later.
    """
    if values["on_error"].value == "raise":
        return dict(samples)
    kept = {}
    for split, part in samples.items():
        batches = pipeline.build(
            part,
            readers,
            batch_size=values["batch_size"].value,
            cache_dir=values["cache_dir"].value,
            on_error="skip",
        )
        for _ in batches:
            pass
        kept[split] = [s for s in part if s.id not in batches.skipped]
        for message in batches.skipped.values():
            print(f"Left out of {split}: {message}", flush=True)
    return kept


def _training(
    samples: Sequence[Sample],
    readers: Mapping[str, pipeline.Reader],
    options: Mapping[str, Any],
    seed: int,
) -> Any:
    """Returns training batches in the order of a run's seed."""
    return pipeline.build(
        samples, readers, training=True, seed=seed, sample_ids=True, **options
    )
