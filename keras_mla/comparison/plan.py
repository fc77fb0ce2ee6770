"""Which runs to make, in which order, and where they are kept."""

import dataclasses
import hashlib
import json
import pathlib
import re
import textwrap
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mla.comparison import training
from keras_mla.comparison.data import Data
from keras_mla.comparison.examine import examine
from keras_mla.comparison.log import Log
from keras_mla.comparison.results import Predictions, Run
from keras_mla.models import registry

_KEPT = ("epochs", "seconds", "validation", "curves")


@dataclasses.dataclass
class Plan:
    """What is compared, and where runs are kept."""

    data: Data
    methods: dict[str, registry.Method]
    settings: dict[str, list[dict]]
    options: training.Options
    log: Log
    folder: pathlib.Path
    seeds: Sequence[int]
    trial_seeds: int
    deadline: float
    seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    diverged: dict[str, str] = dataclasses.field(default_factory=dict)
    missing: list[str] = dataclasses.field(default_factory=list)
    counted: set[str] = dataclasses.field(default_factory=set)
    bar: Any = None

    # === One run ===

    def run(self, method: str, fold: int, setting: dict, seed: int) -> Any:
        """Returns a run's record, or `None` if it failed or found no time."""
        what = {
            "method": method,
            "fold": fold,
            "setting": setting,
            "seed": seed,
        }
        if self.bar is not None and Log.key(what) not in self.counted:
            self.counted.add(Log.key(what))
            self.bar.update(len(self.counted) - self.bar.n - 1)
            self.bar.set_description(method)
        record = self.log.get(what)
        if record is None and method in self.failures:
            return None
        if record is None and self._is_late(method):
            self.missing.append(
                f"{method}: seed {seed}, setting {_short(setting)}"
                + (f", fold {fold}" if len(self.data.folds) > 1 else "")
            )
            return None
        if record is None:
            record = self._make(what)
        if record is not None:
            self.seconds.setdefault(method, []).append(record["seconds"])
        return record

    def _make(self, what: dict) -> dict | None:
        method, path = what["method"], self.path(what)
        try:
            trained = training.train(
                self.methods[method],
                self.data,
                self.data.folds[what["fold"]],
                what["setting"],
                what["seed"],
                self.options,
                path.with_suffix(".backup"),
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            trained.model.save_weights(path)
        except FloatingPointError as error:
            # Another setting may do better.
            self.diverged[method] = f"{error} {_short(what['setting'])}"
            return None
        except Exception as error:
            self.failures[method] = _told(error)
            with (self.folder / "errors.txt").open("a") as file:
                file.write(f"{json.dumps(what)}\n{traceback.format_exc()}\n")
            return None
        record = {
            "epochs": trained.epochs,
            "seconds": trained.seconds,
            "validation": trained.validation,
            "curves": trained.curves,
        }
        return self.log.add(what, record)

    def path(self, what: dict) -> pathlib.Path:
        """Returns where the weights of a run are kept."""
        name = f"{_slug(what['method'])}-{_digest(what)}.weights.h5"
        return self.folder / "runs" / name

    def _is_late(self, method: str) -> bool:
        """Returns whether the budget ends before a run would."""
        known = self.seconds.get(method) or [
            s for times in self.seconds.values() for s in times
        ]
        typical = float(np.median(known)) if known else 0.0
        return time.monotonic() + typical > self.deadline

    # === All runs ===

    def trials(self) -> dict[tuple[str, int], dict]:
        """Tries the settings, in rounds; returns each method's best one."""
        tried: dict[tuple[str, int], list[tuple[dict, list[dict]]]] = {}
        most = max(map(len, self.settings.values()), default=0)
        first = self.seeds[: self.trial_seeds]
        for index in range(most):
            for method, settings in self.settings.items():
                if index >= len(settings):
                    continue
                for fold in range(len(self.data.folds)):
                    seeds = first if len(settings) > 1 else first[:1]
                    records = [
                        self.run(method, fold, settings[index], seed)
                        for seed in seeds
                    ]
                    found = [r for r in records if r is not None]
                    if not found:
                        continue
                    known = tried.setdefault((method, fold), [])
                    known.append((settings[index], found))
                    self._drop_all_but_best(known)
        return {key: self._best(known)[0] for key, known in tried.items()}

    def _best(self, tried: list[tuple[dict, list[dict]]]) -> tuple:
        return max(tried, key=lambda pair: self.rank(pair[1]))

    def rank(self, records: Sequence[dict]) -> tuple[float, ...]:
        """Returns what is larger for better records."""
        metric = self.options.metric
        found = [record["validation"] for record in records]
        sign = 1 if metric.higher_is_better else -1
        score = sign * float(np.mean([v[metric.name] for v in found]))
        tie = -float(np.mean([v.get("log_loss", 0.0) for v in found]))
        lowest = -float("inf")
        return tuple(lowest if np.isnan(v) else v for v in (score, tie))

    def _drop_all_but_best(self, tried: list) -> None:
        """Deletes weights that no final run needs."""
        best = self._best(tried)
        for pair in tried:
            for record in pair[1] if pair is not best else ():
                self.path(record["run"]).unlink(missing_ok=True)

    def finals(self, best: Mapping[tuple[str, int], dict]) -> list[dict]:
        """Trains the chosen settings with all seeds."""
        records = []
        for seed in self.seeds:
            for (method, fold), setting in best.items():
                record = self.run(method, fold, setting, seed)
                if record is not None:
                    records.append(record)
        return records

    def trained(self, record: dict) -> training.Trained:
        """Returns the model of a final run."""
        what = record["run"]
        fold = self.data.folds[what["fold"]]
        method = self.methods[what["method"]]
        arguments = (method, self.data, fold, what["setting"], what["seed"])
        path = self.path(what)
        if not path.exists() or method.teacher is not None:
            # Deleted by hand, or a teacher is a part of it: once more.
            return training.train(*arguments, self.options)
        keras.utils.clear_session(free_memory=False)
        model = training.make_model(*arguments, self.options)
        training.build(model, self.data, fold.parts["train"])
        model.load_weights(path)
        return training.Trained(
            model,
            record["epochs"],
            record["validation"],
            record["curves"],
            record["seconds"],
        )

    def of_raw(self, record: dict, model: Any) -> Any:
        """Returns a final run's model, with its frozen encoders in it."""
        what = record["run"]
        return training.of_raw(
            model,
            self.methods[what["method"]],
            self.data,
            self.data.folds[what["fold"]],
            what["setting"],
            what["seed"],
            self.options,
        )

    def examined(self, record: dict, positions: np.ndarray) -> Run | None:
        """Returns a final run with its predictions for the test split."""
        what = record["run"]
        path = self.path(what).with_suffix("").with_suffix(".npz")
        notes = path.with_suffix(".json")
        if not notes.exists():
            try:
                found = examine(
                    self.trained(record).model,
                    self.data,
                    self.data.folds[what["fold"]],
                    self.options.metric,
                    self.options.batch_size,
                )
            except Exception as error:
                self.failures[what["method"]] = _told(error)
                return None
            predictions = found.pop("predictions")
            rows = positions[predictions.rows]
            dataclasses.replace(predictions, rows=rows).save(path)
            part = notes.with_suffix(".partial")
            part.write_text(json.dumps(found))
            part.replace(notes)
        return Run(
            **what,
            **{key: record[key] for key in _KEPT},
            **json.loads(notes.read_text()),
            predictions=Predictions.load(path),
        )


def _told(error: Exception) -> str:
    """Returns an error in one line, without the colours of a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", f"{type(error).__name__}: {error}")
    return textwrap.shorten(text, 500)


def _short(setting: dict) -> str:
    told = {
        key: f"{value:g}" if isinstance(value, int | float) else str(value)
        for key, value in setting.items()
    }
    return ", ".join(f"{key} {value}" for key, value in told.items())


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _digest(what: dict) -> str:
    return hashlib.blake2b(Log.key(what).encode(), digest_size=6).hexdigest()
