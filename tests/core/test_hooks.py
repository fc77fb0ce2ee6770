"""The hooks of a method, each tested by a small subclass."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from outside_methods import WithJoint
from utils import (
    CLASSES,
    FEATURES,
    WIDTHS,
    compiled,
    encoder,
    half_presence,
    long,
    make_data,
    make_method,
    to_numpy,
)

import keras_mla
from keras_mla.core import (
    JointModel,
    LateModel,
    MeanLoss,
    Stage,
    Teacher,
    Update,
)

NAMES = tuple(WIDTHS)
register = keras.saving.register_keras_serializable(package="tests")


def parts():
    return {name: encoder(WIDTHS[name]) for name in NAMES}


def saved(model, path):
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras", safe_mode=True)


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


# === Experts beside modalities ===


@pytest.mark.parametrize("absent", [False, True])
def test_an_expert_that_is_no_modality(absent, tmp_path):
    x, y = make_data(24)
    presence = np.ones((24, 3), bool)
    if absent:
        x["presence"] = presence = half_presence(24)
    model = compiled(WithJoint(parts(), CLASSES))
    plain = compiled(keras_mla.MLA(parts(), CLASSES))
    for name in NAMES:
        plain.encoders[name].set_weights(model.encoders[name].get_weights())
    plain.head.set_weights(model.head.get_weights())
    how = dict(batch_size=8, shuffle=False, verbose=0)
    logs = model.fit(x, y, **how).history
    expected = plain.fit(x, y, **how).history
    # The joint expert does not change what other experts learn and report.
    for key in expected:
        if key not in ("accuracy", "fused_loss", "loss"):
            assert logs[key] == pytest.approx(expected[key], rel=1e-5), key
    np.testing.assert_allclose(
        to_numpy(model.head.kernel), to_numpy(plain.head.kernel), atol=1e-6
    )
    scores = model.evaluate(x, y, verbose=0, return_dict=True)
    found = model.predict_modalities(x)
    assert list(found) == [*NAMES, "joint", "fused"]
    known = presence.any(1)
    hits = (found["joint"]["logits"].argmax(1) == y)[known]
    assert scores["joint_accuracy"] == pytest.approx(hits.mean(), rel=1e-5)
    for fitted in (False, True):
        if fitted:
            fitted = model.calibrate((x, y))
            assert list(fitted["temperature"]) == [*NAMES, "joint"]
            found = model.predict_modalities(x)
        total = sum(
            found[e]["logits"] * found[e]["weight"][:, None]
            for e in model.experts
        )
        np.testing.assert_allclose(found["fused"], total, atol=1e-5)
        np.testing.assert_allclose(
            found["fused"], model.predict(x, verbose=0), atol=1e-5
        )
    again = saved(model, tmp_path)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_unpaired_data_skip_an_update_on_all_modalities():
    x, y = make_data(12)
    model = compiled(WithJoint(parts(), CLASSES))
    data = keras_mla.UnpairedDataset(
        {n: (x[n][: 6 + 2 * m], y[: 6 + 2 * m]) for m, n in enumerate(NAMES)},
        batch_size=4,
    )
    before = to_numpy(model.joint_head.kernel)
    logs = model.fit(data, verbose=0).history
    assert set(logs) == {
        "loss",
        *(f"{n}_{k}" for n in NAMES for k in ("loss", "accuracy")),
    }
    np.testing.assert_array_equal(to_numpy(model.joint_head.kernel), before)
    assert np.mean([logs[f"{n}_loss"][0] for n in NAMES]) == pytest.approx(
        logs["loss"][0], rel=1e-5
    )


@pytest.mark.parametrize(
    "names", [("fused", *NAMES), ("joint", *NAMES), (*NAMES, "fused")]
)
def test_experts_begin_with_the_modalities(names):
    class Wrong(WithJoint):
        experts = names

        def updates(self):
            return keras_mla.MLA.updates(self)

    with pytest.raises(ValueError, match="`experts` must be the modalities"):
        compiled(Wrong(parts(), CLASSES))


@pytest.mark.parametrize("name", ["loss", "fused_loss", "text_loss"])
def test_logs_have_names_of_their_own(name):
    class Wrong(keras_mla.models.MultiLossFusion):
        def updates(self):
            (update,) = super().updates()
            update.logs = (name,)
            return [update]

    with pytest.raises(ValueError, match=f"own logs.*'{name}'"):
        compiled(Wrong(parts(), CLASSES))


def test_a_weight_that_no_update_moves_is_told():
    class Forgetful(keras_mla.models.LateFusion):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.shift = self.add_weight(shape=(CLASSES,), name="shift")

        def unimodal_pass(self, name, feature, training):
            logits, kept = super().unimodal_pass(name, feature, training)
            return logits + self.shift, kept

    x, y = make_data(8)
    model = compiled(Forgetful(parts(), CLASSES))
    with pytest.warns(UserWarning, match="No update moves.*shift"):
        model.fit(x, y, verbose=0)


def test_absent_sequences_are_zeros_for_all_their_steps():
    # As many steps as samples: masks of either would fit.
    class Sequences(JointModel):
        def check_features(self, name, feature):
            pass

        def width_of(self, feature):
            return feature.shape[-1]

        def join(self, features, training):
            means = [ops.mean(features[name], axis=1) for name in NAMES]
            return self.head(ops.concatenate(means, axis=-1))

        def join_one(self, features):
            return self.join(features, False)

    steps = 4
    model = Sequences(
        {
            name: keras.Sequential(
                [keras.Input((steps, 2)), keras.layers.Dense(3)]
            )
            for name in NAMES
        },
        CLASSES,
    )
    rng = np.random.default_rng(0)
    x = {n: rng.normal(size=(steps, steps, 2)).astype("float32") for n in NAMES}
    presence = rng.random((steps, 3)) < 0.5
    found = model.predict({**x, "presence": presence}, verbose=0)
    features = model.features(x)
    means = [
        np.where(presence[:, i, None], features[n].mean(axis=1), 0)
        for i, n in enumerate(NAMES)
    ]
    kernel, bias = map(to_numpy, model.head.weights)
    np.testing.assert_allclose(
        found, np.concatenate(means, 1) @ kernel + bias, atol=1e-5
    )


# === Stages and teachers ===


@register
class Alternating(keras_mla.models.LateFusion):
    """Trains one modality an epoch, then everything."""

    def stages(self):
        updates = self.updates()
        return [*(Stage([u], 1) for u in updates), Stage(updates)]


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=long())])
def test_stages_choose_the_updates_of_an_epoch(jit):
    if jit and keras.backend.backend() != "torch":
        pytest.skip("Steps are compiled by default.")
    x, y = make_data(16)
    model = Alternating(parts(), CLASSES)
    compiled(
        model,
        keras.optimizers.SGD(0.1, momentum=0.9),
        jit_compile=jit or "auto",
    )
    moved, weights = [], {n: to_numpy(model.heads[n].kernel) for n in NAMES}

    def look(epoch, logs):
        now = {n: to_numpy(model.heads[n].kernel) for n in NAMES}
        moved.append([n for n in NAMES if (now[n] != weights[n]).any()])
        weights.update(now)

    watch = keras.callbacks.LambdaCallback(on_epoch_end=look)
    history = model.fit(
        x,
        y,
        epochs=4,
        validation_data=(x, y),
        callbacks=[watch],
        verbose=0,
    ).history
    assert moved == [[NAMES[0]], [NAMES[1]], [NAMES[2]], list(NAMES)]
    for epoch, name in enumerate(NAMES):
        for key in ("loss", "val_loss"):
            own = key.replace("loss", f"{name}_loss")
            assert history[key][epoch] == pytest.approx(
                history[own][epoch], rel=1e-5
            )
    # The optimizer counts batches, and slots stay.
    assert int(to_numpy(model.optimizer.iterations)) == 4
    model.fit(x, y, epochs=3, initial_epoch=2, callbacks=[watch], verbose=0)
    assert moved[-1] == [NAMES[2]]
    # Outside of `fit`, the last stage counts.
    compiled(model)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    own = np.mean([logs[f"{name}_loss"] for name in NAMES])
    assert logs["loss"] == pytest.approx(own, rel=1e-5)
    # After `fit`, the last stage counts, whatever the stage of its last epoch.
    model.fit(x, y, epochs=1, verbose=0)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(
        np.mean([logs[f"{n}_loss"] for n in NAMES]), rel=1e-5
    )


@register
class AloneThenJoint(JointModel):
    """Trains each modality by itself for an epoch, then all together."""

    def stages(self):
        alone = [
            Update((name,), (self.encoders[name], self.head))
            for name in self.modalities
        ]
        return [Stage(alone, 1), Stage(self.updates())]

    def update_losses(self, update, outputs, losses, batch):
        if len(update.modalities) == 1:
            return list(losses.values())
        return super().update_losses(update, outputs, losses, batch)


@pytest.mark.parametrize("absent", [False, True])
def test_a_joint_method_may_train_modalities_one_by_one(absent):
    model = compiled(
        AloneThenJoint(parts(), CLASSES), keras.optimizers.SGD(0.0)
    )
    x, y = make_data(12)
    if absent:
        x["presence"] = half_presence(12)
    logs = model.fit(x, y, epochs=2, verbose=0).history
    assert logs["fused_loss"][0] == pytest.approx(logs["fused_loss"][1])
    assert logs["accuracy"][0] == pytest.approx(logs["accuracy"][1])
    own = np.mean([logs[f"{name}_loss"][0] for name in NAMES])
    assert logs["loss"][0] == pytest.approx(own, rel=1e-5)


def test_fuse_sees_what_an_earlier_update_kept():
    class Kept(AloneThenJoint):
        def stages(self):
            alone, joint = super().stages()
            return [Stage([*joint.updates, *alone.updates])]

        def complete(self, features, presence, training):
            completed, _ = super().complete(features, presence, training)
            return completed, completed[NAMES[0]]

        def fuse(self, outputs, presence):
            if presence is not None:
                assert outputs.kept.shape[1] == FEATURES
            return super().fuse(outputs, presence)

    x, y = make_data(8)
    x["presence"] = half_presence(8)
    compiled(Kept(parts(), CLASSES)).fit(x, y, verbose=0)


def test_a_stage_may_last_no_epoch():
    class Warmed(keras_mla.models.LateFusion):
        def stages(self):
            updates = self.updates()
            return [Stage(updates[:1], epochs=0), Stage(updates)]

    model = compiled(Warmed(parts(), CLASSES))
    x, y = make_data(8)
    before = to_numpy(model.heads[NAMES[-1]].kernel)
    model.fit(x, y, verbose=0)
    assert (to_numpy(model.heads[NAMES[-1]].kernel) != before).any()


@pytest.mark.parametrize(
    "stages",
    [
        lambda updates: [Stage(updates), Stage(updates[:1])],
        lambda updates: [Stage([])],
    ],
)
def test_a_stage_that_never_trains_is_refused(stages):
    class Wrong(keras_mla.models.LateFusion):
        def stages(self):
            return stages(self.updates())

    with pytest.raises(ValueError, match="stage needs at least one update"):
        compiled(Wrong(parts(), CLASSES))


def test_two_updates_of_one_name_are_refused():
    class Twice(keras_mla.models.LateFusion):
        def updates(self):
            return [*super().updates(), *super().updates()]

    with pytest.raises(ValueError, match="a name of its own"):
        compiled(Twice(parts(), CLASSES))


@register
class Distilled(LateModel):
    """Learns a teacher's fused prediction beside the labels."""

    def __init__(self, *args, teacher, saved=True, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher = Teacher.of(teacher, saved)

    def updates(self):
        return [Update(self.modalities, (self,), (*self.modalities, "taught"))]

    def update_losses(self, update, outputs, losses, batch):
        wanted = self.teacher(batch.inputs)
        fused = self.fuse(outputs, None)
        far = ops.mean(ops.square(fused - wanted))
        return [*losses.values(), MeanLoss(far, batch.size("text"))]

    def get_config(self):
        teacher = keras.saving.serialize_keras_object(self.teacher)
        return {**super().get_config(), "teacher": teacher}


@pytest.mark.parametrize("kept", [True, False])
def test_a_frozen_teacher(kept, tmp_path):
    x, y = make_data(16)
    teacher = compiled(make_method("ConcatFusion"), "adam")
    teacher.fit(x, y, verbose=0)
    expected = teacher.predict(x, verbose=0)
    model = compiled(
        Distilled(parts(), CLASSES, teacher=teacher, saved=kept), "adam"
    )
    own = sum(len(e.trainable_variables) for e in model.encoders.values())
    heads = sum(len(h.trainable_variables) for h in model.heads.values())
    assert len(model.trainable_variables) == own + heads
    model.fit(x, y, epochs=2, verbose=0)
    np.testing.assert_array_equal(teacher.predict(x, verbose=0), expected)
    again = saved(model, tmp_path)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    if kept:
        np.testing.assert_array_equal(
            again.teacher.model.predict(x, verbose=0), expected
        )
        again.fit(x, y, verbose=0)
    else:
        with pytest.raises(ValueError, match="left out of the file"):
            again.fit(x, y, verbose=0)


def test_a_teacher_stays_frozen_when_the_model_is_unfrozen():
    x, y = make_data(8)
    teacher = make_method("ConcatFusion")
    model = Distilled(parts(), CLASSES, teacher=teacher)
    model.trainable = False
    model.trainable = True
    assert not model.teacher.trainable_variables
    compiled(model, keras.optimizers.AdamW(0.1, weight_decay=0.5))
    model.fit(x, y, verbose=0)
    for kept, given in zip(
        model.teacher.model.weights, teacher.weights, strict=True
    ):
        np.testing.assert_array_equal(to_numpy(kept), to_numpy(given))


def test_a_teacher_adds_no_penalty():
    x, y = make_data(8)
    teacher = make_method("ConcatFusion")
    losses = []
    model = compiled(Distilled(parts(), CLASSES, teacher=teacher))
    for penalty in (0.0, 100.0):
        for name in NAMES:
            layer = teacher.encoders[name].layers[0]
            layer.activity_regularizer = keras.regularizers.L2(penalty)
        other = compiled(Distilled(parts(), CLASSES, teacher=teacher))
        other.set_weights(model.get_weights())
        losses.append(other.evaluate(x, y, verbose=0, return_dict=True)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_teacher_must_have_weights():
    with pytest.raises(ValueError, match="must be fitted"):
        Teacher(keras.Sequential([keras.layers.Dense(2)]))


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


def test_the_summary_shows_shapes_behind_the_encoders():
    lines = []
    make_method("MLA").summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert "?" not in text
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
