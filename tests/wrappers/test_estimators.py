"""The estimators as users of scikit-learn use them."""

import copy
import io
import pickle

import joblib
import keras
import numpy as np
import pandas as pd
import pytest
from sklearn import compose, pipeline, preprocessing
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_score,
)
from utils import in_process, long, mainly_on

import keras_mla
from keras_mla.comparison.encoders import make_encoder
from keras_mla.datasets import Table
from keras_mla.wrappers import (
    SKLearnMultimodalClassifier,
    SKLearnMultimodalRegressor,
)

# Not in alphabetical order.
COLUMNS = {
    "text": "title",
    "audio": ["loud", "high"],
    "facts": ["price", "shop"],
}
SMALL = {"width": 8, "epochs": 3, "batch_size": 8, "random_state": 0}


def table(rows=40, absent=True, seed=0):
    rng = np.random.default_rng(seed)
    kind = np.arange(rows) % 2
    words = np.array([["cold blue rain", "old snow"], ["warm sun", "red fire"]])
    X = pd.DataFrame(
        {
            "price": rng.normal(20 * kind, 5),
            "title": words[kind, rng.integers(0, 2, rows)],
            "loud": rng.normal(kind),
            "shop": rng.choice(["a", "b", "c"], rows),
            "high": rng.normal(-kind),
        }
    )
    if absent:
        X.loc[rng.random(rows) < 0.2, "title"] = None
        X.loc[rng.random(rows) < 0.2, ["loud", "high"]] = np.nan
    return X, np.array(["no", "yes"])[kind]


def arrays(rows=24, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows)
    x = {
        "video": rng.normal(size=(rows, 6)) + y[:, None],
        "image": rng.normal(size=(rows, 8, 8, 3)) + y[:, None, None, None],
        "audio": rng.normal(size=(rows, 4)),
    }
    return {n: v.astype("float32") for n, v in x.items()}, y


def new_encoder():
    return keras.Sequential([keras.layers.Dense(8, activation="relu")])


def by_hand(X, y, encoders=None):
    """Trains what an estimator is to train, by the library's own parts."""
    columns = COLUMNS
    learned = Table(columns).adapt(X, verbose=0)
    x = learned.inputs(X)
    presence = x.get("presence", {})
    everything = np.ones(len(X), bool)
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    keras.utils.set_random_seed(seed)
    model = keras_mla.MLA(
        encoders
        or {
            name: make_encoder(x[name], presence.get(name, everything), width=8)
            for name in columns
        },
        head=2,
        table=learned,
    )
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(
        x,
        (y == "yes").astype("int32"),
        batch_size=8,
        epochs=3,
        callbacks=[keras_mla.callbacks.EpochSeed(seed)],
        verbose=0,
    )
    return model, x


def softmax(logits):
    shifted = np.exp(logits.astype("f8") - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@mainly_on("torch")
def test_it_trains_the_model_that_its_parts_make_by_hand():
    X, y = table()
    classifier = SKLearnMultimodalClassifier(COLUMNS, **SMALL).fit(X, y)
    model, x = by_hand(X, y)
    logits = model.predict(x, batch_size=8, verbose=0)
    np.testing.assert_allclose(
        classifier.predict_proba(X), softmax(logits), atol=1e-6
    )
    assert classifier.model_.table is classifier.inputs_.table
    assert list(classifier.classes_) == ["no", "yes"]
    assert list(classifier.predict(X)) == [
        classifier.classes_[i] for i in logits.argmax(axis=1)
    ]


@mainly_on("torch")
def test_a_row_without_cells_of_a_modality_lacks_it():
    X, y = table()
    classifier = SKLearnMultimodalClassifier(COLUMNS, **SMALL).fit(X, y)
    whole = X.dropna().head(8)
    hidden = whole.assign(title=None, loud=np.nan, high=np.nan)
    x = {**classifier.inputs(whole)}
    x["presence"] = np.tile([False, False, True], (8, 1))
    wanted = softmax(classifier.model_.predict(x, verbose=0))
    found = classifier.predict_proba(hidden)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert abs(found - classifier.predict_proba(whole)).max() > 1e-4


@mainly_on("torch")
def test_dicts_and_lists_are_tables_too():
    X, y = table()
    classifier = SKLearnMultimodalClassifier(COLUMNS, **SMALL).fit(X, y)
    wanted = classifier.predict_proba(X)
    columns = {name: X[name].tolist() for name in X}
    np.testing.assert_array_equal(classifier.predict_proba(columns), wanted)
    records = X.to_dict("records")
    np.testing.assert_array_equal(classifier.predict_proba(records), wanted)
    again = clone(classifier).fit(columns, y)
    np.testing.assert_array_equal(again.predict_proba(X), wanted)


def test_arrays_by_modality():
    x, y = arrays()
    x["image"][3] = np.nan
    given = copy.deepcopy(x)
    classifier = SKLearnMultimodalClassifier(**SMALL).fit(x, y)
    assert classifier.inputs_.modalities == ("video", "image", "audio")
    presence = np.ones((24, 3), bool)
    presence[3, 1] = False
    inputs = {**x, "presence": presence}
    inputs["image"] = np.nan_to_num(x["image"])
    wanted = softmax(classifier.model_.predict(inputs, verbose=0))
    np.testing.assert_allclose(classifier.predict_proba(x), wanted, atol=1e-6)
    for name, value in given.items():
        np.testing.assert_array_equal(x[name], value)
    # A modality that is left out is absent.
    some_of_it = {"audio": x["audio"], "video": x["video"]}
    inputs["presence"] = np.tile([True, False, True], (24, 1))
    wanted = softmax(classifier.model_.predict(inputs, verbose=0))
    found = classifier.predict_proba(some_of_it)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    # So is one that presence names.
    mask = np.arange(24) % 2 == 0
    found = classifier.predict_proba({**x, "presence": {"video": mask}})
    inputs["presence"] = np.stack([mask, presence[:, 1], mask | True], axis=1)
    wanted = softmax(classifier.model_.predict(inputs, verbose=0))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@mainly_on("torch")
def test_a_matrix_is_one_modality_or_divided_by_position():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 5)), np.arange(20) % 2
    alone = SKLearnMultimodalClassifier(**SMALL).fit(X, y)
    assert alone.inputs_.modalities == ("features",)
    assert alone.predict_proba(X).shape == (20, 2)
    divided = SKLearnMultimodalClassifier(
        {"front": slice(0, 2), "back": [4, 2], "middle": 3}, **SMALL
    ).fit(X, y)
    fields = divided.inputs_.table.fields
    assert {n: f.columns for n, f in fields.items()} == {
        "front": ("x0", "x1"),
        "back": ("x4", "x2"),
        "middle": ("x3",),
    }


@mainly_on("torch")
def test_columns_as_a_selector_names_them():
    X, y = table()
    selector = compose.make_column_selector(dtype_include="number")
    classifier = SKLearnMultimodalClassifier(
        {"title": "title", "numbers": selector}, **SMALL
    ).fit(X, y)
    columns = classifier.inputs_.table.fields["numbers"].columns
    assert columns == ("price", "loud", "high")


@mainly_on("torch")
def test_all_columns_as_they_look_by_default():
    X, y = table(absent=False)
    X["title"] = [f"{words} {i}" for i, words in enumerate(X["title"])]
    found = SKLearnMultimodalClassifier(**SMALL).fit(X, y).inputs_.table.fields
    assert {name: field.columns for name, field in found.items()} == {
        "table": ("price", "loud", "shop", "high"),
        "title": ("title",),
    }
    kinds = {"title": "category"}
    with_kinds = SKLearnMultimodalClassifier(kinds=kinds, **SMALL).fit(X, y)
    assert with_kinds.inputs_.table.fields["title"].kind == "values"


# === Encoders ===


@mainly_on("torch")
def test_encoders_stay_as_they_are():
    x, y = arrays()
    unbuilt = new_encoder()
    trained = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    trained.add(keras.layers.Dense(4))
    before = [w.copy() for w in trained.get_weights()]
    classifier = SKLearnMultimodalClassifier(
        encoders={"video": unbuilt, "image": trained, "audio": new_encoder},
        feature_dim=4,
        **{**SMALL, "epochs": 1},
    )
    first = classifier.fit(x, y).predict_proba(x)
    assert not unbuilt.built
    for now, then in zip(trained.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    encoders = classifier.model_.encoders
    assert encoders["video"] is not unbuilt and encoders["video"].built
    np.testing.assert_array_equal(classifier.fit(x, y).predict_proba(x), first)
    cloned = clone(classifier).fit(x, y)
    np.testing.assert_array_equal(cloned.predict_proba(x), first)


@mainly_on("torch")
def test_a_copy_begins_with_the_weights_of_its_model():
    x, y = arrays()
    trained = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8)])
    trained.trainable = False
    trained.set_weights([w + 1 for w in trained.get_weights()])
    classifier = SKLearnMultimodalClassifier(
        encoders={"video": trained}, **{**SMALL, "epochs": 1}
    ).fit(x, y)
    copied = classifier.model_.encoders["video"]
    for now, then in zip(
        copied.get_weights(), trained.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(now, then)


class Unregistered(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 8))

    def call(self, x):
        return x @ self.kernel


@mainly_on("torch")
def test_an_encoder_that_cannot_be_copied_asks_for_a_function():
    x, y = arrays()
    classifier = SKLearnMultimodalClassifier(
        encoders={"video": Unregistered()}, **SMALL
    )
    with pytest.raises(TypeError, match="cannot be copied.*a function that"):
        classifier.fit(x, y)
    classifier.set_params(encoders={"video": Unregistered}).fit(x, y)


# === In scikit-learn ===


@mainly_on("torch")
def test_cross_validation_as_by_hand():
    X, y = table()
    classifier = SKLearnMultimodalClassifier(COLUMNS, **SMALL)
    folds = StratifiedKFold(3)
    scores = cross_val_score(classifier, X, y, cv=folds)
    by_hand = [
        np.mean(
            clone(classifier).fit(X.iloc[a], y[a]).predict(X.iloc[b]) == y[b]
        )
        for a, b in folds.split(X, y)
    ]
    np.testing.assert_array_equal(scores, by_hand)


@mainly_on("torch")
def test_in_a_pipeline_and_a_grid_search():
    X, y = table()
    steps = pipeline.make_pipeline(
        preprocessing.FunctionTransformer(lambda X: X.assign(price=-X.price)),
        SKLearnMultimodalClassifier(COLUMNS, **SMALL),
    )
    name = "sklearnmultimodalclassifier"
    search = GridSearchCV(
        steps,
        {
            f"{name}__settings": [{"alpha": 1.0}, {"alpha": 100.0}],
            f"{name}__learning_rate": [0.0, 0.01],
        },
        cv=2,
        scoring="neg_log_loss",
    ).fit(X, y)
    assert search.best_params_[f"{name}__learning_rate"] == 0.01
    best = search.best_estimator_[-1]
    projector = best.model_.get_config()["projector"]["config"]
    assert projector["alpha"] == best.settings["alpha"]
    assert search.predict(X).shape == (40,)


@mainly_on("torch")
def test_probabilities_of_calibrated_classifiers():
    X, y = table()
    classifier = SKLearnMultimodalClassifier(COLUMNS, **SMALL)
    calibrated = CalibratedClassifierCV(classifier, cv=2).fit(X, y)
    found = calibrated.predict_proba(X)
    assert found.shape == (40, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)


@mainly_on("torch")
def test_pickle_joblib_and_copies_predict_equally(tmp_path):
    X, y = table()
    classifier = SKLearnMultimodalClassifier(
        COLUMNS, {"audio": new_encoder}, **{**SMALL, "epochs": 1}
    ).fit(X, y)
    wanted = classifier.predict_proba(X)
    file = io.BytesIO()
    joblib.dump(classifier, file)
    for other in (
        pickle.loads(pickle.dumps(classifier)),
        copy.deepcopy(classifier),
        joblib.load(file),
    ):
        np.testing.assert_array_equal(other.predict_proba(X), wanted)
    classifier.model_.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    logits = loaded.predict(loaded.table.inputs(X), verbose=0)
    np.testing.assert_allclose(softmax(logits), wanted, atol=1e-6)


@long()
def test_processes_side_by_side():
    X, y = table()
    classifier = SKLearnMultimodalClassifier(COLUMNS, **SMALL)
    scores = cross_val_score(classifier, X, y, cv=2, n_jobs=2)
    np.testing.assert_array_equal(
        scores, cross_val_score(classifier, X, y, cv=2)
    )


# === Randomness ===


@mainly_on("torch")
def test_a_seed_decides_everything_and_stays_inside():
    x, y = arrays()
    estimator = SKLearnMultimodalClassifier(**{**SMALL, "epochs": 1})
    first = estimator.fit(x, y).predict_proba(x)
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    second = estimator.fit(x, y).predict_proba(x)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.testing.assert_array_equal(first, second)
    other = estimator.set_params(random_state=1).fit(x, y).predict_proba(x)
    assert abs(other - first).max() > 1e-4


@mainly_on("torch")
def test_threads_train_as_one_after_the_other():
    X, y = table()

    def trained(seed):
        classifier = SKLearnMultimodalClassifier(
            COLUMNS, **{**SMALL, "random_state": seed}
        )
        return classifier.fit(X, y).predict_proba(X)

    threads = joblib.Parallel(n_jobs=3, backend="threading")
    found = threads(joblib.delayed(trained)(seed) for seed in range(3))
    for seed, probabilities in enumerate(found):
        np.testing.assert_array_equal(probabilities, trained(seed))


# === Methods, tasks and weights ===


@mainly_on("torch")
@pytest.mark.parametrize("method", ["QMF", "MMIN", "CCA"])
def test_methods_with_needs_of_their_own(method):
    x, y = arrays()
    x["audio"][::5] = np.nan
    small = {**SMALL, "epochs": 1}
    settings = {"width": 2} if method == "CCA" else None
    found = SKLearnMultimodalClassifier(
        method=method, settings=settings, **small
    ).fit(x, y)
    assert np.isfinite(found.predict_proba(x)).all()


@long()
@pytest.mark.parametrize("method", sorted(keras_mla.models.METHODS))
def test_all_methods(method):
    x, y = arrays(rows=40)
    x["audio"][::5] = np.nan
    settings = {"width": 2} if "CCA" in method else None
    found = SKLearnMultimodalClassifier(
        method=method, settings=settings, **{**SMALL, "epochs": 1}
    ).fit(x, y)
    assert np.isfinite(found.predict_proba(x)).all()


@mainly_on("torch")
def test_the_recommended_method_is_calibrated_on_rows_held_out():
    X, y = table(60)
    classifier = SKLearnMultimodalClassifier(
        COLUMNS, method="recommended", **SMALL
    ).fit(X, y)
    assert "val_loss" in classifier.history_
    other = SKLearnMultimodalClassifier(
        COLUMNS, method="recommended", validation_fraction=0.0, **SMALL
    )
    with pytest.raises(ValueError, match="above 0 to calibrate"):
        other.fit(X, y)


@mainly_on("torch")
def test_callbacks_are_copied_and_stop_early():
    x, y = arrays()
    stop = keras.callbacks.EarlyStopping("val_loss", min_delta=100.0)
    classifier = SKLearnMultimodalClassifier(
        callbacks=[stop], validation_fraction=0.25, **SMALL
    ).fit(x, y)
    assert classifier.n_iter_ == 2
    assert stop.model is None


@mainly_on("torch")
def test_class_weights_are_weights_of_samples():
    X, y = table()
    weighted = SKLearnMultimodalClassifier(
        COLUMNS, class_weight={"no": 1.0, "yes": 3.0}, **SMALL
    ).fit(X, y)
    plain = SKLearnMultimodalClassifier(COLUMNS, **SMALL)
    plain.fit(X, y, sample_weight=np.where(y == "yes", 3.0, 1.0))
    np.testing.assert_array_equal(
        weighted.predict_proba(X), plain.predict_proba(X)
    )


@mainly_on("torch")
def test_an_indicator_matrix_is_multi_label():
    X, _ = table()
    y = np.random.default_rng(0).integers(0, 2, (40, 3))
    classifier = SKLearnMultimodalClassifier(COLUMNS, **SMALL).fit(X, y)
    logits = classifier.model_.predict(classifier.inputs(X), verbose=0)
    found = classifier.predict_proba(X)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=1e-6)
    np.testing.assert_array_equal(classifier.predict(X), found > 0.5)


@mainly_on("torch")
def test_a_regressor_learns_numbers():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(64, 4))
    y = X @ [1.0, -1.0, 0.5, 0.0]
    regressor = SKLearnMultimodalRegressor(
        {"right": [2, 3], "left": [0, 1]},
        width=16,
        epochs=20,
        batch_size=16,
        learning_rate=1e-2,
        random_state=0,
    ).fit(X, y)
    assert regressor.predict(X).shape == (64,)
    assert regressor.score(X, y) > 0.5
    both = regressor.fit(X, np.stack([y, -y], axis=1)).predict(X)
    assert both.shape == (64, 2)


@mainly_on("torch")
def test_settings_may_hold_layers():
    X, y = table()
    fusion = keras_mla.layers.AverageFusion()
    classifier = SKLearnMultimodalClassifier(
        COLUMNS, settings={"fusion": fusion}, **SMALL
    )
    found = clone(classifier).fit(X, y).model_.fusion
    assert type(found) is type(fusion) and found is not fusion
    assert not fusion.built


@mainly_on("torch")
def test_calibration_and_validation_get_the_weights():
    X, y = table(80)
    # Wrong labels without a weight change nothing.
    flipped = np.where(
        np.arange(80) % 4 < 2, y, np.where(y == "yes", "no", "yes")
    )
    weights = (np.arange(80) % 4 < 2).astype(float)
    arguments = {**SMALL, "epochs": 8, "learning_rate": 1e-2}
    found = []
    for labels in (flipped, np.where(weights > 0, flipped, y)):
        one = SKLearnMultimodalClassifier(
            COLUMNS, calibration="joint", validation_fraction=0.5, **arguments
        )
        # Its rows are held out at random, not by class.
        one._divided = lambda *_: (np.arange(40), np.arange(40, 80))
        one.fit(X, labels, sample_weight=weights)
        found.append(one.predict_proba(X))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@mainly_on("torch")
def test_an_optimizer_by_its_class_and_one_callback():
    x, y = arrays()
    stop = keras.callbacks.EarlyStopping("loss", min_delta=100.0)
    classifier = SKLearnMultimodalClassifier(
        optimizer=keras.optimizers.Adam,
        learning_rate=0.01,
        weight_decay=0.1,
        callbacks=stop,
        **SMALL,
    ).fit(x, y)
    optimizer = classifier.model_.optimizer
    assert optimizer.beta_1 == 0.9 and optimizer.weight_decay == 0.1
    assert classifier.n_iter_ == 2


@mainly_on("torch")
def test_what_others_draw_at_random_stays():
    x, y = arrays()
    torch = pytest.importorskip("torch")
    classifier = SKLearnMultimodalClassifier(**{**SMALL, "epochs": 1})
    drawn = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        classifier.fit(x, y)
        drawn.append(float(torch.rand(1)))
    assert drawn[0] != drawn[1]


@mainly_on("torch")
def test_names_and_positions_together():
    X, y = table(absent=False)
    classifier = SKLearnMultimodalClassifier(
        {"voice": ["high", 2], "price": np.array([0])}, **SMALL
    ).fit(X, y)
    fields = classifier.inputs_.table.fields
    assert fields["voice"].columns == ("high", "loud")
    assert fields["price"].columns == ("price",)


@mainly_on("torch")
def test_rows_by_key_and_a_mask_of_columns():
    X, y = table()
    classifier = SKLearnMultimodalClassifier(COLUMNS, **SMALL).fit(X, y)
    records = X[X.columns[::-1]].to_dict("records")
    records = [{k: v for k, v in r.items() if v == v} for r in records]
    np.testing.assert_array_equal(
        classifier.predict_proba(records), classifier.predict_proba(X)
    )
    masked = SKLearnMultimodalClassifier(
        {"a": [False, True], "b": [True, False]}, **SMALL
    ).fit(np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2)
    fields = masked.inputs_.table.fields
    assert [f.columns for f in fields.values()] == [("x1",), ("x0",)]


# === Errors ===


@mainly_on("torch")
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"columns": {"text": "name"}}, "no column 'name'"),
        ({"columns": {"text": [9]}}, "positions from 0 to 4"),
        ({"encoders": {"smell": "mlp"}}, r"\['smell'\], which are no modal"),
        ({"encoders": {"text": "cnn"}}, "must be one of"),
        ({"columns": ["title"]}, "dict of modality to columns"),
        ({"encoders": ["mlp"]}, "dict of modality to encoder"),
        ({"method": "MLAX"}, "no method 'MLAX'"),
        ({"method": "table"}, "one method"),
        ({"optimizer": "adamm"}, "`optimizer` must be one of"),
        ({"validation_fraction": 1.0}, "below 1"),
        ({"kinds": {"height": "number"}}, "`kinds` must map"),
    ],
)
def test_wrong_arguments(arguments, message):
    X, y = table()
    arguments = {"columns": COLUMNS, **arguments}
    classifier = SKLearnMultimodalClassifier(**arguments, **SMALL)
    with pytest.raises((TypeError, ValueError), match=message):
        classifier.fit(X, y)


@mainly_on("torch")
def test_wrong_rows():
    x, y = arrays()
    classifier = SKLearnMultimodalClassifier(**{**SMALL, "epochs": 1})
    classifier.fit(x, y)
    with pytest.raises(ValueError, match="holds arrays|is a table"):
        classifier.predict(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"X holds \['smell'\]"):
        classifier.predict({**x, "smell": x["audio"]})
    with pytest.raises(ValueError, match="Row 2 has none of the modalities"):
        lost = {"audio": x["audio"].copy()}
        lost["audio"][2] = np.nan
        classifier.predict(lost)
    with pytest.raises(ValueError, match="same samples"):
        classifier.predict({**x, "audio": x["audio"][:5]})
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        classifier.fit(x, y[:-1])
    with pytest.raises(ValueError, match="same samples"):
        classifier.fit({**x, "audio": np.tile(x["audio"], (2, 1))}, y)
    with pytest.raises(ValueError, match="same samples"):
        classifier.fit({**x, "presence": np.ones((30, 3), bool)}, y)
    with pytest.raises(ValueError, match=r"X\['audio'\] is None"):
        classifier.fit({**x, "audio": None}, y)
    with pytest.raises(ValueError, match="several parts"):
        parts = {"a": x["audio"], "b": x["audio"]}
        classifier.fit({**x, "audio": parts}, y)
    with pytest.raises(ValueError, match="several parts"):
        classifier.fit({**x, "audio": [x["audio"], x["video"]]}, y)
    with pytest.raises(ValueError, match="0 sample"):
        classifier.fit({name: value[:0] for name, value in x.items()}, [])
    with pytest.raises(ValueError, match="'audio' holds words"):
        classifier.fit({**x, "audio": np.full((24, 1), "loud")}, y)
    X, y = table()
    classifier.set_params(columns=COLUMNS).fit(X, y)
    with pytest.raises(ValueError, match="fitted on a table"):
        classifier.predict(x)


@mainly_on("torch")
def test_scikit_learn_is_imported_by_those_who_use_it():
    code = (
        "import sys; sys.modules['sklearn'] = None; import keras_mla\n"
        "try: keras_mla.wrappers.SKLearnMultimodalClassifier\n"
        "except ImportError as error: print(error)"
    )
    result = in_process("-c", code)
    assert 'pip install "keras-mla[tables]"' in result.stdout
