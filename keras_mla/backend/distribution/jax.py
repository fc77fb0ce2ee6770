"""Distribution by `keras.distribution`: a step sees the global batch."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import keras
import numpy as np

from keras_mla.backend.distribution import jax_batches


def row_groups() -> int:
    """Returns the number of parts that devices hold of a batch."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return 1
    mesh = distribution.device_mesh
    return mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]


def filled_up(method: Callable, fill_up: Callable[[Any, int], Any]) -> Callable:
    """Returns a method of Keras that fills batches up for the devices."""
    if keras.distribution.distribution() is None:
        return method
    return jax_batches.with_rows_added(method, fill_up)


def predicting(method: Callable) -> Callable:
    """Returns the method `predict` of a model, for any number of rows."""
    if keras.distribution.distribution() is None:
        return method
    return jax_batches.predicting(method)


def let_predict(model: keras.Model) -> keras.Model:
    """Returns a plain model that predicts any number of rows."""
    if keras.distribution.distribution() is not None:

        def predict(*args: Any, **kwargs: Any) -> Any:
            method = type(model).predict.__get__(model)
            with on_own_devices(model):
                return predicting(method)(*args, **kwargs)

        # Not by a class of its own, which a saved file would name.
        vars(model)["predict"] = predict
    return model


def check_placed(model: keras.Model) -> None:
    """Raises unless a model was made under the current distribution.

    Raises:
        ValueError: If weights are on other devices than the distribution's.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return
    devices = set(distribution.device_mesh.backend_mesh.devices.flat)
    for variable in model.variables:
        value = variable._value
        if value is not None and value.sharding.device_set != devices:
            raise ValueError(
                "The model was made before the current distribution was set: "
                f"its weight {variable.path!r} is on "
                f"{len(value.sharding.device_set)} of {len(devices)} devices. "
                "Call `keras.distribution.set_distribution(distribution)` "
                "first, then make or load the model. (To distribute a model "
                "that has been trained, save it, and load it after that.)"
            )


@contextlib.contextmanager
def on_own_devices(model: keras.Model) -> Iterator[None]:
    """Gives each of several processes weights of its own, for predictions.

    A process cannot read predictions that are on devices of others. So each
    predicts its own inputs, on its own devices. All processes must enter the
    context if weights are sharded, because they send each other their parts.
    """
    distribution = keras.distribution.distribution()
    if distribution is None or jax.process_count() == 1:
        yield
        return
    devices = [
        device
        for device in distribution.device_mesh.backend_mesh.devices.flat
        if device.process_index == jax.process_index()
    ]
    own = keras.distribution.DataParallel(
        devices=[f"{device.platform}:{device.id}" for device in devices],
        auto_shard_dataset=False,
    )
    held = [(v, v._value, v._layout) for v in model.variables]
    model.predict_function = None
    try:
        for variable, value, _ in held:
            variable._layout = own.get_variable_layout(
                _Shape(value.shape)
            ).backend_layout
            variable._value = jax.device_put(_local(value), variable._layout)
        with own.scope():
            yield
    finally:
        for variable, value, layout in held:
            variable._value, variable._layout = value, layout
        model._jax_state = model.predict_function = None


class _Shape:
    """What `Distribution.get_variable_layout` reads of a variable."""

    def __init__(self, shape: tuple) -> None:
        self.shape = shape


def _local(value: jax.Array) -> np.ndarray:
    """Returns the whole of an array that is on devices of several processes."""
    if value.is_fully_replicated:
        return np.asarray(value.addressable_data(0))
    # Not with the library: it takes the backend as Keras has it.
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(value, tiled=True)
