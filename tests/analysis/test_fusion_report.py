import keras
import numpy as np
import pytest
from utils import mainly_on

from keras_mla import MLA
from keras_mla.analysis import fusion_report
from keras_mla.layers import EntropyFusion
from keras_mla.models import JointMLA, LateFusion, SumFusion

# Not in alphabetical order.
NAMES = ("video", "audio", "text")
SAMPLES, CLASSES = 400, 3


def made_up(method=LateFusion, **kwargs):
    """A model whose inputs are its logits, of independent modalities."""
    rng = np.random.default_rng(0)
    y = rng.choice(CLASSES, SAMPLES, p=[0.6, 0.3, 0.1])
    prior = np.log([0.6, 0.3, 0.1])
    z = np.eye(CLASSES)[y][:, None] * 1.5
    z = 1.5 * (z + rng.normal(size=(SAMPLES, 3, CLASSES))) + prior
    z[:, 2] = rng.normal(size=(SAMPLES, CLASSES))  # It knows nothing.
    model = method(
        {
            m: keras.Sequential(
                [keras.Input((CLASSES,)), keras.layers.Dense(CLASSES)]
            )
            for m in NAMES
        },
        head=CLASSES,
        **kwargs,
    )
    for m in NAMES:
        model.encoders[m].layers[-1].kernel.assign(np.eye(CLASSES))
        head = getattr(model, "heads", {}).get(m, model.head)
        head.kernel.assign(np.eye(CLASSES))
    x = {m: z[:, i].astype("float32") for i, m in enumerate(NAMES)}
    return model, x, y, z


def accuracy(z, y):
    return (z.argmax(1) == y).mean()


@mainly_on("torch")
def test_each_fusion_from_each_subset():
    model, x, y, z = made_up()
    report = fusion_report(model, (x, y))
    whole = report.scores[NAMES]
    assert list(whole) == [
        "average",
        "product",
        "entropy weights",
        "pool",
        "pool with bias",
        "best weight per sample",
    ]
    assert whole["average"]["accuracy"] == pytest.approx(accuracy(z.mean(1), y))
    log_p = z - np.log(np.exp(z).sum(2, keepdims=True))
    weight = np.exp((np.exp(log_p) * log_p).sum(2))
    weight /= weight.sum(1, keepdims=True)
    fused = (weight[..., None] * z).sum(1)
    assert whole["entropy weights"]["accuracy"] == pytest.approx(
        accuracy(fused, y)
    )
    assert len(report.scores) == 7
    for subset, found in report.scores.items():
        assert report.samples[subset] == SAMPLES
        for scores in found.values():
            assert set(scores) == {
                "accuracy",
                "negative_log_likelihood",
                "calibration_error",
            }
            # The oracle chooses among averages.
            best = found["best weight per sample"]["accuracy"]
            assert found["average"]["accuracy"] <= best
        if len(subset) == 1:
            own = accuracy(z[:, NAMES.index(subset[0])], y)
            # A pool may leave out the one that knows nothing.
            names = ["average", "entropy weights", "pool"]
            for name in names[: 2 if subset == ("text",) else 3]:
                assert found[name]["accuracy"] == pytest.approx(own)
    # The pool leaves out what knows nothing, and is more certain than one.
    nll = {n: s["negative_log_likelihood"] for n, s in whole.items()}
    assert nll["pool"] < nll["average"]
    assert nll["pool"] < nll["entropy weights"]
    losses = np.stack([-log_p[i, :, y[i]] for i in range(SAMPLES)])
    for index, m in enumerate(NAMES):
        w, loss = weight[:, index], losses[:, index]
        expected = ((w - w.mean()) * (loss - loss.mean())).mean()
        assert report.covariance[m] == pytest.approx(expected, abs=1e-5)
        error = np.std((w - w.mean()) * (loss - loss.mean())) / SAMPLES**0.5
        assert report.standard_error[m] == pytest.approx(error, rel=1e-3)
    # Certain predictions of what knows something are right more often.
    assert report.covariance["video"] < -3 * report.standard_error["video"]


def test_absent_modalities_and_other_experts():
    model, x, y, _ = made_up(JointMLA)
    x["presence"] = np.random.default_rng(1).random((SAMPLES, 3)) > 0.3
    for index, m in enumerate(NAMES):
        x[m][~x["presence"][:, index]] = np.nan
    report = fusion_report(model, (x, y, np.ones(SAMPLES)), batch_size=100)
    assert set(report.covariance) == {*NAMES, "joint"}
    for subset, count in report.samples.items():
        seen = x["presence"][:, [NAMES.index(m) for m in subset]].any(1)
        assert count == seen.sum()
    for found in report.scores.values():
        assert np.isfinite(
            [v for scores in found.values() for v in scores.values()]
        ).all()
    # The model is as it was.
    assert type(model.fusion) is EntropyFusion
    assert float(model.fusion.scale) == 1


@mainly_on("torch")
def test_other_tasks():
    model, x, y, z = made_up()
    labels = (z.mean(1) > 0).astype("float32")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    report = fusion_report(model, (x, labels))
    assert report.scores[NAMES]["average"]["accuracy"] == 1
    model.compile("sgd", "mse")
    report = fusion_report(model, (x, z.mean(1)))
    found = report.scores[NAMES]
    assert list(found) == [
        "average",
        "inverse variance",
        "best weight per sample",
    ]
    assert found["average"] == {
        "mean_squared_error": pytest.approx(0, abs=1e-9)
    }
    assert report.covariance == {}


@mainly_on("torch")
def test_plot(tmp_path):
    model, x, y, _ = made_up(MLA)
    report = fusion_report(model, (x, y))
    figure = report.plot(tmp_path / "fusion.svg")
    assert (tmp_path / "fusion.svg").exists()
    measures = ["accuracy", "negative log likelihood", "calibration error"]
    assert [axis.get_xlabel() for axis in figure.axes] == measures


def test_wrong_calls():
    model, x, y, _ = made_up(SumFusion)
    with pytest.raises(ValueError, match="SumFusion joins features"):
        fusion_report(model, (x, y))
    model, x, y, _ = made_up()
    few = {m: v[:5] for m, v in x.items()}
    with pytest.raises(ValueError, match="at least 10 samples"):
        fusion_report(model, (few, y[:5]))
