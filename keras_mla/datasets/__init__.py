"""The paper's data sets, from their files to batches, and their parts.

One module each for `crema_d`, `kinetics_sounds`, `food101`, `mvsa` and
`iemocap`, with `files` and `load`; `audio`, `image`, `video` and `text` decode
and process one thing each; `pipeline` joins them; `missing` and `unpaired` are
for modalities that are missing or do not belong together.
"""

from keras_mla.datasets import audio as audio
from keras_mla.datasets import crema_d as crema_d
from keras_mla.datasets import food101 as food101
from keras_mla.datasets import iemocap as iemocap
from keras_mla.datasets import image as image
from keras_mla.datasets import kinetics_sounds as kinetics_sounds
from keras_mla.datasets import missing as missing
from keras_mla.datasets import mvsa as mvsa
from keras_mla.datasets import pipeline as pipeline
from keras_mla.datasets import text as text
from keras_mla.datasets import unpaired as unpaired
from keras_mla.datasets import video as video
from keras_mla.datasets.unpaired_dataset import (
    UnpairedDataset as UnpairedDataset,
)

__all__ = [
    "UnpairedDataset",
    "audio",
    "crema_d",
    "food101",
    "iemocap",
    "image",
    "kinetics_sounds",
    "missing",
    "mvsa",
    "pipeline",
    "text",
    "unpaired",
    "video",
]
