"""unsee: make a multimodal LLM stop recognising what it sees, and keep what it has read."""

__version__ = "0.1.0"
