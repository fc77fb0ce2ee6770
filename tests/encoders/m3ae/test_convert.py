import numpy as np
import pytest
from utils import mainly_on

from keras_mla import encoders
from tests.encoders import synthetic
from tests.encoders.synthetic import check, inputs

TEXT_MASK = np.arange(6)[None] < np.array([[6], [4]])


@pytest.fixture
def flax(tmp_path):
    path = tmp_path / "m3ae.npz"
    return path, synthetic.write("m3ae_flax.json", path)["outputs"]


@mainly_on("torch")
def test_m3ae_flax_encoders_equal_the_original(flax):
    path, expected = flax
    image, ids = inputs((2, 16, 16, 3), words=50)
    options = {"image_shape": (16, 16, 3), "head_dim": 8, "trained_grid": None}
    encoder = encoders.convert_m3ae(path, "image", **options)
    check(encoder(image), expected["image_feature"])
    text = {"token_ids": ids, "padding_mask": TEXT_MASK}
    encoder = encoders.convert_m3ae(path, "text", **options)
    check(encoder(text), expected["text_feature"])
    encoder = encoders.convert_m3ae(path, "text", pool_padding=True, **options)
    check(encoder(text), expected["text_feature_padding_pooled"])


@mainly_on("torch")
def test_m3ae_flax_autoencoder_equals_the_original(flax):
    path, expected = flax
    image, ids = inputs((2, 16, 16, 3), words=50)
    model = encoders.convert_m3ae(
        path, image_shape=(16, 16, 3), head_dim=8, decoder_num_heads=4
    )
    # The original masks all samples of a batch alike.
    noise = {
        name: np.tile(np.float32(expected[f"{name}_rank"]), (2, 1))
        for name in ("image", "text")
    }
    x = {
        "image": image,
        "text": {"token_ids": ids, "padding_mask": TEXT_MASK},
    }
    outputs = model(x, noise=noise)
    check(outputs["image_mask"], expected["image_mask"])
    check(outputs["text_mask"], expected["text_mask"])
    check(outputs["image"][:, :, ::6], expected["image"])
    check(outputs["text"][:, :, ::6], expected["text"], 2e-4)
    loss = model.compute_loss(x=x, y_pred=outputs)
    parts = {name: t.result() for name, t in model.trackers.items()}
    for name in ("image_loss", "text_loss", "text_accuracy"):
        check(parts[name], expected[name])
    check(loss, expected["image_loss"] + 0.1 * expected["text_loss"])
    encoder = model.make_encoder("image")
    check(encoder(image), expected["image_feature"])


@mainly_on("torch")
def test_m3ae_torch_port_permutes_its_patches(tmp_path):
    torch = pytest.importorskip("torch")
    fixture = synthetic.load("m3ae_torch.json")
    expected = fixture["outputs"]
    arrays = synthetic.weights(fixture["shapes"], fixture["seed"])
    path = tmp_path / "m3ae.pth"
    state = {f"module.{k}": torch.from_numpy(v) for k, v in arrays.items()}
    torch.save({"model": state}, path)
    image, ids = inputs((2, 32, 32, 3), words=50)
    options = {"image_shape": (32, 32, 3), "head_dim": 8, "trained_grid": None}
    encoder = encoders.convert_m3ae(path, "image", **options)
    check(encoder(image), expected["image_feature"])
    encoder = encoders.convert_m3ae(
        path, "image", patch_order="channels_last", **options
    )
    check(encoder(image), expected["image_feature_channels_last"])
    encoder = encoders.convert_m3ae(path, "text", pool_padding=True, **options)
    text = {"token_ids": ids, "padding_mask": TEXT_MASK}
    check(encoder(text), expected["text_feature_padding_pooled"])
    with pytest.raises(ValueError, match="decoder_input_projection"):
        encoders.convert_m3ae(path, **options)


def test_a_file_must_fit_exactly(flax, tmp_path):
    path, _ = flax
    options = {"image_shape": (16, 16, 3), "head_dim": 8}
    arrays = dict(np.load(path))

    def save(changes):
        changed = {**arrays, **changes}
        changed = {k: v for k, v in changed.items() if v is not None}
        np.savez(tmp_path / "changed.npz", **changed)
        return tmp_path / "changed.npz"

    name = "encoder/Block_1/Attention_0/Dense_0/bias"
    with pytest.raises(ValueError, match=f"lacks 1 arrays.*{name}"):
        encoders.convert_m3ae(save({name: None}), "image", **options)
    extra = {"encoder/adapter": np.zeros(3)}
    with pytest.raises(ValueError, match="encoder/adapter"):
        encoders.convert_m3ae(save(extra), "image", **options)
    shorter = {name: arrays[name][:-1]}
    with pytest.raises(ValueError, match=rf"`{name}` has shape \(47,\)"):
        encoders.convert_m3ae(save(shorter), "image", **options)
    with pytest.raises(ValueError, match="no checkpoint of CAV-MAE"):
        encoders.convert_cavmae(path, "audio")
    with pytest.raises(ValueError, match="patch_order=last"):
        encoders.convert_m3ae(path, "image", patch_order="last")
    with pytest.raises(ValueError, match="no square"):
        encoders.convert_m3ae(path, "image", (16, 16, 1), head_dim=8)
