import numpy as np
from keras import ops

from keras_mla.encoders.nn import masking


def test_masking_is_exact_and_restored():
    noise = np.random.default_rng(0).random((3, 8)).astype("float32")
    x = np.random.default_rng(1).random((3, 8, 4)).astype("float32")
    chosen, mask, restore = masking.choose_tokens(noise, 2)
    mask = ops.convert_to_numpy(mask)
    np.testing.assert_array_equal(mask.sum(1), [6, 6, 6])
    kept = masking.take_tokens(x, chosen)
    filler = np.full((1, 1, 4), -1.0, "float32")
    full = ops.convert_to_numpy(masking.restore_tokens(kept, filler, restore))
    np.testing.assert_array_equal(full, np.where(mask[:, :, None], -1.0, x))
    smallest = np.argsort(noise, 1)[:, :2]
    for row in range(3):
        assert set(np.flatnonzero(mask[row] == 0)) == set(smallest[row])
    assert masking.kept_tokens(10, 0.9) == 1
    assert masking.kept_tokens(256, 0.75) == 64
