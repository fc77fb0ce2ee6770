"""Modules keep the public names that they had before they got folders."""

import importlib
import pickle

import pytest
from utils import in_process, mainly_on

import keras_mla

NAMES = (
    "audio",
    "crema_d",
    "food101",
    "iemocap",
    "image",
    "kinetics_sounds",
    "listing",
    "missing",
    "mvsa",
    "pipeline",
    "text",
    "unpaired",
    "unpaired_dataset",
    "video",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_module_has_one_public_name(name):
    module = importlib.import_module(f"keras_mla.datasets.{name}")
    assert module is getattr(keras_mla.datasets, name)
    for key in getattr(module, "__all__", ["UnpairedDataset"]):
        assert hasattr(module, key), f"{name}.{key}"


@mainly_on("torch")
def test_statements_find_it_first():
    # In a process that has imported nothing yet.
    statements = (
        "import keras_mla.datasets.food101 as food101; food101.load;"
        "from keras_mla.datasets.image import RESNET, ImageSettings;"
        "from keras_mla.datasets.unpaired_dataset import UnpairedDataset"
    )
    result = in_process("-c", statements)
    assert result.returncode == 0, result.stderr


def test_settings_pickled_by_version_0_1_load():
    # Protocol 0 names the class as text.
    pickled = b"ckeras_mla.datasets.image\nImageSettings\n(I96\ntR."
    settings = pickle.loads(pickled)
    assert settings == keras_mla.datasets.image.ImageSettings(size=96)
