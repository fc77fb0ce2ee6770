"""The only part that imports a framework or reads a private name of Keras.

- `step`: the parts of a training step.
- `kernels`: small computations, for speed.
- `distribution`: the sharing of a batch by devices.
- `internals`: access to private names of Keras.
"""

from keras_mla.backend import distribution as distribution
from keras_mla.backend import internals as internals
from keras_mla.backend import kernels as kernels
from keras_mla.backend import step as step
