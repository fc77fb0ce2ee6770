"""MLA by hand in JAX: pure functions and one jitted step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def mlp(inputs, width, seed):
    """Returns an encoder as `(apply, parameters, state)`."""
    rng = np.random.default_rng(seed)
    scale = np.sqrt(6 / (inputs + width))
    parameters = {
        "w": jnp.asarray(
            rng.uniform(-scale, scale, (inputs, width)), "float32"
        ),
        "b": jnp.zeros(width),
    }

    def apply(parameters, state, x):
        return jax.nn.relu(x @ parameters["w"] + parameters["b"]), state

    return apply, parameters, ()


def from_keras(encoder):
    """Returns a Keras model as `(apply, parameters, state)`."""

    def apply(parameters, state, x):
        return encoder.stateless_call(parameters, state, x, training=True)

    return (
        apply,
        [jnp.copy(v.value) for v in encoder.trainable_variables],
        [jnp.copy(v.value) for v in encoder.non_trainable_variables],
    )


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
        jit=True,
    ):
        self.applies = {name: e[0] for name, e in encoders.items()}
        scale = np.sqrt(6 / (width + classes))
        w = np.random.default_rng(0).uniform(-scale, scale, (width, classes))
        head = {"w": jnp.asarray(w, "float32"), "b": jnp.zeros(classes)}
        parameters = {name: e[1] for name, e in encoders.items()}
        zeros = functools.partial(jax.tree.map, jnp.zeros_like)
        self.state = {
            "theta": parameters,
            "theta_velocity": zeros(parameters),
            "running": {name: e[2] for name, e in encoders.items()},
            "phi": head,
            "phi_velocity": zeros(head),
            "P": jnp.eye(width),
            "steps": jnp.zeros((), "int32"),
        }
        self.rate, self.momentum, self.alpha = rate, momentum, alpha
        self.step = (
            jax.jit(self._step, donate_argnums=(0, 1)) if jit else self._step
        )

    def epoch(self, batches):
        """Trains on batches `(x, y)` and returns mean metrics."""
        sums = {n: jnp.zeros(2) for n in self.applies} | {
            "fused": jnp.zeros(())
        }
        count = 0
        for x, y in batches:
            self.state, sums = self.step(self.state, sums, x, y)
            count += 1
        return {name: np.asarray(value) / count for name, value in sums.items()}

    def _step(self, s, sums, x, y):
        s, sums = dict(s), dict(sums)
        for key in ("theta", "theta_velocity", "running"):
            s[key] = dict(s[key])
        all_logits = []
        for name, apply in self.applies.items():

            def objective(theta, phi, name=name, apply=apply):
                feature, running = apply(theta, s["running"][name], x[name])
                logits = feature @ phi["w"] + phi["b"]
                log_p = jax.nn.log_softmax(logits)
                loss = -jnp.take_along_axis(log_p, y[:, None], 1).mean()
                return loss, (feature, logits, running)

            (loss, (feature, logits, running)), (g_theta, g_phi) = (
                jax.value_and_grad(objective, (0, 1), has_aux=True)(
                    s["theta"][name], s["phi"]
                )
            )
            h = jnp.where(s["steps"] > 0, feature.mean(0), 0.0)
            k = s["P"] @ h
            s["P"] = s["P"] - jnp.outer(k, k) / (self.alpha + h @ k)
            s["steps"] += 1
            g_phi = g_phi | {"w": s["P"] @ g_phi["w"]}
            s["theta"][name], s["theta_velocity"][name] = self._sgd(
                s["theta"][name], s["theta_velocity"][name], g_theta
            )
            s["phi"], s["phi_velocity"] = self._sgd(
                s["phi"], s["phi_velocity"], g_phi
            )
            s["running"][name] = running
            hits = (logits.argmax(1) == y).mean()
            sums[name] = sums[name] + jnp.stack([loss, hits])
            all_logits.append(logits)
        logits = jnp.stack(all_logits, 1)
        log_p = jax.nn.log_softmax(logits)
        entropy = -(jnp.exp(log_p) * log_p).sum(-1)
        fused = (jax.nn.softmax(-entropy)[..., None] * logits).sum(1)
        sums["fused"] = sums["fused"] + (fused.argmax(1) == y).mean()
        return s, sums

    def _sgd(self, values, velocity, gradients):
        velocity = jax.tree.map(
            lambda v, g: self.momentum * v - self.rate * g, velocity, gradients
        )
        return jax.tree.map(jnp.add, values, velocity), velocity
