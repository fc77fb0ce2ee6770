"""The use of a trained model: unimodal parts, weights, calibration, export."""

import types
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.backend import distribution, internals, step
from keras_mla.core import building, calibration, exporting
from keras_mla.core.batch import split_inputs
from keras_mla.core.filling import where_present
from keras_mla.core.hooks import Hooks
from keras_mla.core.serving_function import ServingFunction
from keras_mla.core.update import Outputs


class ServedModel(Hooks):
    """The part of a multimodal model that serves it after training."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Holds the models that predictions compile, hidden from Keras's
        # tracking.
        self._served = types.SimpleNamespace(views={})

    def unimodal(self, name: str) -> keras.Model:
        """Returns one modality's part as a plain model that shares weights.

        Args:
            name: Name of the modality.

        Returns:
            `keras.Model` that maps the modality's input to its logits,
            `(batch, classes)`. It follows this model's further training, and
            can be saved and exported by itself.

        Raises:
            ValueError: If there is no such modality, or the model is not built.
        """
        return _unimodal_model(self, name)

    def predict_modalities(
        self, x: dict[str, Any], batch_size: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """Predicts with each modality, and returns its weight in the fusion.

        Args:
            x: Inputs as for `predict`; `presence` may be among them.
            batch_size: int. Defaults to 32.

        Returns:
            dict from each modality, and each further expert of the method, to
            a dict of NumPy arrays
            `{"logits": (samples, units), "weight": (samples,)}`; and from
            `"fused"` to the logits that `predict` returns. Fused logits are
            the sum of all experts' logits, each times its weight (and of the
            fusion's bias or prior, if it has one); weights need not sum to
            one. If a sample lacks a modality, its logits and weight
            are zero. Methods that join features fuse no logits, and return no
            `"weight"`.
        """
        return self.predict_view("experts", x, batch_size)

    def features(
        self, x: dict[str, Any], batch_size: int | None = None
    ) -> dict[str, Any]:
        """Returns the features that the encoders compute from inputs.

        Args:
            x: Inputs as for `predict`; `presence` may be among them.
            batch_size: int. Defaults to 32.

        Returns:
            dict keyed by modality, of NumPy arrays `(samples, features)`,
            projected if the model has a `feature_dim`. If a sample lacks a
            modality, its features are zero.
        """
        return self.predict_view("features", x, batch_size)

    def view(self, what: str, outputs: Outputs, presence: Any | None) -> dict:
        """Returns what a further prediction consists of, by name.

        A method that predicts more than logits overrides it, and calls
        `predict_view`.

        Args:
            what: `"experts"` for logits and weights; `"served"` for the same
                with probabilities, under the names of
                `serving_function`; or `"features"`.
            outputs: The outputs of a forward pass.
            presence: Bool tensor of shape `(batch, modalities)`, or `None`.
        """
        if what == "features":
            return {
                name: where_present(presence, index, outputs.features[name])
                for index, name in enumerate(self.modalities)
            }
        if what == "served":
            return _served(self.task, self.view("experts", outputs, presence))
        model: Any = self
        shown = None if presence is None else model.expert_presence(presence)
        factors = model.fusion_factors(outputs, presence)
        result: dict[str, Any] = {"fused": model.fuse(outputs, presence)}
        for index, name in enumerate(model.experts):
            logits = where_present(shown, index, outputs.logits[name])
            result[name] = {"logits": logits}
            if factors is not None:
                result[name]["weight"] = factors[:, index]
        return result

    def predict_view(
        self, what: str, x: dict[str, Any], batch_size: int | None = None
    ) -> dict:
        """Predicts what `view` returns, as NumPy arrays.

        Args:
            what: As for `view`.
            x: Inputs as for `predict`; `presence` may be among them.
            batch_size: int. Defaults to 32.
        """
        x = self.prepare_inputs(x)
        distribution.check_placed(self)
        with self._taking_turns():
            views = self._served.views
            if what not in views:
                views[what] = _View(self, what)
            view = views[what]
            with (
                step.keeping_weights(view),
                distribution.on_own_devices(view),
            ):
                predict = distribution.predicting(view.predict)
                result = predict(x, batch_size, verbose=0)
        # JAX sorts the names.
        names = [*self.experts, "fused"]
        return {name: result[name] for name in names if name in result}

    def serving_function(self, batch_size: int = 256) -> ServingFunction:
        """Returns the prediction as a function for servers.

        Any number of threads may call the function at once, on every backend;
        on PyTorch and TensorFlow they compute one after the other. It checks
        its input before it computes. It holds a copy of the weights of now,
        which further training does not change.

        The function takes a dict from modality to an array or nested lists, and
        `presence` if some rows lack modalities. A modality that is left out, or
        `None`, is absent in all rows. It returns a dict of NumPy arrays:

        - `"logits"`: the fused logits, float32 of shape `(rows, units)`.
        - `"probabilities"`: their softmax, or sigmoid for multi-label tasks.
          Regression has none.
        - `"<modality>_logits"` and `"<modality>_weight"`, for each modality and
          further expert, as `predict_modalities` explains them.

        JAX compiles once for each power of two of rows, and for each size of an
        axis of unknown size.

        Args:
            batch_size: int. The largest number of rows that are computed at
                once. Defaults to `256`.

        Returns:
            A `ServingFunction`. Its `inputs` and `outputs` describe it. On
            JAX, and on TensorFlow if no size is unknown, the first call of
            each number of rows, up to the next power of two, compiles. It
            raises a `ValueError` if its input is not as it should be: unknown
            keys, no modality, other shapes or dtypes, unequal numbers of rows,
            values that are not finite, or a row without any modality.

        Raises:
            ValueError: If the model is not built, or `batch_size` is less than
                1.

        Example:
        >>> dense = lambda n: keras.Sequential(
        ...     [keras.Input((n,)), keras.layers.Dense(8)]
        ... )
        >>> model = keras_mla.MLA({"text": dense(4), "audio": dense(3)}, head=2)
        >>> serve = model.serving_function()
        >>> result = serve({"text": [[0.1, 0.2, 0.3, 0.4]]})
        >>> result["probabilities"].shape, float(result["audio_weight"][0])
        ((1, 2), 0.0)
        """
        _check_built(self, "`serving_function`")
        specs = [input_specs(self, presence) for presence in (False, True)]
        # It keeps the fusion and the task of now.
        view = _View(internals.twin(self), "served")
        with self._taking_turns():
            compute = step.with_own_weights(self, view.call, specs)
        return ServingFunction(
            self.modalities,
            self._signature,
            self.blank_inputs,
            compute,
            _served_names(self),
            batch_size,
            self.allow_nan,
        )

    def forget_graphs(self) -> None:
        """Drops what `predict_modalities` and `features` have compiled."""
        self._served.views.clear()

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Quantizes the weights, as `keras.Model.quantize` does."""
        super().quantize(*args, **kwargs)
        self.forget_graphs()

    def calibrate(
        self,
        validation_data: Any,
        batch_size: int | None = None,
        method: str = "temperature",
    ) -> dict[str, Any]:
        r"""Fits the fusion to validation data.

        Networks are more certain than right, to different degrees, which
        misleads a fusion. Calibration minimises a negative log-likelihood. A
        ridge draws temperatures and factors to 1, as strongly as one sample
        would: without a wrong prediction in the data they would have no bound.

        `method="temperature"` keeps the model's fusion. It fits, for each
        modality, the temperature $T_m$ of its prediction
        $\mathrm{softmax}(z_m / T_m)$; then, for the fused prediction, the
        `sharpness` of an `EntropyFusion`'s weights and the factor `scale` to
        the fused logits. For regression it sets the variances of an
        `InverseVarianceFusion` to the mean squared errors of the modalities'
        predictions.

        `method="joint"` replaces the model's fusion by the first of three
        that is good enough: an `AverageFusion` times a factor; a `PoolFusion`,
        with a weight $w_m \ge 0$ for each expert; and the same with a bias for
        each class. Each is kept in place of a simpler one only if its
        cross-fitted negative log-likelihood (five parts of the validation
        data, each predicted by a fit to the others) is lower by more than the
        standard error of the difference; by two of them for the bias, which
        also learns how frequent classes are. With $z_m$ already divided by
        $T_m$, weights and bias minimise

        $$\sum_i \sum_P q_{iP}\, \ell\Big(\sum_{m \in P} w_m z_{im} + b,
          y_i\Big) + \frac1{2n} \Big(\sum_m (w_m - 1)^2 + |b|^2\Big).$$

        Half of a sample's weight is on all modalities that it has, half on
        their subsets (beyond five modalities, on single ones, all but one, and
        random ones), so that the fusion also serves samples that lack some.
        For regression the choice is between `AverageFusion` and
        `InverseVarianceFusion`. With less than ten samples, the average is
        kept.

        The fitted values are weights of the fusion layer. Unimodal logits, as
        in `unimodal(name)`, do not change. Calibrate after training: methods
        that train on their fused prediction (`QMF`, `MultiLossFusion`, `MLB`)
        would continue with the calibrated prediction. A `.weights.h5` file goes
        with the fusion it was saved with; a `.keras` file holds it. SciPy is
        needed.

        Args:
            validation_data: `(x, y)` or `(x, y, sample_weight)`, or an
                iterable of such batches, not used for training. `presence` may
                be among the inputs.
            batch_size: int. Batch size of the prediction. Defaults to 32.
            method: `"temperature"` or `"joint"`. Defaults to `"temperature"`.

        Returns:
            dict of the fitted values: `"temperature"`, a dict keyed by
            modality (and further experts); `"sharpness"`, if the fusion has
            one; `"scale"`. For regression: `"variance"`, a dict. After
            `method="joint"`: `"fusion"`, the name of what was kept, and its
            values, among them `"weight"`, a dict, and `"bias"`, an array;
            `"gain"`, a dict from each fusion that was tried to the `"mean"` by
            which it lowers the loss, the `"standard_error"` of this, and the
            fusion `"over"` which it does. Always `"before"` and `"after"`, the
            fused prediction's `"negative_log_likelihood"` and, except for
            regression, its expected `"calibration_error"`, on
            `validation_data`.

        Raises:
            ImportError: If SciPy is not installed.
            ValueError: If the method has no fusion layer, or a layer with
                nothing to fit, a modality has no sample, or labels, weights or
                logits are not as they should be.

        Warns:
            UserWarning: If a value ends at a bound of its search, a weight is
                0, `validation_data` lacks a class, so that no bias is fitted,
                or the model's own fusion was better.

        Reference:
            Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
            section 4.2. Genest and Zidek, "Combining Probability
            Distributions", Statistical Science 1986 (logarithmic pools).
        """
        return calibration.calibrate(self, validation_data, batch_size, method)

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        presence: bool = False,
        outputs: str = "fused",
        verify: bool = True,
        **kwargs: Any,
    ) -> None:
        """Exports the prediction, as `keras.Model.export` does.

        Inputs keep their names and dtypes. A SavedModel keeps their nesting
        too. In ONNX, `x["text"]["ids"]` is the input `text_ids`, and the fused
        logits are the output `logits`. The batch size, and axes of
        unknown size, stay dynamic.

        Args:
            filepath: Where to write to.
            format: `"tf_saved_model"` (from TensorFlow and JAX), `"onnx"`
                (from TensorFlow and PyTorch, and from JAX with jax2onnx), or
                another that Keras offers.
            verbose: bool. Whether Keras prints what it does.
            input_signature: Overrides the recorded shapes and dtypes.
            presence: bool. Whether the exported model takes `presence`.
                Defaults to `False`.
            outputs: `"fused"`, the fused logits; or `"modalities"`, what
                `serving_function` returns, under the same names. Defaults to
                `"fused"`.
            verify: bool. Whether an ONNX file is compared with the model, on
                random inputs of several sizes, and not kept if it predicts
                something else: an exporter may fix what depends on a size.
                Defaults to `True`.
            **kwargs: Further arguments of `keras.Model.export`.

        Raises:
            ImportError: If ONNX is asked for, and `onnx` or `onnxruntime`,
                which compares, is not installed.
            ValueError: If the model is not built, `outputs` is unknown,
                PyTorch is asked for a SavedModel, or what was exported does
                not predict as the model does.
        """
        if outputs not in ("fused", "modalities"):
            raise ValueError(
                "`outputs` must be 'fused' or 'modalities'. "
                f"Received: outputs={outputs!r}"
            )
        if format == "tf_saved_model" and keras.backend.backend() == "torch":
            raise ValueError(
                "A TensorFlow SavedModel cannot be exported from PyTorch. "
                "Save the model as a `.keras` file, load it with "
                "KERAS_BACKEND=tensorflow or jax, and export it there; or "
                "use format='onnx' or 'torch'."
            )
        if input_signature is None:
            _check_built(self, "`export`")
            input_signature = [input_specs(self, presence)]
        elif presence:
            raise ValueError(
                "Give `presence=True` or an `input_signature`, not both: a "
                "signature of your own says itself whether it has 'presence'."
            )
        names, exported, write = ["logits"], self, super().export
        if outputs == "modalities":
            names = _served_names(self)
            exported = _View(
                self, "served", names if format == "onnx" else None
            )
            exported.build()
            write = exported.export
        options = {"input_signature": input_signature, **kwargs}
        exporting.export(
            self, exported, write, filepath, format, verbose, options, names,
            verify,
        )  # fmt: skip


def _check_built(model: Any, what: str) -> None:
    """Raises unless the model knows its inputs."""
    if model._signature is None:
        raise ValueError(
            f"{what} needs a built model: its inputs are not known yet. Call "
            "the model on a batch first, or pass encoders that know their "
            "input (made with `keras.Input`)."
        )


def _served_names(model: Any) -> list[str]:
    """Returns the names of all outputs of a served model, in order."""
    keys = ["logits"] if model.fusion is None else ["logits", "weight"]
    of_experts = [f"{e}_{key}" for e in model.experts for key in keys]
    no_probabilities = model.task.probabilities(ops.zeros((1, 2))) is None
    first = ["logits"] if no_probabilities else ["logits", "probabilities"]
    return [*first, *of_experts]


def _served(task: Any, experts: dict[str, Any]) -> dict[str, Any]:
    """Returns the outputs of a served model, from those of its experts."""
    logits = ops.cast(experts.pop("fused"), "float32")
    outputs = {"logits": logits}
    probabilities = task.probabilities(logits)
    if probabilities is not None:
        outputs["probabilities"] = probabilities
    for name, values in experts.items():
        for key, value in values.items():
            outputs[f"{name}_{key}"] = ops.cast(value, "float32")
    return outputs


def input_specs(model: Any, presence: bool) -> dict[str, Any]:
    """Returns the `InputSpec`s of a built model's inputs, by name."""
    specs = building.map_signature(keras.InputSpec, model._signature)
    if presence:
        specs["presence"] = keras.InputSpec(
            shape=(None, len(model.modalities)), dtype="bool", name="presence"
        )
    return specs


def _unimodal_model(model: Any, name: str) -> keras.Model:
    """Returns the model that `ServedModel.unimodal` describes."""
    if name not in model.modalities:
        raise ValueError(
            f"There is no modality {name!r}. The model's modalities are "
            f"{list(model.modalities)}."
        )
    _check_built(model, "`unimodal`")

    def make(shape: tuple, dtype: str, name: str, modality: str = name) -> Any:
        return keras.Input(shape[1:], dtype=dtype, name=name or modality)

    inputs = building.map_signature(make, model._signature[name])
    feature = model.encode(name, inputs, None)
    logits, _ = model.unimodal_pass(name, feature, None)
    unimodal = keras.Model(
        inputs, ops.cast(logits, "float32"), name=f"{model.name}_{name}"
    )
    unimodal(inputs)  # Keras exports only models that have been called.
    return distribution.let_predict(unimodal)


class _View(keras.Model):
    """A model that returns other outputs of a multimodal model.

    Args:
        model: The multimodal model.
        what: What the method's `view` returns.
        flat: Names of outputs, to return a list in place of a dict.
    """

    def __init__(
        self, model: Any, what: str, flat: Sequence[str] | None = None
    ) -> None:
        super().__init__(name=f"view_of_{what}", autocast=False)
        self.model = model
        self.what = what
        self.flat = flat

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: the model is built, or its call builds it."""

    def call(self, inputs: dict) -> Any:
        model = self.model
        inputs, presence = split_inputs(model.modalities, inputs)
        model.build_for(inputs)
        outputs = model.forward_pass(model.modalities, inputs, False, presence)
        result = model.view(self.what, outputs, presence)
        return result if self.flat is None else [result[n] for n in self.flat]
