"""Access to private names of Keras, in one place."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
from keras.src.backend import compute_output_spec
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
from keras.src.export import onnx
from keras.src.trainers.compile_utils import CompileMetrics as CompileMetrics
from keras.src.trainers.trainer import model_supports_jit

from keras_mla.backend import distribution


def initial_epoch(model: keras.Model) -> int:
    """Returns the epoch that a restored backup lets `fit` begin with, or 0."""
    return model._initial_epoch or 0


def set_initial_epoch(model: keras.Model, epoch: int) -> None:
    """Sets the epoch that `fit` begins with."""
    model._initial_epoch = epoch or None


class Compiled:
    """Part of a model that names what Keras's trainer keeps privately."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute, which Keras tracks, with two exceptions.

        Keras's `fit` reassigns `_jax_state` at each step: it holds only values
        of variables, and searching it for layers is slow. The loss tracker
        belongs to the compilation.
        """
        if name in ("_jax_state", "_loss_tracker", "loss_tracker"):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def loss_container(self) -> Any:
        """The compiled loss."""
        return self._compile_loss  # type: ignore[attr-defined]

    @property
    def metrics_container(self) -> CompileMetrics | None:
        """The compiled metrics, or `None`."""
        return self._compile_metrics  # type: ignore[attr-defined]

    @property
    def loss_tracker(self) -> Any:
        """The metric that reports the loss."""
        return self._loss_tracker

    @loss_tracker.setter
    def loss_tracker(self, metric: keras.metrics.Metric) -> None:
        self._loss_tracker = metric

    def _get_metrics_result_or_logs(self, logs: Any) -> Any:
        """Returns the results at the end of an epoch, over all replicas.

        Keras returns those of one step if a step reports fewer, as steps with
        unpaired data do.
        """
        if not isinstance(logs, dict):
            return super()._get_metrics_result_or_logs(logs)  # type: ignore
        distribution.meet("the end of the data")
        results = self.get_metrics_result()  # type: ignore[attr-defined]
        return {name: results.get(name, value) for name, value in logs.items()}

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> None:
        """Builds the metrics, under a strategy of TensorFlow.

        Keras builds them by the mean of the replicas' batches, which must then
        have the same number of rows.
        """
        if self._distribute_strategy is not None and iterator is not None:  # type: ignore[attr-defined]
            _, _, batches = next(iter(iterator))
            local = self.distribute_strategy.experimental_local_results  # type: ignore[attr-defined]
            data_batch = keras.tree.map_structure(
                lambda value: local(value)[0], next(batches)
            )
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)  # type: ignore[misc]


def without_and_with_weights(container: CompileMetrics) -> tuple[list, list]:
    """Returns the metrics of a container that sample weights do not weight.

    Returns:
        A list of these metrics, and a list of those that they weight.
    """
    groups = container._flat_metrics, container._flat_weighted_metrics
    without, with_weights = (
        [metric for part in group if part for metric in part.metrics]
        for group in groups
    )
    return without, with_weights


def takes_logits(metric: keras.metrics.Metric) -> bool | None:
    """Returns a metric's `from_logits`, or `None` if it has no such setting."""
    found = getattr(metric, "from_logits", None)
    return getattr(metric, "_from_logits", None) if found is None else found


def wrapped_function(metric: keras.metrics.MeanMetricWrapper) -> tuple:
    """Returns the function that a metric averages, and its arguments."""
    return metric._fn, metric._fn_kwargs


def say_lower_is_better(metric: keras.metrics.Metric) -> None:
    """Tells callbacks that monitor a metric in which direction it improves."""
    metric._direction = "down"


def better_direction(metric: keras.metrics.Metric) -> str | None:
    """Returns `"up"` or `"down"`, where a metric improves, if it says so."""
    return getattr(metric, "_direction", None)


def supports_jit(model: keras.Model) -> bool:
    """Returns whether Keras compiles the model by XLA, where it may choose."""
    return model_supports_jit(model)


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and all layers inside it, each once."""
    return layer._flatten_layers()


def is_rough(model: keras.Model) -> bool:
    """Returns whether a layer computes with fewer digits than float32 has."""
    return any(
        layer.compute_dtype not in ("float32", "float64")
        for layer in sublayers(model)
    )


def call_to_build(function: Callable, *inputs: Any) -> None:
    """Calls a function of tensors that builds layers and computes nothing else.

    JAX compiles each operation that it computes, and here the function is only
    traced.
    """
    if keras.backend.backend() == "jax":
        compute_output_spec(function, *inputs)
    else:
        function(*inputs)


def copy_mask(source: Any, target: Any) -> None:
    """Gives a tensor the mask of another one, as layers pass masks on."""
    mask = get_keras_mask(source)
    if mask is not None:
        set_keras_mask(target, mask)


def clear_losses(layer: keras.layers.Layer) -> None:
    """Forgets the losses that calls of a layer and its parts have added."""
    layer._clear_losses()


def optimized_variables(optimizer: Any) -> list:
    """Returns the variables that an optimizer was built with, in its order."""
    return list(
        getattr(optimizer, "inner_optimizer", optimizer)._trainable_variables
    )


@contextlib.contextmanager
def summed_gradients(optimizer: Any) -> Iterator[None]:
    """Lets an optimizer of TensorFlow take gradients as sums over replicas."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    name = "_all_reduce_sum_gradients"
    if name not in vars(inner):
        original = getattr(inner, name)
        vars(inner)[name] = lambda pairs: (
            pairs if getattr(_SUMMED, "gradients", False) else original(pairs)
        )
    # Each replica is a thread.
    _SUMMED.gradients = True
    try:
        yield
    finally:
        _SUMMED.gradients = False


_SUMMED = threading.local()


def moving_variables(
    layers: Iterable[keras.layers.Layer], model: keras.Model
) -> list:
    """Returns the variables that a training call of layers itself moves.

    The variables are statistics of trainable layers, such as
    BatchNormalization's, and states of seed generators. The variables of
    frozen layers, which may be large, are left out. So are the model's own
    variables, which a method moves with the optimizer's step.

    Args:
        layers: Layers that are called.
        model: The model that they belong to.
    """
    found: dict[int, Any] = {}
    for layer in layers:
        for part in sublayers(layer):
            if part is model:
                continue
            states = [generator.state for generator in part._seed_generators]
            held = part._non_trainable_variables if part.trainable else []
            found.update({id(v): v for v in [*held, *states]})
    return list(found.values())


def let_follow(model: keras.Model) -> None:
    """Lets `torch.compile` follow the batch normalization in a model.

    It cannot pass on the kind of list that Keras keeps the axes in, and the
    gradients of a step in several graphs fail where statistics move.
    """
    for layer in sublayers(model):
        axes = getattr(layer, "_reduction_axes", None)
        if axes is not None:
            layer._reduction_axes = tuple(axes)


def find_parameters(layer: keras.layers.Layer) -> None:
    """Registers weights that were made outside of `build` with PyTorch."""
    layer._post_build()


def replace(layer: keras.layers.Layer, name: str, value: Any) -> None:
    """Replaces a layer that is an attribute of a built layer.

    The new one takes the place of the old one in the order of the weights.
    """
    tracker, layers = layer._tracker, layer._layers
    locked = tracker.locked
    tracker.unlock()
    place = [id(one) for one in layers].index(id(getattr(layer, name)))
    tracker.untrack(getattr(layer, name))
    setattr(layer, name, value)
    layers.insert(place, layers.pop())
    if locked:
        tracker.lock()


def twin(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Returns a layer of the same parts, to which no new part is given.

    What is assigned to the layer later, the twin does not see. Both share
    weights and parts.
    """
    result = object.__new__(type(layer))
    result.__dict__.update(layer.__dict__)
    if "_modules" in layer.__dict__:  # PyTorch keeps parts there.
        result.__dict__["_modules"] = dict(layer.__dict__["_modules"])
    return result


@contextlib.contextmanager
def exported_sizes(sizes: Mapping[str, int]) -> Iterator[None]:
    """Gives inputs of unknown size a size, while ONNX export traces them.

    Keras takes 1, also for pictures, on which a convolution fails.

    Args:
        sizes: dict of the name of an input to the size.
    """
    original = onnx.convert_spec_to_tensor

    def convert(spec: Any, replace_none_number: int = 1) -> Any:
        size = sizes.get(spec.name, replace_none_number)
        shape = [n or size for n in spec.shape[1:]]
        known = keras.InputSpec(
            shape=(spec.shape[0], *shape), dtype=spec.dtype, name=spec.name
        )
        return original(known, replace_none_number)

    onnx.convert_spec_to_tensor = convert
    try:
        yield
    finally:
        onnx.convert_spec_to_tensor = original
