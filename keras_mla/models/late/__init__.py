"""Methods where each modality has a head of its own."""
