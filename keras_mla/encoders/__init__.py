"""Encoders of single modalities, with their published checkpoints.

Encoders of others work as they come, where they return `(batch, features)`.
These were tried, tiny and random, on TensorFlow (T), JAX (J) and PyTorch (P).
"use" means made, trained, saved, loaded, and served with absent modalities.

    encoder                                  use   SavedModel   ONNX
    keras-hub BertBackbone                   TJP   T            TP
    keras-hub AlbertBackbone                 TJP   T            TP
    keras-hub DistilBertBackbone             TJP   T            TP
    keras-hub RobertaBackbone                TJP   T            TP
    keras-hub DebertaV3Backbone, whole       TJP   T            T
    keras-hub ViTBackbone, whole             TJP   TJ           P
    keras-hub CLIPVisionEncoder              TJP   TJ           TP
    keras-hub WhisperBackbone, its encoder   TJP   T            TP
    keras.applications MobileNetV3Small      TJP   TJ           TP
    keras.applications MobileNet, any size   TJP   TJ           TP
    keras.applications EfficientNetB0        TJP   TJ           P
    inputs in a dict                         TJP   TJ           TP
    inputs in a list                         TJP   TJ           TP
    inputs in a tuple                        TJP   TJ           TP
    tokens of any length                     TJP   TJ           TP
    pictures of any size                     TJP   TJ           TP
    LSTM over any length, masked             TJP   TJ           T
    LSTM, a fixed batch size                 TJP   TJ           TP

"whole" is the backbone as a layer, `pooling(backbone(inputs))`. Of other
backbones `backbone.input` and `backbone.output` do as well. JAX exports no
positions of an unknown length: give the encoder a `keras.Input` of a known one,
or load the model on TensorFlow and export it there. An export that cannot be
right is an error. ONNX from JAX needs jax2onnx, and was not tried with these.
"""

from keras_mla.encoders.cache import cache_features
from keras_mla.encoders.cavmae import (
    CAVMAE,
    CAVMAEAutoencoder,
    convert_cavmae,
)
from keras_mla.encoders.checkpoints import (
    read_checkpoint,
)
from keras_mla.encoders.clip import (
    CLIPImageTower,
    CLIPTextTower,
    CLIPTokens,
    clip_image_converter,
    clip_image_encoder,
    clip_text_encoder,
    clip_tokenizer,
)
from keras_mla.encoders.hub_encoders import (
    hub_image_encoder,
    hub_text_encoder,
)
from keras_mla.encoders.m3ae import (
    M3AE,
    M3AEAutoencoder,
    convert_m3ae,
)
from keras_mla.encoders.nn import (
    PatchEmbedding,
    TextEmbedding,
    Transformer,
    TransformerBlock,
    patchify,
    resize_positions,
    unpatchify,
)
from keras_mla.encoders.resnet import (
    ResNet18,
    audio_resnet18,
    convert_resnet18,
    video_resnet18,
)

__all__ = [
    "CAVMAE",
    "CAVMAEAutoencoder",
    "CLIPImageTower",
    "CLIPTextTower",
    "CLIPTokens",
    "M3AE",
    "M3AEAutoencoder",
    "PatchEmbedding",
    "ResNet18",
    "TextEmbedding",
    "Transformer",
    "TransformerBlock",
    "audio_resnet18",
    "cache_features",
    "clip_image_converter",
    "clip_image_encoder",
    "clip_text_encoder",
    "clip_tokenizer",
    "convert_cavmae",
    "convert_m3ae",
    "convert_resnet18",
    "hub_image_encoder",
    "hub_text_encoder",
    "patchify",
    "read_checkpoint",
    "resize_positions",
    "unpatchify",
    "video_resnet18",
]
