"""Files of earlier versions load, predict and continue training equally."""

import keras
import numpy as np
import pytest
from saved_files import FOLDER, NAMES, predictions
from utils import some

FILES = sorted(FOLDER.glob("*/*.keras"))
# Read on each backend; other files on PyTorch, where it takes least time.
EVERYWHERE = ("BiGated", "LateFusion_deep", "MLA_options", "OGMGE", "QMF")


def test_the_first_version_saved_a_file_of_each_kind():
    assert {file.stem for file in FILES if file.parent.name == "0.1.0"} == set(
        NAMES
    )


@pytest.mark.every_case
@pytest.mark.parametrize(
    "file",
    some(FILES, *(f for f in FILES if f.stem in EVERYWHERE)),
    ids=lambda file: f"{file.parent.name}-{file.stem}",
)
def test_an_earlier_version_s_file(file):
    model = keras.saving.load_model(file, safe_mode=True)
    expected = np.load(file.with_suffix(".npz"))
    found = predictions(model, file.stem)
    assert set(found) == set(expected.files)
    for name, value in found.items():
        np.testing.assert_allclose(
            value, expected[name], atol=2e-5, err_msg=name
        )
