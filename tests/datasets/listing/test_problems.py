import pytest

from keras_mla.datasets.listing import Problems


def test_an_unknown_choice():
    with pytest.raises(ValueError, match="on_error='ignore'"):
        Problems("ignore")
