"""Teachers of MMIN and IF-MMIN: what they give, and what is refused."""

import keras
import numpy as np
import pytest
import reconstruction_reference as ref
from methods_reference import encoder_weights, numpy_of
from reconstruction_reference import NAMES
from utils import compiled, mainly_on, to_numpy, weights_of

from keras_mla.core import Teacher
from keras_mla.models import IFMMIN, MMIN, ConcatFusion, InvariantFusion

SMALL = {"widths": (4, 2), "blocks": 2, "classifier": (4,)}


def concat(parts=None, classes=3, **kwargs):
    return ref.shuffled(ConcatFusion(parts or ref.parts(), classes, **kwargs))


def invariant(**kwargs):
    model = IFMMIN.teacher(
        ref.parts(), 3, invariant=(4, 3), classifier=(4,), **kwargs
    )
    assert type(model) is InvariantFusion
    return ref.shuffled(model)


def make(cls, teacher, parts=None, **kwargs):
    own = {**SMALL, **({"invariant": (4, 3)} if cls is IFMMIN else {})}
    return cls(parts or ref.parts(), 3, teacher=teacher, **{**own, **kwargs})


def equal(first, second):
    return all(
        (to_numpy(a) == to_numpy(b)).all()
        for a, b in zip(first.weights, second.weights, strict=True)
    )


@pytest.mark.parametrize("cls", [MMIN, IFMMIN])
def test_a_teacher_is_copied_and_does_not_move(cls):
    teacher = concat() if cls is MMIN else invariant()
    before = weights_of(teacher)
    model = make(cls, teacher)
    for m in NAMES:
        assert equal(model.encoders[m], teacher.encoders[m])
    if cls is IFMMIN:
        assert equal(model.shared, teacher.shared)
    compiled(model, keras.optimizers.AdamW(0.1, weight_decay=0.5))
    x, y = ref.data(12)
    model.fit(x, y, batch_size=6, verbose=0)
    assert isinstance(model.teacher, Teacher)
    for now, then in zip(weights_of(model.teacher.model), before, strict=True):
        np.testing.assert_array_equal(now, then)
    for now, then in zip(weights_of(teacher), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert not any(equal(model.encoders[m], teacher.encoders[m]) for m in NAMES)


@mainly_on("torch")
def test_only_weights_of_the_same_shapes_are_taken():
    teacher = concat(feature_dim=5)
    parts = {**ref.parts(), "text": keras.layers.Dense(7)}
    parts["audio"] = keras.layers.Dense(3)  # Not built yet.
    model = make(MMIN, teacher, parts, feature_dim=5)
    assert model.built
    assert tuple(model.encoders["text"].kernel.shape) == (4, 7)
    for m in ("audio", "image"):
        own, theirs = model.encoders[m], teacher.encoders[m]
        assert equal(own, theirs)
        assert equal(model.projections[m], teacher.projections[m])
    assert tuple(model.projections["text"].kernel.shape) == (7, 5)


@mainly_on("torch")
def test_a_teacher_may_be_left_out_of_the_file(tmp_path):
    x, y = ref.data(8)
    model = compiled(make(IFMMIN, invariant(), teacher_saved=False))
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    scores = again.evaluate(x, y, verbose=0, return_dict=True)
    assert np.isfinite(list(scores.values())).all()
    with pytest.raises(ValueError, match="left out of the file"):
        again.fit(x, y, verbose=0)
    whole = make(IFMMIN, invariant())
    assert len(whole.weights) > len(model.weights)


def without_audio():
    parts = ref.parts()
    parts.pop("audio")
    return parts


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (lambda: None, "MMIN needs a teacher.*ConcatFusion"),
        (lambda: keras.layers.Dense(2), "MMIN needs a teacher"),
        (lambda: concat(without_audio()), "modalities of the model"),
        (lambda: concat(classes=4), "a teacher with 4, and a head with 3"),
        (lambda: concat(ref.parts(5)), "as wide as those of the model"),
        (
            lambda: ConcatFusion({m: keras.layers.Dense(3) for m in NAMES}, 3),
            "must be fitted",
        ),
        (lambda: Teacher(concat(classes=4)), "a teacher with 4"),
    ],
)
def test_what_cannot_be_a_teacher(teacher, message):
    with pytest.raises(ValueError, match=message):
        make(MMIN, teacher())


@pytest.mark.parametrize(
    ("teacher", "kwargs", "message"),
    [
        (concat, {}, "must be of the class `InvariantFusion`"),
        (lambda: None, {}, "IFMMIN needs a teacher.*IFMMIN.teacher"),
        (invariant, {"invariant": (4, 2)}, "that of the teacher, 3"),
    ],
)
def test_what_cannot_be_a_teacher_of_ifmmin(teacher, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(IFMMIN, teacher(), **kwargs)


@mainly_on("torch")
def test_a_teacher_in_another_order():
    """Features are found by name."""
    parts = ref.parts()
    teacher = concat({m: parts[m] for m in reversed(NAMES)})
    model = make(MMIN, teacher)
    x, _ = ref.data(8)
    presence = x.pop("presence")
    found = model.true_features(x, presence)["features"]
    p = numpy_of(encoder_weights(teacher))
    for m, expected in ref.features(p, x).items():
        np.testing.assert_allclose(to_numpy(found[m]), expected, atol=1e-5)
        assert equal(model.encoders[m], teacher.encoders[m])
