"""Builds pocket's checkpoints; nothing here is needed to use them."""
