"""Artifacts of a run: visual patches, model cards, and checks of what changed."""
