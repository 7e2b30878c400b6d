"""Generating and scoring a model's answers."""
