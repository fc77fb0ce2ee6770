"""From a list of samples to a `tf.data.Dataset` that any backend takes."""

from keras_mla.datasets.pipeline.batches import build as build
from keras_mla.datasets.pipeline.reader import Reader as Reader
from keras_mla.datasets.pipeline.reader import audio_reader as audio_reader
from keras_mla.datasets.pipeline.reader import choose as choose
from keras_mla.datasets.pipeline.reader import image_reader as image_reader
from keras_mla.datasets.pipeline.reader import text_reader as text_reader
from keras_mla.datasets.pipeline.reader import video_reader as video_reader

__all__ = [
    "Reader",
    "audio_reader",
    "build",
    "choose",
    "image_reader",
    "text_reader",
    "video_reader",
]
