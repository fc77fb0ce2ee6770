"""Frozen encoders from presets of Keras Hub, and their features on disk."""

import os
import shutil

import keras
import numpy as np
import pandas as pd
import pytest
from utils import only_on

from keras_mla import encoders
from keras_mla.comparison import compare, features
from keras_mla.comparison.data import Division
from keras_mla.comparison.folder import locked
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
        (16, 16, 3), 8, 1, 2, 8, 16, dropout_rate=0.3
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
        "facts": rng.normal(y[:, None], 1, (rows, 3)).astype("float32"),
        "photo": pixels.clip(0, 255).astype(dtype),
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
        result.runs[0].predictions.outputs["facts+photo"],
        atol=1e-4,
    )
    encoder = model.encoders["photo"]
    trained = 0 if method == "uni-pre" else 4
    assert len(encoder.trainable_variables) == trained
    # What is frozen has no dropout in training.
    features = [
        keras.ops.convert_to_numpy(encoder(test["photo"], training=training))
        for training in (False, True)
    ]
    np.testing.assert_allclose(*features, atol=1e-6)
    return model


def test_arrays(presets):
    data = splits()
    predicts_as_trained(data, presets, data["test"][0])


@only_on("torch")
def test_a_method_whose_teacher_takes_features(presets):
    data = splits()
    model = predicts_as_trained(data, presets, data["test"][0], "if-mmin")
    # It trains on, and its teacher takes what it takes.
    history = model.fit(*data["train"], verbose=0).history
    assert np.isfinite(history["loss"]).all()


@only_on("torch")
def test_a_method_that_takes_encoders_from_another(presets):
    data = splits()
    model = predicts_as_trained(data, presets, data["test"][0], "uni-pre")
    model.fit(*data["train"], verbose=0)


@only_on("torch")
def test_batches(presets):
    data = splits()
    batches = {name: (Whole(part), part[1]) for name, part in data.items()}
    keras.utils.clear_session()  # Layers' names begin anew, as in a process.
    predicts_as_trained(batches, presets, data["test"][0])
    some = {**batches, "train": data["train"]}
    predicts_as_trained(some, presets, data["test"][0])


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
        ({"facts": "PHOTO"}, "'facts' does not work: Presets encode pictures"),
        ({"photo": "TITLE"}, "'photo' does not work: .*ImageConverter"),
        ({"foto": "PHOTO"}, "Did you mean 'photo'"),
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
    for pixels in (x["photo"], 4 * x["photo"] - 2):
        with pytest.raises(ValueError, match="'photo' .* pixels from 0 to 255"):
            Presets(presets, tmp_path).of_inputs(
                {"photo": pixels, "title": 0}, True
            )


@only_on("torch")
def test_a_data_set_that_is_loaded(presets):
    with pytest.raises(ValueError, match="`Data` is loaded: .*'photo'"):
        compare(load(pictures()), "concat", encoders=presets_of_photo(presets))


def presets_of_photo(presets):
    return {"photo": presets["photo"]}


@only_on("torch")
def test_modalities_that_no_sample_has(tmp_path, presets):
    x = {**pictures()[0], "presence": np.ones((24, 2), bool)}
    x["presence"][:, 1] = False
    keep = Presets(presets_of_photo(presets), tmp_path, verbose=0)
    found = keep.features_of(x, keep.of_inputs(x, cached=True))
    assert found["photo"].shape == (24, 8) and not found["photo"].any()
    rows = pd.read_csv(write(tmp_path), keep_default_na=False).assign(title="")
    columns = {"image": ["photo"], "text": ["title"]}
    keep = Presets(presets, tmp_path, verbose=0)
    with pytest.raises(ValueError, match="'title' is empty in all rows"):
        load(
            rows,
            label="kind",
            columns=columns,
            root=str(tmp_path),
            presets=keep,
        )


@only_on("torch")
def test_features_that_are_not_finite(tmp_path, presets):
    folder = shutil.copytree(presets["photo"], tmp_path / "preset")
    backbone = keras_hub.models.Backbone.from_preset(str(folder))
    backbone.weights[-1].assign(backbone.weights[-1] * np.nan)
    backbone.save_to_preset(str(folder))
    x, _ = pictures()
    keep = Presets({"photo": str(folder)}, tmp_path / "features", verbose=0)
    with pytest.raises(ValueError, match="modality 'photo' gives features"):
        keep.features_of(x, keep.of_inputs(x, cached=True))


@only_on("torch")
def test_a_preset_that_changed_under_its_name(tmp_path, presets):
    """No run goes on, or is read, with the features of another encoder."""
    data = write(tmp_path)
    folder = shutil.copytree(presets["photo"], tmp_path / "preset")
    given = {
        "modalities": {
            "one": table.Image("photo"),
            "other": table.Image("photo"),
            "title": table.Text("title", length=4),
        },
        "encoders": {**presets, "one": folder, "other": presets["photo"]},
        "label": "kind",
    }
    given["encoders"].pop("photo")

    def facts(**more):
        encoders = {n: str(f) for n, f in {**given["encoders"], **more}.items()}
        keep = Presets(encoders, tmp_path / "features", verbose=0)
        found = load(
            data, presets=keep, **{k: given[k] for k in ("modalities", "label")}
        )
        assert found.folds[0].table.fields["title"].known()["length"] == 4
        return found.facts["fingerprint"]

    first = facts()
    kept = list((tmp_path / "features").glob("*/features.npy"))
    assert len(kept) == 3  # One column, two presets.
    backbone = keras_hub.models.Backbone.from_preset(str(folder))
    backbone.weights[0].assign(backbone.weights[0] + 1.0)
    backbone.save_to_preset(str(folder))
    assert facts() != first
    assert len(list((tmp_path / "features").glob("*/features.npy"))) == 3


@only_on("torch")
def test_two_comparisons_at_once(tmp_path, presets):
    data = write(tmp_path)
    with locked(tmp_path / "out"), pytest.raises(ValueError, match="Another"):
        compare(
            data,
            "concat",
            label="kind",
            encoders=presets_of_photo(presets),
            out=tmp_path / "out",
            **SMALL,
        )
    assert not (tmp_path / "out" / "features").exists()


@only_on("torch")
def test_a_word_with_the_id_of_padding(tmp_path):
    """GPT-2 and Llama of Keras Hub pad with 0, which is a word."""
    import tensorflow as tf

    words = {letter: i for i, letter in enumerate(f"!{LETTERS}")}
    words["<|endoftext|>"] = len(words)
    tokenizer = keras_hub.models.GPT2Tokenizer(words, [])
    keras_hub.models.GPT2Backbone(
        len(words), 1, 2, 8, 16, max_sequence_length=40
    ).save_to_preset(str(tmp_path))
    tokenizer.save_to_preset(str(tmp_path))
    rows = {"title": ["a!b", "c", None], "n": [1, 2, 3]}
    field = table.Text("title", length=6, tokenizer=tmp_path)
    read = table.Table({"title": field, "n": "n"}).adapt(rows, verbose=0)
    x = read.inputs(rows)["title"]
    assert x["token_ids"].dtype == np.int32
    assert x["token_ids"].tolist() == [
        [27, 1, 0, 2, 27, 0],
        [27, 3, 27, 0, 0, 0],
        [0] * 6,
    ]
    assert x["padding_mask"].sum(axis=1).tolist() == [5, 3, 0]
    # TensorFlow's pipelines give tensors.
    field = read.fields["title"]
    ids = field.values(pd.DataFrame(rows), np.array([True, True, False]))
    again = field.reader("title").batched(tf.constant(ids))
    for name, values in x.items():
        np.testing.assert_array_equal(again[name], values)


@only_on("torch")
def test_pictures_that_change_rows(tmp_path):
    for i in range(3):
        keras.utils.save_img(tmp_path / f"{i}.png", np.full((4, 4, 3), 50 * i))
    read = table.Table({"photo": table.Image(["a", "b"])}, root=str(tmp_path))
    found = set()
    for a, b in (
        (["0.png", "2.png"], ["1.png", ""]),
        (["0.png", "1.png"], ["", "2.png"]),
    ):
        rows = pd.DataFrame({"a": a, "b": b})
        read.adapt(rows, verbose=0)
        found.add(features.digest(*features.prints(rows, read)))
    assert len(found) == 2


@only_on("torch")
def test_fingerprints_of_files(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1" * (3 << 20))
    first, known = features._of_file(str(path)), path.stat()
    # In the middle, with the time of before.
    path.write_bytes(b"1" * (1 << 20) + b"2" + b"1" * ((2 << 20) - 1))
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert features._of_file(str(path)) != first
    # A folder is what its files are, and their order: b1, b2 and b10.
    (tmp_path / "b1").write_bytes(b"1")
    (tmp_path / "b2").write_bytes(b"2")
    first = features._of_file(str(tmp_path))
    (tmp_path / "b2").rename(tmp_path / "b0")
    assert features._of_file(str(tmp_path)) != first
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
