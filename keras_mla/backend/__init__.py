"""The only part that imports a framework or reads a private name of Keras.

- `step`: what makes a training step.
- `kernels`: small computations, for speed.
- `distribution`: how a batch is shared by devices.
- `internals`: what is read of Keras's private parts.
"""

from keras_mla.backend import distribution as distribution
from keras_mla.backend import internals as internals
from keras_mla.backend import kernels as kernels
from keras_mla.backend import step as step
