"""The parts of a training step, on each backend.

- `stateful_step(*groups)`: a decorator that gives a step written with plain
  variables, `step(model, data) -> logs`, the signature of the backend.
- `value_and_grads(model, objective, variables)`: the gradients of each of
  several losses, by one forward pass.
- `accumulate(model, compute, parts)`: sums over parts of a batch.
- `apply_gradients(model, gradients, variables, active)`: an optimizer step.
- `compile_step(model, step)`: the compiled train function.
- `traced_anew(model, step)`: a context in which Keras compiles a step anew.
- `keeping_weights(model)`: a context in which an error loses no weights.
- `with_own_weights(model, call, signature)`: a function that computes with a
  copy of the weights.
- `exporting()`: a context in which models can be exported.
- `weights_leave()`: whether a model has no weights while Keras runs it.
- `keeping_randomness()`: a context that leaves random numbers outside of
  variables as they are.
"""

from keras_mla.backend.choice import finder

_find = finder(__name__)
stateful_step = _find("stateful_step")
value_and_grads = _find("value_and_grads")
accumulate = _find("accumulate")
apply_gradients = _find("apply_gradients")
compile_step = _find("compile_step")
traced_anew = _find("traced_anew")
keeping_weights = _find("keeping_weights")
keeping_randomness = _find("keeping_randomness")
with_own_weights = _find("with_own_weights")
exporting = _find("exporting")
weights_leave = _find("weights_leave")
