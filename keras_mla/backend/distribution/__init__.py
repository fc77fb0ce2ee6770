"""How a batch is shared by devices.

- `num_replicas()`: how many replicas share a batch.
- `global_mean(values, weights)`: mean over the batch on all replicas.
- `row_groups()`: groups of a batch's rows within which absent ones are filled.
- `check_processes()`: raises where several processes would train apart.
"""

from keras_mla.backend.choice import finder

_find = finder(__name__)
num_replicas = _find("num_replicas")
global_mean = _find("global_mean")
row_groups = _find("row_groups")
check_processes = _find("check_processes")
