"""Samples: reading, selecting, augmenting and hashing them."""
