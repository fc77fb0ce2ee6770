import numpy as np
import pytest
from utils import mainly_on

from keras_mla import encoders
from tests.encoders import synthetic
from tests.encoders.synthetic import check, inputs


@pytest.fixture
def cavmae(tmp_path):
    path = tmp_path / "cavmae.npz"
    return path, synthetic.write("cavmae.json", path, "module.")


@mainly_on("torch")
def test_cavmae_encoders_equal_the_original(cavmae, tmp_path):
    path, fixture = cavmae
    expected = fixture["outputs"]
    audio, image = inputs((2, 32, 128), (2, 32, 32, 3))
    audio = audio[..., None]
    fine = {k: s for k, s in fixture["shapes"].items()}
    fine = {k: s for k, s in fine.items() if k not in fixture["dropped"]}
    fine |= fixture["extra"]
    tuned = tmp_path / "tuned.npz"
    np.savez(tuned, **synthetic.weights(fine, fixture["fine_tuned_seed"]))
    for modality, x in (("audio", audio), ("image", image)):
        shape = x.shape[1:]
        encoder = encoders.convert_cavmae(path, modality, shape, head_dim=8)
        check(encoder(x), expected[f"{modality}_feature"])
        encoder = encoders.convert_cavmae(tuned, modality, shape, head_dim=8)
        check(encoder(x), expected[f"fine_tuned_{modality}_feature"])


@mainly_on("torch")
def test_cavmae_autoencoder_equals_the_original(cavmae):
    path, fixture = cavmae
    expected = fixture["outputs"]
    audio, image = inputs((2, 32, 128), (2, 32, 32, 3))
    x = {"audio": audio[..., None], "image": image}
    model = encoders.convert_cavmae(
        path,
        head_dim=8,
        decoder_num_heads=4,
        audio_shape=(32, 128, 1),
        image_shape=(32, 32, 3),
    )
    noise = {name: np.float32(expected[f"{name}_rank"]) for name in x}
    outputs = model(x, noise=noise)
    check(outputs["audio_mask"], expected["audio_mask"])
    check(outputs["image_mask"], expected["image_mask"])
    check(outputs["audio"][:, :, ::16], expected["audio"])
    check(outputs["image"][:, :, ::48], expected["image"])
    check(model.compute_loss(x=x, y_pred=outputs), expected["loss"])
    for name, tracker in model.trackers.items():
        check(tracker.result(), expected[name])
    model.bidirectional = True
    features = outputs["audio_feature"], outputs["image_feature"]
    check(model._contrast(*features)[0], expected["bidirectional"])
    model.normalize_patches = False
    for tracker in model.trackers.values():
        tracker.reset_state()
    model.compute_loss(x=x, y_pred=outputs)
    for name in ("audio_loss", "image_loss"):
        check(model.trackers[name].result(), expected[f"{name}_plain"])
    encoder = model.make_encoder("audio")
    check(encoder(x["audio"]), expected["audio_feature"])
    encoder = model.make_encoder("image")
    check(encoder(x["image"]), expected["image_feature"])


@mainly_on("torch")
def test_cavmae_positions_are_resampled_to_another_size(cavmae):
    path, fixture = cavmae
    arrays = synthetic.weights(fixture["shapes"], fixture["seed"])
    for name, letter, shape, grids in (
        ("audio", "a", (48, 128, 1), ((8, 2), (8, 3))),
        ("image", "v", (48, 64, 3), ((2, 2), (3, 4))),
    ):
        encoder = encoders.convert_cavmae(path, name, shape, head_dim=8)
        table = arrays[f"pos_embed_{letter}"][0]
        check(
            encoder.embedding.positions,
            encoders.resize_positions(table, *grids),
            1e-6,
        )
        assert encoder(np.zeros((1, *shape))).shape == (1, 16)
