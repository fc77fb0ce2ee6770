"""Choose a model with scikit-learn: several inputs, some of them missing.

Handwritten digits come as a table: the columns of the upper and of the lower
half are two modalities, and some rows lack one of them. A grid search chooses
the method and the learning rate by cross-validation. Needs the `tables` extra.

    python examples/scikit_learn.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, train_test_split

from keras_mla.wrappers import SKLearnMultimodalClassifier

X, y = load_digits(as_frame=True, return_X_y=True)
upper, lower = list(X.columns[:32]), list(X.columns[32:])

# One row in five lacks its upper half, another one its lower half.
X = X.astype("float32")
draw = np.random.default_rng(0).random(len(X))
X.loc[draw < 0.2, upper] = np.nan
X.loc[draw > 0.8, lower] = np.nan
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.3, stratify=y, random_state=0
)

classifier = SKLearnMultimodalClassifier(
    columns={"upper": upper, "lower": lower}, epochs=6, random_state=0
)
search = GridSearchCV(
    classifier,
    {"method": ["MLA", "ConcatFusion"], "learning_rate": [1e-3, 3e-3]},
    cv=2,
)
search.fit(X_train, y_train)
for score, setting in zip(
    search.cv_results_["mean_test_score"],
    search.cv_results_["params"],
    strict=True,
):
    print(f"{setting}: {100 * score:.1f} % in cross-validation")
print(f"Chosen: {search.best_params_}")

predicted = search.predict(X_test)
whole = X_test.notna().all(axis=1)
for name, rows in (("both halves", whole), ("one half", ~whole)):
    accuracy = accuracy_score(y_test[rows], predicted[rows])
    print(f"Test rows with {name}: {100 * accuracy:.1f} %")
