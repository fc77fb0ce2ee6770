"""Methods as users write them: outside the package, with its public names."""

import keras
from keras import ops

import keras_mla
from keras_mla.core import JointModel, MeanLoss, Teacher, Update


@keras.saving.register_keras_serializable(package="tests")
class WithJoint(keras_mla.MLA):
    """MLA with a further expert: a head on all features, not sent back."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.joint_head = self.head_like("joint_head")

    @property
    def experts(self):
        return (*self.modalities, "joint")

    def build_head(self, widths):
        super().build_head(widths)
        if not self.joint_head.built:
            self.joint_head.build((None, sum(widths.values())))

    def expert_pass(self, name, features, training, presence):
        joined = []
        for index, modality in enumerate(self.modalities):
            feature = ops.stop_gradient(features[modality])
            if presence is not None:
                shown = presence[:, index, None]
                feature = ops.where(shown, feature, ops.zeros_like(feature))
            joined.append(feature)
        return self.joint_head(ops.concatenate(joined, axis=-1)), ()

    def updates(self):
        joint = Update(
            self.modalities,
            (self.joint_head,),
            losses=("joint",),
            experts=("joint",),
            paired=True,
        )
        return [*super().updates(), joint]

    def modify_gradients(self, update, gradients, outputs, batch):
        if update.name == "joint":
            return gradients, []
        return super().modify_gradients(update, gradients, outputs, batch)


@keras.saving.register_keras_serializable(package="tests")
class MMPareto(keras_mla.models.MultiLossFusion):
    """Integrates the gradients of the fused loss and of each modality's loss.

    Wei and Hu, "MMPareto", ICML 2024, Eqs. 8 and 9.
    """

    def __init__(self, *args, gamma=1.5, **kwargs):
        super().__init__(*args, **kwargs)
        self.gamma = gamma

    def combine_gradients(self, update, gradients, outputs, batch):
        joint, *own = gradients
        combined = [sum(parts) for parts in zip(*gradients, strict=True)]
        position = {id(v): i for i, v in enumerate(update.variables)}
        for name, of_modality in zip(self.modalities, own, strict=True):
            indices = [
                position[id(variable)]
                for variable in self.variables_of(name)
                if id(variable) in position
            ]
            integrated = self.integrate(
                [joint[i] for i in indices], [of_modality[i] for i in indices]
            )
            for i, gradient in zip(indices, integrated, strict=True):
                combined[i] = gradient
        return combined

    def integrate(self, joint, own):
        """Returns an encoder's gradient, from those of two losses."""
        both = inner(joint, own)
        of_joint, of_own = inner(joint, joint), inner(own, own)
        distance = of_joint + of_own - 2 * both
        share = (of_own - both) / ops.maximum(distance, 1e-30)
        share = ops.where(both >= 0, 0.5, ops.clip(share, 0, 1))
        mixed = [
            2 * share * j + 2 * (1 - share) * o
            for j, o in zip(joint, own, strict=True)
        ]
        wanted = ops.sqrt(of_joint + of_own + 2 * both)
        found = ops.sqrt(ops.maximum(inner(mixed, mixed), 1e-30))
        factor = self.gamma * ops.maximum(wanted / found, 1)
        return [factor * gradient for gradient in mixed]

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma}


def inner(first, second):
    """Returns the inner product of two lists of gradients."""
    return sum(ops.sum(a * b) for a, b in zip(first, second, strict=True))


@keras.saving.register_keras_serializable(package="tests")
class TaughtImputation(JointModel):
    """An autoencoder predicts absent features; a teacher knows hidden ones."""

    def __init__(self, *args, teacher, rate=0.3, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher = Teacher.of(teacher)
        self.rate = rate
        self.seeds = keras.random.SeedGenerator(0)
        self.bottleneck = keras.layers.Dense(8, "relu")

    def build_head(self, widths):
        super().build_head(widths)
        self.decoder = keras.layers.Dense(sum(widths.values()))

    def prepare_batch(self, batch):
        if not batch.training:
            return batch
        shape = ops.shape(batch.labels[self.modalities[0]])[0], len(self.widths)
        drawn = keras.random.uniform(shape, seed=self.seeds)
        return batch.hide(drawn < self.rate)

    def complete(self, features, presence, training):
        shown, _ = super().complete(features, presence, training)
        joined = ops.concatenate([shown[m] for m in self.modalities], axis=-1)
        guess = self.decoder(self.bottleneck(joined))
        kept, start = {}, 0
        for index, name in enumerate(self.modalities):
            kept[name] = guess[:, start : start + self.widths[name]]
            start += self.widths[name]
            here = presence[:, index, None]
            shown[name] = ops.where(here, features[name], kept[name])
        return shown, kept

    def updates(self):
        losses = ("fused", "imputed")
        return [Update(self.modalities, (self,), losses, logs=("imputed",))]

    def imputed(self, outputs, batch):
        rows = batch.presence if batch.hidden is None else batch.hidden
        far, count = 0.0, 0.0
        for index, name in enumerate(self.modalities if outputs.kept else ()):
            wanted = self.teacher.compute(
                lambda model, m=name: model.encode(m, batch.values[m], False)
            )
            gap = outputs.kept[name] - wanted  # It may be NaN.
            gap = ops.where(rows[:, index, None], gap, 0.0)
            far = far + ops.sum(ops.mean(gap**2, axis=-1))
            count = count + ops.sum(ops.cast(rows[:, index], "float32"))
        return MeanLoss(far / ops.maximum(count, 1), count)

    def update_losses(self, update, outputs, losses, batch):
        return [self.fused_loss(outputs, batch), self.imputed(outputs, batch)]

    def update_logs(self, update, outputs, batch):
        return {"imputed": self.imputed(outputs, batch)}

    def get_config(self):
        teacher = keras.saving.serialize_keras_object(self.teacher)
        return {**super().get_config(), "teacher": teacher, "rate": self.rate}
