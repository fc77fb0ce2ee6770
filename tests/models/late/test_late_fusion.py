import keras
import methods_reference as ref
import numpy as np
import pytest
from keras import ops

from keras_mla.layers import EntropyFusion
from keras_mla.models import LateFusion, UnimodalEnsemble


@pytest.mark.parametrize("modalities, presence", [("ab", False), ("abc", True)])
def test_logits_loss_and_gradients(modalities, presence):
    x, y, present = ref.data(modalities, presence)
    widths = {"a": 3, "b": 2, "c": 4}
    model = LateFusion(ref.encoders(modalities, widths), head=3)
    ref.randomize(ref.compiled(model))
    variables = ref.encoder_weights(model)
    for m in modalities:
        variables |= ref.dense_of(f"{m}_head", model.heads[m])

    def logits(p):
        return {
            m: f @ p[f"{m}_head_W"] + p[f"{m}_head_b"]
            for m, f in ref.encode(p, x, modalities).items()
        }

    def total(p):
        return sum(
            ref.cross_entropy(z, y, present[:, i])
            for i, z in enumerate(logits(p).values())
        )

    p = ref.numpy_of(variables)
    z = logits(p)
    fused = sum(z[m] * present[:, i, None] for i, m in enumerate(z))
    np.testing.assert_allclose(
        model.predict(x, verbose=0),
        fused / np.maximum(present.sum(1, keepdims=True), 1),
        atol=1e-5,
    )
    # Each loss moves its own modality in full; the reported loss is the mean.
    logs, gradients = ref.applied_gradients(model, variables, x, y)
    np.testing.assert_allclose(
        float(logs["loss"]), total(p) / len(modalities), rtol=1e-5
    )
    for name, expected in ref.numeric_gradients(total, p).items():
        np.testing.assert_allclose(gradients[name], expected, atol=2e-5)


def test_training_is_that_of_separate_models():
    x, y, _ = ref.data("ab", samples=12)
    adam = keras.optimizers.Adam(0.05)
    model = ref.compiled(LateFusion(ref.encoders("ab"), head=3), adam)
    alone = keras.models.clone_model(model.unimodal("a"))
    alone.set_weights(model.unimodal("a").get_weights())
    ref.compiled(alone, keras.optimizers.Adam(0.05))
    for _ in range(3):
        model.train_on_batch(x, y)
        alone.train_on_batch(x["a"], y)
    for ours, theirs in zip(
        model.unimodal("a").get_weights(), alone.get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_heads_are_alike_and_apart():
    head = keras.Sequential(
        [
            keras.layers.Dense(5, "relu", kernel_regularizer="l2"),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(3),
        ]
    )
    model = LateFusion(ref.encoders("ab", {"a": 3, "b": 2}), head)
    first, second = model.heads["a"].layers[0], model.heads["b"].layers[0]
    assert first.kernel.shape == (3, 5) and second.kernel.shape == (2, 5)
    assert second.kernel_regularizer is not None
    assert len(model.trainable_variables) == 12


def test_any_fusion_layer(tmp_path):
    x, _, _ = ref.data("ab")
    model = LateFusion(ref.encoders("ab"), head=3, fusion=EntropyFusion())
    ref.randomize(model)
    z = np.stack(list(ref.unimodal_logits(model, x).values()), 1)
    expected = ops.convert_to_numpy(EntropyFusion()(z))
    predicted = model.predict(x, verbose=0)
    np.testing.assert_allclose(predicted, expected, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.fusion, EntropyFusion)
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), predicted, atol=1e-6
    )
    with pytest.raises(TypeError, match="Received: fusion=mean"):
        LateFusion(ref.encoders("ab"), head=3, fusion="mean")


def test_unpaired_data():
    x, y, _ = ref.data("ab")
    model = ref.compiled(LateFusion(ref.encoders("ab"), head=3))
    loss = model.train_on_batch(
        {"a": x["a"], "b": x["b"][:4]}, {"a": y, "b": y[:4]}
    )
    assert np.isfinite(float(np.ravel(loss)[0]))


class Scripted(keras.callbacks.Callback):
    """Sets each modality's bias, and the score that judges it."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def set_model(self, model):
        super().set_model(model)
        # Before the callbacks of the model itself.
        model.evaluate = self.evaluate

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def evaluate(self, **kwargs):
        for name in self.scores:
            bias = self.model.heads[name].bias
            bias.assign(ops.full(bias.shape, float(self.epoch)))
        return {
            f"{name}_score": scores[self.epoch]
            for name, scores in self.scores.items()
        }


def test_the_ensemble_keeps_each_modality_s_best_epoch():
    x, y, _ = ref.data("ab")
    model = ref.compiled(
        UnimodalEnsemble(ref.encoders("ab"), head=3, monitor="score"),
        keras.optimizers.SGD(0.0),
    )
    scores = {"a": [0.1, 0.9, 0.2, 0.9], "b": [0.1, 0.2, 0.3, 0.4]}
    model.fit(
        x,
        y,
        validation_data=(x, y),
        epochs=4,
        verbose=0,
        callbacks=[Scripted(scores)],
    )
    assert model.best_epochs == {"a": 1, "b": 3}
    for name, epoch in model.best_epochs.items():
        np.testing.assert_array_equal(
            ops.convert_to_numpy(model.heads[name].bias), epoch
        )


def test_the_ensemble_says_what_it_cannot_monitor():
    x, y, _ = ref.data("ab")
    model = UnimodalEnsemble(ref.encoders("ab"), head=3, monitor="acc")
    ref.compiled(model)
    with pytest.raises(ValueError, match="no 'val_a_acc' among"):
        model.fit(x, y, validation_data=(x, y), verbose=0)
    with pytest.raises(ValueError, match="Received: mode=up"):
        UnimodalEnsemble(ref.encoders("ab"), head=3, mode="up")
