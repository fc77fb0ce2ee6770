"""Calibrate a model on validation data, and export it for a server.

Networks are more certain than right, which misleads a fusion by certainty.
`calibrate` fits a temperature for each modality, or a weight for each, jointly.
The exported file takes `presence`, so the server may leave a modality out.

    KERAS_BACKEND=torch python examples/calibrate_and_export.py
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tempfile

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_mla
from keras_mla.metrics import ExpectedCalibrationError

keras.utils.set_random_seed(0)
digits = load_digits()
pixels = digits.images.astype("float32") / 16
profile = np.concatenate([pixels.sum(1), pixels.sum(2)], axis=1) / 8
x = {"image": pixels.reshape(-1, 64), "profile": profile}
rows, test = train_test_split(np.arange(len(pixels)), random_state=0)
train, validation = train_test_split(rows, random_state=0)


def part(rows):
    """Returns inputs and labels of some digits."""
    return {name: v[rows] for name, v in x.items()}, digits.target[rows]


model = keras_mla.MLA(
    {
        name: keras.Sequential(
            [keras.Input((size,)), keras.layers.Dense(64, "relu")]
        )
        for name, size in (("image", 64), ("profile", 16))
    },
    head=10,
)
model.compile(
    optimizer=keras.optimizers.Adam(0.003),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy", ExpectedCalibrationError(name="ece")],
)
model.fit(*part(train), batch_size=64, epochs=30, verbose=0)
for title in ("as trained", "calibrated", "jointly"):
    if title == "calibrated":
        print("temperatures:", model.calibrate(part(validation))["temperature"])
    if title == "jointly":
        fitted = model.calibrate(part(validation), method="joint")
        print("kept:", fitted["fusion"])
    scores = model.evaluate(*part(test), verbose=0, return_dict=True)
    print(
        f"{title:11s} accuracy {100 * scores['accuracy']:.1f} %, "
        f"calibration error {scores['ece']:.3f}"
    )

with tempfile.TemporaryDirectory() as folder:
    if keras.backend.backend() == "jax":
        model.export(f"{folder}/saved_model", presence=True, verbose=False)
        print("Exported a SavedModel.")
    else:
        import onnxruntime

        path = f"{folder}/model.onnx"
        model.export(path, format="onnx", presence=True, verbose=False)
        session = onnxruntime.InferenceSession(path)
        request = part(test[:3])[0]
        request["presence"] = np.array(
            [[True, True], [True, False]] + [[False, True]]
        )
        (logits,) = session.run(None, request)
        expected = model.predict(request, verbose=0)
        print("ONNX differs by", f"{np.abs(logits - expected).max():.0e}")
