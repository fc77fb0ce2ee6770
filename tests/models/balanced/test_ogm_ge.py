import keras
import methods_reference as ref
import numpy as np
import pytest
from utils import mainly_on

from keras_mla.models import OGMGE


def model_and_weights(modalities="ab", **kwargs):
    model = ref.compiled(OGMGE(ref.encoders(modalities), head=3, **kwargs))
    ref.randomize(model)
    return model, ref.encoder_weights(model) | ref.dense_of("head", model.head)


def coefficients(p, x, y, present, modalities, alpha):
    """k of each modality, as the paper has it."""
    features = ref.encode(p, x, modalities)
    slices = np.split(p["head_W"], len(modalities))
    scores = []
    for index, (m, W) in enumerate(zip(modalities, slices, strict=True)):
        z = features[m] @ W + p["head_b"] / len(modalities)
        right = np.exp(-ref.cross_entropies(z, y))
        scores.append(right[present[:, index]].mean())
    scores = np.array(scores)
    others = (scores.sum() - scores) / (len(modalities) - 1)
    ratio = scores / others
    return np.where(ratio > 1, 1 - np.tanh(alpha * ratio), 1.0)


@pytest.mark.parametrize("modalities, presence", [("ab", False), ("abc", True)])
def test_encoders_are_slowed_and_the_head_is_not(modalities, presence):
    x, y, present = ref.data(modalities, presence)
    model, variables = model_and_weights(modalities, alpha=0.7, noise=False)
    p = ref.numpy_of(variables)

    def objective(p):
        f = ref.encode(p, x, modalities)
        z = np.concatenate(list(f.values()), 1) @ p["head_W"] + p["head_b"]
        return ref.cross_entropy(z, y, present.any(1))

    k = coefficients(p, x, y, present, modalities, 0.7)
    assert 0 < (k < 1).sum() < len(modalities)
    logs, gradients = ref.applied_gradients(model, variables, x, y)
    np.testing.assert_allclose(float(logs["loss"]), objective(p), rtol=1e-5)
    for name, expected in ref.numeric_gradients(objective, p).items():
        factor = dict(zip(modalities, k, strict=True)).get(name[0], 1)
        if name.startswith("head"):
            factor = 1
        np.testing.assert_allclose(
            gradients[name], factor * expected, atol=2e-5, err_msg=name
        )


@mainly_on("torch")
def test_noise_is_as_large_as_the_gradient_varies():
    # Many steps from the same weights: a sample of the noise.
    x, y, _ = ref.data("ab")
    quiet, variables = model_and_weights(alpha=0.0, noise=False)
    _, plain = ref.applied_gradients(quiet, variables, x, y)
    noisy, variables = model_and_weights(alpha=0.0, noise=True, seed=3)
    start = ref.numpy_of(variables)
    drawn = {name: [] for name in plain}
    for _ in range(150):
        _, gradients = ref.applied_gradients(noisy, variables, x, y)
        for name, gradient in gradients.items():
            drawn[name].append(gradient - plain[name])
            variables[name].assign(start[name])
    for name, values in drawn.items():
        values = np.array(values)
        if name.startswith("head"):
            assert np.abs(values).max() < 1e-5
            continue
        expected = plain[name].std()
        # Four standard errors of a mean and of a deviation.
        count = values.size
        assert abs(values.mean()) < 4 * expected / np.sqrt(count)
        assert abs(values.std() / expected - 1) < 4 / np.sqrt(2 * count)


def test_noise_is_reproducible():
    x, y, _ = ref.data("ab")
    results = []
    for seed in (7, 7, 8):
        model, variables = model_and_weights(seed=seed)
        for _ in range(2):
            _, gradients = ref.applied_gradients(model, variables, x, y)
        results.append(gradients["a_W"])
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)
    assert np.abs(results[0] - results[2]).max() > 1e-3


def test_only_the_given_epochs_are_modulated():
    x, y, _ = ref.data("ab")
    model, variables = model_and_weights(epochs=(1, 2), alpha=5.0)
    seen = []
    model.fit(
        x,
        y,
        epochs=3,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: seen.append(
                    float(keras.ops.convert_to_numpy(model.modulating))
                )
            )
        ],
    )
    assert seen == [0.0, 1.0, 0.0]
    # Switched off, it is joint training by concatenation.
    p = ref.numpy_of(variables)
    _, gradients = ref.applied_gradients(model, variables, x, y)

    def objective(p):
        f = ref.encode(p, x, "ab")
        z = np.concatenate(list(f.values()), 1) @ p["head_W"] + p["head_b"]
        return ref.cross_entropy(z, y)

    for name, expected in ref.numeric_gradients(objective, p).items():
        np.testing.assert_allclose(gradients[name], expected, atol=2e-5)


def test_the_epochs_hold_in_compiled_training():
    x, y, _ = ref.data("ab", samples=8)

    def trained(**kwargs):
        keras.utils.set_random_seed(0)
        model = OGMGE(ref.encoders("ab"), head=3, alpha=3.0, **kwargs)
        ref.randomize(model)
        model.compile(
            optimizer="sgd",
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(x, y, epochs=2, batch_size=8, verbose=0)
        return ref.numpy_of(ref.encoder_weights(model))["a_W"]

    never = trained(epochs=(0, 0))
    np.testing.assert_allclose(never, trained(epochs=(2, 9), seed=1), atol=1e-6)
    assert np.abs(never - trained(epochs=(1, 2), seed=1)).max() > 1e-4


def test_a_modality_that_no_sample_has_is_compared_with_none():
    x, y, _ = ref.data("ab")
    x["presence"] = np.array([[True, False]] * len(y))
    model, variables = model_and_weights(alpha=5.0, noise=False)
    _, gradients = ref.applied_gradients(model, variables, x, y)
    assert np.abs(gradients["a_W"]).max() > 1e-3  # Not slowed.
    assert np.abs(gradients["b_W"]).max() == 0


def test_defaults_are_those_of_the_authors():
    config = OGMGE(ref.encoders("ab"), head=3).get_config()
    assert (config["alpha"], config["epochs"]) == (0.8, (0, 50))


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least two"):
        OGMGE(ref.encoders("a"), head=3)
    with pytest.raises(ValueError, match="Received: alpha=-1"):
        OGMGE(ref.encoders("ab"), head=3, alpha=-1)
    with pytest.raises(ValueError, match=r"Received: epochs=\(5, 2\)"):
        OGMGE(ref.encoders("ab"), head=3, epochs=(5, 2))
