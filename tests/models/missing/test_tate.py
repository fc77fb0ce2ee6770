"""TATE and its first stage, against NumPy; sequences, masks and teachers."""

import keras
import methods_reference as base
import numpy as np
import pytest
import reconstruction_reference
import tate_reference as ref
from tate_reference import NAMES, SMALL, TERMS
from utils import compiled, long_on, mainly_on, to_numpy, weights_of

from keras_mla import encoders
from keras_mla.core import Batch
from keras_mla.models import TATE, ConcatFusion, TagFusion


def teacher(parts=ref.parts, classes=3, **kwargs):
    model = TATE.teacher(parts(), classes, **{**SMALL, **kwargs})
    assert type(model) is TagFusion
    return reconstruction_reference.shuffled(model, 5)


def make(cls=TATE, parts=ref.parts, **kwargs):
    """A small model with random weights."""
    if cls is TATE:
        kwargs = {"teacher": teacher(parts), **kwargs}
    model = cls(parts(), 3, **{**SMALL, **TERMS, **kwargs})
    return reconstruction_reference.shuffled(model)


def taught(model, x, known):
    """The teacher's encoding of each sample that has a true value."""
    p = base.numpy_of(ref.weights(model.teacher.model))
    order = model.teacher.model.modalities
    found = {}
    for row, there in enumerate(known):
        if there.any():
            mine = [there[NAMES.index(m)] for m in order]
            _, *found[row] = ref.encoded(p, x, row, mine, order)
    return found


def check(model, x, y, shown, of_teacher, values=None):
    """Compares a step with NumPy: its loss, and gradients along a direction.

    Args:
        model: The model.
        x: Inputs as the model gets them.
        y: Labels.
        shown: Entries that the model is given.
        of_teacher: What `taught` returns, or `None`.
        values: Inputs without NaN. Defaults to `x`.
    """

    def objective(p):
        return ref.loss(p, values or x, y, shown, of_teacher, 0.3)

    variables = ref.weights(model)
    assert len(variables) == len(model.trainable_variables)
    p = base.numpy_of(variables)
    compiled(model, keras.optimizers.SGD(1.0), metrics=None)
    logs, gradients = base.applied_gradients(model, variables, x, y)
    np.testing.assert_allclose(float(logs["loss"]), objective(p), rtol=2e-5)
    rng, step = np.random.default_rng(3), 1e-6
    for name, gradient in gradients.items():
        way = rng.normal(size=gradient.shape)
        way /= np.linalg.norm(way)
        high, low = (
            objective({**p, name: p[name] + sign * step * way})
            for sign in (1, -1)
        )
        expected = (high - low) / (2 * step)
        found = (gradient * way).sum()
        assert found == pytest.approx(expected, abs=1e-4), name


# Without a teacher last, where a model compiles faster. The test of training
# compares the loss with a teacher.
@long_on("jax")
@pytest.mark.parametrize("cls", [TATE, TagFusion])
def test_a_step_against_numpy(cls):
    x, y = ref.data()
    shown, of_teacher, own = x["presence"], None, {}
    if cls is TATE:
        own = {"targets": "hidden", "teacher_weight": 0.3}
    model = make(cls, **own)
    if cls is TATE:
        known = np.tile(shown.any(1, keepdims=True), 3)
        of_teacher = taught(model, x, known)
    p = base.numpy_of(ref.weights(model))
    np.testing.assert_allclose(
        model.predict(x, verbose=0), ref.logits(p, x, shown), atol=1e-4
    )
    check(model, x, y, shown, of_teacher)


@mainly_on("torch")
def test_a_step_on_present_values(monkeypatch):
    """The teacher has another order of modalities."""
    x, y = ref.data(7)
    hidden = np.zeros_like(x["presence"])
    hidden[[0, 2, 2], [2, 0, 1]] = True
    monkeypatch.setattr(
        Batch, "drop", lambda batch, rate, seed, always: batch.hide(hidden)
    )

    def backwards():
        parts = ref.parts()
        return {name: parts[name] for name in reversed(NAMES)}

    model = make(teacher=teacher(backwards), teacher_weight=0.3)
    of_teacher = taught(model, x, x["presence"])
    given = changed(x)
    check(model, given, y, x["presence"] & ~hidden, of_teacher, x)


def changed(x):
    """NaN in the place of absent values, and other values of padding."""
    x = {**x, "text": {**x["text"], "steps": x["text"]["steps"].copy()}}
    x["text"]["steps"][~x["text"]["padding_mask"]] = 1e3
    for index, m in enumerate(NAMES):
        values = x[m]["steps"] if m == "text" else x[m].copy()
        values[~x["presence"][:, index]] = np.nan
        if m != "text":
            x[m] = values
    return x


def test_what_is_not_shown_changes_nothing():
    x, _ = ref.data(8)
    model = make(TagFusion)
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(expected[1], 0)  # It has no modality.
    assert (expected[[0, 2, 3]] != 0).all()
    np.testing.assert_array_equal(
        model.predict(changed(x), verbose=0), expected
    )
    # The tag tells what is absent.
    x["presence"][0, 2] = False
    assert (model.predict(x, verbose=0)[0] != expected[0]).all()


@mainly_on("torch")
def test_training_on_what_is_not_shown():
    x, y = ref.data(8)
    results = []
    for given in (x, changed(x)):
        keras.utils.set_random_seed(0)
        model = compiled(make(), keras.optimizers.SGD(0.1))
        model.fit(given, y, verbose=0, shuffle=False)
        results.append(weights_of(model))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@mainly_on("torch")
def test_dropout_is_off_in_prediction():
    x, _ = ref.data()
    model = make(TagFusion, dropout=0.5)
    first, second = (model.predict(x, verbose=0) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    first, second = (to_numpy(model(x, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


@mainly_on("torch")
def test_a_vector_is_a_sequence_of_length_one():
    model = make(TagFusion)

    def parts():
        found = ref.parts()
        audio = found["audio"]
        audio.add(keras.layers.Reshape((1, -1)))
        return found

    other = make(TagFusion, parts)
    other.set_weights(model.get_weights())
    x, _ = ref.data()
    np.testing.assert_allclose(
        other.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
    )


@long_on("tensorflow")
def test_training_at_a_missing_rate_of_70_percent(tmp_path):
    x, y = ref.data(12)
    x["presence"] = np.eye(3, dtype=bool)[
        np.random.default_rng(2).integers(0, 3, 12)
    ]
    model = make(targets="hidden", teacher_weight=0.3)
    assert model.train_complete
    theirs = weights_of(model.teacher.model)
    of_teacher = taught(model, x, np.ones((12, 3), bool))
    p = base.numpy_of(ref.weights(model))
    compiled(model, keras.optimizers.AdamW(0.01, weight_decay=0.5))
    history = model.fit(x, y, batch_size=12, epochs=2, verbose=0).history
    expected = ref.loss(p, x, y, x["presence"], of_teacher, 0.3)
    assert history["loss"][0] == pytest.approx(expected, rel=2e-5)
    for term in ("teacher", "decoding", "tag", "l2"):
        values = history[f"{term}_loss"]
        assert np.isfinite(values).all() and values[0] > 0
    for now, then in zip(weights_of(model.teacher.model), theirs, strict=True):
        np.testing.assert_array_equal(now, then)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    for layers in (configs := (again.get_config(), model.get_config())):
        for key in ("encoders", "head", "teacher"):
            layers.pop(key)
    assert configs[0] == configs[1]
    assert len(again.trainable_variables) == len(model.trainable_variables)


TINY = {"width": 8, "num_heads": 2, "depth": 1, "patch_size": 8}


def tokens():
    """Encoders that return all of their tokens."""
    words = {"vocabulary_size": 9, "max_length": 6, "pooling": None}
    return {
        "text": encoders.M3AE("text", **TINY, **words),
        "audio": encoders.CAVMAE("audio", (16, 8, 1), **TINY, pooling=None),
        "image": encoders.M3AE(
            "image", **TINY, image_shape=(8, 16, 3), pooling=None
        ),
    }


def pictures(samples=4):
    rng = np.random.default_rng(0)
    mask = np.arange(6)[None] < rng.integers(1, 6, (samples, 1))
    ids = rng.integers(0, 9, (samples, 6)).astype("int32")
    x = {
        "text": {"token_ids": ids, "padding_mask": mask},
        "audio": rng.random((samples, 16, 8, 1)).astype("float32"),
        "image": rng.random((samples, 8, 16, 3)).astype("float32"),
        "presence": np.ones((samples, 3), bool),
    }
    x["presence"][0, 0] = x["presence"][1, 1:] = False
    return x, np.arange(samples) % 3


@mainly_on("torch")
def test_tokens_of_m3ae_and_cavmae(tmp_path):
    x, y = pictures()
    first = TATE.teacher(tokens(), 3, **SMALL)
    first(x)
    model = compiled(TATE(tokens(), 3, teacher=first, **SMALL), "adam")
    history = model.fit(x, y, verbose=0).history
    assert np.isfinite(list(history.values())).all()
    assert model.widths == dict.fromkeys(NAMES, 8)
    found = model.features(x)
    shapes = {m: found[m].shape for m in NAMES[1:]}
    assert shapes == {"audio": (4, 2, 8), "image": (4, 3, 8)}
    assert found["text"]["features"].shape == (4, 7, 8)
    expected = model.predict(x, verbose=0)
    ids, mask = x["text"]["token_ids"], x["text"]["padding_mask"]
    x["text"] = {**x["text"], "token_ids": np.where(mask, ids, 3)}
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-6)
    # As far padded as the longest text needs.
    longest = mask.sum(1).max()
    cut = {k: v[:, :longest] for k, v in x["text"].items()}
    np.testing.assert_allclose(
        model.predict({**x, "text": cut}, verbose=0), expected, atol=1e-5
    )
    alone = model.unimodal("text")
    alone.save(tmp_path / "text.keras")
    again = keras.saving.load_model(tmp_path / "text.keras")
    np.testing.assert_allclose(
        again.predict(x["text"], verbose=0),
        model.predict_modalities({**x, "presence": np.ones((4, 3), bool)})[
            "text"
        ]["logits"],
        atol=1e-5,
    )


@mainly_on("torch")
@pytest.mark.parametrize("names", ["ba", "edcba"])
def test_other_numbers_of_modalities(names):
    """Zeros stand where heads do not divide the width of a step."""
    parts = {
        m: keras.Sequential([keras.Input((2, 3)), keras.layers.Identity()])
        for m in names
    }
    model = TagFusion(parts, 3, feature_dim=5, width=8, num_heads=4)
    layer, number = model.tag_encoder, len(names)
    assert layer.total == {2: 12, 5: 16}[number]
    x = {m: np.ones((2, 2, 3), "float32") for m in names}
    found = model.forward_pass(model.modalities, x, False)
    given = to_numpy(found.kept["given"])
    assert given.shape == (2, 2 * number, layer.total)
    np.testing.assert_array_equal(given[..., -number - 1 :], 1)
    zeros = given[..., 8 : layer.total - number - 1]
    assert zeros.shape[-1] == {2: 1, 5: 2}[number]
    assert not zeros.any()
    assert tuple(layer.spaces["0_1"].kernel.shape) == (8, 8 // (number - 1))


def without_audio():
    parts = ref.parts()
    parts.pop("audio")
    return parts


def pooled():
    parts = ref.parts()
    parts["image"].add(keras.layers.GlobalAveragePooling1D())
    return parts


@mainly_on("torch")
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (lambda: {"teacher": None}, "TATE needs a teacher.*TATE.teacher"),
        (
            lambda: {"teacher": teacher(without_audio)},
            "modalities of the model",
        ),
        (lambda: {"teacher": teacher(classes=4)}, "a teacher with 4"),
        (lambda: {"teacher": teacher(width=6)}, "those of the teacher, 6"),
        (
            lambda: {
                "teacher": ConcatFusion(
                    {m: reconstruction_reference.parts()[m] for m in NAMES}, 3
                )
            },
            "must be of the class `TagFusion`",
        ),
        (lambda: {"num_heads": 3}, "must divide `width`.*num_heads=3"),
        (lambda: {"depth": 0}, "at least one block"),
        (lambda: {"impute": "mean"}, "masks absent modalities"),
        (lambda: {"teacher_weight": -1.0}, "must be at least 0"),
        (lambda: {"targets": "others"}, "must be one of"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs())


@mainly_on("torch")
def test_one_modality_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        TagFusion({"audio": ref.parts()["audio"]}, 3)


@mainly_on("torch")
def test_wrong_data():
    x, y = ref.data()
    model = compiled(make(targets="hidden"))
    with pytest.raises(ValueError, match="targets='hidden'"):
        model.fit(changed(x), y, verbose=0)
    model = compiled(make(teacher=teacher(pooled)))
    message = "as many steps.*4 steps of all modalities of the teacher, and 5"
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, verbose=0)


class Wrong(keras.layers.Layer):
    """Returns what is no sequence."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def call(self, x):
        steps = x[:, None]
        return {
            "rank": steps[:, None],
            "keys": {"tokens": steps, "padding_mask": steps[..., 0]},
            "vector": {"features": x, "padding_mask": x},
            "mask": {"features": steps, "padding_mask": steps},
        }[self.kind]


@mainly_on("torch")
@pytest.mark.parametrize("kind", ["rank", "keys", "vector", "mask"])
def test_what_is_no_sequence(kind):
    model = TagFusion({"b": Wrong(kind), "a": Wrong(kind)}, 3, **SMALL)
    x = np.ones((2, 3), "float32")
    with pytest.raises(ValueError, match="'b' must return a tensor of shape"):
        model({"b": x, "a": x})
