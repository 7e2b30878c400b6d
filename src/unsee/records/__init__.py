"""Records of runs: one schema for those who write and those who read."""
