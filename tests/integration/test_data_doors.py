"""Everyday data, through the doors that its users take."""

import keras
import numpy as np
import pandas as pd
import pytest
from dataset_media import write_jpeg, write_video
from utils import (
    CLASSES,
    WIDTHS,
    compiled,
    make_data,
    make_model,
    words_encoder,
)

import keras_mla
from keras_mla.datasets import (
    Table,
    audio,
    image,
    missing,
    pipeline,
    presence_of,
)
from keras_mla.datasets.table import Image, Text

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.every_case


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def small(shape):
    return keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(4)]
    )


def test_a_dataframe_of_texts_categories_and_pictures(tmp_path):
    write_jpeg(tmp_path / "a.jpg", (200, 0, 0))
    write_jpeg(tmp_path / "b.jpg", (0, 200, 0))
    rows = pd.DataFrame(
        {
            "title": ["red pan", "green pot", None, "green pan"] * 5,
            "photo": ["a.jpg", "b.jpg", "a.jpg", None] * 5,
            "price": [3.5, 4.0, np.nan, 2.0] * 5,
            "shop": ["x", "y", "y", "x"] * 5,
            "colour": ["red", "green", "red", "green"] * 5,
        }
    )
    # The names are not in alphabetical order.
    table = Table(
        {
            "words": Text("title", length=4),
            "photo": Image("photo", image.ImageSettings(size=8)),
            "facts": ["price", "shop"],
        },
        label="colour",
        root=tmp_path,
    )
    parts = table.split(rows, {"train": 0.8, "test": 0.2})
    table.adapt(parts["train"], verbose=0)
    model = keras_mla.MLA(
        {
            "words": words_encoder(table, "words"),
            "photo": small(table.shapes["photo"]),
            "facts": small(table.shapes["facts"]),
        },
        head=table.units,
        table=table,
    )
    model.compile(keras.optimizers.Adam(0.02), loss(), metrics=["accuracy"])
    history = model.fit(
        table.batches(parts["train"], batch_size=4, training=True),
        validation_data=table.arrays(parts["test"]),
        epochs=12,
        shuffle=False,
        verbose=0,
    ).history
    assert history["val_accuracy"][-1] > 0.9
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.table.root = tmp_path
    x = loaded.table.inputs([{"photo": "b.jpg"}, {"title": "red pot"}])
    outputs = loaded.predict(x, verbose=0)
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), atol=1e-6)
    assert loaded.table.decode_predictions(outputs)[0] == "green"


class Sensors:
    """A map-style data set whose samples differ in length."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.x, self.y = make_data(24)
        self.lengths = rng.integers(2, 6, 24)

    def __len__(self):
        return 24

    def __getitem__(self, i):
        frames = np.ones((self.lengths[i], 3), "float32") * self.y[i]
        return {"video": frames, "audio": self.x["audio"][i]}, self.y[i]


def collate(samples):
    """Pads to the longest of the batch, as a user's own function does."""
    import torch

    longest = max(len(x["video"]) for x, _ in samples)
    video = np.zeros((len(samples), longest, 3), "float32")
    for row, (x, _) in zip(video, samples, strict=True):
        row[: len(x["video"])] = x["video"]
    audio = np.stack([x["audio"] for x, _ in samples])
    x = {"video": torch.as_tensor(video), "audio": torch.as_tensor(audio)}
    return x, torch.as_tensor(np.array([y for _, y in samples]))


@pytest.mark.filterwarnings("ignore:`calibrate` ended at a bound")
@pytest.mark.skipif(BACKEND == "tensorflow", reason="Keras takes one length")
def test_a_data_loader_of_varying_lengths():
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(
        Sensors(),
        batch_size=8,
        collate_fn=collate,
        # JAX warns of processes that are copies of its own.
        num_workers=2 if BACKEND == "torch" else 0,
    )
    model = keras_mla.MLA(
        {
            "video": keras.Sequential(
                [
                    keras.Input((None, 3)),
                    keras.layers.GlobalAveragePooling1D(),
                    keras.layers.Dense(4),
                ]
            ),
            "audio": small((5,)),
        },
        head=CLASSES,
    )
    model.compile("adam", loss(), metrics=["accuracy"])
    model.fit(loader, epochs=1, shuffle=False, verbose=0)
    scores = model.evaluate(loader, verbose=0, return_dict=True)
    outputs = model.predict(loader, verbose=0)
    labels = np.concatenate([y for _, y in loader])
    np.testing.assert_allclose(
        scores["accuracy"], (outputs.argmax(1) == labels).mean(), rtol=1e-6
    )
    assert outputs.shape == (24, CLASSES)
    assert set(model.predict_modalities(loader)) >= {"video", "audio"}
    model.calibrate(loader)


def test_tfrecords_with_presence(tmp_path):
    tf = pytest.importorskip("tensorflow")
    x, y = make_data(16)
    presence = keras_mla.datasets.missing.missing_presence(
        16, list(WIDTHS), 0.3
    )
    path = str(tmp_path / "data.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for i in range(16):
            floats = {
                name: tf.train.Feature(
                    float_list=tf.train.FloatList(value=x[name][i])
                )
                for name in WIDTHS
            }
            floats["y"] = tf.train.Feature(
                int64_list=tf.train.Int64List(value=[y[i]])
            )
            example = tf.train.Example(
                features=tf.train.Features(feature=floats)
            )
            writer.write(example.SerializeToString())
    spec = {
        n: tf.io.FixedLenFeature((w,), tf.float32) for n, w in WIDTHS.items()
    }
    spec["y"] = tf.io.FixedLenFeature((), tf.int64)

    def parse(record):
        example = tf.io.parse_single_example(record, spec)
        label = example.pop("y")
        return {name: example[name] for name in WIDTHS}, label

    data = tf.data.TFRecordDataset(path).map(parse)
    data = data.apply(tf.data.experimental.assert_cardinality(16))
    data = missing.add_presence(data, presence).batch(8)
    metric = keras_mla.metrics.ExpectedCalibrationError()
    model = compiled(make_model(), metrics=["accuracy", metric])
    model.fit(data, epochs=1, shuffle=False, verbose=0)
    scores = model.evaluate(data, verbose=0, return_dict=True)
    arrays = model.evaluate(
        {**x, "presence": presence},
        y,
        batch_size=8,
        verbose=0,
        return_dict=True,
    )
    for name, value in arrays.items():
        np.testing.assert_allclose(scores[name], value, rtol=1e-4, atol=1e-6)


def test_sensors_with_gaps():
    x, y = make_data(24)
    for i, name in enumerate(WIDTHS):
        x[name][i::5, 0] = np.nan
    x["presence"] = presence_of(x)
    model = compiled(make_model())
    history = model.fit(x, y, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(model.predict(x, verbose=0)).all()


def test_videos_of_one_s_own(tmp_path):
    fbank = audio.Fbank(frames=40, mels=16)
    settings = image.ImageSettings(size=8)
    samples = []
    for i in range(6):
        path = write_video(tmp_path / f"{i}.mp4", frames=4 + i)
        inputs = {"video": str(path), "audio": str(path)}
        samples.append(pipeline.Sample(str(i), i % 2, inputs, f"row {i}"))
    samples[3].inputs["audio"] = str(tmp_path / "gone.wav")
    data = pipeline.build(
        samples,
        {
            "video": pipeline.video_reader(settings, frames=2),
            "audio": pipeline.audio_reader(fbank),
        },
        batch_size=3,
        training=True,
        on_error="absent",
        engine="python",
    )
    model = keras_mla.MLA(
        {"video": small((2, 8, 8, 3)), "audio": small(fbank.shape)}, head=2
    )
    model.compile("adam", loss())
    history = model.fit(data, epochs=2, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert list(data.absent) == [("3", "audio")]
