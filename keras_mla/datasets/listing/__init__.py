"""From the files of a data set to a list of samples; nothing is decoded."""

from keras_mla.datasets.listing.encodings import encoding_of as encoding_of
from keras_mla.datasets.listing.lists import read_json_lines as read_json_lines
from keras_mla.datasets.listing.lists import read_lines as read_lines
from keras_mla.datasets.listing.lists import read_objects as read_objects
from keras_mla.datasets.listing.lists import read_rows as read_rows
from keras_mla.datasets.listing.lists import read_text as read_text
from keras_mla.datasets.listing.paths import data_folder as data_folder
from keras_mla.datasets.listing.paths import find_list as find_list
from keras_mla.datasets.listing.paths import safe_path as safe_path
from keras_mla.datasets.listing.problems import Problems as Problems
from keras_mla.datasets.listing.sample import Sample as Sample
from keras_mla.datasets.listing.sample import check_count as check_count
from keras_mla.datasets.listing.sample import keep_existing as keep_existing
from keras_mla.datasets.listing.sample import make_samples as make_samples
from keras_mla.datasets.listing.splits import (
    carve_validation as carve_validation,
)
from keras_mla.datasets.listing.splits import check_split as check_split
from keras_mla.datasets.listing.splits import partition as partition

__all__ = [
    "Problems",
    "Sample",
    "carve_validation",
    "check_count",
    "check_split",
    "data_folder",
    "encoding_of",
    "find_list",
    "keep_existing",
    "make_samples",
    "partition",
    "read_json_lines",
    "read_lines",
    "read_objects",
    "read_rows",
    "read_text",
    "safe_path",
]
