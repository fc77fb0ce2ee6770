"""Losses and metrics that expect probabilities are refused."""

import functools

import keras
import pytest
from utils import make_model, only_on

from keras_mla.core import probabilities

# Nothing here depends on the backend.
pytestmark = only_on("torch")
losses, metrics = keras.losses, keras.metrics


def name_of(value):
    """Returns a name that is the same in each process, unlike `str`."""
    if isinstance(value, str):
        return value
    return getattr(value, "__name__", type(value).__name__)


def of_ones_own(y_true, y_pred):
    """A function that may do anything with logits."""
    return y_pred[:, 0]


class Softmaxed(losses.KLDivergence):
    """A loss that computes probabilities itself."""

    def call(self, y_true, y_pred):
        return super().call(y_true, keras.ops.softmax(y_pred))


class Precision(metrics.Precision):
    """A user's own metric that has the name of one of Keras's."""


REFUSED_LOSSES = {
    "bce": "losses.BinaryCrossentropy(from_logits=True)",
    "BCE": "losses.BinaryCrossentropy(from_logits=True)",
    "ce": "losses.SparseCategoricalCrossentropy(from_logits=True)",
    "kld": "CategoricalCrossentropy(from_logits=True)",
    "KLD": "CategoricalCrossentropy(from_logits=True)",
    "poisson": "softmax",
    "dice": "softmax",
    "tversky": "softmax",
    "categorical_focal_crossentropy": "CategoricalFocalCrossentropy(from",
    "binary_focal_crossentropy": "BinaryFocalCrossentropy(from_logits=True)",
    losses.sparse_categorical_crossentropy: "SparseCategoricalCrossentropy(f",
    losses.kl_divergence: "CategoricalCrossentropy(from_logits=True)",
    losses.KLDivergence(): "CategoricalCrossentropy(from_logits=True)",
    losses.Poisson(): "softmax",
    losses.Dice(): "softmax",
    losses.Tversky(): "softmax",
    losses.CategoricalGeneralizedCrossEntropy(): "softmax",
    losses.CategoricalFocalCrossentropy(): "CategoricalFocalCrossentropy(from",
    losses.BinaryCrossentropy(): "losses.BinaryCrossentropy(from_logits=True)",
    functools.partial(losses.categorical_crossentropy): "from_logits=True",
}
TAKEN_LOSSES = (
    "mse",
    "hinge",
    of_ones_own,
    Softmaxed(),
    losses.SparseCategoricalCrossentropy(from_logits=True),
    losses.BinaryFocalCrossentropy(from_logits=True),
    losses.CategoricalHinge(),
    functools.partial(losses.categorical_crossentropy, from_logits=True),
)
REFUSED_METRICS = {
    "ce": "metrics.SparseCategoricalCrossentropy(from_logits=True)",
    "bce": "metrics.BinaryCrossentropy(from_logits=True)",
    "sparse_categorical_crossentropy": "metrics.SparseCategoricalCrossentropy",
    "auc": "metrics.AUC(from_logits=True)",
    "kl_divergence": "CategoricalCrossentropy",
    metrics.AUC(): "metrics.AUC(from_logits=True)",
    metrics.SparseCategoricalCrossentropy(): "from_logits=True",
    metrics.KLDivergence(): "CategoricalCrossentropy",
    metrics.Poisson(): "softmax",
    metrics.Precision(): "Precision(thresholds=0.0)",
    metrics.Recall(): "Recall(thresholds=0.0)",
    metrics.TruePositives(): "TruePositives(thresholds=0.0)",
    metrics.BinaryAccuracy(): "BinaryAccuracy(threshold=0.0)",
    metrics.PrecisionAtRecall(0.5): "thresholds run from 0 to 1",
    losses.categorical_crossentropy: "from_logits=True",
    metrics.MeanMetricWrapper(losses.dice): "softmax",
}
TAKEN_METRICS = (
    "accuracy",
    "acc",
    "mse",
    "sparse_categorical_accuracy",
    of_ones_own,
    Precision(),
    metrics.AUC(from_logits=True),
    metrics.Precision(thresholds=0.0),
    metrics.Precision(top_k=1),
    metrics.BinaryAccuracy(threshold=0.0),
    metrics.CategoricalCrossentropy(from_logits=True),
    metrics.F1Score(),
    metrics.MeanMetricWrapper(losses.binary_crossentropy, from_logits=True),
)


@pytest.mark.parametrize("loss", REFUSED_LOSSES, ids=name_of)
def test_a_loss_of_probabilities_is_refused(loss):
    with pytest.raises(ValueError, match="expects probabilities") as error:
        make_model(("image",)).compile("sgd", loss)
    assert REFUSED_LOSSES[loss] in str(error.value)


@pytest.mark.parametrize("loss", TAKEN_LOSSES, ids=name_of)
def test_other_losses_are_taken(loss):
    assert probabilities.of_loss(loss) == ""


@pytest.mark.parametrize("argument", ["metrics", "weighted_metrics"])
@pytest.mark.parametrize("metric", REFUSED_METRICS, ids=name_of)
def test_a_metric_of_probabilities_is_refused(metric, argument):
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    with pytest.raises(ValueError, match=f"`{argument}` expects") as error:
        make_model(("image",)).compile("sgd", loss, **{argument: [metric]})
    assert REFUSED_METRICS[metric] in str(error.value)


@pytest.mark.parametrize("metric", TAKEN_METRICS, ids=name_of)
def test_other_metrics_are_taken(metric):
    assert probabilities.of_metric(metric) == ""


def test_every_loss_of_keras_is_known_or_takes_logits():
    # Losses that Keras adds later are looked at here first.
    known = {name for name, _, _ in probabilities._LOSSES}
    known |= set(probabilities._CROSSENTROPIES.values())
    found = {
        name
        for name, value in vars(losses).items()
        if isinstance(value, type) and issubclass(value, losses.Loss)
    }
    others = found - known
    assert others == {
        "CTC",
        "CategoricalHinge",
        "Circle",
        "CosineSimilarity",
        "Hinge",
        "Huber",
        "LogCosh",
        "Loss",
        "MeanAbsoluteError",
        "MeanAbsolutePercentageError",
        "MeanSquaredError",
        "MeanSquaredLogarithmicError",
        "SquaredHinge",
    }
