"""What tests share: tiny checkpoints, commands run in this process, processes, records."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
