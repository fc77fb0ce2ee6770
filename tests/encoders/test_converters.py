import keras
import numpy as np
import pytest
from keras import ops
from utils import mainly_on

from keras_mla import encoders
from keras_mla.encoders import convert
from tests.encoders import synthetic


def check(ours, theirs, tolerance=1e-4):
    ours = ops.convert_to_numpy(ours)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def inputs(*shapes, words=None):
    """What the fixtures were computed on."""
    generator = np.random.default_rng(7)
    arrays = [generator.random(s).astype("float32") for s in shapes]
    if words:
        arrays.append(generator.integers(0, words, (2, 6)))
    return arrays


TEXT_MASK = np.arange(6)[None] < np.array([[6], [4]])


@pytest.fixture
def flax(tmp_path):
    fixture = synthetic.load("m3ae_flax.json")
    path = tmp_path / "m3ae.npz"
    np.savez(path, **synthetic.weights(fixture["shapes"], fixture["seed"]))
    return path, fixture["outputs"]


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


@pytest.fixture
def cavmae(tmp_path):
    fixture = synthetic.load("cavmae.json")
    path = tmp_path / "cavmae.npz"
    weights = synthetic.weights(fixture["shapes"], fixture["seed"])
    np.savez(path, **{f"module.{k}": v for k, v in weights.items()})
    return path, fixture


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


@mainly_on("torch")
def test_command_line(cavmae, tmp_path, capsys):
    path, fixture = cavmae
    output = tmp_path / "encoder.keras"
    arguments = [f"--output={output}", "--input-shape=32,128,1"]
    status = convert.main(
        ["--model=cavmae-audio", f"--input={path}", *arguments]
    )
    assert status == 1  # heads of 64 features do not fit a width of 16
    assert "num_heads" in capsys.readouterr().err
    status = convert.main(
        ["--model=cavmae-audio", f"--input={path}", "--head-dim=8", *arguments]
    )
    assert status == 0
    audio, _ = inputs((2, 32, 128), (2, 32, 32, 3))
    loaded = keras.saving.load_model(output)
    check(loaded(audio[..., None]), fixture["outputs"]["audio_feature"])
    arguments = [f"--input={path}", f"--output={output}"]
    assert convert.main(["--model=m3ae", *arguments]) == 1
    assert "no checkpoint of M3AE" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        convert.main(["--model=bert", *arguments])
    with pytest.raises(ValueError, match="takes no input shape"):
        convert.convert("m3ae-text", path, (1, 2, 3))
    with pytest.raises(ValueError, match="two patch orders"):
        convert.convert("cavmae", path, patch_order="channels_last")
