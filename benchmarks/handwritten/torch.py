"""MLA by hand in PyTorch: modules, `backward` and `torch.optim.SGD`."""

import torch


def mlp(inputs, width, seed):
    """Returns an encoder as `(apply, parameters)`."""
    torch.manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Linear(inputs, width), torch.nn.ReLU()
    )
    return module, list(module.parameters())


def from_keras(encoder):
    """Returns a Keras model as `(apply, parameters)`."""
    parameters = [v.value for v in encoder.trainable_variables]
    return lambda x: encoder(x, training=True), parameters


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
        self.encoders = {name: e[0] for name, e in encoders.items()}
        self.head = torch.nn.Linear(width, classes)
        self.optimizer = torch.optim.SGD(
            [
                *(p for e in encoders.values() for p in e[1]),
                *self.head.parameters(),
            ],
            lr=rate,
            momentum=momentum,
        )
        self.P = torch.eye(width)
        self.steps = 0
        self.alpha = alpha

    def epoch(self, batches):
        """Trains on batches `(x, y)` and returns mean metrics."""
        self.sums = {name: torch.zeros(2) for name in self.encoders}
        self.sums["fused"] = torch.zeros(())
        count = 0
        for x, y in batches:
            self.step(
                {name: torch.as_tensor(value) for name, value in x.items()},
                torch.as_tensor(y).long(),
            )
            count += 1
        return {
            name: value.numpy() / count for name, value in self.sums.items()
        }

    def step(self, x, y):
        """Trains one batch, eagerly, as one would write it."""
        all_logits = []
        for name, encoder in self.encoders.items():
            # Without gradients, SGD leaves the other encoders alone.
            self.optimizer.zero_grad(set_to_none=True)
            feature = encoder(x[name])
            logits = self.head(feature)
            loss = torch.nn.functional.cross_entropy(logits, y)
            loss.backward()
            with torch.no_grad():
                if self.steps:
                    h = feature.mean(0)
                    k = self.P @ h
                    self.P.addr_(k, k, alpha=-1 / float(self.alpha + h @ k))
                self.steps += 1
                self.head.weight.grad = self.head.weight.grad @ self.P
                self.optimizer.step()
                logits = logits.detach()
                hits = (logits.argmax(1) == y).float().mean()
                self.sums[name] += torch.stack([loss.detach(), hits])
                all_logits.append(logits)
        logits = torch.stack(all_logits, 1)
        log_p = logits.log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        fused = ((-entropy).softmax(-1)[..., None] * logits).sum(1)
        self.sums["fused"] += (fused.argmax(1) == y).float().mean()
