"""Which runs to make, in which order."""

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mla.comparison import ranking, training, words
from keras_mla.comparison.data import Data
from keras_mla.comparison.examine import examine
from keras_mla.comparison.folder import Folder
from keras_mla.comparison.log import Log
from keras_mla.comparison.ranking import Tried
from keras_mla.comparison.results import Predictions, Run
from keras_mla.models import registry

_KEPT = ("epochs", "seconds", "validation", "curves")


@dataclasses.dataclass
class Plan:
    """What is compared, and what has become of it.

    Attributes:
        failures: dict of method to its error's message.
        diverged: dict of method to the last message of a run that diverged.
        missing: list of str. What the time budget left out, in words.
        tried: dict of method and fold to the settings that were tried.
        lost: dict of method to the final runs that diverged or failed, each
            with a key of `words.LOST`.
    """

    data: Data
    methods: dict[str, registry.Method]
    settings: dict[str, list[dict]]
    options: training.Options
    folder: Folder
    seeds: Sequence[int]
    trial_seeds: int
    deadline: float
    seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    diverged: dict[str, str] = dataclasses.field(default_factory=dict)
    missing: list[str] = dataclasses.field(default_factory=list)
    tried: dict[tuple[str, int], list[Tried]] = dataclasses.field(
        default_factory=dict
    )
    lost: dict[str, list[tuple[str, dict]]] = dataclasses.field(
        default_factory=dict
    )
    unseen: set[str] = dataclasses.field(default_factory=set)
    # The run that was trained last, and its model.
    last: tuple[str, training.Trained] | None = None
    closed: bool = False
    counted: set[str] = dataclasses.field(default_factory=set)
    bar: Any = None

    # === One run ===

    def run(self, what: dict) -> dict | None:
        """Returns a run's record, or `None` if it failed or found no time.

        The record of a run that diverged holds `"diverged"`, and no scores.
        """
        method = what["method"]
        if self.bar is not None and Log.key(what) not in self.counted:
            self.counted.add(Log.key(what))
            self.bar.update(len(self.counted) - self.bar.n - 1)
            self.bar.set_description(method)
        record = self.folder.log.get(what)
        if record is None and method in self.failures:
            return None
        if record is None and (self.closed or self._is_late(method)):
            self.missing.append(
                f"{method}: seed {what['seed']}, "
                f"setting {words.of_setting(what['setting'])}"
                + (f", fold {what['fold']}" if len(self.data.folds) > 1 else "")
            )
            return None
        if record is None:
            record = self._make(what)
        if record is None:
            return None
        if "diverged" in record:
            self.diverged[method] = record["diverged"]
        else:
            self.seconds.setdefault(method, []).append(record["seconds"])
        return record

    def _make(self, what: dict) -> dict | None:
        path = self.folder.weights(what)
        try:
            trained = training.train(
                self.methods[what["method"]],
                self.data,
                self.data.folds[what["fold"]],
                what["setting"],
                what["seed"],
                self.options,
                self.folder.backup(what),
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            trained.model.save_weights(path)
        except FloatingPointError as error:
            # Another setting may do better.
            message = f"{error} {words.of_setting(what['setting'])}"
            return self.folder.log.add(what, {"diverged": message})
        except Exception as error:
            self._fail(what, error)
            return None
        self.last = Log.key(what), trained
        record = {
            "epochs": trained.epochs,
            "seconds": trained.seconds,
            "validation": trained.validation,
            "curves": trained.curves,
        }
        return self.folder.log.add(what, record)

    def _fail(self, what: dict, error: Exception) -> None:
        self.failures[what["method"]] = words.of_error(error)
        self.folder.tell(what)

    def _is_late(self, method: str) -> bool:
        """Returns whether the budget ends before a run would."""
        known = self.seconds.get(method) or [
            s for times in self.seconds.values() for s in times
        ]
        typical = float(np.median(known)) if known else 0.0
        return time.monotonic() + typical > self.deadline

    # === All runs ===

    def trials(self) -> dict[tuple[str, int], dict]:
        """Tries the settings, in rounds; returns each method's best one.

        After a round in which a run did not fit the budget, no run begins:
        methods differ by one setting at most.
        """
        for index in range(max(map(len, self.settings.values()), default=0)):
            before = len(self.missing)
            for method, settings in self.settings.items():
                if index < len(settings):
                    for fold in range(len(self.data.folds)):
                        self._try(method, fold, settings[index])
            self.closed = self.closed or len(self.missing) > before
        self.closed = False
        best = {key: self._best(tried) for key, tried in self.tried.items()}
        return {key: one.setting for key, one in best.items() if one}

    def _try(self, method: str, fold: int, setting: dict) -> None:
        tried = Tried(setting, [])
        for what in self._trials_of(method, fold, setting):
            record = self.run(what)
            if record is None:
                continue
            if "diverged" in record:
                tried.diverged += 1
            else:
                tried.records.append(record)
                if len(self.settings[method]) == 1:
                    self._see(record)  # It is a final run.
        if not tried.records and not tried.diverged:
            return
        known = self.tried.setdefault((method, fold), [])
        known.append(tried)
        best = self._best(known)
        # The weights of the best setting are those of final runs.
        for other in known:
            for record in other.records if other is not best else ():
                self.folder.weights(record["run"]).unlink(missing_ok=True)

    def _trials_of(
        self, method: str, fold: int, setting: dict
    ) -> Iterator[dict]:
        # There is nothing to choose from one setting.
        count = self.trial_seeds if len(self.settings[method]) > 1 else 1
        for seed in self.seeds[:count]:
            yield _what(method, fold, setting, seed)

    def _best(self, tried: Sequence[Tried]) -> Tried | None:
        return ranking.best_of(self.options.metric, tried)

    def finals(self, best: Mapping[tuple[str, int], dict]) -> list[dict]:
        """Trains the chosen settings with all seeds, a seed a round.

        Returns:
            Records of the runs that did not diverge.
        """
        records = []
        for seed in self.seeds:
            before = len(self.missing)
            for method in self.methods:
                for fold in range(len(self.data.folds)):
                    setting = best.get((method, fold), {})
                    what = _what(method, fold, setting, seed)
                    record = self.run(what) if setting else None
                    all_bad = not setting and (method, fold) in self.tried
                    if record and "diverged" not in record:
                        self._see(record)
                        records.append(record)
                    elif record or all_bad:
                        self._lose("diverged", what)
                    elif method in self.failures:
                        self._lose("failed", what)
            self.closed = self.closed or len(self.missing) > before
        self.closed = False
        return records

    def _lose(self, how: str, what: dict) -> None:
        self.lost.setdefault(what["method"], []).append((how, what))

    def trained(self, record: dict) -> training.Trained:
        """Returns the model of a final run."""
        what = record["run"]
        fold = self.data.folds[what["fold"]]
        method = self.methods[what["method"]]
        arguments = (method, self.data, fold, what["setting"], what["seed"])
        path = self.folder.weights(what)
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

    def _see(self, record: dict) -> None:
        """Writes what a final run predicts for the test split, once."""
        what = record["run"]
        path, notes = self.folder.predictions(what), self.folder.notes(what)
        key = Log.key(what)
        if notes.exists() or key in self.unseen:
            return
        try:
            # A model that was trained just now need not be made again.
            last, self.last = self.last, None
            if last is None or last[0] != key:
                trained = self.trained(record)
            else:
                trained = last[1]
            found = examine(
                trained.model,
                self.data,
                self.data.folds[what["fold"]],
                self.options.metric,
                self.options.predicted_at_once,
                self.methods[what["method"]].calibration,
            )
        except Exception as error:
            self._fail(what, error)
            self._lose("unseen", what)
            self.unseen.add(key)
            return
        found["targets"] = getattr(trained.model, "targets", "")
        predictions = found.pop("predictions")
        rows = np.searchsorted(self.data.test_rows(), predictions.rows)
        dataclasses.replace(predictions, rows=rows).save(path)
        part = notes.with_suffix(".partial")
        part.write_text(json.dumps(found))
        part.replace(notes)

    def examined(self, record: dict) -> Run | None:
        """Returns a final run with its predictions for the test split."""
        what = record["run"]
        self._see(record)
        if Log.key(what) in self.unseen:
            return None
        return Run(
            **what,
            **{key: record[key] for key in _KEPT},
            **json.loads(self.folder.notes(what).read_text()),
            predictions=Predictions.load(self.folder.predictions(what)),
        )

    # === What they say ===

    def rank(self, method: str, records: Sequence[dict]) -> tuple[float, ...]:
        """Returns what is larger for a better method."""
        return ranking.of_method(
            self.options.metric,
            records,
            len(self.data.folds),
            len(self.lost.get(method, ())),
        )

    def rank_of_run(self, record: dict) -> tuple[float, ...]:
        """Returns what is larger for a better run."""
        return ranking.of_records(self.options.metric, [record])

    def sweep(self, best: Mapping[tuple[str, int], dict]) -> None:
        """Deletes the files of runs that no later call needs."""
        log = self.folder.log

        def stays(what: dict) -> bool:
            # Calls with other seeds may have chosen other settings.
            key = what["method"], what["fold"]
            same = Log.key(what["setting"]) == Log.key(best.get(key, {}))
            return same or what["seed"] not in self.seeds

        runs = [record["run"] for record in log.records.values()]
        final = [what for what in runs if stays(what)]
        planned = [
            what
            for method, settings in self.settings.items()
            for fold in range(len(self.data.folds))
            for setting in settings
            for what in self._trials_of(method, fold, setting)
        ]
        planned += [
            _what(*key, setting, seed)
            for key, setting in best.items()
            for seed in self.seeds
        ]
        unfinished = [what for what in planned if log.get(what) is None]
        self.folder.sweep(self.methods, final, unfinished)


def _what(method: str, fold: int, setting: dict, seed: int) -> dict:
    """Returns what tells a run from all others."""
    return {"method": method, "fold": fold, "setting": setting, "seed": seed}
