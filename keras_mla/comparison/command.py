"""The command line: `keras-mla compare` and `keras-mla predict`."""

import functools
import os
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from keras_mla.comparison.methods import DEFAULT, chosen
from keras_mla.comparison.names import hint

_USAGE = """keras-mla: which method learns best from your modalities?

  keras-mla compare --data=table.csv --label=kind --out=results
  keras-mla predict results/model.keras new.csv

`keras-mla compare --help` and `keras-mla predict --help` list the flags.
KERAS_BACKEND chooses among tensorflow, jax and torch.
"""


# Flags that name columns of a table by kind.
_COLUMNS = ("image", "audio", "video", "text", "numeric", "categorical")
# Flags that are arguments of `compare` as they are.
_OF_DATA = (
    "id",
    "split",
    "group",
    "folds",
    "root",
    "task",
    "width",
    "split_seed",
)


class UsageError(ValueError):
    """What the user typed is wrong."""


def run(arguments: list[str]) -> int:
    """Runs a command.

    Args:
        arguments: What stands behind `keras-mla`.

    Returns:
        The exit status: 0; 1 for an error, which is one line on the standard
        error; 130 if the user stopped it.
    """
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h", "help"):
        print(_USAGE)
        return 0

    def command() -> None:
        if name not in _COMMANDS:
            raise UsageError(
                f"There is no command {name!r}.{hint(name, _COMMANDS)} "
                f"Commands: {', '.join(_COMMANDS)}."
            )
        _COMMANDS[name](rest)

    return status(f"keras-mla {name}", command)


def status(name: str, function: Callable[[], None]) -> int:
    """Calls a function; returns the exit status, as `run` says.

    Args:
        name: str. What the line of an error begins with.
        function: The function.
    """
    try:
        function()
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return 130
    except (ValueError, ImportError, OSError, flags.Error) as error:
        line = " ".join(str(error).split())
        print(f"{name}: {line}", file=sys.stderr)
        return 1
    return 0


def parse(values: flags.FlagValues, name: str, rest: list[str]) -> list[str]:
    """Parses flags; returns what is no flag. `--help` lists flags and exits.

    Args:
        values: `FlagValues` with flags that are defined.
        name: str. Name of the command.
        rest: list of str. What stands behind the name.

    Raises:
        ValueError: If there is no such flag.
        absl.flags.Error: If the value of a flag is wrong.
    """
    flags.DEFINE_boolean("help", False, "Lists the flags.", flag_values=values)
    try:
        positional = values([name, *rest])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UsageError(
            f"There is no flag --{error.flagname}."
            f"{hint(error.flagname, values)}"
        ) from error
    if values["help"].value:
        print(name)
        for flag in values:
            known = values[flag]
            default = known.default_as_str or "none"
            print(f"  --{flag}: {known.help} Default: {default}")
        sys.exit(0)
    return positional


# === compare ===


def define_data_flags(values: flags.FlagValues) -> None:
    """Defines the flags of data and encoders, which `data_arguments` reads."""
    own = {"flag_values": values}
    text = flags.DEFINE_string
    # The second one would replace the first, unseen.
    many = functools.partial(flags.DEFINE_list, allow_overwrite=False)
    number = flags.DEFINE_integer
    text("data", "digits", "'digits', or an .npz, CSV or Parquet file.", **own)
    many("label", [], "Column of labels, or several.", **own)
    for kind in ("image", "audio", "video"):
        many(kind, [], f"Columns of paths of files: {kind}.", **own)
    many("text", [], "Columns of texts.", **own)
    many("numeric", [], "Columns of numbers.", **own)
    many("categorical", [], "Columns of categories.", **own)
    many("modalities", [], "Arrays of an .npz to use. Default: all.", **own)
    text("id", None, "Column of names of the rows.", **own)
    text("split", None, "Column of train, validation and test.", **own)
    text("group", None, "Column of groups: none is in two splits.", **own)
    number("folds", None, "Number of folds.", lower_bound=2, **own)
    text("root", None, "Folder of the files. Default: the table's.", **own)
    encoder = "Encoders, as modality:kind or modality:preset, with commas."
    many("encoder", [], encoder, **own)
    tasks = ["single_label", "multi_label", "regression"]
    task = "What labels are. Default: what they look like."
    flags.DEFINE_enum("task", None, tasks, task, **own)
    number("width", 64, "Features of an encoder.", lower_bound=1, **own)
    number("split_seed", 0, "Seed of random splits.", lower_bound=0, **own)


def data_arguments(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the arguments of `compare` that flags of data mean.

    Raises:
        ValueError: If the value of a flag is wrong.
    """
    label = values["label"].value
    columns = {kind: values[kind].value for kind in _COLUMNS}
    return {
        "data": values["data"].value,
        "modalities": values["modalities"].value or None,
        "label": (label[0] if len(label) == 1 else label) or None,
        "columns": {kind: names for kind, names in columns.items() if names},
        "encoders": _encoders(values["encoder"].value),
        **{name: values[name].value for name in _OF_DATA},
    }


def _compare(rest: list[str]) -> None:
    values = flags.FlagValues()
    define_data_flags(values)
    define_missing_flags(values)
    define_flags(values)
    left = parse(values, "keras-mla compare", rest)
    if left:
        raise UsageError(f"{left[0]!r} is no flag. Flags begin with --.")
    missing = missing_arguments(values)
    options = {**data_arguments(values), **arguments(values)}
    if missing["rates"]:
        from keras_mla.comparison.rates import compare_rates

        tell_rates(compare_rates(**missing, **options))
        return
    from keras_mla.comparison.engine import compare

    result = compare(**options)
    table = pathlib.Path(values["out"].value) / "table.md"
    print(f"\n{table.read_text()}")
    _tell(result)
    print(f"Report: {table.with_name('report.html')}")


def define_missing_flags(
    values: flags.FlagValues, missing: Sequence[str] = ()
) -> None:
    """Defines the flags of missing rates, which `missing_arguments` reads.

    Args:
        values: `FlagValues` to define the flags in.
        missing: Default of the rates.
    """
    own = {"flag_values": values}
    rates = "Missing rates to compare at, as 0.1,0.3."
    flags.DEFINE_list("missing", list(missing), rates, **own)
    draws = ["keep_one", "independent"]
    draw = "Whether a sample keeps one modality at missing rates."
    flags.DEFINE_enum("draw", "keep_one", draws, draw, **own)
    at = "The missing rate that chooses settings for all. Default: each."
    flags.DEFINE_float("chosen_at", None, at, **own)
    once = "Whether methods also train once for all missing rates."
    flags.DEFINE_boolean("once", False, once, **own)


def missing_arguments(values: flags.FlagValues) -> dict[str, Any]:
    """Returns arguments of `compare_rates` that flags of rates mean.

    Raises:
        ValueError: If the value of a flag is wrong.
    """
    return {
        "rates": _numbers("missing", values["missing"].value),
        **{n: values[n].value for n in ("draw", "chosen_at", "once")},
    }


def tell_rates(found: Any) -> None:
    """Prints tables over missing rates, and what failed."""
    print(f"\n{found.markdown()}")
    for rate, result in found.results.items():
        _tell(result, f"{100 * rate:g} % missing: ")
    if found.once is not None:
        _tell(found.once, "all rates: ")
    print(f"Tables, a figure, and a report of each rate: {found.folder}")


def _tell(result: Any, prefix: str = "") -> None:
    """Prints what failed, and what else a comparison has to say."""
    for method, error in result.failures.items():
        print(f"{prefix}{method} failed: {error}")
    for note in result.notes:
        print(f"{prefix}{note}.")


def define_flags(values: flags.FlagValues, **defaults: Any) -> list[str]:
    """Defines the flags of methods, of what is spent on them, and of results.

    `arguments` returns what the flags mean.

    Args:
        values: `FlagValues` to define the flags in.
        **defaults: Defaults of flags, in place of those of `keras-mla
            compare`. `trials=None` is a setting for each pair of a learning
            rate and a weight decay.

    Returns:
        Names of the flags.
    """
    before = set(values)

    def define(
        kind: str, name: str, default: Any, help: str, **more: Any
    ) -> None:
        default = defaults.pop(name, default)
        make = getattr(flags, f"DEFINE_{kind}")
        make(name, default, help=help, flag_values=values, **more)

    least = {"lower_bound": 1}
    define(
        "list",
        "methods",
        list(DEFAULT),
        "Names, or 'recommended', 'table', 'ablation', 'missing' or "
        "'successors'.",
    )
    define("string", "metric", None, "What chooses, such as f1_macro.")
    define("list", "seeds", ["3"], "A number of seeds, or seeds as 0,1,2.")
    trials = "Most settings of each method."
    if "trials" in defaults and defaults["trials"] is None:
        trials += " None is one for each learning rate and weight decay."
    define("integer", "trials", 6, trials, **least)
    define("integer", "trial_seeds", 1, "Seeds of a setting.", **least)
    define("integer", "epochs", 30, "Epochs of a run.", **least)
    define("integer", "batch_size", 64, "Samples in a batch.", **least)
    kinds = ["adamw", "sgd"]
    define("enum", "optimizer", "adamw", "AdamW, or SGD.", enum_values=kinds)
    define("list", "learning_rate", [], "Values to choose from.")
    decays = ["1e-4", "1e-2"]
    define("list", "weight_decay", decays, "Values to choose from.")
    define("string", "time_budget", None, "Such as 90s, 20m or 2h.")
    define("string", "out", "comparison", "Folder of the results.")
    return sorted(set(values) - before)


def arguments(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the arguments of `compare` that flags of `define_flags` mean.

    Raises:
        ValueError: If the value of a flag is wrong.
    """
    names = [n.replace(";", ",") for n in values["methods"].value]
    chosen(names)  # Raises before any data are read.
    budget = values["time_budget"].value
    rates = _numbers("learning_rate", values["learning_rate"].value)
    decays = _numbers("weight_decay", values["weight_decay"].value)
    direct = ("metric", "trial_seeds", "epochs", "batch_size", "optimizer")
    return {
        "methods": names,
        "seeds": _seeds(values["seeds"].value),
        "trials": values["trials"].value or max(1, len(rates) * len(decays)),
        "learning_rate": rates or None,
        "weight_decay": decays,
        "time_budget": None if budget is None else seconds(budget),
        "out": values["out"].value,
        **{name: values[name].value for name in direct},
    }


def _seeds(given: list[str]) -> int | list[int]:
    try:
        numbers = [int(seed) for seed in given]
    except ValueError:
        raise UsageError(
            f"--seeds takes whole numbers. Received: {','.join(given)}"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def _numbers(name: str, given: list[str]) -> list[float]:
    try:
        return [float(value) for value in given]
    except ValueError:
        raise UsageError(
            f"--{name} takes numbers. Received: {','.join(given)}"
        ) from None


def _encoders(given: list[str]) -> dict[str, str]:
    wrong = [item for item in given if ":" not in item]
    if wrong:
        raise UsageError(f"--encoder takes modality:kind. Received: {wrong[0]}")
    pairs = [(k, v) for k, _, v in (item.partition(":") for item in given)]
    if len(dict(pairs)) < len(pairs):
        raise UsageError(
            "--encoder takes each modality once. Received: "
            f"{','.join(k for k, _ in pairs)}"
        )
    return dict(pairs)


def seconds(text: str) -> float:
    """Returns the seconds of a duration such as `"20m"`.

    Raises:
        ValueError: If the text is no duration.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)?", text.strip())
    if not found:
        raise UsageError(
            "A time budget is a number with s, m, h or d, such as 20m. "
            f"Received: {text}"
        )
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2] or "s"]
    return float(found[1]) * unit


# === predict ===


def _predict(rest: list[str]) -> None:
    values = flags.FlagValues()
    own = {"flag_values": values}
    flags.DEFINE_string("root", None, "Folder of the files.", **own)
    flags.DEFINE_string("id", None, "Column of names of the rows.", **own)
    flags.DEFINE_string("out", None, "CSV to write. Default: print.", **own)
    flags.DEFINE_integer("batch_size", 64, "Rows in a batch.", **own)
    left = parse(values, "keras-mla predict", rest)
    if len(left) != 2:
        raise UsageError(
            "Say which model predicts which rows: "
            "keras-mla predict model.keras new.csv"
        )
    import keras

    from keras_mla.comparison.prediction import predictions
    from keras_mla.datasets.table import read_table

    path, rows = left
    for each in left:
        if not os.path.exists(each):
            raise UsageError(f"There is no file {each}.")
    model = keras.saving.load_model(path, safe_mode=True)
    frame = read_table(rows)
    root = values["root"].value
    table = predictions(model, frame, root, values["batch_size"].value)
    name = values["id"].value
    if name is not None:
        table.insert(0, name, list(frame[name]))
    out = values["out"].value
    if out is None:
        print(table.to_csv(index=False), end="")
    else:
        table.to_csv(out, index=False)


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "compare": _compare,
    "predict": _predict,
}
