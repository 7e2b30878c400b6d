"""Runs: train, evaluate, attack, record, report."""
