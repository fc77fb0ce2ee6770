"""scikit-learn's own checks of estimators."""

import keras
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks
from utils import long, mainly_on

from keras_mla import wrappers

_WEIGHTS = (
    "Batches are drawn from the rows: a row of weight two is in one batch, two "
    "equal rows may be in two."
)
FAIL = {"check_sample_weight_equivalence_on_dense_data": _WEIGHTS}
if keras.backend.backend() == "tensorflow":
    # By 1e-8 in probabilities.
    _ROUNDING = "float32 depends on the position in a batch."
    FAIL["check_methods_sample_order_invariance"] = _ROUNDING
SMALL = {
    "width": 16,
    "epochs": 8,
    "batch_size": 16,
    "learning_rate": 1e-2,
}

pytestmark = [
    mainly_on("torch"),
    # Checks pass what warrants a warning, and look at other things.
    pytest.mark.filterwarnings("ignore"),
]


def checks(estimator):
    return parametrize_with_checks(
        [estimator(**SMALL)], expected_failed_checks=lambda _: FAIL
    )


@checks(wrappers.SKLearnMultimodalClassifier)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@long()
@checks(wrappers.SKLearnMultimodalRegressor)
def test_its_checks_of_regressors(estimator, check):
    check(estimator)
