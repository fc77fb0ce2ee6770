"""Data sets and what feeds models."""

from keras_mla.datasets.unpaired_dataset import (
    UnpairedDataset as UnpairedDataset,
)

__all__ = ["UnpairedDataset"]
