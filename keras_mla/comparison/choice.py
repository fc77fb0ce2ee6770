"""Chooses the epoch of a run on validation data, also after a kill."""

import json
import pathlib
import time
from typing import Any

import keras
import numpy as np

from keras_mla.comparison.data import Data, Part
from keras_mla.comparison.examine import predict
from keras_mla.comparison.metrics import METRICS, Metric

# Seconds of training after which a kill loses nothing before them.
BACKUP_EVERY = 30.0


class Choice(keras.callbacks.Callback):
    """Measures validation after each epoch; restores the best epoch.

    Args:
        data: The data.
        metric: What chooses.
        part: The validation split.
        batch_size: int.
        own: bool. Whether the method itself chooses the epochs.
    """

    def __init__(
        self, data: Data, metric: Metric, part: Part, batch_size: int, own: bool
    ) -> None:
        super().__init__()
        self.data, self.part, self.batch_size = data, part, batch_size
        self.metric, self.own = metric, own
        self.measures = METRICS[data.task]
        self.best: tuple[float, ...] | None = None
        self.best_epoch = -1
        self.epochs: dict[str, int] | None = None
        self.scores: dict[str, float] = {}
        self.curves: dict[str, list[float]] = {}
        self.weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the scores to the logs; keeps the weights if they are better."""
        logs = {} if logs is None else logs
        outputs = predict(self.model, self.data, self.part, self.batch_size)
        name = self.metric.name
        for modality in self.data.modalities:
            logs[f"val_{modality}_{name}"] = self.metric(
                self.part.y, outputs[modality]
            )
        fused = outputs["fused"]
        score = self.metric(self.part.y, fused)
        logs[f"val_{name}"] = score
        for key, value in logs.items():
            self.curves.setdefault(key, []).append(float(value))
        if np.isnan(score):
            return
        rank = self._rank(score, fused)
        if self.best is not None and rank <= self.best:
            return
        self.best, self.best_epoch = rank, epoch
        if not self.own:
            self.scores = self._measured(fused)
            self.weights = self.model.get_weights()

    def _measured(self, fused: np.ndarray) -> dict[str, float]:
        return {n: m(self.part.y, fused) for n, m in self.measures.items()}

    def _rank(self, score: float, fused: np.ndarray) -> tuple[float, ...]:
        """Returns what is larger for a better epoch; of equals, the surer."""
        sign = 1 if self.metric.higher_is_better else -1
        if "log_loss" not in self.measures:
            return sign * score, 0.0
        tie = -self.measures["log_loss"](self.part.y, fused)
        return sign * score, float(np.nan_to_num(tie))

    def finish(self) -> None:
        """Restores the best epoch; measures a choice of the method itself."""
        if self.best is None:
            return
        if not self.own:
            self.model.set_weights(self.weights)
            self.epochs = {"all": self.best_epoch}
            return
        self.epochs = dict(self.model.best_epochs)
        outputs = predict(self.model, self.data, self.part, self.batch_size)
        self.scores = self._measured(outputs["fused"])


class Backup(keras.callbacks.Callback):
    """Keeps what a killed run goes on from, if training takes long.

    Args:
        folder: Where to keep it.
        choose: `Choice` of the run.
        start: float. When the run began, by `time.monotonic`.
    """

    def __init__(
        self, folder: pathlib.Path, choose: Choice, start: float
    ) -> None:
        super().__init__()
        self.folder, self.choose, self.start = folder, choose, start
        self.last = time.monotonic()

    def restore(self, model: Any) -> int:
        """Returns the epoch to go on with, the model as it was before it."""
        # A file of states is written last, and at once.
        found = sorted(self.folder.glob("state-*.json"))
        if not found:
            return 0
        state = json.loads(found[-1].read_text())
        epoch, choose = state["epoch"], self.choose
        model.load_weights(self.folder / f"{epoch}.weights.h5")
        choose.best_epoch, choose.scores = state["best_epoch"], state["scores"]
        choose.curves = state["curves"]
        # The time between the kill and now is no training.
        self.start = time.monotonic() - state.get("seconds", 0.0)
        if state["best"] is not None:
            choose.best = tuple(state["best"])
            with np.load(self.folder / f"{epoch}.npz") as file:
                count = range(len(file.files))
                choose.weights = [file[f"arr_{i}"] for i in count]
        return epoch

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the state, if the last time is long ago."""
        if time.monotonic() - self.last < BACKUP_EVERY:
            return
        old = list(self.folder.iterdir())
        following = epoch + 1
        self.model.save_weights(self.folder / f"{following}.weights.h5")
        np.savez(self.folder / f"{following}.npz", *self.choose.weights)
        state = {
            "epoch": following,
            "best": self.choose.best,
            "best_epoch": self.choose.best_epoch,
            "scores": self.choose.scores,
            "curves": self.choose.curves,
            "seconds": time.monotonic() - self.start,
        }
        part = self.folder / "state.partial"
        part.write_text(json.dumps(state))
        part.replace(self.folder / f"state-{following:09d}.json")
        # The older state goes first, then what it names.
        for path in sorted(old, key=lambda path: path.suffix != ".json"):
            path.unlink()
        self.last = time.monotonic()
