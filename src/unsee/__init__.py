"""unsee: make a multimodal LLM stop recognising what it sees, without forgetting what it has read."""

__version__ = "0.1.0"
