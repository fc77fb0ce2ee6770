"""Methods for learning with missing modalities."""
