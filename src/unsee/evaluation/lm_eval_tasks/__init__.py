"""Tasks that unsee adds to lm-evaluation-harness."""
