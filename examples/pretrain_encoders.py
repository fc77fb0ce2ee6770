"""Pretrain encoders without labels, then train them by MLA.

A masked autoencoder learns from all digits without their labels: pixels are
its image, the sums of rows and columns, rounded, are the words of its text. Its
encoders then learn from the labels of 200 digits.

    python examples/pretrain_encoders.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_mla

keras.utils.set_random_seed(0)
digits = load_digits()
pixels = digits.images.astype("float32") / 16
profile = np.concatenate([pixels.sum(1), pixels.sum(2)], axis=1)
x = {"image": pixels[..., None], "text": np.round(2 * profile).astype("int32")}
train, test = train_test_split(
    np.arange(len(pixels)), train_size=200, random_state=0
)

autoencoder = keras_mla.encoders.M3AEAutoencoder(
    width=32,
    depth=1,
    num_heads=4,
    decoder_width=32,
    decoder_depth=1,
    decoder_num_heads=4,
    image_shape=(8, 8, 1),
    patch_size=2,
    vocabulary_size=17,
    max_length=16,
    image_mask_ratio=0.5,
    text_mask_ratio=0.5,
    seed=0,
)
autoencoder.compile(optimizer=keras.optimizers.Adam(0.003))
history = autoencoder.fit(x, batch_size=64, epochs=5, verbose=0).history
for name in ("image_loss", "text_loss"):
    print(f"{name}: {history[name][0]:.3f} to {history[name][-1]:.3f}")

model = keras_mla.MLA(
    {name: autoencoder.make_encoder(name) for name in x}, head=10
)
model.compile(
    optimizer=keras.optimizers.Adam(0.003),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
parts = [
    ({name: v[rows] for name, v in x.items()}, digits.target[rows])
    for rows in (train, test)
]
model.fit(*parts[0], epochs=30, verbose=0)
scores = model.evaluate(*parts[1], verbose=0, return_dict=True)
print(f"accuracy with 200 labels: {100 * scores['accuracy']:.1f} %")
