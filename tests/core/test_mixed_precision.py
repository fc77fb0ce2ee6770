"""Mixed precision: P stays float32, and a skipped step moves nothing."""

import keras
import numpy as np
import pytest
from mla_reference import closed_form
from utils import (
    compiled,
    largest_difference,
    make_data,
    make_model,
    to_numpy,
    weights_of,
)

import keras_mla


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_learns_with_float32_state(policy):
    keras.config.set_dtype_policy(policy)
    model = compiled(make_model(), keras.optimizers.Adam(0.02))
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    x, y = make_data(64)
    before = model.evaluate(x, y, verbose=0, return_dict=True)
    model.fit(x, y, batch_size=16, epochs=8, verbose=0)
    after = model.evaluate(x, y, verbose=0, return_dict=True)
    assert after["loss"] < 0.8 * before["loss"]
    P = to_numpy(model.projectors[0].P)
    assert P.dtype == np.float32
    np.testing.assert_array_equal(P, P.T)
    assert model.predict(x, verbose=0).dtype == np.float32
    assert int(to_numpy(model.optimizer.iterations)) == 32


def test_P_is_updated_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = compiled(make_model(("image",)), keras.optimizers.SGD(0.0))
    x, y = make_data(16, ("image",))
    model.fit(x, y, batch_size=16, epochs=3, verbose=0)
    outputs = model.forward_pass(("image",), x, training=False)
    h = to_numpy(keras.ops.cast(outputs.features["image"], "float32")).mean(0)
    np.testing.assert_allclose(
        to_numpy(model.projectors[0].P), closed_form([h, h], 1.0), atol=1e-5
    )


@pytest.mark.parametrize(
    "projector",
    [{}, {"order": "previous", "forgetting": 0.9, "normalize": True}],
)
def test_a_step_skipped_for_overflow_moves_nothing(projector):
    keras.config.set_dtype_policy("mixed_float16")
    projector = keras_mla.layers.GradientProjector(**projector)
    model = make_model(("image", "text"), projector=projector)
    model = compiled(model, "adam")
    x, y = make_data(16, ("image", "text"))
    model.fit(x, y, verbose=0)
    inner = model.optimizer.inner_optimizer
    variables = [*model.weights, *inner.variables]
    before = [to_numpy(v) for v in variables]
    scale = float(to_numpy(model.optimizer.dynamic_scale))
    x = {name: np.full_like(value, 6e4) for name, value in x.items()}
    model.fit(x, y, verbose=0)
    after = [to_numpy(v) for v in variables]
    assert largest_difference(before, after) == 0
    assert float(to_numpy(model.optimizer.dynamic_scale)) == scale / 4


def test_one_overflowing_modality_does_not_stop_the_other():
    keras.config.set_dtype_policy("mixed_float16")
    model = compiled(make_model(("image", "text")), "adam")
    x, y = make_data(16, ("image", "text"))
    model.fit(x, y, verbose=0)
    before = {n: weights_of(e) for n, e in model.encoders.items()}
    steps = int(to_numpy(model.projectors[0].steps))
    iterations = int(to_numpy(model.optimizer.iterations))
    x["text"] = np.full_like(x["text"], 6e4)
    model.fit(x, y, verbose=0)
    after = {n: weights_of(e) for n, e in model.encoders.items()}
    assert largest_difference(before["text"], after["text"]) == 0
    assert largest_difference(before["image"], after["image"]) > 0
    assert int(to_numpy(model.projectors[0].steps)) == steps + 1
    assert int(to_numpy(model.optimizer.iterations)) == iterations + 1


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_inputs_are_cast_by_encoders_alone(policy):
    keras.config.set_dtype_policy(policy)
    scale = keras.layers.Rescaling(1e-5, dtype="float32")
    model = compiled(
        keras_mla.MLA(
            {
                "sensor": keras.Sequential(
                    [keras.Input((3,)), scale, keras.layers.Dense(6, "relu")]
                )
            },
            4,
        )
    )
    assert model.unimodal("sensor").inputs[0].dtype == "float32"
    # Beyond what float16 can hold.
    x = {"sensor": np.full((8, 3), 2e5, "float32")}
    y = np.zeros(8, "int32")
    model.fit(x, y, verbose=0)
    assert np.isfinite(model.predict(x, verbose=0)).all()
    assert np.isfinite(model.unimodal("sensor").predict(x["sensor"])).all()
    assert np.isfinite(model.evaluate(x, y, verbose=0)).all()
