"""Builds the checkpoints of the pocket benchmark; using them needs nothing from here."""
