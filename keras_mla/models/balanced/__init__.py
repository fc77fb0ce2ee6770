"""Methods that say how fast each modality learns."""
