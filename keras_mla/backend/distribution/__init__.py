"""The sharing of a batch by devices.

- `num_replicas()`: the number of replicas that share a batch.
- `worker()`: the index of this process among those that share a batch.
- `total(tensors)`: sums over all replicas, sent in one message.
- `means(groups)`: means over all replicas, sent in one message.
- `weighted_sum(values, weights)`: the sum of counted rows, and their number.
- `global_mean(values, weights)`: the mean over the batch on all replicas.
- `whole(model)`: a context in which metrics are those of all processes.
- `moves_alone()`: whether replicas have statistics of their own.
- `coupled()`: whether layers may couple the rows of several replicas.
- `row_groups()`: the number of groups within which absent rows are filled.
- `begin(model)`: gives all processes the same weights.
- `meet(step, **facts)`: raises unless all processes do the same.
- `first_value(value)`: a number of the first process.
- `filled_up(method, fill_up)`, `predicting(method)`: methods of Keras that take
  batches which the devices do not divide.
- `let_predict(model)`: a plain model whose `predict` does the same.
- `check_placed(model)`: raises if weights are on other devices than the data.
- `on_own_devices(model)`: a context in which each process predicts by itself.
"""

from keras_mla.backend.choice import finder

_find = finder(__name__)
num_replicas = _find("num_replicas")
worker = _find("worker")
total = _find("total")
means = _find("means")
weighted_sum = _find("weighted_sum")
global_mean = _find("global_mean")
whole = _find("whole")
moves_alone = _find("moves_alone")
coupled = _find("coupled")
row_groups = _find("row_groups")
begin = _find("begin")
meet = _find("meet")
first_value = _find("first_value")
filled_up = _find("filled_up")
predicting = _find("predicting")
let_predict = _find("let_predict")
check_placed = _find("check_placed")
on_own_devices = _find("on_own_devices")
