"""Small computations that a backend may do in its own way, for speed.

- `batch_norm(layer, x, training)`: a batch normalization layer, fused.
- `call(layer, inputs, training)`: a layer call, faster for nested layers.
- `assign_where(taken, variable, value)`: an assignment under a condition.
- `zero_unless(condition, values)`: values where a condition is true, else 0.
- `matrix_vector(matrix, vector)`: the product, in full precision.
- `subtract_outer(variable, vector, result)`, `deflated_product(matrix, vector,
  other)`: for the projection P.
- `deflated(matrix, left, right)`: `matrix - left right^T matrix`.
- `projected_product(inputs, kernel, P)`: `inputs @ kernel`, with P in the
  gradient of the kernel.
- `watched(layer)`: whether a layer has hooks on its calls.
- `vector(scalars, dtype)`: a tensor of scalars.
- `add_to(variable, value)`, `update_metric(metric, y, logits, weight)`,
  `mean_results(metrics)`, `mean_of_groups(total, count, sizes)`: for metrics.
- `reduced_loss(loss, y, logits)`: the loss of a batch.
- `unscaled(loss)`: a reduced loss, without what Keras does to it for replicas.
- `after(earlier, tensors)`: tensors that wait for others.
- `refuses_labels(logits)`: whether losses refuse labels that are not classes.
- `safe_labels(loss, labels, logits)`: labels that the device survives.
"""

from keras_mla.backend.choice import finder

_find = finder(__name__)
batch_norm = _find("batch_norm")
assign_where = _find("assign_where")
call = _find("call")
zero_unless = _find("zero_unless")
matrix_vector = _find("matrix_vector")
subtract_outer = _find("subtract_outer")
deflated_product = _find("deflated_product")
deflated = _find("deflated")
projected_product = _find("projected_product")
watched = _find("watched")
vector = _find("vector")
add_to = _find("add_to")
update_metric = _find("update_metric")
mean_results = _find("mean_results")
mean_of_groups = _find("mean_of_groups")
reduced_loss = _find("reduced_loss")
unscaled = _find("unscaled")
after = _find("after")
refuses_labels = _find("refuses_labels")
safe_labels = _find("safe_labels")
