"""Pretrain an encoder without labels, run it once, train MLA on its features.

A masked autoencoder learns from all digits without their labels. Its encoder
is then frozen: `cache_features` keeps what it makes of each image on disk, and
MLA trains on the features with the labels of a few digits.

    python examples/pretrain_and_cache.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tempfile

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_mla

keras.utils.set_random_seed(0)
digits = load_digits()
pixels = digits.images.astype("float32") / 16
profile = np.concatenate([pixels.sum(1), pixels.sum(2)], axis=1) / 8
train, test = train_test_split(
    np.arange(len(pixels)), train_size=300, random_state=0
)

autoencoder = keras_mla.encoders.M3AEAutoencoder(
    width=32,
    depth=2,
    num_heads=4,
    decoder_width=32,
    decoder_depth=1,
    decoder_num_heads=4,
    image_shape=(8, 8, 1),
    patch_size=2,
    image_mask_ratio=0.5,
    seed=0,
    # There are no texts here.
    vocabulary_size=1,
    max_length=1,
)
autoencoder.compile(optimizer=keras.optimizers.Adam(0.003))
images = pixels[..., None]
history = autoencoder.fit(
    {"image": images}, batch_size=64, epochs=10, verbose=0
)
losses = history.history["image_loss"]
print(f"reconstruction: {losses[0]:.3f} to {losses[-1]:.3f}")

encoder = autoencoder.make_encoder("image")
with tempfile.TemporaryDirectory() as folder:
    features = keras_mla.encoders.cache_features(
        encoder, images, f"{folder}/image", batch_size=256, verbose=0
    )

model = keras_mla.MLA(
    {
        "image": keras.Sequential(
            [keras.Input((32,)), keras.layers.Dense(64, "relu")]
        ),
        "profile": keras.Sequential(
            [keras.Input((16,)), keras.layers.Dense(64, "relu")]
        ),
    },
    head=10,
)
model.compile(
    optimizer=keras.optimizers.Adam(0.003),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
x = {"image": features, "profile": profile}
train_x, test_x = ({n: v[rows] for n, v in x.items()} for rows in (train, test))
model.fit(train_x, digits.target[train], epochs=30, verbose=0)
scores = model.evaluate(
    test_x, digits.target[test], verbose=0, return_dict=True
)
print(f"accuracy with 300 labels: {100 * scores['accuracy']:.1f} %")
