"""As if TensorFlow were not installed, where this folder is on the path."""

raise ImportError("TensorFlow is hidden.")
