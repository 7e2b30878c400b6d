"""A multimodal LLM in memory and on disk."""
