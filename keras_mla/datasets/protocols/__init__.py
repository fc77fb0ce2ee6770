"""Training with modalities that are missing or do not belong together."""
