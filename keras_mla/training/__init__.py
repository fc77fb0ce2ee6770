"""The backend-specific part of the library, behind one small interface.

Each backend's module supplies the same names:

- `stateful_step(*groups)`: decorator that gives a step written with plain
  variables, `step(model, data) -> logs`, the signature of the backend.
- `value_and_grad(model, objective, variables)`: gradients of a loss.
- `apply_gradients(model, gradients, variables, active)`: an optimizer step.
- `global_mean(values, weights)`: mean over the batch on all replicas.
- `mean_loss(values)`: a replica's part of the mean over the global batch.
- `num_replicas()`: how many replicas share a batch.
- `batch_norm(layer, x, training)`: a batch normalization layer, fused.
- `matrix_vector(matrix, vector)`: their product, in full precision.
- `zero_unless(condition, values)`: values where a condition is true.
- `subtract_outer(variable, vector)`, `deflated_product(matrix, vector, other)`:
  for P.
- `add_to(variable, value)`, `mean_results(metrics)`,
  `mean_of_groups(total, count, sizes)`: for metrics.
- `dense(layer, x)`: a Dense layer's computation.
- `stack(tensors)`: along a new second axis.
- `vector(scalars, dtype)`: a tensor of scalars.
- `may_be_masked(tensor)`: whether Keras may have given a tensor a mask.
- `compile_step(model, step)`: the train function that is compiled.
- `keeping_weights(model)`: context in which an error leaves a model's weights.
- `check_processes()`: raises where several processes would train apart.
- `refuses_labels()`: whether losses refuse labels that are no classes.
- `row_groups()`: groups of a batch's rows within which absent ones are filled.
"""

import keras

from keras_mla.training import internals as internals
from keras_mla.training.common import assign_where as assign_where

if keras.backend.backend() == "jax":
    from keras_mla.training import jax as backend
elif keras.backend.backend() == "tensorflow":
    from keras_mla.training import tensorflow as backend  # type: ignore[no-redef]
elif keras.backend.backend() == "torch":
    from keras_mla.training import torch as backend  # type: ignore[no-redef]
else:
    raise ImportError(
        "keras_mla runs on the Keras backends 'tensorflow', 'jax' and "
        "'torch'. Set the environment variable KERAS_BACKEND to one of them. "
        f"Received: KERAS_BACKEND={keras.backend.backend()}"
    )

stateful_step = backend.stateful_step
value_and_grad = backend.value_and_grad
apply_gradients = backend.apply_gradients
global_mean = backend.global_mean
batch_norm = backend.batch_norm
add_to = backend.add_to
mean_results = backend.mean_results
mean_of_groups = backend.mean_of_groups
mean_loss = backend.mean_loss
keeping_weights = backend.keeping_weights
check_processes = backend.check_processes
refuses_labels = backend.refuses_labels
row_groups = backend.row_groups
dense = backend.dense
stack = backend.stack
vector = backend.vector
matrix_vector = backend.matrix_vector
zero_unless = backend.zero_unless
subtract_outer = backend.subtract_outer
deflated_product = backend.deflated_product
may_be_masked = backend.may_be_masked
num_replicas = backend.num_replicas
compile_step = backend.compile_step
