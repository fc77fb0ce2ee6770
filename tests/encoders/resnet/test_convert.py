import numpy as np
import pytest
from utils import mainly_on

from keras_mla import encoders
from tests.encoders import synthetic
from tests.encoders.synthetic import check, inputs


@mainly_on("torch")
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_resnet18_equals_timm(tmp_path, suffix):
    # torchvision's names and layout are the same.
    pytest.importorskip("keras_hub")
    fixture = synthetic.load("resnet18.json")
    path = tmp_path / f"resnet18.{suffix}"
    arrays = synthetic.weights(fixture["shapes"], fixture["seed"])
    arrays["bn1.num_batches_tracked"] = np.array(3)
    arrays["fc.weight"], arrays["fc.bias"] = np.ones((2, 512)), np.ones(2)
    if suffix == "pth":
        torch = pytest.importorskip("torch")
        torch.save({k: torch.from_numpy(v) for k, v in arrays.items()}, path)
    else:
        safetensors = pytest.importorskip("safetensors.numpy")
        safetensors.save_file(arrays, path)
    video, sound = inputs((2, 2, 64, 48, 3), (2, 64, 48, 1))
    encoder = encoders.convert_resnet18(path, (2, 64, 48, 3))
    check(encoder(video)[:, ::8], fixture["outputs"]["video"])
    encoder = encoders.convert_resnet18(path, (64, 48, 1))
    check(encoder(sound)[:, ::8], fixture["outputs"]["audio"])
