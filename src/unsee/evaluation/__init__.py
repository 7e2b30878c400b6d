"""What a model answers, and how it is scored."""
