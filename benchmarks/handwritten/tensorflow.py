"""MLA by hand in TensorFlow: variables, a gradient tape, `tf.function`."""

import numpy as np
import tensorflow as tf


def mlp(inputs, width, seed):
    """Returns an encoder as `(apply, variables)`."""
    rng = np.random.default_rng(seed)
    scale = np.sqrt(6 / (inputs + width))
    w = tf.Variable(
        rng.uniform(-scale, scale, (inputs, width)).astype("float32")
    )
    b = tf.Variable(tf.zeros(width))
    return lambda x: tf.nn.relu(x @ w + b), [w, b]


def from_keras(encoder):
    """Returns a Keras model as `(apply, variables)`."""
    variables = [v.value for v in encoder.trainable_variables]
    return lambda x: encoder(x, training=True), variables


class Loop:
    """Trains encoders and a shared linear head."""

    def __init__(
        self,
        encoders,
        width,
        classes,
        rate=0.01,
        momentum=0.9,
        alpha=1.0,
        jit=False,
    ):
        self.encoders = encoders
        scale = np.sqrt(6 / (width + classes))
        w = np.random.default_rng(0).uniform(-scale, scale, (width, classes))
        self.w = tf.Variable(w.astype("float32"))
        self.b = tf.Variable(tf.zeros(classes))
        self.P = tf.Variable(tf.eye(width))
        self.steps = tf.Variable(0)
        self.velocities = {
            v.ref(): tf.Variable(tf.zeros_like(v))
            for v in [
                self.w,
                self.b,
                *(v for e in encoders.values() for v in e[1]),
            ]
        }
        self.sums = {name: tf.Variable(tf.zeros(2)) for name in encoders}
        self.sums["fused"] = tf.Variable(0.0)
        self.rate, self.momentum, self.alpha = rate, momentum, alpha
        self.step = tf.function(self._step, jit_compile=jit)

    def epoch(self, batches):
        """Trains on batches `(x, y)` and returns mean metrics."""
        for value in self.sums.values():
            value.assign(tf.zeros_like(value))
        count = 0
        for x, y in batches:
            self.step(x, y)
            count += 1
        return {name: v.numpy() / count for name, v in self.sums.items()}

    def _step(self, x, y):
        y = tf.cast(y, tf.int32)
        all_logits = []
        for name, (apply, variables) in self.encoders.items():
            moved = [*variables, self.w, self.b]
            with tf.GradientTape() as tape:
                feature = apply(x[name])
                logits = feature @ self.w + self.b
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
                )
            gradients = tape.gradient(loss, moved)
            h = tf.reduce_mean(feature, 0)
            h = tf.where(self.steps > 0, h, tf.zeros_like(h))
            k = tf.linalg.matvec(self.P, h)
            P = self.P - k[:, None] * k[None] / (
                self.alpha + tf.tensordot(h, k, 1)
            )
            self.P.assign(P)
            self.steps.assign_add(1)
            gradients[-2] = P @ gradients[-2]
            for variable, gradient in zip(moved, gradients, strict=True):
                velocity = self.velocities[variable.ref()]
                velocity.assign(self.momentum * velocity - self.rate * gradient)
                variable.assign_add(velocity)
            hits = tf.argmax(logits, 1, tf.int32) == y
            hits = tf.reduce_mean(tf.cast(hits, tf.float32))
            self.sums[name].assign_add(tf.stack([loss, hits]))
            all_logits.append(logits)
        logits = tf.stack(all_logits, 1)
        log_p = tf.nn.log_softmax(logits)
        entropy = -tf.reduce_sum(tf.exp(log_p) * log_p, -1)
        fused = tf.reduce_sum(tf.nn.softmax(-entropy)[..., None] * logits, 1)
        hits = tf.cast(tf.argmax(fused, 1, tf.int32) == y, tf.float32)
        self.sums["fused"].assign_add(tf.reduce_mean(hits))
