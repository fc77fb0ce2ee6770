"""Methods with a head for each modality."""
