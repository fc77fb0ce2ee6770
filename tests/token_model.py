"""A trained model of pictures and tokens, with an encoder of no known input."""

import keras
import numpy as np
from utils import compiled, encoder, make_data

import keras_mla
from keras_mla.layers import AverageFusion, GradientProjector


@keras.saving.register_keras_serializable(package="tests")
class BagOfTokens(keras.layers.Layer):
    """Mean embedding: an encoder that declares no input."""

    def __init__(self, vocabulary=20, features=6, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary, self.features = vocabulary, features
        self.embedding = keras.layers.Embedding(vocabulary, features)

    def build(self, input_shape):
        self.embedding.build(input_shape["token_ids"])

    def call(self, inputs):
        mask = keras.ops.cast(inputs["padding_mask"], "float32")[..., None]
        embedded = self.embedding(inputs["token_ids"]) * mask
        return keras.ops.sum(embedded, axis=1) / keras.ops.sum(mask, axis=1)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "features": self.features,
        }


def token_data(samples=24):
    rng = np.random.default_rng(0)
    x, y = make_data(samples, ("image",))
    x["text"] = {
        "token_ids": rng.integers(0, 20, (samples, 7)).astype("int32"),
        "padding_mask": np.arange(7) < rng.integers(1, 8, (samples, 1)),
    }
    return x, y


def trained_token_model():
    model = keras_mla.MLA(
        {"image": encoder(8, 5), "text": BagOfTokens()},
        head=keras.Sequential(
            [
                keras.layers.Dense(5, "relu"),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(4),
            ]
        ),
        feature_dim=5,
        projector=GradientProjector(alpha=3.0, order="previous"),
        fusion=AverageFusion(),
    )
    compiled(model, keras.optimizers.AdamW(0.01, weight_decay=0.1))
    x, y = token_data()
    model.fit(x, y, verbose=0, epochs=2)
    return model, x, y
