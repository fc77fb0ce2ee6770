"""Modalities keep their order, whatever their names are."""

import keras
import numpy as np
import pytest
from keras import ops
from utils import (
    WIDTHS,
    compiled,
    make_data,
    make_method,
    only_on,
    some,
    to_numpy,
)

from keras_mla import backend, models

NAMES = tuple(WIDTHS)
METHODS = (
    "ConcatFusion",
    "OGMGE",
    "MultiLossFusion",
    "QMF",
    "LateFusion",
    "MLA",
)


def make(method, optimizer=None):
    # The noise would hide by how much a modality is slowed.
    noise = {"noise": False} if method == "OGMGE" else {}
    model = make_method(method, **noise)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return compiled(model, optimizer or keras.optimizers.SGD(0.0))


def likelihoods(model, x, y):
    """Each sample's log-probability of its label, by modality, in float64."""
    found = []
    for name in NAMES:
        z = model.unimodal(name).predict(x[name], verbose=0).astype("float64")
        z = z - z.max(1, keepdims=True)
        found.append(z[np.arange(len(y)), y] - np.log(np.exp(z).sum(1)))
    return np.stack(found, 1)


def test_the_names_are_not_sorted():
    assert list(NAMES) != sorted(NAMES)


def test_what_an_objective_returns_keeps_its_order():
    model = make("MLA")
    variable = model.head.bias

    def objective():
        loss = ops.sum(ops.square(variable.value))
        nested = {"z": loss, "a": (loss, {"y": loss, "b": None})}
        return [loss], (nested, models.Outputs({"z": loss, "a": loss}, {}, {}))

    (gradients,), (nested, outputs) = backend.step.value_and_grads(
        model, objective, [variable]
    )
    np.testing.assert_allclose(
        to_numpy(gradients[0]), 2 * to_numpy(variable), rtol=1e-6
    )
    assert list(nested) == ["z", "a"]
    assert list(nested["a"][1]) == ["y", "b"]
    assert list(outputs.features) == ["z", "a"]


@pytest.mark.every_case
@pytest.mark.parametrize("method", some(METHODS, "QMF", "OGMGE"))
def test_metrics_of_training_are_those_of_evaluation(method):
    # At a rate of 0 both see the same weights.
    model = make(method)
    x, y = make_data()
    presence = np.random.default_rng(0).random((len(y), 3)) < 0.5
    data = {**x, "presence": presence, "sample_id": np.arange(len(y))}
    trained = model.train_on_batch(data, y, return_dict=True)
    tested = model.test_on_batch(data, y, return_dict=True)
    fused = model.predict(data, verbose=0).argmax(1)
    for logs in (trained, tested):
        assert float(logs["accuracy"]) == pytest.approx((fused == y).mean())
    for name in NAMES:
        for metric in ("loss", "accuracy"):
            key = f"{name}_{metric}"
            assert float(trained[key]) == pytest.approx(
                float(tested[key]), rel=1e-5
            )


def test_qmf_remembers_each_modality_in_its_column():
    model = make("QMF")
    x, y = make_data()
    expected = -likelihoods(model, x, y)
    model.train_on_batch({**x, "sample_id": np.arange(len(y))}, y)
    np.testing.assert_allclose(
        to_numpy(model.loss_history), expected, rtol=1e-4, atol=1e-5
    )


def test_ogm_ge_slows_the_modality_that_is_ahead():
    model, plain = (
        make("OGMGE", keras.optimizers.SGD(0.1)),
        make("ConcatFusion", keras.optimizers.SGD(0.1)),
    )
    plain.set_weights(
        [to_numpy(v) for v in model.weights if "modulating" not in v.path]
    )
    x, y = make_data()
    score = np.exp(likelihoods(model, x, y)).mean(0)
    ratio = score / ((score.sum() - score) / 2)
    expected = np.where(ratio > 1, 1 - np.tanh(0.8 * ratio), 1)
    assert (expected < 1).sum() in (
        1,
        2,
    )  # Otherwise the case would prove nothing.
    steps = []
    for trained in (model, plain):
        before = [to_numpy(e.layers[0].kernel) for e in encoders(trained)]
        trained.train_on_batch(x, y)
        after = [to_numpy(e.layers[0].kernel) for e in encoders(trained)]
        steps.append([a - b for a, b in zip(after, before, strict=True)])
    for slowed, full, k in zip(*steps, expected, strict=True):
        np.testing.assert_allclose(slowed, k * full, rtol=1e-3, atol=1e-6)


def encoders(model):
    return [model.encoders[name] for name in NAMES]


def upstream(nodes, name):
    """Names of all nodes that a node waits for."""
    found, open_ = set(), [name]
    while open_:
        for source in nodes[open_.pop()].input:
            source = source.removeprefix("^").split(":")[0]
            if source not in found:
                found.add(source)
                open_.append(source)
    return found


@only_on("tensorflow")
@pytest.mark.every_case
@pytest.mark.parametrize("method", ["OGMGE", "MLA"])
def test_reads_and_assignments_of_a_variable_are_in_order(method):
    from tensorflow.python.eager import context

    model = make(method, keras.optimizers.SGD(0.1))
    x, y = make_data()
    context.enable_run_metadata()
    try:
        model.train_on_batch(x, y)
        graphs = context.export_run_metadata().function_graphs
    finally:
        context.disable_run_metadata()
    nodes = max(
        (
            {node.name: node for node in graph.post_optimization_graph.node}
            for graph in graphs
        ),
        key=len,
    )
    writes = [n for n in nodes.values() if n.op.startswith("Assign")]
    assert len(writes) > 8
    before = {n.name: upstream(nodes, n.name) for n in writes}
    for read in nodes.values():
        if read.op != "ReadVariableOp":
            continue
        earlier = upstream(nodes, read.name)
        for write in writes:
            if write.input[0] == read.input[0]:
                assert read.name in before[write.name] or write.name in earlier
