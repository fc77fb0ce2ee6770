import keras
import methods_reference as ref
import numpy as np
import pytest
from keras import ops

from keras_mla.models import QMF


def make(modalities, num_samples=8, **kwargs):
    widths = {"a": 3, "b": 2, "c": 4}
    model = QMF(
        ref.encoders(modalities, widths),
        head=3,
        num_samples=num_samples,
        **kwargs,
    )
    ref.randomize(ref.compiled(model))
    variables = ref.encoder_weights(model)
    for m in modalities:
        variables |= ref.dense_of(f"{m}_head", model.heads[m])
    return model, variables


def logits(p, x, modalities):
    return {
        m: f @ p[f"{m}_head_W"] + p[f"{m}_head_b"]
        for m, f in ref.encode(p, x, modalities).items()
    }


def confidence(z):
    return np.log(np.exp(z).sum(-1)) / 10


def history_of(model):
    return ops.convert_to_numpy(model.loss_history)


@pytest.mark.parametrize("modalities, presence", [("ab", False), ("abc", True)])
def test_logits_loss_gradients_and_history(modalities, presence):
    x, y, present = ref.data(modalities, presence)
    x["sample_id"] = ids = np.array([5, 0, 3, 1, 7, 2])
    model, variables = make(modalities, rank_weight=2.0)
    start = np.random.default_rng(1).random((8, len(modalities)))
    model.loss_history.assign(start)
    p0 = ref.numpy_of(variables)
    z0 = logits(p0, x, modalities)

    # The history with this batch, and c where the gradient is stopped.
    expected = start.copy()
    weights = {}
    for index, m in enumerate(modalities):
        losses = ref.cross_entropies(z0[m], y) * present[:, index]
        np.add.at(expected[:, index], ids, losses)
        weights[m] = confidence(z0[m]) * present[:, index]

    def objective(p):
        z = logits(p, x, modalities)
        fused = sum(weights[m][:, None] * z[m] for m in modalities)
        loss = ref.cross_entropy(fused, y, present.any(1))
        for index, m in enumerate(modalities):
            here = present[:, index]
            loss += ref.cross_entropy(z[m], y, here)
            h = expected[:, index]
            kappa = ((h - h.min()) / (h.max() - h.min()))[ids]
            c = confidence(z[m])
            terms = []
            for i in range(len(y)):
                j = (i + 1) % len(y)
                if here[i] and here[j]:
                    gap = kappa[i] - kappa[j]
                    term = np.sign(gap) * (c[i] - c[j]) + abs(gap)
                    terms.append(max(0.0, term))
            loss += 2.0 * np.mean(terms)
        return loss

    fused = sum(weights[m][:, None] * z0[m] for m in modalities)
    np.testing.assert_allclose(model.predict(x, verbose=0), fused, atol=1e-5)
    ref.check_step(model, variables, x, y, objective)
    np.testing.assert_allclose(history_of(model), expected, rtol=1e-5)


def test_history_gathers_repeated_samples_and_survives(tmp_path):
    x, y, _ = ref.data("ab")
    x["sample_id"] = np.array([0, 0, 1, 1, 2, 2])
    model, variables = make("ab", num_samples=4)
    z = logits(ref.numpy_of(variables), x, "ab")
    model.train_on_batch(x, y)
    losses = ref.cross_entropies(z["b"], y)
    np.testing.assert_allclose(
        history_of(model)[:, 1],
        [*losses.reshape(3, 2).sum(1), 0.0],
        rtol=1e-5,
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(history_of(loaded), history_of(model))


def test_evaluation_needs_no_ids_and_changes_nothing():
    x, y, _ = ref.data("ab")
    model, variables = make("ab")
    loss = model.test_on_batch(x, y, return_dict=True)["loss"]
    z = logits(ref.numpy_of(variables), x, "ab")
    fused = sum(confidence(v)[:, None] * v for v in z.values())
    expected = sum(ref.cross_entropy(v, y) for v in [fused, *z.values()])
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)
    assert not history_of(model).any()


def test_training_needs_ids():
    x, y, _ = ref.data("ab")
    model, _ = make("ab")
    with pytest.raises(ValueError, match=r"needs x\['sample_id'\]"):
        model.fit(x, y, verbose=0)


@pytest.mark.parametrize("bad", [-1, 8])
def test_an_id_out_of_range_is_an_error(bad):
    x, y, _ = ref.data("ab")
    x["sample_id"] = np.array([0, 1, 2, 3, 4, bad])
    model, _ = make("ab", num_samples=8)
    with pytest.raises(
        ValueError, match=f"Received: the id {bad}, num_samples=8"
    ):
        model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match=f"Received: the id {bad},"):
        model.train_on_batch(x, y)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.x, self.y


def test_an_id_out_of_range_in_a_dataset_is_an_error():
    x, y, _ = ref.data("ab")
    x = {m: v.astype("float32") for m, v in x.items()}
    x["sample_id"] = np.array([0, 1, 2, 3, 4, 8])  # The first one outside.
    model, _ = make("ab", num_samples=8)
    with pytest.raises(ValueError, match="2 ids in x"):
        model.fit(Batches(x, y), verbose=0)
    assert history_of(model)[:5].all() and not history_of(model)[5:].any()


def test_bad_arguments():
    x, y, _ = ref.data("ab")
    with pytest.raises(ValueError, match="Received: num_samples=0"):
        make("ab", num_samples=0)
    with pytest.raises(ValueError, match="Received: rank_weight=-1"):
        make("ab", rank_weight=-1)
    model, _ = make("ab")
    with pytest.raises(ValueError, match="must hold ints"):
        model.fit({**x, "sample_id": np.zeros(6)}, y, verbose=0)
