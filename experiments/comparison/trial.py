"""Trains one model from many starts at once, on JAX.

For models this small, a processor spends its time on all but arithmetic. The
starts, each with a seed and a learning rate, are therefore one more axis of
every array. JAX maps the model's own training step over this axis, and scans it
over batches.
"""

import dataclasses

import jax
import keras
import numpy as np
from jax import numpy as jnp

import keras_mla

BASE = {"optimizer": "AdamW", "epochs": 1, "batch_size": 64, "width": 64}


@dataclasses.dataclass
class Arrays:
    """The data of a study.

    Attributes:
        x: dict of split to dict of modality to array.
        y: dict of split to classes.
        classes: The number of classes.
    """

    x: dict
    y: dict
    classes: int

    @property
    def modalities(self):
        """Names of the modalities."""
        return tuple(self.x["train"])


def scaled(data):
    """Returns data of a comparison, scaled to unit deviation in training.

    The factors of the study, such as noise, count on this scale. Numbers are
    clipped at 5 deviations. A feature is scaled by itself; what has an order or
    a place is scaled all alike.
    """
    parts = data.folds[0].parts
    x = {split: {} for split in parts}
    for name in data.modalities:
        train = parts["train"].x[name].astype("float32")
        axis = 0 if train.ndim == 2 else None
        mean = train.mean(axis)
        deviation = np.maximum(train.std(axis), 1e-6)
        for split, part in parts.items():
            array = (part.x[name].astype("float32") - mean) / deviation
            x[split][name] = np.clip(array, -5, 5)
    y = {split: part.y.astype("int32") for split, part in parts.items()}
    return Arrays(x, y, data.units)


def make_encoder(size, width):
    """Returns two Dense layers, for inputs that are scaled already."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((size,)),
            layers.Dense(2 * width, activation="relu"),
            layers.Dense(width, activation="relu"),
        ]
    )


def optimizer(name):
    """Returns an optimizer; `Trial` sets its learning rate."""
    if name.startswith("Adam"):
        return getattr(keras.optimizers, name)(1e-3)
    return keras.optimizers.SGD(0.1, momentum=0.9 * (name == "momentum"))


def changed(data, factor):
    """Returns the inputs of each split, changed by a factor."""
    rng = np.random.default_rng(0)
    x = {}
    for split, arrays in data.x.items():
        arrays = {m: a.reshape(len(a), -1) for m, a in arrays.items()}
        if factor.get("mixed"):  # Every modality sees the others, blurred.
            whole = np.concatenate(list(arrays.values()), axis=1)
            arrays = {m: whole + rng.normal(size=whole.shape) for m in arrays}
        if "noise" in factor:
            last = list(arrays)[-1]
            noise = rng.normal(size=arrays[last].shape)
            arrays[last] = arrays[last] + factor["noise"] * noise
        x[split] = {m: a.astype("float32") for m, a in arrays.items()}
    return x


class Trial:
    """A model, and its state in each of several starts.

    Args:
        method: Called with encoders and the number of classes.
        data: `Arrays`.
        factor: dict of what differs from `BASE`.
        starts: List of `(seed, learning rate)`.
        encoders: dict of modality to the weights of its encoder, each with
            the starts as first axis. Defaults to random weights.
    """

    def __init__(self, method, data, factor, starts, encoders=None):
        self.factor = {**BASE, **factor}
        self.x, self.y = changed(data, factor), data.y
        self.starts, self.epoch = starts, 0
        models = {}
        for seed, _ in starts:
            if seed not in models:
                keras.utils.set_random_seed(seed)
                models[seed] = method(
                    {
                        m: make_encoder(a.shape[1], self.factor["width"])
                        for m, a in self.x["train"].items()
                    },
                    data.classes,
                )
        made = [models[seed] for seed, _ in starts]
        groups = ("trainable_variables", "non_trainable_variables")
        values = [
            [
                jnp.stack([jnp.asarray(v) for v in same])
                for same in zip(*(getattr(m, group) for m in made), strict=True)
            ]
            for group in groups
        ]
        self.model = model = made[0]
        multiplier = None
        if "pretrained" in factor:
            multiplier = dict.fromkeys(data.modalities, factor["pretrained"])
        model.compile(
            optimizer=optimizer(self.factor["optimizer"]),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            learning_rate_multiplier=multiplier,
        )
        # Keras makes some variables in the first step.
        rows = slice(0, self.factor["batch_size"])
        first = {m: a[rows] for m, a in self.x["train"].items()}
        model.train_on_batch(first, self.y["train"][rows])
        rates = jnp.array([rate for _, rate in starts], "float32")
        values.append(
            [
                rates
                if v.name == "learning_rate"
                else jnp.zeros((len(starts), *v.shape), v.dtype)
                for v in model.optimizer.variables
            ]
        )
        values.append(
            [
                jnp.zeros((len(starts), *v.shape), v.dtype)
                for v in model.metrics_variables
            ]
        )
        positions = {id(v): i for i, v in enumerate(model.trainable_variables)}
        for m, weights in (encoders or {}).items():
            variables = model.encoders[m].trainable_variables
            for variable, value in zip(variables, weights, strict=True):
                values[0][positions[id(variable)]] = value
        self.state = tuple(values)
        self._train = jax.jit(jax.vmap(self._scan, (0, 0, None, None)))
        self._measure = jax.jit(jax.vmap(self._step_of_each, (0, None, None)))

    # === Training ===

    def fit(self, epochs):
        """Trains for more epochs, in batches drawn by seed and epoch."""
        y, size = self.y["train"], self.factor["batch_size"]
        steps = len(y) // size
        orders = {
            seed: np.concatenate(
                [
                    np.random.default_rng([seed, epoch])
                    .permutation(len(y))[: steps * size]
                    .reshape(steps, size)
                    for epoch in range(self.epoch, self.epoch + epochs)
                ]
            )
            for seed, _ in self.starts
        }
        order = np.stack([orders[seed] for seed, _ in self.starts])
        self.state = self._train(self.state, order, self.x["train"], y)
        self.epoch += epochs

    def _scan(self, state, order, x, y):
        def step(state, rows):
            batch = {m: a[rows] for m, a in x.items()}, y[rows]
            _, state = self.model.train_step(state, batch)
            return tuple(state), None

        return jax.lax.scan(step, state, order)[0]

    # === Measures, each of shape `(starts,)` ===

    def accuracy(self, split):
        """Returns the accuracy of the fused prediction."""
        logits = jax.vmap(self._logits, (0, None))(self.state, self.x[split])
        return np.mean(np.asarray(logits).argmax(-1) == self.y[split], axis=1)

    def encoders(self):
        """Returns the weights of each modality's encoder."""
        found = dict(
            zip(
                map(id, self.model.trainable_variables),
                self.state[0],
                strict=True,
            )
        )
        return {
            m: [found[id(v)] for v in encoder.trainable_variables]
            for m, encoder in self.model.encoders.items()
        }

    def interference(self, batches=10):
        """Measures what a step for one modality does to the others.

        Returns:
            dict of two ratios of the others to the modality itself, on the
            batch of the step: "logits", by how much logits move (root mean
            square), and "loss", how far the loss falls (below 0 if the others'
            loss rises).
        """
        size = self.factor["batch_size"]
        found = []
        for index in range(min(batches, len(self.y["train"]) // size)):
            rows = slice(index * size, (index + 1) * size)
            x = {m: a[rows] for m, a in self.x["train"].items()}
            found.append(self._measure(self.state, x, self.y["train"][rows]))
        own, others = np.mean(found, axis=0).transpose(1, 2, 0)
        ratio = others / own
        return {"logits": ratio[0], "loss": ratio[1]}

    def _step_of_each(self, state, x, y):
        """Returns `((own, others), (move of logits, fall of loss))`."""
        names = self.model.modalities
        alone = jnp.eye(len(names), dtype=bool)
        presence = [jnp.tile(row, (len(y), 1)) for row in alone]
        inputs = [{**x, "presence": given} for given in presence]
        before = [self._logits(state, given) for given in inputs]
        effects = jnp.zeros((2, 2))
        for own, given in enumerate(inputs):
            # The others are absent, so they are not trained.
            _, after = self.model.train_step(state, (given, y))
            for other, old in enumerate(before):
                new = self._logits(after, inputs[other])
                move = jnp.sqrt(jnp.mean((new - old) ** 2))
                fall = cross_entropy(old, y) - cross_entropy(new, y)
                share = 1 if other == own else 1 / (len(names) - 1)
                effects = effects.at[int(other != own)].add(
                    share * jnp.stack([move, fall])
                )
        return effects

    def _logits(self, state, x):
        return self.model.stateless_call(*state[:2], x, training=False)[0]


def cross_entropy(logits, y):
    """Returns the mean negative log-likelihood."""
    right = jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - right)


def pretrained(data, epochs, starts):
    """Trains each encoder by itself, by seed; returns the weights."""
    method = keras_mla.models.LateFusion
    starts = [(seed, 1e-3) for seed, _ in starts]
    trial = Trial(method, data, {}, starts)
    trial.fit(epochs)
    return trial.encoders()
