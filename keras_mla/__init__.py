"""Multimodal learning by alternating unimodal adaptation, for Keras 3.

`keras_mla.MLA(encoders={...}, head=classes)` is a `keras.Model`: `compile` and
`fit` it. The parts:

- `models`: MLA, and the methods that it is compared with.
- `core`: base classes and data structures, for authors of methods.
- `layers`: gradient projection and fusion.
- `callbacks`: exact resumption, the state of the projection, and interference.
- `encoders`: the paper's encoders, with their published checkpoints.
- `datasets`: five data sets from their files, tables and files of your own, and
  missing and unpaired modalities.
- `metrics`: the calibration error.
- `wrappers`: classifiers and regressors for scikit-learn.
- `comparison`: which method wins on your data, with a report.
- `analysis`: plots of training; the worth of modalities, laziness,
  interference, the spectrum of P, and the modality gap.
"""

import importlib.util

try:
    import keras as keras
except ModuleNotFoundError as error:
    if error.name not in ("tensorflow", "jax", "torch"):
        raise
    _found = [
        name
        for name in ("jax", "torch", "tensorflow")
        if name != error.name and importlib.util.find_spec(name) is not None
    ]
    raise ModuleNotFoundError(
        f"Keras is to run on {error.name}, which is not installed. "
        + (
            f"Installed: {', '.join(_found)}. Choose it before Python starts, "
            f"`export KERAS_BACKEND={_found[0]}`, or before the first import, "
            f"`os.environ['KERAS_BACKEND'] = '{_found[0]}'`."
            if _found
            else "Install a backend: pip install 'keras-mla[jax]', or "
            "[torch], or [tensorflow]; and choose it with KERAS_BACKEND."
        ),
        name=error.name,
    ) from error

from keras_mla import analysis as analysis
from keras_mla import callbacks as callbacks
from keras_mla import comparison as comparison
from keras_mla import core as core
from keras_mla import datasets as datasets
from keras_mla import encoders as encoders
from keras_mla import layers as layers
from keras_mla import metrics as metrics
from keras_mla import models as models
from keras_mla import saving as saving
from keras_mla import wrappers as wrappers
from keras_mla.core.sharing import ProcessRows as ProcessRows
from keras_mla.datasets.protocols.unpaired_dataset import (
    UnpairedDataset as UnpairedDataset,
)
from keras_mla.models.balanced.mla import MLA as MLA
from keras_mla.version import __version__ as __version__

__all__ = [
    "MLA",
    "ProcessRows",
    "UnpairedDataset",
    "__version__",
    "analysis",
    "callbacks",
    "comparison",
    "core",
    "datasets",
    "encoders",
    "layers",
    "metrics",
    "models",
    "saving",
    "wrappers",
]
