import keras
import numpy as np
import pytest
from mla_reference import entropy_fusion
from utils import to_numpy

from keras_mla.layers import (
    AdditiveFusion,
    AverageFusion,
    EnergyFusion,
    EntropyFusion,
)


def cases():
    rng = np.random.default_rng(0)
    yield "random", rng.normal(0, 2, (9, 3, 5))
    yield "confident", rng.normal(0, 1, (9, 3, 5)) + 200 * np.eye(5)[:3]
    yield "uniform", np.zeros((4, 3, 5))
    yield "one modality", rng.normal(size=(6, 1, 5))
    huge = np.zeros((2, 2, 3))
    huge[:, 0, 0] = 1e5
    yield "huge", huge


@pytest.mark.parametrize("logits", [pytest.param(v, id=k) for k, v in cases()])
def test_entropy_fusion_against_numpy(logits):
    logits = logits.astype("float32")
    fusion = EntropyFusion()
    fused, weights = entropy_fusion(logits)
    scale = max(1, np.abs(logits).max())
    np.testing.assert_allclose(
        to_numpy(fusion.weights_of(logits)), weights, atol=2e-6
    )
    np.testing.assert_allclose(
        to_numpy(fusion(logits)), fused, atol=2e-6 * scale
    )


def test_a_hand_computed_case():
    # e = 0 for the first modality and log 2 for the second: 2/3 and 1/3.
    logits = np.array([[[80.0, 0.0], [3.0, 3.0]]], "float32")
    fused = to_numpy(EntropyFusion()(logits))
    np.testing.assert_allclose(fused, [[80 * 2 / 3 + 1, 1.0]], rtol=1e-6)


def test_presence_leaves_out_what_is_absent():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(16, 3, 4)).astype("float32")
    presence = rng.random((16, 3)) < 0.5
    presence[0], presence[1] = False, True
    dirty = np.where(presence[..., None], logits, np.nan).astype("float32")
    fusion = EntropyFusion()
    fused, weights = entropy_fusion(logits, presence)
    np.testing.assert_allclose(
        to_numpy(fusion(dirty, presence=presence)), fused, atol=2e-6
    )
    np.testing.assert_allclose(
        to_numpy(fusion.weights_of(logits, presence)), weights, atol=2e-6
    )
    np.testing.assert_array_equal(to_numpy(fusion(dirty, presence))[0], 0)


@pytest.mark.parametrize(
    "fusion", [AdditiveFusion, AverageFusion, EnergyFusion, EntropyFusion]
)
def test_a_sample_does_not_depend_on_its_batch(fusion):
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, (8, 2, 5)).astype("float32")
    layer = fusion()
    alone = np.concatenate([to_numpy(layer(row[None])) for row in logits])
    np.testing.assert_allclose(to_numpy(layer(logits)), alone, atol=1e-6)


def test_average_fusion():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(8, 3, 4)).astype("float32")
    presence = rng.random((8, 3)) < 0.5
    presence[0] = False
    layer = AverageFusion()
    np.testing.assert_allclose(
        to_numpy(layer(logits)), logits.mean(1), atol=1e-6
    )
    expected = [
        row[p].mean(0) if p.any() else np.zeros(4)
        for row, p in zip(logits, presence, strict=True)
    ]
    np.testing.assert_allclose(
        to_numpy(layer(logits, presence)), expected, atol=1e-6
    )


@pytest.mark.parametrize("fusion", [AdditiveFusion, EnergyFusion])
def test_sums_of_calibrated_logits(fusion):
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(8, 2, 4)).astype("float32")
    presence = rng.random((8, 2)) < 0.5
    presence[0], presence[1] = False, True
    dirty = np.where(presence[..., None], logits, np.nan).astype("float32")
    layer = fusion()
    layer.build((None, 2, 4))
    layer.temperature.assign([2.0, 0.5])
    layer.scale.assign(1.5)
    z = logits / np.array([2.0, 0.5])[:, None]
    weights = np.ones((8, 2))
    if fusion is EnergyFusion:
        weights = np.log(np.exp(z).sum(-1)) / 10
    for given, here in ((logits, np.ones((8, 2))), (dirty, presence)):
        expected = 1.5 * ((weights * here)[..., None] * z).sum(1)
        fused = layer(given, None if given is logits else presence)
        np.testing.assert_allclose(to_numpy(fused), expected, atol=1e-5)


def test_symbolic_shape():
    output = EntropyFusion()(keras.KerasTensor((None, 3, 7)))
    assert output.shape == (None, 7)


@pytest.mark.parametrize("kind", [AverageFusion, AdditiveFusion, EnergyFusion])
def test_call_alone_builds(kind):
    logits = keras.ops.ones((2, 2, 3))
    expected = to_numpy(kind()(logits))
    np.testing.assert_array_equal(to_numpy(kind().call(logits)), expected)
