"""Bad input: an early error in the user's own terms."""

import keras
import numpy as np
import pytest
from utils import CLASSES, compiled, encoder, make_data, make_model

import keras_mla
from keras_mla.layers import GradientProjector


def shared_layer_encoders():
    dense = keras.layers.Dense(6)
    make = lambda: keras.Sequential([keras.Input((8,)), dense])  # noqa: E731
    return {"image": make(), "text": make()}


def one_encoder_twice():
    encoder_ = encoder(8)
    return {"image": encoder_, "text": encoder_}


def sequential_subclass():
    return type("Odd", (keras.Sequential,), {})


def dense():
    return keras.layers.Dense(4)


def sequence_encoder():
    return keras.Sequential([keras.Input((5, 8)), keras.layers.Dense(6)])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"encoders": {}}, ValueError, "at least one modality.*encoders={}"),
        ({"encoders": [encoder(8)]}, ValueError, "must be a dict"),
        (
            {"encoders": {"presence": encoder(8)}},
            ValueError,
            "are reserved.*Received: 'presence'",
        ),
        ({"encoders": {3: encoder(8)}}, ValueError, "named by a string.*3"),
        (
            {"encoders": {"image": np.mean}},
            TypeError,
            "encoder of modality 'image' must be a Keras layer",
        ),
        (
            {"encoders": one_encoder_twice()},
            ValueError,
            "'image' and 'text' share an encoder.*clone_model",
        ),
        (
            {"encoders": shared_layer_encoders()},
            ValueError,
            "'image' and 'text' share .*a layer of it or some of its weights",
        ),
        (
            {"encoders": {"image": encoder(8, 6), "text": encoder(3, 5)}},
            ValueError,
            r"Pass `feature_dim=`.*6 \(image\), 5 \(text\)",
        ),
        (
            {"encoders": {"video": sequence_encoder()}},
            ValueError,
            r"'video' must return one tensor of shape \(batch, features\)"
            r".*shape \(\w+, 5, 6\)",
        ),
        (
            {"encoders": {"head": encoder(8)}},
            ValueError,
            "are reserved.*Received: 'head'",
        ),
        (
            {"head": keras.Sequential([sequential_subclass()(), dense()])},
            ValueError,
            "plain `keras.Sequential` of layers",
        ),
        ({"head": 0}, ValueError, "at least 2.*Received: head=0"),
        (
            {"head": keras.layers.Flatten()},
            ValueError,
            "`head` must be a number of classes.*Flatten",
        ),
        (
            {
                "head": keras.Sequential(
                    [keras.layers.Dense(4), keras.layers.Softmax()]
                )
            },
            ValueError,
            "ends in a Softmax",
        ),
        (
            {"head": keras.layers.Dense(4, "softmax")},
            ValueError,
            "must return logits.*activation=softmax",
        ),
        ({"projector": 0.1}, TypeError, "`projector` must be.*projector=0.1"),
        ({"projector": "rls"}, TypeError, "`projector` must be"),
        ({"fusion": "entropy"}, TypeError, "`fusion` must be a fusion layer"),
    ],
)
def test_constructor(arguments, error, message):
    arguments = {"encoders": {"image": encoder(8)}, "head": 4, **arguments}
    with pytest.raises(error, match=f"(?s){message}"):
        keras_mla.MLA(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x.pop("text"),
            r"lack modality 'text'.*model.unimodal\(name\).*presence.*'audio'",
        ),
        (
            lambda x: x.update(smell=x["text"]),
            "unknown key 'smell'.*'text', 'audio', 'image'",
        ),
        (
            lambda x: x.update(presence=np.ones((48, 2), bool)),
            r"shape \(batch, 3\).*shape \(\w+, 2\)",
        ),
        (
            lambda x: x.update(presence=np.ones(48, bool)),
            r"shape \(batch, 3\).*shape \(\w+,\)",
        ),
    ],
)
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_inputs(change, message, method):
    model = compiled(make_model())
    x, y = make_data()
    change(x)
    arguments = (x,) if method == "predict" else (x, y)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        getattr(model, method)(*arguments, verbose=0)


def test_inputs_must_be_a_dict():
    model = compiled(make_model(("image",)))
    with pytest.raises(ValueError, match="dict keyed by modality.*'image'"):
        model.predict(np.zeros((4, 8), "float32"), verbose=0)


@pytest.mark.parametrize(
    ("labels", "loss", "message"),
    [
        ((48, 2), "Sparse", r"shape \(batch,\).*\(batch, 4\).*\(\w+, 2\)"),
        ((48, 3, 4), "Sparse", r"must have the shape \(batch,\)"),
        ((48, 4), "Sparse", "do not fit the loss SparseCategorical"),
        ((48,), "", "do not fit the loss CategoricalCrossentropy"),
    ],
)
def test_labels(labels, loss, message):
    loss = getattr(keras.losses, f"{loss}CategoricalCrossentropy")
    model = compiled(make_model(), loss=loss(from_logits=True))
    x, _ = make_data()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        model.fit(x, np.zeros(labels, "int32"), verbose=0)


def test_labels_are_needed():
    model = compiled(make_model(), run_eagerly=True)
    x, _ = make_data()
    with pytest.raises(ValueError, match="need labels"):
        model.fit(x, verbose=0)


def test_weights_by_modality_need_labels_by_modality():
    model = compiled(make_model(("image",)), run_eagerly=True)
    x, y = make_data(8, ("image",))
    with pytest.raises(ValueError, match="may be a dict only if `y`"):
        model.fit(x, y, sample_weight={"image": np.ones(8)}, verbose=0)


def test_compile_before_fit():
    x, y = make_data()
    with pytest.raises(ValueError, match=r"compile\(\)"):
        make_model().fit(x, y)


def test_classes_of_the_head():
    assert make_model().head.units == CLASSES
    projector = GradientProjector(alpha=5)
    first = make_model(projector=projector)
    second = make_model(projector=projector)
    assert first.projectors[0] is not second.projectors[0]


@pytest.mark.parametrize(
    "loss",
    ["mse", keras.losses.CategoricalFocalCrossentropy(from_logits=True)],
)
def test_other_losses_take_one_hot_labels(loss):
    model = compiled(make_model(task="single_label"), loss=loss)
    x, y = make_data()
    with pytest.raises(ValueError, match=r"\(batch, 4\) with the others"):
        model.fit(x, y, verbose=0)
    model.fit(x, np.eye(4)[y], verbose=0)
