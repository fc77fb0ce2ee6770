"""ResNet-18, by Keras Hub: spectrograms and video frames."""

from keras_mla.encoders.resnet.convert import convert_resnet18
from keras_mla.encoders.resnet.encoder import (
    ResNet18,
    audio_resnet18,
    video_resnet18,
)

__all__ = [
    "ResNet18",
    "audio_resnet18",
    "convert_resnet18",
    "video_resnet18",
]
