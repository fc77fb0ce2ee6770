"""As if TensorFlow were not installed, where this folder is on the path."""

raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
