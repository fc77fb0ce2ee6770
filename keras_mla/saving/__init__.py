"""What goes with a saved model: its model card.

`model.save` and `keras.saving.load_model` are Keras's, and take
`"hf://user/name"` too.
"""

from keras_mla.saving.card import model_card as model_card
from keras_mla.saving.card import save_card as save_card

__all__ = ["model_card", "save_card"]
