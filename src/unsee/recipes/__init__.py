"""Recipes: parsed, validated, and planned into jobs."""
