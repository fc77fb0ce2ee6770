"""Encoders that earlier versions saved load and compute equally."""

import keras
import numpy as np
import pytest
from saved_encoders import NAMES, results
from saved_files import FOLDER
from utils import some

FILES = sorted(FOLDER.glob("*/encoders/*.keras"))
# Read on each backend; the others on PyTorch, where it takes least time.
EVERYWHERE = ("M3AEAutoencoder",)


def test_the_first_version_saved_a_file_of_each_kind():
    first = FILES[0].parent
    assert first.parent.name == "0.1.0"
    assert {file.stem for file in FILES if file.parent == first} == set(NAMES)


@pytest.mark.every_case
@pytest.mark.parametrize(
    "file",
    some(FILES, *(f for f in FILES if f.stem in EVERYWHERE)),
    ids=lambda file: f"{file.parent.parent.name}-{file.stem}",
)
def test_an_earlier_version_s_encoder(file):
    if "CLIP" in file.stem:
        pytest.importorskip("keras_hub")
    model = keras.saving.load_model(file, safe_mode=True)
    expected = np.load(file.with_suffix(".npz"))
    found = results(model, file.stem)
    assert set(found) == set(expected.files)
    for name, value in found.items():
        np.testing.assert_allclose(
            value, expected[name], atol=2e-5, err_msg=name
        )
