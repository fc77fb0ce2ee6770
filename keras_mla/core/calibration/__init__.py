"""Calibration: what `ServedModel.calibrate` fits to validation data."""

from keras_mla.core.calibration.calibrate import calibrate as calibrate
