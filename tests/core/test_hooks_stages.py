"""Stages and teachers."""

import keras
import numpy as np
import pytest
from keras import ops
from utils import (
    CLASSES,
    FEATURES,
    WIDTHS,
    compiled,
    half_presence,
    long,
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
    LateModel,
    MeanLoss,
    Stage,
    Teacher,
    Update,
)

NAMES = tuple(WIDTHS)


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


def test_a_teacher_that_is_made_again_is_frozen():
    head = keras.Sequential(
        [keras.layers.Dense(3), keras.layers.Dense(CLASSES)]
    )
    teacher = Teacher(make_method("ConcatFusion", head))
    for _ in range(2):
        config = keras.saving.serialize_keras_object(teacher)
        teacher = keras.saving.deserialize_keras_object(config)
        assert teacher.variables
        assert not any(v.trainable for v in teacher.variables)


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
