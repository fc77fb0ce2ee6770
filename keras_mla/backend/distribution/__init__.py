"""The sharing of a batch by devices.

- `num_replicas()`: the number of replicas that share a batch.
- `global_mean(values, weights)`: the mean over the batch on all replicas.
- `row_groups()`: the number of groups within which absent rows are filled.
- `check_processes()`: raises if several processes would train separate models.
- `filled_up(method, fill_up)`, `predicting(method)`: methods of Keras that take
  batches which the devices do not divide.
- `let_predict(model)`: a plain model whose `predict` does the same.
- `check_placed(model)`: raises if weights are on other devices than the data.
- `on_own_devices(model)`: a context in which each process predicts by itself.
"""

from keras_mla.backend.choice import finder

_find = finder(__name__)
num_replicas = _find("num_replicas")
global_mean = _find("global_mean")
row_groups = _find("row_groups")
check_processes = _find("check_processes")
filled_up = _find("filled_up")
predicting = _find("predicting")
let_predict = _find("let_predict")
check_placed = _find("check_placed")
on_own_devices = _find("on_own_devices")
