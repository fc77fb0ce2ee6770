import numpy as np
import pytest
from keras import ops
from utils import only_on

from keras_mla import encoders
from keras_mla.encoders.nn import tokens


def test_patches_keep_their_order():
    image = np.arange(2 * 4 * 6 * 2, dtype="float32").reshape(2, 4, 6, 2)
    patches = ops.convert_to_numpy(tokens.patchify(image, 2))
    assert patches.shape == (2, 6, 8)
    np.testing.assert_array_equal(patches[1, 4], image[1, 2:4, 2:4].ravel())
    back = ops.convert_to_numpy(tokens.unpatchify(patches, 2, (2, 3)))
    np.testing.assert_array_equal(back, image)


def test_positions_follow_the_formula():
    table = tokens.sincos_2d(8, (2, 3))
    row, column = 1, 2
    frequency = [1, 1 / 100]
    expected = [np.sin(column * f) for f in frequency]
    expected += [np.cos(column * f) for f in frequency]
    expected += [np.sin(row * f) for f in frequency]
    expected += [np.cos(row * f) for f in frequency]
    np.testing.assert_allclose(table[row * 3 + column], expected)
    # Twice the resolution: four cells around the centre of each old one.
    fine = tokens.sincos_2d(8, (4, 6), trained_grid=(2, 3))
    expected = np.sin(np.array([-0.25, 0.25, 0.75, 1.25, 1.75, 2.25]))
    np.testing.assert_allclose(fine.reshape(4, 6, 8)[0, :, 0], expected)
    with pytest.raises(ValueError, match="width=6"):
        tokens.sincos_2d(6, (2, 2))


@only_on("torch")  # NumPy against PyTorch.
@pytest.mark.parametrize("new", [(5, 3), (2, 8), (3, 4)])
def test_resized_positions_equal_pytorch(new):
    table = np.random.default_rng(0).normal(size=(12, 5))
    torch = pytest.importorskip("torch")
    ours = encoders.resize_positions(table, (3, 4), new)
    grid = torch.from_numpy(table.reshape(1, 3, 4, 5)).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(
        grid, size=new, mode="bicubic", align_corners=False
    )
    theirs = theirs.permute(0, 2, 3, 1).reshape(-1, 5).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    with pytest.raises(ValueError, match=r"grid=\(2, 4\)"):
        encoders.resize_positions(table, (2, 4), new)
