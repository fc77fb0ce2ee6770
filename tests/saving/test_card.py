import re
import shutil

import keras
import numpy as np
import pytest
import utils

import keras_mla
from keras_mla import saving

WIDTHS = {"text": 3, "audio": 5, "image": 8}


def make_model(name="MLA", **settings):
    encoders = {
        name: keras.Sequential(
            [keras.Input((width,)), keras.layers.Dense(6, "relu")]
        )
        for name, width in WIDTHS.items()
    }
    model = getattr(keras_mla.models, name)(encoders, 4, **settings)
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def data(rows=40):
    rng = np.random.default_rng(0)
    x = {
        name: rng.normal(size=(rows, width)).astype("float32")
        for name, width in WIDTHS.items()
    }
    return x, rng.integers(0, 4, rows)


def section(card, title):
    return card.partition(f"## {title}\n\n")[2].partition("\n\n## ")[0]


def rows(text):
    lines = [line for line in text.split("\n") if line.startswith("|")]
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines]


def test_says_what_the_model_is():
    card = saving.model_card(make_model(), license="mit")
    header = card.split("---\n")[1]
    assert (
        'tags: ["keras_mla", "multimodal", "text", "audio", "image"]' in header
    )
    assert 'license: "mit"' in header
    assert "`MLA` (Zhang et al., CVPR 2024)" in card
    table = rows(section(card, "Modalities"))
    assert [row[:2] for row in table[2:]] == [
        ["text", "float32 (3)"],
        ["audio", "float32 (5)"],
        ["image", "float32 (8)"],
    ]
    # A Dense layer of 3 by 6 weights and 6 biases.
    assert table[2][3] == "24"
    assert "`(samples, 4)`: one class of several" in card
    assert "`EntropyFusion`, which is not calibrated." in card
    versions = dict(rows(section(card, "Versions"))[2:])
    assert versions["keras"] == keras.__version__
    assert versions["keras_mla"] == keras_mla.__version__
    assert keras.backend.backend() in versions


def test_header_is_yaml():
    yaml = pytest.importorskip("yaml")
    card = saving.model_card(make_model(), license="a: b # c")
    found = yaml.safe_load(card.split("---\n")[1])
    assert found["license"] == "a: b # c"
    assert found["tags"][2:] == list(WIDTHS)


def test_scores_have_a_row_for_each_modality():
    scores = {"accuracy": 0.5, "loss": 1.25, "image_accuracy": 0.25}
    scores["audio_loss"] = np.float32(2)
    card = saving.model_card(make_model(), scores)
    assert rows(section(card, "Scores")) == [
        ["", "accuracy", "loss"],
        ["---"] * 3,
        ["all modalities", "0.5000", "1.2500"],
        ["audio", "", "2.0000"],
        ["image", "0.2500", ""],
    ]


def test_scores_of_evaluate():
    model = make_model()
    x, y = data()
    scores = model.evaluate(x, y, return_dict=True, verbose=0)
    table = rows(section(saving.model_card(model, scores), "Scores"))
    assert [row[0] for row in table[2:]] == ["all modalities", *WIDTHS]
    assert float(table[2][1]) == pytest.approx(scores["loss"], abs=1e-4)


@pytest.mark.filterwarnings("ignore:`calibrate` ended at a bound")
@pytest.mark.parametrize("method", ["temperature", "joint"])
def test_says_how_it_is_calibrated(method):
    model = make_model()
    model.fit(*data(), epochs=3, verbose=0)
    found = model.calibrate(data(), method=method)
    card = saving.model_card(model)
    assert "fitted to validation data" in card
    assert type(model.fusion).__name__ in card
    for name, value in found.get("temperature", {}).items():
        assert f"{name} {value:.3g}" in card
    assert f"scale: {found['scale']:.3g}" in card


@pytest.mark.parametrize(
    "fusion",
    [
        keras_mla.layers.AverageFusion,
        keras_mla.layers.PoolFusion,
        # As many classes as modalities, which are not named here.
        lambda: keras_mla.layers.ProductFusion(prior=[0.2, 0.3, 0.5]),
    ],
)
def test_what_nobody_fitted_is_not_calibrated(fusion):
    encoders = {
        name: keras.Sequential([keras.Input((width,)), keras.layers.Dense(6)])
        for name, width in WIDTHS.items()
    }
    model = keras_mla.models.LateFusion(encoders, 3, fusion=fusion())
    card = saving.model_card(model)
    assert "which is not calibrated" in card
    model.fusion.scale.assign(0.5)
    card = saving.model_card(model)
    assert "fitted to validation data (scale: 0.5)" in card


@pytest.mark.parametrize("name", list(keras_mla.models.METHODS))
@utils.only_on("torch")
def test_every_method_has_a_card(name):
    method = keras_mla.models.METHODS[name]
    time = (5,) if name in ("TATE", "TagFusion") else ()
    encoders = {
        n: keras.Sequential([keras.Input((*time, w)), keras.layers.Dense(6)])
        for n, w in WIDTHS.items()
    }
    given = {}
    if method.teacher is not None:
        teacher = keras_mla.models.METHODS[method.teacher]
        given["teacher"] = teacher.make(encoders, 4)
    card = saving.model_card(method.make(encoders, 4, num_samples=9, **given))
    assert f"`{name}` ({method.paper})" in card


def test_says_sizes():
    text = keras.Input((None,), dtype="int32", name="ids")
    mask = keras.Input((None,), dtype="bool", name="mask")
    embedded = keras.layers.Embedding(9, 6)(text)
    pooled = keras.layers.GlobalAveragePooling1D()(embedded, mask=mask)
    encoders = {
        "text": keras.Model({"ids": text, "mask": mask}, pooled),
        "photo": keras.Sequential(
            [
                keras.Input((None, None, 3)),
                keras.layers.Conv2D(6, 3),
                keras.layers.GlobalAveragePooling2D(),
            ]
        ),
    }
    encoders["text"].trainable = False
    model = keras_mla.MLA(encoders, 2)
    card = saving.model_card(model, classes=["a|b", "c\nd"])
    text, photo = section(card, "Modalities").split("\n")[2:4]
    assert "| ids: int32 (?); mask: bool (?) |" in text
    assert "Functional, frozen" in text
    assert photo.startswith("| photo | float32 (?, ?, 3) | Sequential |")
    assert "in the order a\\|b, c d." in card


def test_example_runs():
    model = make_model()
    card = saving.model_card(model)
    code = card.partition("```python\n")[2].partition("```")[0]
    x, _ = data(4)
    names = {"model": model, **x}
    code = re.sub("model = .*", "", code)
    exec(code, names)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"scores": {"accuracy": "high"}}, ValueError, "must be numbers"),
        ({"classes": ["a"]}, ValueError, "each of the 4 outputs"),
    ],
)
def test_what_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        saving.model_card(make_model(), **arguments)


def test_other_models_are_refused():
    with pytest.raises(TypeError, match="Received: Sequential"):
        saving.model_card(keras.Sequential([keras.Input((3,))]))
    encoders = {"text": keras.layers.Dense(3), "image": keras.layers.Dense(3)}
    with pytest.raises(ValueError, match="not built"):
        saving.model_card(keras_mla.MLA(encoders, 2))


def test_beside_the_model(tmp_path):
    model = make_model()
    file = tmp_path / "model.keras"
    model.save(file)
    card = saving.save_card(model, file, title="Über Gerichte")
    assert card == str(tmp_path / "model.md")
    text = (tmp_path / "model.md").read_text(encoding="utf-8")
    assert "# Über Gerichte\n" in text
    assert saving.save_card(model, tmp_path) == str(tmp_path / "README.md")
    with pytest.raises(ValueError, match="must be a `.keras` file"):
        saving.save_card(model, tmp_path / "nowhere")


def test_on_the_hub(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    # The Hub is a folder here.
    class Api:
        def __init__(self, **kwargs):
            pass

        def create_repo(self, repo_id, exist_ok):
            (tmp_path / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            return type("Url", (), {"repo_id": repo_id})()

        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)

        def upload_file(self, path_or_fileobj, path_in_repo, repo_id, **_):
            (tmp_path / repo_id / path_in_repo).write_bytes(path_or_fileobj)

    def download(repo_id, **kwargs):
        return str(tmp_path / repo_id)

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", download)
    model = make_model()
    x, y = data()
    model.fit(x, y, verbose=0)
    model.save("hf://me/dishes")
    saving.save_card(model, "hf://me/dishes", title="Dishes")
    card = (tmp_path / "me" / "dishes" / "README.md").read_text()
    assert "# Dishes\n" in card and "## Modalities" in card
    loaded = keras.saving.load_model("hf://me/dishes")
    expected = np.asarray(model.predict(x, verbose=0))
    found = np.asarray(loaded.predict(x, verbose=0))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # P and the optimizer's state too.
    np.testing.assert_array_equal(
        *(
            np.asarray(keras.ops.convert_to_numpy(m.projectors[0].P))
            for m in (model, loaded)
        )
    )
