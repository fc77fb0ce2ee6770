"""The hooks of a method, each tested by a small subclass."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from utils import (
    CLASSES,
    FEATURES,
    WIDTHS,
    compiled,
    encoder,
    half_presence,
    make_data,
    make_method,
    parts,
    register,
    saved,
    to_numpy,
)

import keras_mla
from keras_mla.core import (
    JointModel,
    MeanLoss,
    Update,
)

NAMES = tuple(WIDTHS)


# === New state in a subclass of any method ===


@pytest.mark.parametrize("method", ["ConcatFusion", "QMF", "MLA"])
def test_a_subclass_of_any_method_may_have_new_state(method, tmp_path):
    base = getattr(keras_mla.models, method)

    @register
    class Counting(base):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            assert not self.built
            self.noise = keras.layers.GaussianNoise(0.1, seed=1)
            self.seen = self.add_weight(shape=(), initializer="zeros")
            self.seen.trainable = False

        def encode(self, name, inputs, training, present=None):
            feature = super().encode(name, inputs, training, present)
            return self.noise(feature, training=training)

        def modify_gradients(self, update, gradients, outputs, batch):
            def count(taken):
                self.seen.assign_add(1)

            gradients, advances = super().modify_gradients(
                update, gradients, outputs, batch
            )
            return gradients, [*advances, count]

    own = {"num_samples": 16} if method == "QMF" else {}
    model = compiled(Counting(parts(), CLASSES, **own))
    assert model.built
    x, y = make_data(16)
    model.fit({**x, "sample_id": np.arange(16)}, y, verbose=0)
    assert float(to_numpy(model.seen)) == len(model.updates())
    again = saved(model, tmp_path)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


# === Features in place of absent ones ===


@register
class Imputing(JointModel):
    """Replaces absent features by learned vectors near the present ones."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tokens = [
            self.add_weight(shape=(FEATURES,), name=f"{name}_token")
            for name in self.modalities
        ]

    def updates(self):
        losses = ("fused", "distance")
        return [Update(self.modalities, (self,), losses, logs=("distance",))]

    def complete(self, features, presence, training):
        completed, distances = {}, []
        for index, name in enumerate(self.modalities):
            present = presence[:, index, None]
            token = ops.convert_to_tensor(self.tokens[index])
            completed[name] = ops.where(present, features[name], token)
            far = ops.mean(ops.square(features[name] - token), axis=-1)
            distances.append(ops.where(present[:, 0], far, 0.0))
        return completed, ops.stack(distances, axis=1)

    def distance(self, outputs, batch):
        count = ops.sum(ops.cast(batch.presence, "float32"))
        return MeanLoss(ops.sum(outputs.kept) / ops.maximum(count, 1), count)

    def update_losses(self, update, outputs, losses, batch):
        return [self.fused_loss(outputs, batch), self.distance(outputs, batch)]

    def update_logs(self, update, outputs, batch):
        return {"distance": self.distance(outputs, batch)}


def test_what_stands_for_an_absent_feature(tmp_path):
    model = compiled(Imputing(parts(), CLASSES))
    x, y = make_data(12)
    x["presence"] = presence = half_presence(12)
    tokens = [to_numpy(token) for token in model.tokens]
    features = model.features(x)
    logs = model.evaluate(x, y, batch_size=5, verbose=0, return_dict=True)
    far = [
        ((features[name] - token) ** 2).mean(1)[presence[:, m]]
        for m, (name, token) in enumerate(zip(NAMES, tokens, strict=True))
    ]
    distance = np.concatenate(far).mean()
    assert logs["distance"] == pytest.approx(distance, rel=1e-5)
    assert logs["loss"] == pytest.approx(
        logs["fused_loss"] + distance, rel=1e-5
    )
    joined = np.concatenate(
        [
            np.where(presence[:, m, None], features[name], tokens[m])
            for m, name in enumerate(NAMES)
        ],
        axis=1,
    )
    kernel, bias = map(to_numpy, (model.head.kernel, model.head.bias))
    expected = (joined @ kernel + bias) * presence.any(1, keepdims=True)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)
    history = model.fit(x, y, validation_data=(x, y), epochs=2, verbose=0)
    assert {"distance", "val_distance"} <= set(history.history)
    assert all(
        (to_numpy(t) != b).any()
        for t, b in zip(model.tokens, tokens, strict=True)
    )
    again = saved(model, tmp_path)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_logs_are_those_that_an_update_names():
    class Silent(Imputing):
        def update_logs(self, update, outputs, batch):
            return {"other": self.distance(outputs, batch)}

    x, y = make_data(8)
    x["presence"] = half_presence(8)
    with pytest.raises(ValueError, match=r"update_logs.*\['distance'\].*other"):
        compiled(Silent(parts(), CLASSES)).evaluate(x, y, verbose=0)


# === A batch is prepared once ===


@register
class Hiding(keras_mla.MLA):
    """Hides the first modality of samples that have another."""

    hidden_rows = ()

    def prepare_batch(self, batch):
        if not batch.training:
            return batch
        shape = ops.shape(batch.labels[self.modalities[0]])[0]
        rows = ops.arange(shape) % 2 == 0
        none = ops.zeros_like(rows)
        batch = batch.hide(ops.stack([rows, none, none], axis=1))
        text = self.modalities[0]
        assert batch.values[text].shape == batch.inputs[text].shape
        return batch


@pytest.mark.parametrize("with_presence", [True, False])
def test_hidden_values_are_absent_ones(with_presence):
    x, y = make_data(8)
    presence = np.ones((8, 3), bool)
    if with_presence:
        presence = half_presence(8)
        x["presence"] = presence
    seen = presence.copy()
    seen[::2, 0] = False
    hiding = compiled(Hiding(parts(), CLASSES))
    plain = compiled(keras_mla.MLA(parts(), CLASSES))
    plain.set_weights(hiding.get_weights())
    logs = hiding.train_on_batch(x, y, return_dict=True)
    others = plain.train_on_batch({**x, "presence": seen}, y, return_dict=True)
    assert {k: float(v) for k, v in logs.items()} == pytest.approx(
        {k: float(v) for k, v in others.items()}, rel=1e-5
    )
    for a, b in zip(hiding.weights, plain.weights, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), atol=1e-6)


def test_a_batch_knows_what_is_hidden():
    x, y = make_data(4)
    x["presence"] = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    x["text"][1] = np.nan
    batch = keras_mla.core.Batch.from_data(NAMES, (x, y))
    mask = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]], bool)
    hidden = batch.hide(ops.convert_to_tensor(mask))
    np.testing.assert_array_equal(to_numpy(hidden.hidden), mask & x["presence"])
    np.testing.assert_array_equal(
        to_numpy(hidden.presence), x["presence"] & ~mask
    )
    assert hidden.values["text"] is x["text"]
    assert np.isfinite(to_numpy(hidden.inputs["text"])).all()
    twice = hidden.hide(ops.convert_to_tensor(~mask))
    assert not to_numpy(twice.presence).any()
    np.testing.assert_array_equal(to_numpy(twice.hidden), x["presence"])
    # What `prepare_batch` did to the inputs before stays.
    changed = dataclasses.replace(
        batch, inputs={n: v + 7 for n, v in batch.inputs.items()}
    ).hide(ops.convert_to_tensor(mask))
    for name in NAMES:
        np.testing.assert_array_equal(
            to_numpy(changed.inputs[name]), to_numpy(hidden.inputs[name]) + 7
        )
    unpaired = keras_mla.core.Batch.from_data(
        NAMES, ({n: x[n] for n in NAMES}, dict.fromkeys(NAMES, y))
    )
    with pytest.raises(ValueError, match="samples of its own"):
        unpaired.hide(mask)


# === A gradient of each loss ===


@register
class Signed(keras_mla.models.MultiLossFusion):
    """Adds the fused gradient twice, and subtracts the other gradients."""

    def combine_gradients(self, update, gradients, outputs, batch):
        fused, *others = gradients
        return [
            2 * of_fused - sum(of_others)
            for of_fused, *of_others in zip(fused, *others, strict=True)
        ]


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_each_loss_has_a_gradient_of_its_own(penalty):
    x, y = make_data(8)
    head = keras.layers.Dense(
        CLASSES, kernel_regularizer=keras.regularizers.L2(penalty)
    )
    model = compiled(Signed(parts(), head))
    before = [to_numpy(v) for v in model.trainable_variables]
    logits = model.predict_modalities(x)
    features = model.features(x)
    model.train_on_batch(x, y)
    one_hot = np.eye(CLASSES)[y]

    def softmax(z):
        p = np.exp(z - z.max(1, keepdims=True))
        return p / p.sum(1, keepdims=True)

    fused = (softmax(logits["fused"]) - one_hot) / len(y)
    for name in NAMES:
        own = (softmax(logits[name]["logits"]) - one_hot) / len(y)
        kernel = model.heads[name].kernel
        index = [v is kernel for v in model.trainable_variables].index(True)
        gradient = features[name].T @ (2 * fused - own)
        gradient = gradient + 2 * penalty * before[index]
        np.testing.assert_allclose(
            to_numpy(kernel), before[index] - 0.1 * gradient, atol=1e-5
        )


@register
class WithConstants(Signed):
    """Has a loss that depends on no variable in this batch."""

    def updates(self):
        losses = ("fused", *self.modalities, "constant")
        return [Update(self.modalities, (self,), losses)]

    def update_losses(self, update, outputs, losses, batch):
        found = super().update_losses(update, outputs, losses, batch)
        return [*found, MeanLoss(ops.ones(()), 1)]


def test_a_loss_that_depends_on_no_variable_has_zero_gradients():
    x, y = make_data(8)
    models = []
    for cls in (Signed, WithConstants):
        encoders = parts()
        # Its penalty depends on no variable to move.
        frozen = encoder(WIDTHS[NAMES[0]])
        frozen.layers[0].activity_regularizer = keras.regularizers.L2(0.1)
        frozen.trainable = False
        models.append(compiled(cls({**encoders, NAMES[0]: frozen}, CLASSES)))
    models[1].set_weights(models[0].get_weights())
    for model in models:
        model.train_on_batch(x, y)
    assert all(
        np.allclose(to_numpy(a), to_numpy(b), atol=1e-6)
        for a, b in zip(models[0].weights, models[1].weights, strict=True)
    )


# === Features of another kind ===


@register
class OverTime(keras_mla.MLA):
    """Takes `(batch, time, features)` with a mask, and pools them."""

    def check_features(self, name, feature):
        if set(feature) != {"tokens", "mask"}:
            raise ValueError(f"The encoder of {name!r} returns no tokens.")

    def width_of(self, feature):
        return int(feature["tokens"].shape[-1])

    def unimodal_pass(self, name, feature, training):
        mask = ops.cast(feature["mask"], "float32")[..., None]
        total = ops.sum(feature["tokens"] * mask, axis=1)
        pooled = total / ops.maximum(ops.sum(mask, axis=1), 1)
        return super().unimodal_pass(name, pooled, training)


def test_an_encoder_may_return_tokens_and_a_mask(tmp_path):
    def tokens(size):
        inputs = keras.Input((None, size))
        mask = ops.any(inputs != 0, axis=-1)
        outputs = keras.layers.Dense(FEATURES)(inputs)
        return keras.Model(inputs, {"tokens": outputs, "mask": mask})

    model = compiled(OverTime({"b": tokens(3), "a": tokens(2)}, CLASSES))
    rng = np.random.default_rng(0)
    x = {n: rng.normal(size=(6, 5, k)) for n, k in (("b", 3), ("a", 2))}
    x = {n: v.astype("float32") for n, v in x.items()}
    x["b"][:, 3:] = 0
    y = rng.integers(0, CLASSES, 6)
    x["presence"] = np.array([[1, 0], [1, 1], [0, 1]] * 2, bool)
    model.fit(x, y, verbose=0)
    found = model.unimodal("b").predict(x["b"], verbose=0)
    shorter = model.unimodal("b").predict(x["b"][:, :3], verbose=0)
    np.testing.assert_allclose(found, shorter, atol=1e-5)
    assert model.features(x)["b"]["tokens"].shape == (6, 5, FEATURES)
    again = saved(model, tmp_path)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


# === Public helpers ===


def test_variables_of_a_modality_have_its_projection():
    model = make_method("MLA", feature_dim=4)
    for name in NAMES:
        wanted = [
            *model.encoders[name].variables,
            *model.projections[name].variables,
        ]
        found = model.variables_of(name)
        assert [id(v) for v in found] == [id(v) for v in wanted]


@pytest.mark.parametrize("entrance", ["features", "predict_modalities"])
def test_any_entrance_builds_a_model(entrance):
    encoders = {
        name: keras.Sequential([keras.layers.Dense(FEATURES)]) for name in NAMES
    }
    model = keras_mla.MLA(encoders, CLASSES)
    x, _ = make_data(6)
    assert not model.built
    getattr(model, entrance)(x)
    assert model.built and model.fusion.built
    assert model.get_build_config() is not None


def test_features_are_projected_and_zero_where_absent():
    model = make_method("MLA", feature_dim=4)
    x, _ = make_data(6)
    x["presence"] = half_presence(6)
    found = model.features(x)
    assert list(found) == list(NAMES)
    for m, name in enumerate(NAMES):
        raw = model.encoders[name].predict(x[name], verbose=0)
        kernel, bias = map(to_numpy, model.projections[name].variables)
        expected = (raw @ kernel + bias) * x["presence"][:, m, None]
        np.testing.assert_allclose(found[name], expected, atol=1e-5)


@pytest.mark.parametrize("method", ["MLA", "FiLM", "BiGated", "LateFusion"])
def test_the_summary_shows_shapes_behind_the_encoders(method):
    lines = []
    make_method(method).summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert "?" not in text
    if method == "MLA":
        assert f"({FEATURES}, {CLASSES})" in text  # The projected gradient.


@pytest.mark.parametrize(
    ("expert", "message"),
    [("Text", "must be one of .*'text'"), (None, "pass the name of an expert")],
)
def test_a_loss_is_of_a_known_expert(expert, message):
    class Wrong(keras_mla.models.LateFusion):
        def update_losses(self, update, outputs, losses, batch):
            return [self.loss_of(outputs.logits[update.name], batch, expert)]

    x, y = make_data(8)
    y = y if expert else dict.fromkeys(NAMES, y)
    with pytest.raises(ValueError, match=message):
        compiled(Wrong(parts(), CLASSES)).evaluate(x, y, verbose=0)


def test_joint_methods_give_logits_and_no_weight():
    model = make_method("ConcatFusion")
    x, _ = make_data(6)
    found = model.predict_modalities(x)
    assert list(found) == [*NAMES, "fused"]
    for name in NAMES:
        assert set(found[name]) == {"logits"}
        logits = model.unimodal(name).predict(x[name], verbose=0)
        np.testing.assert_allclose(found[name]["logits"], logits, atol=1e-6)
    np.testing.assert_array_equal(found["fused"], model.predict(x, verbose=0))


@register
class MeanImputing(JointModel):
    """Replaces absent features by the mean of present ones."""

    def build_head(self, widths):
        super().build_head(widths)
        self.means = {
            name: self.add_weight(
                shape=(width,),
                initializer="zeros",
                trainable=False,
                name=f"{name}_mean",
            )
            for name, width in widths.items()
        }

    def adapt(self, data, batch_size=None):
        x, _ = data
        features = self.features(x, batch_size)
        for m, name in enumerate(self.modalities):
            here = x["presence"][:, m]
            self.means[name].assign(features[name][here].mean(axis=0))

    def complete(self, features, presence, training):
        return {
            name: ops.where(
                presence[:, m, None],
                features[name],
                ops.convert_to_tensor(self.means[name]),
            )
            for m, name in enumerate(self.modalities)
        }, ()


def test_what_is_fitted_in_closed_form(tmp_path):
    model = compiled(MeanImputing(parts(), CLASSES))
    x, y = make_data(12)
    x["presence"] = half_presence(12)
    model.adapt((x, y), batch_size=5)
    features = model.features(x)
    for m, name in enumerate(NAMES):
        mean = features[name][x["presence"][:, m]].mean(0)
        np.testing.assert_allclose(to_numpy(model.means[name]), mean, atol=1e-6)
    model.fit(x, y, verbose=0)
    again = saved(model, tmp_path)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_compiling_and_quantizing_forget_graphs(monkeypatch):
    # `ServedModel` comes after `CompiledModel` in the order of bases.
    forgotten = []
    served = keras_mla.core.serving.ServedModel
    original = served.forget_graphs

    def forget(self):
        forgotten.append(self)
        original(self)

    monkeypatch.setattr(served, "forget_graphs", forget)
    model = compiled(make_method("MLA"))
    assert len(forgotten) == 1
    model.quantize("int8")
    assert len(forgotten) == 2
