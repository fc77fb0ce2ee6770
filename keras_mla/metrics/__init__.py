"""Metrics beyond Keras's own."""

from keras_mla.metrics.calibration_error import (
    ExpectedCalibrationError as ExpectedCalibrationError,
)

__all__ = ["ExpectedCalibrationError"]
