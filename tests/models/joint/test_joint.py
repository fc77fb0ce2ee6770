import keras
import methods_reference as ref
import numpy as np
import pytest

from keras_mla.models import ConcatFusion, SumFusion

CASES = [("ab", False), ("abc", True)]


def sum_logits(p, f):
    return sum(f.values()) @ p["head_W"] + p["head_b"]


def concat_logits(p, f):
    return np.concatenate(list(f.values()), 1) @ p["head_W"] + p["head_b"]


@pytest.mark.parametrize("modalities, presence", CASES)
@pytest.mark.parametrize(
    "method, join", [(SumFusion, sum_logits), (ConcatFusion, concat_logits)]
)
def test_logits_loss_and_gradients(method, join, modalities, presence):
    x, y, present = ref.data(modalities, presence)
    model = ref.compiled(method(ref.encoders(modalities), head=3))
    ref.randomize(model)
    variables = ref.encoder_weights(model) | ref.dense_of("head", model.head)
    known = present.any(1)

    def logits(p):
        return join(p, ref.encode(p, x, modalities))

    predicted = model.predict(x, verbose=0)
    expected = logits(ref.numpy_of(variables)) * known[:, None]
    np.testing.assert_allclose(predicted, expected, atol=1e-5)
    ref.check_step(
        model,
        variables,
        x,
        y,
        lambda p: ref.cross_entropy(logits(p), y, known),
    )


def test_sum_scores_a_feature_through_the_head():
    x, _, _ = ref.data("ab")
    model = SumFusion(ref.encoders("ab"), head=3)
    ref.randomize(model)
    p = ref.numpy_of(
        ref.encoder_weights(model) | ref.dense_of("head", model.head)
    )
    for name, logits in ref.unimodal_logits(model, x).items():
        f = ref.encode(p, x, "ab")[name]
        np.testing.assert_allclose(
            logits, f @ p["head_W"] + p["head_b"], atol=1e-5
        )


def test_concat_scores_a_slice_of_the_head():
    x, _, _ = ref.data("abc")
    widths = {"a": 2, "b": 3, "c": 4}
    model = ConcatFusion(ref.encoders("abc", widths), head=3)
    ref.randomize(model)
    p = ref.numpy_of(
        ref.encoder_weights(model) | ref.dense_of("head", model.head)
    )
    features = ref.encode(p, x, "abc")
    slices = np.split(p["head_W"], [2, 5])
    scores = ref.unimodal_logits(model, x)
    for name, W in zip("abc", slices, strict=True):
        np.testing.assert_allclose(
            scores[name], features[name] @ W + p["head_b"] / 3, atol=1e-5
        )
    total = sum(scores.values())
    np.testing.assert_allclose(model.predict(x, verbose=0), total, atol=1e-5)


def test_a_deep_head_scores_with_zeros_for_the_others():
    x, _, _ = ref.data("ab")
    head = keras.Sequential(
        [keras.layers.Dense(5, "relu"), keras.layers.Dense(3)]
    )
    model = ConcatFusion(ref.encoders("ab"), head)
    ref.randomize(model)
    alone = np.array([[True, False]] * len(x["a"]))
    np.testing.assert_allclose(
        ref.unimodal_logits(model, x)["a"],
        model.predict({**x, "presence": alone}, verbose=0),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        model.unimodal("a").predict(x["a"], verbose=0),
        ref.unimodal_logits(model, x)["a"],
        atol=1e-6,
    )


def test_scoring_a_modality_trains_nothing():
    # A batch norm in the head sees each joint batch once, and no scores.
    x, y, _ = ref.data("ab")
    head = keras.Sequential(
        [keras.layers.BatchNormalization(momentum=0.5), keras.layers.Dense(3)]
    )
    model = ref.compiled(SumFusion(ref.encoders("ab"), head))
    p = ref.numpy_of(ref.encoder_weights(model))
    total = sum(ref.encode(p, x, "ab").values())
    model.train_on_batch(x, y)
    mean = ref.numpy_of({"m": head.layers[0].moving_mean})["m"]
    np.testing.assert_allclose(mean, 0.5 * total.mean(0), atol=1e-5)


def test_statistics_of_a_modality_that_no_sample_has_stay():
    x, y, _ = ref.data("ab")
    encoders = ref.encoders("ab")
    encoders["a"].add(keras.layers.BatchNormalization())
    encoders["b"].add(keras.layers.BatchNormalization())
    model = ref.compiled(SumFusion(encoders, head=3))
    x["presence"] = np.array([[True, False]] * len(y))
    model.train_on_batch(x, y)
    means = ref.numpy_of({m: encoders[m].layers[-1].moving_mean for m in "ab"})
    assert np.abs(means["a"]).max() > 0
    assert np.abs(means["b"]).max() == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_unequal_widths_need_a_projection():
    widths = {"a": 2, "b": 3}
    with pytest.raises(ValueError, match=r"width 2 \(a\), 3 \(b\)"):
        SumFusion(ref.encoders("ab", widths), head=3)
    model = SumFusion(ref.encoders("ab", widths), head=3, feature_dim=5)
    assert model.head.kernel.shape == (5, 3)


def test_unpaired_labels_are_refused():
    x, y, _ = ref.data("ab")
    model = ref.compiled(ConcatFusion(ref.encoders("ab"), head=3))
    with pytest.raises(ValueError, match="ConcatFusion trains on the fused"):
        model.train_on_batch(x, {"a": y, "b": y})
