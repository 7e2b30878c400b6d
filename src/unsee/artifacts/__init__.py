"""What a run leaves behind: patches, model cards, and proofs of what changed."""
