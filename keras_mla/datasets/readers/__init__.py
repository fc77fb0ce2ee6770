"""Decoders of sounds, pictures, videos and texts, and their processing."""
