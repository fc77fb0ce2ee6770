"""From a list of samples to batches that any backend takes.

`build` joins samples, such as a data set's `files` or your own list of
`Sample`, and one reader for each modality.

Example:
>>> from keras_mla.datasets import image, pipeline
>>> for i in range(4):
...     keras.utils.save_img(f"{i}.png", np.full((20, 30, 3), 60 * i))
>>> samples = [
...     pipeline.Sample(
...         id=f"product {i}",
...         label=i % 2,
...         inputs={"photo": f"{i}.png", "text": f"product number {i}"},
...         source="my list",
...     )
...     for i in range(4)
... ]
>>> readers = {
...     "photo": pipeline.image_reader(image.ImageSettings(16), "photo"),
...     "text": pipeline.text_reader(),
... }
>>> data = pipeline.build(samples, readers, batch_size=4, engine="python")
>>> [(x, y)] = data
>>> x["photo"].shape, y
((4, 16, 16, 3), array([0, 1, 0, 1], dtype=int32))
"""

from keras_mla.datasets.listing.sample import Sample as Sample
from keras_mla.datasets.pipeline.batches import build as build
from keras_mla.datasets.pipeline.python import Batches as Batches
from keras_mla.datasets.pipeline.reader import Reader as Reader
from keras_mla.datasets.pipeline.reader import audio_reader as audio_reader
from keras_mla.datasets.pipeline.reader import choose as choose
from keras_mla.datasets.pipeline.reader import image_reader as image_reader
from keras_mla.datasets.pipeline.reader import text_reader as text_reader
from keras_mla.datasets.pipeline.reader import video_reader as video_reader

__all__ = [
    "Batches",
    "Reader",
    "Sample",
    "audio_reader",
    "build",
    "choose",
    "image_reader",
    "text_reader",
    "video_reader",
]
