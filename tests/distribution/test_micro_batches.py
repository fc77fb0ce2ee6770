import dataclasses

import device_cases as cases
import keras
import numpy as np
import pytest
import utils

import keras_mla
from keras_mla.core.batch import Batch
from keras_mla.models import registry

CASES = ("plain", "weights", "presence", "gap", "unpaired", "uneven", "few")
CASES = (*CASES, "activity", "ignored")


def trained(case, name="MLA", epochs=2, **settings):
    model = cases.method(name, case=case, **settings)
    history = model.fit(
        cases.Batches(case), epochs=epochs, shuffle=False, verbose=0
    ).history
    return model, cases.state(model, history)


@pytest.mark.parametrize("case", CASES)
def test_micro_batches_are_the_batch(case):
    _, whole = trained(case)
    _, parts = trained(case, micro_batches=4)
    gaps = cases.differences(whole, parts)
    if case == "ignored":
        # As in Keras, a whole batch is weighed by its rows in the history.
        gaps.pop("history")
    for kind, gap in gaps.items():
        assert gap < 1e-6, (kind, gap)


@utils.long_on("tensorflow")
@pytest.mark.parametrize("name", cases.METHODS[1:])
@pytest.mark.parametrize("case", ["plain", "gap"])
def test_each_kind_of_method(name, case):
    epochs = 2
    if name == "AEFusion":
        # Its errors are absolute: rounding turns a gradient around, in time.
        epochs, case = 1, "true" if case == "gap" else case
    _, whole = trained(case, name, epochs)
    _, parts = trained(case, name, epochs, micro_batches=3)
    for kind, gap in cases.differences(whole, parts).items():
        assert gap < 2e-6, (kind, gap)


@utils.long()
@pytest.mark.parametrize("jit_compile", [True, False])
def test_compiled_steps(jit_compile):
    _, whole = trained("gap", jit_compile=jit_compile)
    # On PyTorch, a graph has all parts: compiling takes that much longer.
    _, parts = trained("gap", micro_batches=2, jit_compile=jit_compile)
    for kind, gap in cases.differences(whole, parts).items():
        assert gap < 1e-6, (kind, gap)


def test_it_is_saved(tmp_path):
    model = cases.method(micro_batches=4)
    model.train_on_batch(*cases.data(8))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.plan.micro_batches == 4


@pytest.mark.parametrize("number", [0, -1, 2.0, True, "4", None])
def test_numbers_that_are_none(number):
    with pytest.raises(ValueError, match="`micro_batches` must be an int"):
        cases.method(micro_batches=number)


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_reductions_that_need_the_whole_batch(reduction):
    model = cases.method()
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=reduction
    )
    with pytest.raises(ValueError, match="cannot know its sum"):
        model.compile("sgd", loss, micro_batches=2)


@pytest.mark.parametrize("name", ["TCMax", "DCCAE", "InvariantFusion"])
def test_methods_that_need_the_whole_batch(name):
    encoders = {n: cases.encoder(w) for n, w in cases.WIDTHS.items()}
    model = getattr(keras_mla.models, name)(encoders, cases.CLASSES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with pytest.raises(ValueError, match="all rows of a batch at once"):
        model.compile("sgd", loss, micro_batches=2)
    model.compile("sgd", loss)


def test_the_registry_says_which_methods_need_the_whole_batch():
    found = {n for n, m in registry.METHODS.items() if m.whole_batch}
    teacher = "InvariantFusion"
    assert found == {"CPMNet", "DCCA", "DCCAE", teacher, "QMF", "TCMax"}


def test_accumulation_names_the_way_out():
    with pytest.raises(ValueError, match="micro_batches"):
        cases.method(
            optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        )


def test_loss_scaling():
    keras.config.set_dtype_policy("mixed_float16")
    _, whole = trained("plain")
    keras.config.set_dtype_policy("mixed_float16")
    _, parts = trained("plain", micro_batches=4)
    # Half of the digits: a sample's class may differ, and so the accuracy.
    assert cases.differences(whole, parts)["weights"] < 2e-3


@utils.only_on("tensorflow")
@pytest.mark.every_case
def test_empty_parts_of_batches_of_unknown_size():
    import tensorflow as tf

    model = cases.method(case="normalized", micro_batches=4)
    x, y = cases.data(11)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(9)
    model.fit(data, shuffle=False, verbose=0)
    for weight in model.get_weights():
        assert np.isfinite(weight).all()


def test_what_a_batch_keeps_besides_rows():
    """A vector of `Batch.extra` is not cut, and a column of rows is."""
    x, y = cases.data(8)
    x = {n: keras.ops.convert_to_tensor(v) for n, v in x.items()}
    batch = Batch.from_data(tuple(x), (x, keras.ops.convert_to_tensor(y)))
    extra = keras.ops.ones(4), keras.ops.ones((8, 1)), None, 3.0 * y[0]
    batch = dataclasses.replace(batch, extra=extra)
    first, second, third = batch.split(3)
    assert [first.size("text"), second.size("text")] == [2, 3]
    assert third.extra[0].shape == (4,)
    assert third.extra[1].shape == (3, 1)
    assert third.extra[2] is None


def test_a_batch_smaller_than_its_parts():
    x, y = cases.data(2)
    whole, parts = cases.method(), cases.method(micro_batches=5)
    whole.train_on_batch(x, y)
    parts.train_on_batch(x, y)
    for a, b in zip(whole.weights, parts.weights, strict=True):
        a, b = map(keras.ops.convert_to_numpy, (a, b))
        np.testing.assert_allclose(a, b, atol=1e-6)
