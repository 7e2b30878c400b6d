"""Tiny checkpoints with random weights, from the real classes of transformers."""
