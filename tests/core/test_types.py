"""One dtype under every policy, with presence and without."""

import contextlib

import keras
import numpy as np
import pytest
import utils
from utils import METHODS, compiled, make_data, make_method, some, to_numpy

# Methods with steps, weights or statistics of their own.
DIFFERENT = (
    METHODS
    if utils.LONG
    else (
        "BiGated", "CPMNet", "DCCAE", "JointMLA", "MLA", "MMIN", "OGMGE",
        "QMF", "TCMax", "TransformerFusion",
    )
)  # fmt: skip


@pytest.fixture(
    params=some(
        ["float64", "mixed_bfloat16", "mixed_float16"],
        "float64",
        "mixed_float16",
    )
)
def precision(request):
    """Sets a policy, and restores the former one."""
    with contextlib.ExitStack() as stack:
        if request.param == "float64":
            if keras.backend.backend() == "jax":
                import jax

                stack.enter_context(jax.enable_x64(True))
            keras.config.set_floatx("float64")
            stack.callback(keras.config.set_floatx, "float32")
        keras.config.set_dtype_policy(request.param)
        yield request.param


@pytest.mark.parametrize("method", some(DIFFERENT, "BiGated", "MLA"))
def test_every_dtype_is_the_same_with_presence(method, precision):
    x, y = make_data(16)
    presence = np.random.default_rng(0).random((16, 3)) < 0.6
    presence[:8, 0] = False  # A batch without one modality.
    x["sample_id"] = np.arange(16)
    seen = []
    for data in (x, {**x, "presence": presence}):
        model = compiled(make_method(method), "adam")
        model.adapt((data, y))
        history = model.fit(
            data, y, batch_size=8, shuffle=False, verbose=0
        ).history
        scores = model.evaluate(data, y, verbose=0, return_dict=True)
        for logs in (history, scores):
            assert all(np.isfinite(v).all() for v in logs.values()), logs
        predicted = model.predict(data, verbose=0)
        assert np.isfinite(predicted).all()
        unimodal = model.unimodal("text").predict(x["text"], verbose=0)
        seen.append(
            (
                predicted.dtype,
                unimodal.dtype,
                [v.dtype for v in model.weights],
                [to_numpy(v).dtype for v in model.weights],
            )
        )
    assert seen[0] == seen[1]
    assert seen[0][:2] == (np.float32, np.float32)
