"""MLA written from the paper's equations, in NumPy and float64."""

import numpy as np


def softmax(z):
    """Softmax over the last axis."""
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def entropy_fusion(logits, presence=None):
    """Eqs. 6 to 8 on `(batch, modalities, classes)`; also returns lambda."""
    logits = np.asarray(logits, "float64")
    if presence is None:
        presence = np.ones(logits.shape[:2], bool)
    fused, weights = [], []
    for sample, present in zip(logits, presence, strict=True):
        lam = np.zeros(len(sample))
        if present.any():
            p = softmax(sample[present])
            e = -np.sum(
                np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0), -1
            )
            w = np.exp(e.max() - e)
            lam[present] = w / w.sum()
        weights.append(lam)
        fused.append(
            sum(
                (lam[m] * sample[m] for m in np.flatnonzero(present)),
                np.zeros(sample.shape[-1]),
            )
        )
    return np.array(fused), np.array(weights)


def closed_form(features, alpha):
    """P after folding in `features`: (I + sum h h^T / alpha)^-1."""
    h = np.asarray(features, "float64")
    return np.linalg.inv(np.eye(h.shape[1]) + h.T @ h / alpha)


class SGD:
    """SGD with momentum."""

    def __init__(self, rate, momentum=0.0):
        self.rate, self.momentum, self.velocity = rate, momentum, {}

    def step(self, key, value, gradient, t):
        """Returns the moved value; `t` counts batches from 1."""
        v = self.momentum * self.velocity.get(key, 0) - self.rate * gradient
        self.velocity[key] = v
        return value + v


class AdamW:
    """Adam with decoupled weight decay."""

    def __init__(self, rate, decay=0.0, b1=0.9, b2=0.999, epsilon=1e-7):
        self.rate, self.decay, self.b1, self.b2 = rate, decay, b1, b2
        self.epsilon, self.m, self.v = epsilon, {}, {}

    def step(self, key, value, gradient, t):
        """Returns the moved value; `t` counts batches from 1."""
        value = value * (1 - self.rate * self.decay)
        m = self.b1 * self.m.get(key, 0) + (1 - self.b1) * gradient
        v = self.b2 * self.v.get(key, 0) + (1 - self.b2) * gradient**2
        self.m[key], self.v[key] = m, v
        rate = self.rate * np.sqrt(1 - self.b2**t) / (1 - self.b1**t)
        return value - rate * m / (np.sqrt(v) + self.epsilon)


class ReferenceMLA:
    """One Dense(relu) encoder per modality and one shared Dense head.

    `weights` is a dict of arrays: `(name, "w")`, `(name, "b")` for each
    modality, and `("head", "w")`, `("head", "b")`.
    """

    def __init__(self, modalities, weights, optimizer, alpha=1.0):
        self.modalities = modalities
        self.w = {k: np.asarray(v, "float64") for k, v in weights.items()}
        self.optimizer, self.alpha = optimizer, alpha
        self.P = np.eye(len(self.w["head", "w"]))
        self.updates = self.batches = 0

    def features(self, name, x):
        """Encodes `(batch, inputs)`."""
        return np.maximum(x @ self.w[name, "w"] + self.w[name, "b"], 0)

    def logits(self, name, x):
        """Unimodal logits."""
        return (
            self.features(name, x) @ self.w["head", "w"] + self.w["head", "b"]
        )

    def train(self, x, y, present=None):
        """Trains one batch; returns each modality's loss."""
        self.batches += 1
        losses = {}
        for m, name in enumerate(self.modalities):
            rows = slice(None) if present is None else present[:, m]
            losses[name] = self._update(name, x[name][rows], y[rows])
        return losses

    def _update(self, name, x, y):
        n = len(x)
        if n == 0:
            return 0.0
        x = x.astype("float64")
        h = self.features(name, x)
        z = self.logits(name, x)
        p = softmax(z)
        loss = -np.log(p[np.arange(n), y]).mean()
        dz = p.copy()
        dz[np.arange(n), y] -= 1
        dz /= n
        da = (dz @ self.w["head", "w"].T) * (h > 0)
        gradients = {
            (name, "w"): x.T @ da,
            (name, "b"): da.sum(0),
            ("head", "w"): h.T @ dz,
            ("head", "b"): dz.sum(0),
        }
        if self.alpha is not None:
            if self.updates > 0:  # Eq. 3: t = 0 is left alone.
                mean = h.mean(0)
                q = self.P @ mean / (self.alpha + mean @ self.P @ mean)
                self.P = self.P - np.outer(q, mean @ self.P)
                gradients["head", "w"] = self.P @ gradients["head", "w"]
            self.updates += 1
        for key, gradient in gradients.items():
            self.w[key] = self.optimizer.step(
                key, self.w[key], gradient, self.batches
            )
        return loss

    def fused(self, x, presence=None):
        """Fused logits."""
        logits = [self.logits(name, x[name]) for name in self.modalities]
        return entropy_fusion(np.stack(logits, 1), presence)[0]
