"""Training with samples and labels of each modality's own."""

import keras
import numpy as np
import pytest
from mla_reference import SGD, ReferenceMLA
from utils import compiled, make_data, make_model, reference_weights, to_numpy

import keras_mla

NAMES = ("audio", "text")


class Batches(keras.utils.PyDataset):
    """Batches from a list."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def unpaired_batches(count=6):
    batches = []
    for seed in range(count):
        x, y = {}, {}
        for m, (name, size) in enumerate(zip(NAMES, (8, 5), strict=True)):
            data, labels = make_data(size, NAMES, seed=10 * seed + m)
            x[name], y[name] = data[name], labels
        batches.append((x, y))
    return batches


def test_training_against_numpy():
    batches = unpaired_batches()
    model = compiled(make_model(NAMES))
    reference = ReferenceMLA(list(NAMES), reference_weights(model), SGD(0.1))
    history = model.fit(Batches(batches), shuffle=False, verbose=0)
    for x, y in batches:
        reference.batches += 1
        for name in NAMES:
            reference._update(name, x[name], y[name])
    for key, value in reference_weights(model).items():
        np.testing.assert_allclose(value, reference.w[key], atol=2e-6)
    P = to_numpy(model.projectors[0].P)
    np.testing.assert_allclose(P, reference.P, atol=2e-6)
    assert set(history.history) == {
        "loss",
        *(f"{n}_{k}" for n in NAMES for k in ("loss", "accuracy")),
    }


def test_evaluation_counts_each_modality_on_its_own():
    batches = unpaired_batches(3)
    model = compiled(make_model(NAMES))
    scores = model.evaluate(Batches(batches), verbose=0, return_dict=True)
    assert "accuracy" not in scores
    for name in NAMES:
        x = np.concatenate([x[name] for x, _ in batches])
        y = np.concatenate([y[name] for _, y in batches])
        logits = model.unimodal(name).predict(x, verbose=0)
        np.testing.assert_allclose(
            scores[f"{name}_accuracy"], (logits.argmax(1) == y).mean()
        )


def test_validation_may_be_paired():
    x, y = make_data(12, NAMES)
    model = compiled(make_model(NAMES))
    history = model.fit(
        Batches(unpaired_batches(2)), validation_data=(x, y), verbose=0
    )
    assert "val_accuracy" in history.history
    assert "accuracy" not in history.history


def test_sample_weights_by_modality():
    (x, y), *_ = unpaired_batches(1)
    weights = {"audio": np.zeros(8, "float32"), "text": np.ones(5, "float32")}
    model = compiled(make_model(NAMES))
    before = to_numpy(model.encoders["audio"].weights[0])
    moved = to_numpy(model.encoders["text"].weights[0])
    model.fit(Batches([(x, y, weights)]), verbose=0)
    after = to_numpy(model.encoders["audio"].weights[0])
    np.testing.assert_array_equal(before, after)
    assert (to_numpy(model.encoders["text"].weights[0]) != moved).any()


def test_unpaired_dataset_trains_and_cycles():
    audio, audio_y = make_data(20, NAMES, seed=0)
    text, text_y = make_data(7, NAMES, seed=1)
    dataset = keras_mla.UnpairedDataset(
        {"audio": (audio["audio"], audio_y), "text": (text["text"], text_y)},
        batch_size=8,
    )
    model = compiled(make_model(NAMES))
    history = model.fit(dataset, epochs=2, verbose=0)
    assert len(history.history["text_accuracy"]) == 2


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            lambda x, y: ({**x, "presence": np.ones((8, 2), bool)}, y),
            "presence.*Unpaired data",
        ),
        (lambda x, y: (x, {"audio": y["audio"]}), "each modality needs its"),
        (lambda x, y: (x, y, np.ones(8)), "`class_weight` is not supported"),
        (
            lambda x, y: (x, y, {"image": np.ones(8)}),
            "keys of `sample_weight` must be modalities",
        ),
    ],
)
def test_bad_unpaired_batches(batch, message):
    (x, y), *_ = unpaired_batches(1)
    model = compiled(make_model(NAMES), run_eagerly=True)
    with pytest.raises(ValueError, match=message):
        model.train_on_batch(*batch(x, y))


def test_class_weight_is_refused():
    model = compiled(make_model(NAMES), run_eagerly=True)
    with pytest.raises(ValueError, match="class_weight"):
        model.fit(
            Batches(unpaired_batches(1)), class_weight={0: 2.0}, verbose=0
        )
