import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.analysis.figure import panels, saved
from keras_mla.analysis.readout import PENALTIES, Readout, linear_readout
from keras_mla.core import heads
from keras_mla.core.arrays import full_presence
from keras_mla.models.late.unimodal_ensemble import UnimodalEnsemble


@dataclasses.dataclass
class Laziness:
    """How much less encoders learn together than alone.

    Attributes:
        together: dict from each modality to the `Readout` of its features in
            the multimodal model.
        alone: dict from each modality to the score of the same encoder
            trained alone: that of `alone_readout`, unless scores were given.
            Empty if there is nothing to compare with.
        alone_readout: dict from each modality to the `Readout` of the features
            of the encoder trained alone; empty if only scores were given.
        gap: dict from each modality to the score alone less the score
            together: greater than 0 for a lazy encoder.
        samples: dict from each modality to the number of test samples that
            have it.
        measure: Name of the score.
    """

    together: dict[str, Readout]
    alone: dict[str, float]
    alone_readout: dict[str, Readout]
    gap: dict[str, float]
    samples: dict[str, int]
    measure: str

    def plot(self, path: Any = None) -> Any:
        """Draws the scores of each modality together and alone, as bars.

        Args:
            path: File to save the figure to; the extension sets the format.
                Defaults to `None`, which saves nothing.

        Returns:
            The `matplotlib.figure.Figure`.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        figure, (axis,) = panels()
        names = list(self.together)
        place = np.arange(len(names))
        together = [self.together[name].score for name in names]
        axis.bar(place - 0.2, together, 0.4, label="trained together")
        if self.alone:
            alone = [self.alone[name] for name in names]
            axis.bar(place + 0.2, alone, 0.4, label="trained alone")
        axis.set_xticks(place, names)
        axis.set_ylabel(f"{self.measure} of a linear read-out")
        axis.legend(frameon=False)
        return saved(figure, path)


def laziness(
    model: Any,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    validation: tuple[Any, Any] | None = None,
    alone: Any = "train",
    epochs: int = 10,
    batch_size: int | None = None,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
    fit_arguments: Mapping[str, Any] | None = None,
) -> Laziness:
    """Compares what encoders learned together with what they learn alone.

    In joint training a strong modality may leave little to learn for the
    others. For each modality a linear read-out is fitted to the frozen
    features of the model's encoder, and another one to the features of the
    same encoder trained alone. Both use only the samples that have the
    modality. scikit-learn is needed.

    Args:
        model: A fitted model of the library.
        train: `(x, y)` that read-outs, and encoders alone, are trained on.
        test: `(x, y)` that scores are computed on.
        validation: `(x, y)` that the penalty of each read-out is chosen on,
            and the best epoch of each encoder alone. Defaults to `None`, which
            holds out a fifth of `train` for the penalty; encoders alone then
            keep their last epoch.
        alone: What to compare with. `"train"` trains new encoders of the same
            configuration and the same compilation, each with a head of its
            own. Their weights are new: train pretrained encoders alone
            yourself. Otherwise a fitted model of the library with the same
            modalities, such as a `UnimodalEnsemble`; a dict of each modality's
            score; or `None`. Defaults to `"train"`.
        epochs: int. Epochs of training alone. Defaults to `10`.
        batch_size: int. Batch size of training and of prediction. Defaults to
            32.
        penalties: Strengths of the read-outs' penalty to choose from.
        seed: int. The seed of the samples that are held out. Defaults to `0`.
        fit_arguments: dict of further arguments of `fit` for training alone,
            such as `callbacks`. Defaults to `None`.

    Returns:
        A `Laziness`, which draws a figure by its method `plot`.

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If `alone` is none of these, a modality has no sample, or
            the model is not compiled though encoders are to be trained.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.MLA(encoders, head=2)
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 60)
    >>> x = {"image": np.eye(4)[y], "text": rng.normal(size=(60, 4))}
    >>> result = keras_mla.analysis.laziness(
    ...     model, (x, y), (x, y), alone={"image": 1.0, "text": 0.5}
    ... )
    >>> result.together["image"].score, result.gap["image"]
    (1.0, 0.0)

    Reference:
        Du et al., "On Uni-Modal Feature Learning in Supervised Multi-Modal
        Learning", ICML 2023.
    """
    names = tuple(model.modalities)
    splits = {"train": train, "test": test}
    if validation is not None:
        splits["validation"] = validation
    data = {
        split: (model.prepare_inputs(given[0]), _labels(given[1]))
        for split, given in splits.items()
    }
    present = {split: full_presence(names, x) for split, (x, _) in data.items()}
    labels = {
        split: model.task.labels_of(y, heads.number_of_units(model.head))
        for split, (_, y) in data.items()
    }
    samples = {
        name: int(present["test"][:, index].sum())
        for index, name in enumerate(names)
    }

    def readouts(of: Any) -> dict[str, Readout]:
        features = {
            split: of.features(x, batch_size) for split, (x, _) in data.items()
        }
        found = {}
        for index, name in enumerate(names):
            parts = {}
            for split, mask in present.items():
                rows = mask[:, index]
                if not rows.any():
                    raise ValueError(
                        "A read-out needs samples of each modality. Received: "
                        f"no sample with {name!r} in `{split}`"
                    )
                parts[split] = features[split][name][rows], labels[split][rows]
            found[name] = linear_readout(
                **parts, task=model.task.name, penalties=penalties, seed=seed
            )
        return found

    measure = "accuracy" if model.task.certain else "R2"
    together = readouts(model)
    scores: dict[str, float] = {}
    of_alone: dict[str, Readout] = {}
    if isinstance(alone, Mapping):
        _check_names(names, alone)
        scores = {name: float(alone[name]) for name in names}
    elif alone is not None:
        if isinstance(alone, str) and alone == "train":
            alone = _trained_alone(
                model, splits, epochs, batch_size, dict(fit_arguments or {})
            )
        if not hasattr(alone, "modalities"):
            raise ValueError(
                "`alone` must be 'train', a fitted model of the library, a "
                f"dict of scores, or None. Received: alone={alone!r}"
            )
        _check_names(names, alone.modalities)
        of_alone = readouts(alone)
        scores = {name: of_alone[name].score for name in names}
    gap = {name: scores[name] - together[name].score for name in scores}
    return Laziness(together, scores, of_alone, gap, samples, measure)


def _labels(y: Any) -> np.ndarray:
    if isinstance(y, dict):
        raise ValueError(
            "Laziness needs one array of labels for all modalities. "
            f"Received: a dict with the keys {list(y)}"
        )
    return np.asarray(ops.convert_to_numpy(y))


def _check_names(names: Sequence[str], given: Any) -> None:
    if set(given) != set(names):
        raise ValueError(
            f"`alone` must have the model's modalities {list(names)}. "
            f"Received: {list(given)}"
        )


def _trained_alone(
    model: Any,
    splits: dict[str, Any],
    epochs: int,
    batch_size: int | None,
    arguments: dict[str, Any],
) -> UnimodalEnsemble:
    """Trains new encoders alone, each to its best epoch on validation data."""
    compilation = model.get_compile_config()
    if compilation is None:
        raise ValueError(
            "Encoders are trained alone with the optimizer and the loss of "
            "the model: compile the model first, or pass a fitted model as "
            "`alone`. Received: a model that is not compiled"
        )
    ensemble = UnimodalEnsemble(
        {
            name: keras.saving.deserialize_keras_object(
                keras.saving.serialize_keras_object(encoder)
            )
            for name, encoder in model.encoders.items()
        },
        head=model.head_like("head"),
        feature_dim=model.feature_dim,
        task=model.task.name,
        allow_nan=model.allow_nan,
    )
    ensemble.compile_from_config(compilation)
    ensemble.fit(
        *splits["train"],
        **{
            "epochs": epochs,
            "batch_size": batch_size,
            "validation_data": splits.get("validation"),
            "verbose": 0,
            **arguments,
        },
    )
    return ensemble
