"""From files and tables to a model's inputs: the paper's data sets, and yours.

- `crema_d`, `kinetics_sounds`, `food101`, `mvsa` and `iemocap`: one data set
  each, with `files` and `load`.
- `Table` and `read_table`: a table of your own, of numbers, categories, texts
  and paths of files.
- `listing`: from list files to samples, for data sets of your own.
- `audio`, `image`, `video` and `text`: decode and process one thing each.
- `pipeline`: joins samples and readers to batches.
- `missing` and `unpaired`: modalities that are missing or do not belong
  together.
"""

import sys

from keras_mla.datasets import listing as listing
from keras_mla.datasets import pipeline as pipeline
from keras_mla.datasets import table as table
from keras_mla.datasets.protocols import missing as missing
from keras_mla.datasets.protocols import unpaired as unpaired
from keras_mla.datasets.protocols import unpaired_dataset as unpaired_dataset
from keras_mla.datasets.protocols.missing import presence_of as presence_of
from keras_mla.datasets.protocols.unpaired_dataset import (
    UnpairedDataset as UnpairedDataset,
)
from keras_mla.datasets.readers import audio as audio
from keras_mla.datasets.readers import image as image
from keras_mla.datasets.readers import text as text
from keras_mla.datasets.readers import video as video
from keras_mla.datasets.sets import crema_d as crema_d
from keras_mla.datasets.sets import food101 as food101
from keras_mla.datasets.sets import iemocap as iemocap
from keras_mla.datasets.sets import kinetics_sounds as kinetics_sounds
from keras_mla.datasets.sets import mvsa as mvsa
from keras_mla.datasets.table import Table as Table
from keras_mla.datasets.table import read_table as read_table

# The public name of a module is `keras_mla.datasets.image`, whatever folder its
# file is in. Version 0.1 had the file there: `import keras_mla.datasets.image`
# and pickled settings still find it by this name.
for _module in (
    audio,
    crema_d,
    food101,
    iemocap,
    image,
    kinetics_sounds,
    missing,
    mvsa,
    text,
    unpaired,
    unpaired_dataset,
    video,
):
    sys.modules[f"{__name__}.{_module.__name__.rpartition('.')[2]}"] = _module
del _module

__all__ = [
    "Table",
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
    "presence_of",
    "read_table",
    "table",
    "text",
    "unpaired",
    "video",
]
