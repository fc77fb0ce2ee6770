"""The paper's data sets, from their files to batches, and their parts."""

from keras_mla.datasets import audio as audio
from keras_mla.datasets import crema_d as crema_d
from keras_mla.datasets import food101 as food101
from keras_mla.datasets import iemocap as iemocap
from keras_mla.datasets import image as image
from keras_mla.datasets import kinetics_sounds as kinetics_sounds
from keras_mla.datasets import missing as missing
from keras_mla.datasets import mvsa as mvsa
from keras_mla.datasets import pipeline as pipeline
from keras_mla.datasets import text as text
from keras_mla.datasets import unpaired as unpaired
from keras_mla.datasets import video as video
