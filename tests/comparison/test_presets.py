"""Frozen encoders from presets of Keras Hub, and their features on disk."""

import keras
import numpy as np
import pandas as pd
import pytest
from utils import only_on

from keras_mla import encoders
from keras_mla.comparison import compare, features
from keras_mla.comparison.data import Division
from keras_mla.comparison.frozen import Presets
from keras_mla.comparison.sources import load
from keras_mla.datasets import image, table

keras_hub = pytest.importorskip("keras_hub")
pytest.importorskip("jinja2")

SMALL = {"seeds": 1, "trials": 1, "epochs": 2, "batch_size": 16, "width": 8}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """Returns folders of a preset of images and one of texts."""
    images = str(tmp_path_factory.mktemp("images"))
    texts = str(tmp_path_factory.mktemp("texts"))
    keras_hub.models.ViTBackbone(
        (16, 16, 3), 8, 1, 2, 8, 16, dropout_rate=0.0
    ).save_to_preset(images)
    keras_hub.layers.ViTImageConverter(
        image_size=(16, 16), scale=1 / 128, offset=-1.0
    ).save_to_preset(images)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]
    words += [f"##{letter}" for letter in LETTERS]
    keras_hub.models.BertBackbone(
        len(words), 1, 2, 8, 16, max_sequence_length=40
    ).save_to_preset(texts)
    keras_hub.models.BertTokenizer(words, lowercase=True).save_to_preset(texts)
    return {"photo": images, "title": texts}


def write(folder, rows=30):
    """Writes a table with pictures, titles and prices, some of them empty."""
    rng = np.random.default_rng(0)
    cells = []
    for i in range(rows):
        kind = i % 2
        pixels = rng.normal(90 + 60 * kind, 40, (20, 24, 3)).clip(0, 255)
        keras.utils.save_img(folder / f"{i}.png", pixels)
        cells.append(
            {
                "photo": "" if i % 7 == 3 else f"{i}.png",
                "title": "" if i % 7 == 5 else ("good", "poor")[kind] * 2,
                "price": f"{rng.normal(kind):.3f}",
                "kind": ("no", "yes")[kind],
            }
        )
    pd.DataFrame(cells).to_csv(folder / "table.csv", index=False)
    return str(folder / "table.csv")


@only_on("torch")
def test_a_table(tmp_path, presets):
    data = write(tmp_path)
    given = {
        "label": "kind",
        "columns": {
            "text": ["title"],
            "numeric": ["price"],
            "image": ["photo"],
        },
        "encoders": presets,
        "out": tmp_path / "out",
        "verbose": 0,
        **SMALL,
    }
    result = compare(data, "mla", **given)
    kept = sorted((tmp_path / "out" / "features").glob("*/features.npy"))
    assert len(kept) == 2
    times = [path.stat().st_mtime_ns for path in kept]
    # The model takes rows, and predicts as the one on features did.
    [run] = result.runs
    rows = pd.read_csv(data).iloc[[int(i) for i in result.ids]]
    for model in (
        result.model_of(run),
        keras.saving.load_model(tmp_path / "out" / "model.keras"),
    ):
        assert model.modalities == ("title", "table", "photo")
        model.table.root = str(tmp_path)
        found = model.predict(model.table.inputs(rows), verbose=0)
        np.testing.assert_allclose(
            model.predict_modalities(model.table.inputs(rows))["photo"][
                "logits"
            ][result.presence[:, 2]],
            run.predictions.outputs["photo"][result.presence[:, 2]],
            atol=1e-4,
        )
        assert found.shape == (len(rows), 2)
        trained = {v.path for v in model.encoders["photo"].trainable_variables}
        assert len(trained) == 4, trained
    found = result.model_of(run).predict(model.table.inputs(rows), verbose=0)
    key = "title+table+photo"
    np.testing.assert_allclose(found, run.predictions.outputs[key], atol=1e-4)
    # Features are there; those of a changed picture are not.
    keras.utils.save_img(tmp_path / "0.png", np.zeros((20, 24, 3)))
    with pytest.raises(ValueError, match="fingerprint"):
        compare(data, "mla", report=False, **given)
    assert len(list((tmp_path / "out" / "features").iterdir())) == 3
    assert [path.stat().st_mtime_ns for path in kept] == times


@only_on("torch")
def test_features_are_the_encoders(tmp_path, presets):
    data = load(
        write(tmp_path),
        label="kind",
        columns={"image": ["photo"], "text": ["title"]},
        division=Division(folds=2),
        presets=Presets(presets, tmp_path / "features", verbose=0),
    )
    hub = keras_hub.models
    converter = keras_hub.layers.ImageConverter.from_preset(presets["photo"])
    backbone = hub.Backbone.from_preset(presets["photo"])
    rows = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    for fold in data.folds:
        part = fold.parts["test"]
        fold.table.root = str(tmp_path)
        raw = fold.table.inputs(rows.iloc[part.rows])
        for name in ("photo", "title"):
            features = part.x[name]
            there = part.x["presence"][:, data.modalities.index(name)]
            assert not features[~there].any() and there.any()
            taken = keras.tree.map_structure(lambda a, t=there: a[t], raw[name])
            np.testing.assert_allclose(
                features[there],
                data.frozen[name].encoder.predict(taken, verbose=0),
                atol=1e-5,
            )
    # Pictures are scaled as Keras Hub scales them.
    pixels = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), "uint8")
    settings = image.hub_settings(presets["photo"])
    np.testing.assert_allclose(
        settings.normalize(pixels),
        keras.ops.convert_to_numpy(converter(pixels)),
        atol=1e-5,
    )
    tokens = backbone.predict(settings.normalize(pixels), verbose=0)
    np.testing.assert_allclose(
        encoders.hub_image_encoder(presets["photo"]).predict(
            settings.normalize(pixels), verbose=0
        ),
        tokens.mean(axis=1),
        atol=1e-5,
    )


def pictures(rows=24, dtype="uint8"):
    rng = np.random.default_rng(0)
    y = np.arange(rows) % 2
    pixels = rng.normal(90 + 60 * y[:, None, None, None], 40, (rows, 20, 20, 3))
    x = {
        "photo": pixels.clip(0, 255).astype(dtype),
        "facts": rng.normal(y[:, None], 1, (rows, 3)).astype("float32"),
    }
    return x, y


class Whole(keras.utils.PyDataset):
    """A split as one batch."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.part


def splits():
    x, y = pictures()
    parts = {"train": slice(0, 12), "validation": slice(12, 18)}
    parts["test"] = slice(18, 24)
    split = {
        name: ({n: a[rows] for n, a in x.items()}, y[rows])
        for name, rows in parts.items()
    }
    return split


def predicts_as_trained(data, presets, test, method="concat"):
    """Compares on data; checks the model against the predictions kept."""
    result = compare(
        data,
        method,
        encoders={"photo": presets["photo"]},
        report=False,
        verbose=0,
        **{**SMALL, "epochs": 1},
    )
    model = result.model_of(result.runs[0])
    np.testing.assert_allclose(
        model.predict(test, verbose=0),
        result.runs[0].predictions.outputs["photo+facts"],
        atol=1e-4,
    )
    assert len(model.encoders["photo"].trainable_variables) == 4


def test_arrays(presets):
    data = splits()
    predicts_as_trained(data, presets, data["test"][0])


@only_on("torch")
def test_a_method_whose_teacher_takes_features(presets):
    data = splits()
    predicts_as_trained(data, presets, data["test"][0], "if-mmin")


@only_on("torch")
def test_batches(presets):
    data = splits()
    batches = {name: (Whole(part), part[1]) for name, part in data.items()}
    predicts_as_trained(batches, presets, data["test"][0])


@only_on("torch")
def test_several_pictures(tmp_path, presets):
    x, y = pictures()
    several = np.stack([x["photo"], x["photo"][::-1]], axis=1)
    keep = Presets({"photo": presets["photo"]}, tmp_path, verbose=0)
    both, one = (
        keep.features_of(given, keep.of_inputs(given, cached=True))
        for given in ({"photo": several}, {"photo": x["photo"]})
    )
    np.testing.assert_allclose(
        both["photo"], (one["photo"] + one["photo"][::-1]) / 2, atol=1e-5
    )


@only_on("torch")
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"facts": "mpl"}, "Did you mean 'mlp'"),
        ({"photo": "resnet_18_imagenett"}, "Did you mean 'resnet_18_imagenet'"),
        ({"facts": "PHOTO"}, "Presets encode pictures, videos and texts"),
        ({"photo": "TITLE"}, "image converter|ImageConverter"),
    ],
)
def test_what_is_no_preset(tmp_path, presets, arguments, message):
    x, y = pictures()
    given = {n: presets.get(p.lower(), p) for n, p in arguments.items()}
    with pytest.raises(ValueError, match=message):
        compare((x, y), "concat", encoders=given, out=tmp_path, **SMALL)


@only_on("torch")
def test_pixels_from_0_to_1(tmp_path, presets):
    x, y = pictures(dtype="float32")
    x["photo"] /= 255
    with pytest.raises(ValueError, match="from 0 to 255. Received: modality"):
        compare((x, y), "concat", encoders=presets, out=tmp_path, **SMALL)


@only_on("torch")
def test_fingerprints_of_files(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1" * (3 << 20))
    first = features._of_file(str(path))
    path.write_bytes(b"1" * ((3 << 20) - 1) + b"2")
    assert features._of_file(str(path)) != first
    # A folder is what its files are.
    first = features._of_file(str(tmp_path))
    path.write_bytes(b"1")
    assert features._of_file(str(tmp_path)) != first


@only_on("torch")
def test_a_root_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = pd.read_csv(write(tmp_path), keep_default_na=False)
    columns = {"photo": table.Image("photo")}
    adapted = table.Table(columns, root="~").adapt(rows, verbose=0)
    first = features.prints(rows, adapted)
    keras.utils.save_img(tmp_path / "0.png", np.zeros((20, 24, 3)))
    changed = features.prints(rows, adapted)
    differ = [a != b for a, b in zip(first, changed, strict=True)]
    assert differ == [i == 0 for i in range(30)]
