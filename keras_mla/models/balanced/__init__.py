"""Methods that control how fast each modality learns."""
