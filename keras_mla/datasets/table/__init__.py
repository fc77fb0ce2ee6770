"""From tables to a model's inputs: numbers, categories, texts and files."""

from keras_mla.datasets.table.files import Image as Image
from keras_mla.datasets.table.files import Sound as Sound
from keras_mla.datasets.table.files import Video as Video
from keras_mla.datasets.table.label import Label as Label
from keras_mla.datasets.table.read import read_table as read_table
from keras_mla.datasets.table.table import Table as Table
from keras_mla.datasets.table.text import Text as Text
from keras_mla.datasets.table.values import Values as Values

__all__ = [
    "Image",
    "Label",
    "Sound",
    "Table",
    "Text",
    "Values",
    "Video",
    "read_table",
]
