"""Files that are missing or broken, as absent modalities."""

import json
import logging

import keras
import numpy as np
import pytest
from utils import compiled

import keras_mla
from keras_mla.datasets import image, mvsa, pipeline
from keras_mla.datasets.listing import Sample

pytest.importorskip("tensorflow")
Image = pytest.importorskip("PIL.Image")
hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

NAMES = ("photo", "drawing", "text")
SETTINGS = image.ImageSettings(size=8)
READERS = {
    "photo": pipeline.image_reader(SETTINGS, "photo"),
    "drawing": pipeline.image_reader(SETTINGS, "drawing"),
    "text": pipeline.text_reader(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a picture and a file that is none."""
    folder = tmp_path_factory.mktemp("files")
    Image.new("RGB", (10, 10), (255, 0, 0)).save(folder / "good.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def sample(folder, number, states):
    """A sample whose modalities are "good", "gone", "broken" or "unnamed"."""
    inputs = {}
    for name, state in zip(NAMES, states, strict=True):
        if state != "unnamed":
            inputs[name] = str(folder / f"{state}.png")
            if name == "text":
                inputs[name] = "words"
    return Sample(f"s{number}", number % 3, inputs, f"list.csv:{number + 1}")


states = st.sampled_from(["good", "gone", "broken", "unnamed"])
texts = st.sampled_from(["good", "unnamed"])


@hypothesis.settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    rows=st.lists(st.tuples(states, states, texts), min_size=1, max_size=6)
)
def test_any_pattern_of_missing_and_broken_files(folder, rows):
    samples = [sample(folder, i, row) for i, row in enumerate(rows)]
    data = pipeline.build(samples, READERS, on_error="absent", batch_size=2)
    batches = list(data.as_numpy_iterator())
    expected = np.array([[s == "good" for s in row] for row in rows])
    labels = np.concatenate([y for _, y in batches])
    np.testing.assert_array_equal(labels, np.arange(len(rows)) % 3)
    for column, name in enumerate(NAMES):
        found = np.concatenate([x["presence"][name] for x, _ in batches])
        np.testing.assert_array_equal(found, expected[:, column])
    for name in NAMES[:2]:
        shown = np.concatenate([x[name] for x, _ in batches])
        present = expected[:, NAMES.index(name)]
        # All pictures are alike, and what is absent is black before scaling.
        for group in (shown[present], shown[~present]):
            assert all(np.array_equal(group[0], one) for one in group)
    broken = {
        (f"s{i}", name)
        for i, row in enumerate(rows)
        for name, state in zip(NAMES, row, strict=True)
        if state in ("gone", "broken")
    }
    assert set(data.absent) == broken
    assert not data.skipped
    for (key, name), message in data.absent.items():
        assert key in message and f"list.csv:{int(key[1:]) + 1}" in message
        assert rows[int(key[1:])][NAMES.index(name)] in message


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_what_presence_says_is_absent_is_not_decoded(folder, on_error):
    rows = [("good", "gone", "good"), ("broken", "good", "good")]
    samples = [sample(folder, i, row) for i, row in enumerate(rows)]
    presence = np.array([[s == "good" for s in row] for row in rows])
    [(x, _)] = pipeline.build(
        samples, READERS, on_error=on_error, presence=presence
    ).as_numpy_iterator()
    np.testing.assert_array_equal(x["presence"], presence)
    by_name = {"drawing": presence[:, 1], "photo": presence[:, 0]}
    [(named, _)] = pipeline.build(
        samples, READERS, on_error=on_error, presence=by_name
    ).as_numpy_iterator()
    for column, name in enumerate(NAMES):
        np.testing.assert_array_equal(
            named["presence"][name], presence[:, column]
        )
        np.testing.assert_array_equal(named[name], x[name])


def test_it_is_logged_once_however_many_epochs(folder, caplog):
    samples = [sample(folder, 0, ("gone", "good", "good"))]
    data = pipeline.build(samples, READERS, on_error="absent")
    with caplog.at_level(logging.WARNING, "keras_mla"):
        for _ in range(3):
            list(data)
    assert len(caplog.records) == 1
    assert "Absent: list.csv:1: sample 's0'" in caplog.text


def test_a_model_trains_on_what_is_there(folder):
    rows = [("good", "gone", "good"), ("broken", "good", "unnamed")] * 4
    samples = [sample(folder, i, row) for i, row in enumerate(rows)]
    readers = {name: READERS[name] for name in ("photo", "drawing")}
    data = pipeline.build(samples, readers, on_error="absent", batch_size=4)

    def encoder():
        return keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Flatten(),
                keras.layers.Dense(4),
            ]
        )

    # Not in the order of the readers: presence has names.
    model = compiled(
        keras_mla.MLA({"drawing": encoder(), "photo": encoder()}, head=3)
    )
    history = model.fit(data, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    [x] = [x for x, _ in data.take(1).as_numpy_iterator()]
    weights = model.predict_modalities(x)
    for name, present in (("photo", [1, 0, 1, 0]), ("drawing", [0, 1, 0, 1])):
        np.testing.assert_allclose(weights[name]["weight"], present, atol=1e-6)


def test_a_data_set_takes_incomplete_samples(tmp_path):
    rows = [("1", "Sun!", True), ("2", "", True), ("3", "Rain", False)]
    rows.append(("4", "", False))
    with open(tmp_path / "mine.jsonl", "w") as file:
        for key, text, picture in rows:
            if picture:
                Image.new("RGB", (9, 9)).save(tmp_path / f"{key}.jpg")
            record = {"id": key, "label": "positive", "text": text}
            file.write(json.dumps({**record, "img": f"{key}.jpg"}) + "\n")
    arguments = dict(list_file="mine.jsonl", on_error="absent")
    with pytest.warns(UserWarning) as warned:
        samples = mvsa.files(tmp_path, "test", **arguments)
    messages = [str(w.message) for w in warned]
    assert any("1 of 4 listed samples lack a file" in m for m in messages)
    assert any("1 of 4 listed samples are not on disk" in m for m in messages)
    assert [set(s.inputs) for s in samples] == [
        {"image", "text"},
        {"image"},
        {"text"},
    ]
    with pytest.warns(UserWarning):
        data = mvsa.load(tmp_path, "test", image=SETTINGS, **arguments)
    [(x, _)] = data.as_numpy_iterator()
    assert x["presence"]["image"].tolist() == [True, True, False]
    assert x["presence"]["text"].tolist() == [True, False, True]


def test_a_wrong_line_is_no_modality(tmp_path):
    (tmp_path / "mine.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"mine\.jsonl"):
        mvsa.files(tmp_path, list_file="mine.jsonl", on_error="absent")
    with pytest.raises(ValueError, match='"raise", "skip" or "absent"'):
        mvsa.files(tmp_path, list_file="mine.jsonl", on_error="ignore")
