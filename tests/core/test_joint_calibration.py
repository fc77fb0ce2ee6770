"""`calibrate(method="joint")`: the pool, and the choice of a fusion."""

import sys
import warnings

import keras
import numpy as np
import pytest
from scipy.optimize import minimize
from utils import mainly_on

from keras_mla.analysis import fusion_report
from keras_mla.core.calibration import joint, pool
from keras_mla.core.calibration.samples import (
    Samples,
    predicted,
    subsets_of,
)
from keras_mla.core.tasks import TASKS
from keras_mla.layers import (
    AverageFusion,
    EntropyFusion,
    InverseVarianceFusion,
    PoolFusion,
)
from keras_mla.models import (
    MLA,
    JointMLA,
    LateFusion,
    MultiLossFusion,
    SumFusion,
)

# Not in alphabetical order.
NAMES = ("video", "audio", "text")
CLASSES = 4


def model_of(names=NAMES, classes=CLASSES, method=LateFusion, **kwargs):
    """A model whose inputs are the logits of its modalities."""
    model = method(
        {
            m: keras.Sequential(
                [keras.Input((classes,)), keras.layers.Dense(classes)]
            )
            for m in names
        },
        head=classes,
        **kwargs,
    )
    heads = getattr(model, "heads", {"": model.head})
    if method is SumFusion:
        return model
    for layer in [
        *(model.encoders[m].layers[-1] for m in names),
        *heads.values(),
    ]:
        layer.kernel.assign(np.eye(classes))
        layer.bias.assign(np.zeros(classes))
    return model


def made_up(factors, samples=600, bias=None, seed=0, classes=CLASSES):
    """Logits of independent experts, each times a factor; 0 says nothing."""
    rng = np.random.default_rng(seed)
    prior = np.exp(np.zeros(classes) if bias is None else np.asarray(bias))
    y = rng.choice(classes, samples, p=prior / prior.sum())
    # With such noise, the logits of the posterior are the values themselves
    # for an even prior.
    z = np.eye(classes)[y][:, None] + rng.normal(
        size=(samples, len(factors), classes)
    )
    noise = rng.normal(size=z.shape)
    return np.where(np.array(factors)[:, None] == 0, noise, z) * np.where(
        np.array(factors) == 0, 1.0, factors
    )[:, None], y


def inputs(z, names=NAMES):
    return {m: z[:, i].astype("float32") for i, m in enumerate(names)}


def samples_of(z, y, presence=None, weight=None):
    """Samples whose experts are their modalities."""
    if presence is None:
        presence = np.ones(z.shape[:2], bool)
    weight = np.ones(len(z)) if weight is None else weight
    others = np.zeros((len(z), 0, 0, z.shape[2]))
    return Samples(z, presence, presence, y, weight, others)


def all_seen(z):
    """The pattern of samples that have everything."""
    share = np.full(len(z), 1 / len(z))
    return pool.Pattern(z, np.ones(z.shape[:2], bool), share)


def own_objective(task, patterns, y, samples, numbers):
    """The docstring's sum, written down once more, a sample at a time."""
    experts = patterns[0].logits.shape[1]
    w, b = numbers[:experts], numbers[experts:]
    total = (((w - 1) ** 2).sum() + (b**2).sum()) / (2 * samples)
    for z, seen, q in patterns:
        fused = np.stack(
            [
                sum((w[m] * z[i, m] for m in np.flatnonzero(seen[i])), 0 * b)
                for i in range(len(z))
            ]
        )
        fused = fused + b
        if task == "single_label":
            log_p = fused - np.log(np.exp(fused).sum(1, keepdims=True))
            losses = -log_p[np.arange(len(y)), y]
        else:
            p = 1 / (1 + np.exp(-fused))
            losses = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(1)
        total += q @ losses
    return total


@mainly_on("torch")
@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("factors", [(1, 3, 1), (0.5, 0, 2)])
def test_the_optimum_is_that_of_another_minimiser(task, factors):
    z, y = made_up(factors, samples=40, classes=3)
    rng = np.random.default_rng(1)
    if task == "multi_label":
        y = (z.mean(1) + rng.normal(size=(40, 3)) > 0).astype(float)
    presence = rng.random((40, 3)) > 0.3
    presence[:, 0] |= ~presence.any(1)
    samples = samples_of(z, y, presence, rng.uniform(1, 3, 40))
    patterns = joint.patterns(model_of(classes=3), samples, np.ones(3))
    number = joint.effective_number(samples.weight)
    found = pool.fit(TASKS[task], patterns, y, number, True)

    def objective(numbers):
        return own_objective(task, patterns, y, number, numbers)

    reached = np.concatenate([found.weight, found.bias])
    for start in rng.uniform(0, 3, (4, 6)):
        other = minimize(
            objective,
            start,
            method="SLSQP",
            bounds=[(0, None)] * 3 + [(None, None)] * 3,
            options={"maxiter": 500, "ftol": 1e-12},
        )
        np.testing.assert_allclose(reached, other.x, atol=2e-3)
        assert objective(reached) <= other.fun + 1e-8
    # The slope is 0, or points out of the range where a weight is 0.
    for index in range(6):
        step = 1e-5 * np.eye(6)[index]
        slope = (objective(reached + step) - objective(reached - step)) / 2e-5
        if index < 3 and reached[index] == 0:
            assert slope > -1e-5
        else:
            assert slope == pytest.approx(0, abs=1e-5)


@mainly_on("torch")
def test_patterns_are_half_of_what_there_is_and_half_of_parts():
    presence = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0]], bool)
    z = np.ones((3, 3, CLASSES))
    samples = samples_of(z, np.zeros(3, int), presence, np.ones(3) * 2)
    found = {}
    temperature = np.array([1.0, 2.0, 4.0])
    for scaled, seen, share in joint.patterns(model_of(), samples, temperature):
        np.testing.assert_allclose(scaled, z / temperature[:, None])
        for i in range(3):
            if share[i]:
                key = (i, tuple(np.flatnonzero(seen[i])))
                found[key] = found.get(key, 0) + 3 * share[i]
    expected = {(0, (0, 1, 2)): 0.5, (1, (0, 2)): 0.5, (2, (1,)): 1.0}
    for part in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2)):
        expected[0, part] = 0.5 / 6
    # {0} and {0, 1} leave the same of a sample without 1.
    expected[1, (0,)] = expected[1, (2,)] = 0.25
    assert found == pytest.approx(expected)
    many = samples_of(np.zeros((2, 7, 2)), np.zeros(2, int))
    drawn = joint.patterns(model_of("abcdefg", 2), many, np.ones(7))
    assert 30 < len(drawn) <= 7 + 7 + 32 + 1
    assert sum(one.share.sum() for one in drawn) == pytest.approx(1)


def test_another_expert_sees_what_is_left():
    rng = np.random.default_rng(0)
    x = {m: rng.normal(size=(30, CLASSES)).astype("float32") for m in NAMES}
    x["presence"] = rng.random((30, 3)) > 0.2
    y = rng.integers(0, CLASSES, 30)
    model = JointMLA(
        {m: keras.Sequential([keras.layers.Dense(5)]) for m in NAMES}, CLASSES
    )
    model.predict(x, verbose=0)
    known = x["presence"].any(1)
    samples = predicted(model, (x, y), None)
    whole, *others = joint.patterns(model, samples, np.ones(4))
    assert len(samples.y) == known.sum() and len(others) == 6
    for index, pattern in enumerate(others):
        shown = x["presence"] & subsets_of(3)[index]
        expected = model.predict_modalities({**x, "presence": shown})
        rows = pattern.share > 0
        np.testing.assert_allclose(
            pattern.logits[rows, 3],
            expected["joint"]["logits"][known][rows],
            atol=1e-6,
        )
        np.testing.assert_array_equal(
            pattern.present[rows, 3], shown[known][rows].any(1)
        )
        assert (pattern.logits[rows, 3] != whole.logits[rows, 3]).any()
    report = fusion_report(model, (x, y))
    own = model.predict({**x, "presence": x["presence"] & subsets_of(3)[0]})
    alone = known & x["presence"][:, 2]
    assert report.samples["text",] == alone.sum()
    assert report.scores["text",]["entropy weights"]["accuracy"] == (
        pytest.approx((own[alone].argmax(1) == y[alone]).mean())
    )


@mainly_on("torch")
def test_known_weights_are_recovered():
    rng = np.random.default_rng(0)
    n = 20_000
    z = rng.normal(size=(n, 4, CLASSES))
    z[:, 3] = z[:, 1]  # A duplicate; the third says nothing.
    logits = 2 * z[:, 0] + 0.5 * z[:, 1] + np.array([0, 1, -1, 0.5])
    y = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    found = pool.fit(TASKS["single_label"], [all_seen(z)], y, n, True)
    assert found.weight[0] == pytest.approx(2, abs=0.1)
    assert found.weight[1] + found.weight[3] == pytest.approx(0.5, abs=0.1)
    assert found.weight[1] == pytest.approx(found.weight[3], abs=1e-3)
    assert found.weight[2] == pytest.approx(0, abs=0.05)
    np.testing.assert_allclose(
        found.bias - found.bias[0], [0, 1, -1, 0.5], atol=0.1
    )


@mainly_on("torch")
def test_shares_count_as_repeated_samples_do():
    z, y = made_up((1, 3, 0), samples=60)
    task = TASKS["single_label"]
    times = np.arange(60) % 3
    rows = np.repeat(np.arange(60), times)
    counted = all_seen(z)._replace(share=times / 60)
    weighted = pool.fit(task, [counted], y, 60, True)
    repeated = pool.fit(task, [all_seen(z[rows])], y[rows], 60, True)
    np.testing.assert_allclose(weighted.weight, repeated.weight, atol=1e-4)
    np.testing.assert_allclose(weighted.bias, repeated.bias, atol=1e-4)


@mainly_on("torch")
@pytest.mark.parametrize("seed", range(4))
def test_a_pool_is_no_worse_than_the_average_and_any_single_one(seed):
    rng = np.random.default_rng(seed)
    z, y = made_up(rng.choice([0, 0.3, 1, 4], 3), samples=300, seed=seed)
    task, seen = TASKS["single_label"], np.ones((300, 3), bool)
    one = np.ones(300)

    def nll(logits):
        return task.negative_log_likelihood(logits, y, one)

    scaled = [
        joint.best_scale(task, z[:, m], y, one) * z[:, m] for m in range(3)
    ]
    scaled = np.stack(scaled, 1)
    found = pool.fit(task, [all_seen(scaled)], y, 300, False)
    best = nll(found.fused(scaled, seen))
    average = z.mean(1)
    for other in (
        joint.best_scale(task, average, y, one) * average,
        *scaled.transpose(1, 0, 2),
    ):
        assert best <= nll(other) + 0.005  # The ridge's share.


@mainly_on("torch")
def test_each_sample_is_predicted_by_a_fit_to_others():
    y = np.repeat(np.arange(3), (5, 11, 24))
    rng = np.random.default_rng(0)
    rng.shuffle(y)
    numbers = np.arange(40.0).reshape(40, 1, 1)
    sizes = []

    def fit(samples):
        sizes.append(np.bincount(samples.y))
        return {"seen": samples.logits.reshape(-1)}

    def fused(values, samples):
        assert not np.isin(samples.logits, values["seen"]).any()
        assert len(values["seen"]) + len(samples.y) == 40
        return samples.logits[:, 0] + 0.5

    (found,) = joint.cross_fitted(
        joint.Candidate(fit, fused), samples_of(numbers, y)
    )
    np.testing.assert_array_equal(found, numbers[:, 0] + 0.5)
    # Every class is in every part.
    assert (np.abs(np.array(sizes) - 0.8 * np.array([5, 11, 24])) <= 1).all()


CHOICES = {
    # Three equally good, equally certain experts.
    "average": ((1, 1, 1), None),
    # One is too certain, one says nothing.
    "pool": ((1, 4, 0), None),
    # Classes are as frequent as 1 to 12.
    "pool with bias": ((1, 4, 0), np.log([1, 1, 4, 12])),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_the_simplest_that_is_good_enough_is_kept(choice, tmp_path):
    factors, bias = CHOICES[choice]
    z, y = made_up(factors, bias=bias)
    model, x = model_of(), inputs(z)
    presence = np.random.default_rng(3).random((len(y), 3)) > 0.2
    # An average is too certain where there are fewer to average.
    presence |= choice == "average"
    x["presence"] = presence
    for index, m in enumerate(NAMES):
        x[m][~presence[:, index]] = np.nan
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    model.evaluate(x, y, verbose=0)
    model.predict_modalities(x)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`calibrate`")
        fitted = model.calibrate((x, y), method="joint")
    assert fitted["fusion"] == choice
    z = np.where(presence[..., None], z, 0)
    if choice == "average":
        assert type(model.fusion) is AverageFusion
        count = np.maximum(presence.sum(1), 1)[:, None]
        expected = fitted["scale"] * z.sum(1) / count
    else:
        assert type(model.fusion) is PoolFusion
        factors = [
            fitted["weight"][m] / fitted["temperature"][m] for m in NAMES
        ]
        expected = (np.array(factors)[:, None] * z).sum(1)
        expected += presence.any(1, keepdims=True) * fitted["bias"]
        assert fitted["bias"].any() == (choice == "pool with bias")
        assert factors[1] < 0.5 * factors[0]
        assert factors[2] < 0.2 * factors[0]
    found = model.predict(x, verbose=0)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    known = presence.any(1)
    task = TASKS["single_label"]
    nll = task.negative_log_likelihood(
        found[known], y[known], np.ones(known.sum())
    )
    assert fitted["after"]["negative_log_likelihood"] == pytest.approx(
        nll, rel=1e-4
    )
    assert nll < fitted["before"]["negative_log_likelihood"]
    # All that was compiled before sees the new fusion.
    scores = model.evaluate(x, y, verbose=0, return_dict=True)
    assert scores["accuracy"] == pytest.approx(
        (found.argmax(1) == y).mean(), abs=1e-6
    )
    modalities = model.predict_modalities(x)
    np.testing.assert_allclose(modalities["fused"], found, atol=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(again.predict(x, verbose=0), found, atol=1e-6)
    # It trains on, and is compiled again, with the same fusion.
    model.compile("sgd", loss)
    model.fit(x, y, verbose=0)
    assert type(model.fusion) is type(again.fusion)


@mainly_on("torch")
@pytest.mark.parametrize("noise", [(1, 1, 1), (0.2, 1, 3)])
def test_a_regression_chooses_inverse_variances(noise):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(200, CLASSES))
    z = (
        y[:, None]
        + rng.normal(size=(200, 3, CLASSES)) * np.array(noise)[:, None]
    )
    model = model_of(fusion=AverageFusion())
    model.compile("sgd", "mse")
    fitted = model.calibrate((inputs(z), y), method="joint")
    if noise[0] == noise[1]:
        assert fitted["fusion"] == "average"
        return
    assert type(model.fusion) is InverseVarianceFusion
    expected = ((z - y[:, None]) ** 2).mean((0, 2))
    np.testing.assert_allclose(
        list(fitted["variance"].values()), expected, 1e-4
    )
    assert "calibration_error" not in fitted["after"]


@mainly_on("torch")
def test_several_labels():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(800, 3, CLASSES)) * 2
    logits = 0.5 * z[:, 0] + 0.1 * z[:, 1] + np.array([-2, 0, 0, 1])
    y = (rng.logistic(size=logits.shape) < logits).astype(float)
    model = model_of()
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`calibrate`")
        fitted = model.calibrate((inputs(z), y), method="joint")
    assert fitted["fusion"] == "pool with bias"
    np.testing.assert_allclose(fitted["bias"], [-2, 0, 0, 1], atol=0.35)
    p = 1 / (1 + np.exp(-model.predict(inputs(z), verbose=0)))
    sure, right = np.maximum(p, 1 - p).ravel(), ((p > 0.5) == y).ravel()
    bins = np.ceil(sure * 15)
    error = sum(
        abs((right[bins == b] - sure[bins == b]).sum()) for b in range(16)
    )
    assert fitted["after"]["calibration_error"] == pytest.approx(
        error / y.size, abs=1e-3
    )
    alike = y.copy()
    alike[:, 2] = 0  # Nobody has the third label.
    model.replace_fusion(AverageFusion())
    with pytest.warns(UserWarning, match=r"no class bias.*\[2\]"):
        fitted = model.calibrate((inputs(z), alike), method="joint")
    assert "pool with bias" not in fitted["gain"]


@mainly_on("torch")
def test_poor_validation_data():
    z, y = made_up((1, 3, 1))
    lacking = y != 2
    with pytest.warns(UserWarning, match=r"lacks the classes .* \[2\]"):
        fitted = model_of().calibrate(
            (inputs(z[lacking]), y[lacking]), method="joint"
        )
    assert fitted["fusion"] == "pool"
    np.testing.assert_array_equal(fitted["bias"], 0)
    with pytest.warns(UserWarning, match="lacks the classes"):
        few = model_of().calibrate((inputs(z[:3]), y[:3]), method="joint")
    assert (few["fusion"], few["gain"]) == ("average", {})
    x = inputs(z)
    x["presence"] = np.ones((len(y), 3), bool)
    x["presence"][:, 1] = False
    with pytest.raises(ValueError, match="no sample of 'audio'"):
        model_of().calibrate((x, y), method="joint")
    # Three samples of a modality say little of its temperature.
    x["presence"][:3, 1] = True
    x["audio"][:3] = 4 * np.eye(CLASSES)[y[:3]]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`calibrate`")
        fitted = model_of().calibrate((x, y), method="joint")
    if "temperature" in fitted:
        assert 0.3 < fitted["temperature"]["audio"] < 3
    constant = z.copy()
    constant[:, 2] = [5, 0, 0, 0]
    model = model_of()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`calibrate`")
        fitted = model.calibrate((inputs(constant), y), method="joint")
    after = fitted["after"]["negative_log_likelihood"]
    average = constant.mean(1)
    task, one = TASKS["single_label"], np.ones(len(y))
    scale = joint.best_scale(task, average, y, one)
    assert after <= task.negative_log_likelihood(scale * average, y, one) + 1e-6


@mainly_on("torch")
def test_bounds_are_told():
    z, y = made_up((1, 1, 1))
    sure = z.copy()
    sure[:, 0] = 0.01 * np.eye(CLASSES)[y]  # Without an error.
    with pytest.warns(UserWarning, match="the temperature of 'video' is 0.01"):
        model_of().calibrate((inputs(sure), y))
    wrong = z.copy()
    wrong[:, 1] = -wrong[:, 1]
    with pytest.warns(UserWarning) as caught:
        fitted = model_of().calibrate((inputs(wrong), y), method="joint")
    assert fitted["weight"]["audio"] == 0
    told = [str(warning.message) for warning in caught]
    assert any("the temperature of 'audio' is 100" in t for t in told)
    assert any("a weight of 0 to audio:" in t for t in told)


@mainly_on("torch")
def test_temperatures_can_be_fitted_after_a_pool():
    z, y = made_up((1, 4, 1))
    model = model_of()
    pooled = model.calibrate((inputs(z), y), method="joint")
    assert type(model.fusion) is PoolFusion
    again = model.calibrate((inputs(z), y))
    # Those of the pool have a ridge.
    assert again["temperature"] == pytest.approx(
        pooled["temperature"], rel=1e-2
    )
    assert (
        again["after"]["negative_log_likelihood"]
        <= pooled["after"]["negative_log_likelihood"] + 1e-6
    )


@pytest.mark.filterwarnings("ignore:`calibrate` (ended|gave)")
@mainly_on("torch")
def test_a_better_fusion_is_not_replaced_without_a_word():
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, 400)
    # Each sample has a modality that knows, and one that wavers between two
    # classes, with larger logits.
    knows = rng.integers(0, 2, 400)
    z = np.zeros((400, 2, CLASSES))
    z[np.arange(400), knows] = 8 * np.eye(CLASSES)[y]
    wrong = (
        np.eye(CLASSES)[(y + 1) % CLASSES] + np.eye(CLASSES)[(y + 2) % CLASSES]
    )
    z[np.arange(400), 1 - knows] = 20 * wrong
    model = model_of("ba", fusion=EntropyFusion())
    model.fusion.sharpness.assign(50.0)
    with pytest.warns(UserWarning, match="`calibrate` replaced the fusion by"):
        model.calibrate((inputs(z, "ba"), y), method="joint")


@mainly_on("torch")
def test_a_fusion_does_not_get_worse_without_a_word(monkeypatch):
    z, y = made_up((1, 3, 0))
    model = model_of(fusion=AverageFusion())
    before, after = {"negative_log_likelihood": 1.0}, {}
    qualities = iter([before, after])
    # The function `calibrate` hides its module.
    module = sys.modules["keras_mla.core.calibration.calibrate"]
    monkeypatch.setattr(module, "quality", lambda *_: next(qualities))
    after["negative_log_likelihood"] = 1.02
    with pytest.warns(UserWarning, match="made the fused prediction worse"):
        model.calibrate((inputs(z), y))
    # Rounding is not worse.
    after["negative_log_likelihood"] = 1.0 + 1e-7
    qualities = iter([before, after])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "`calibrate` made")
        model.calibrate((inputs(z), y))


def test_a_fusion_is_replaced_in_its_place():
    z, y = made_up((1, 3, 0))
    model = model_of(method=MLA)
    names = [v.path.split("/")[-2:] for v in model.weights]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`calibrate`")
        model.calibrate((inputs(z), y), method="joint")
    assert type(model.fusion) is PoolFusion
    again = MLA.from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(
        again.predict(inputs(z), verbose=0),
        model.predict(inputs(z), verbose=0),
    )
    places = [n[-1] for n in names].index("temperature")
    assert model.weights[places].path.endswith("temperature")
    # A default follows the task again.
    model.compile("sgd", "mse")
    assert type(model.fusion) is InverseVarianceFusion


def test_weights_of_another_fusion_are_refused(tmp_path):
    z, y = made_up((1, 1, 1), samples=40)
    model = model_of(method=MultiLossFusion)
    model.replace_fusion(AverageFusion())
    model.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match="not the weights .* AdditiveFusion"):
        model_of(method=MultiLossFusion).load_weights(tmp_path / "a.weights.h5")
    model.load_weights(tmp_path / "a.weights.h5")


def test_wrong_calls():
    z, y = made_up((1, 1, 1), samples=20)
    model = model_of()
    for wrong, message in (
        ((inputs(z), y, -np.ones(20)), "at least 0 for each sample"),
        ((inputs(z), y, np.full(20, np.nan)), "at least 0 for each sample"),
        ((inputs(z), y, np.ones(3)), "3 weights for 20 labels"),
        ((inputs(z), y, {"audio": y}), "one array, for the fused"),
        ((inputs(z), y, np.zeros(20)), "No sample .* counts"),
        ((inputs(z),), "must be `.x, y.`"),
    ):
        with pytest.raises(ValueError, match=message):
            model.calibrate(wrong)
    huge = inputs(z)
    huge["audio"][0] = np.inf
    with pytest.raises(ValueError, match="'audio' must be finite.* 1 samples"):
        model.calibrate((huge, y))
    with pytest.raises(ValueError, match="no fusion layer"):
        model_of(method=SumFusion).replace_fusion(PoolFusion())
    with pytest.raises(TypeError, match="Received: None"):
        model.replace_fusion(None)
    with pytest.raises(ValueError, match="part of another model"):
        model.replace_fusion(model_of().fusion)
    with pytest.raises(ValueError, match="'temperature', 'joint'.*'pool'"):
        model_of().calibrate((inputs(z), y), method="pool")
    with pytest.raises(ValueError, match="SumFusion joins features"):
        model_of(method=SumFusion).calibrate((inputs(z), y), method="joint")
