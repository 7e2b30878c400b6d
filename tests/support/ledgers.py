"""Ledgers over a tiny checkpoint, and folders of photographs for their requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from support.cli import unsee

# A short training of every step.
SHORT = ("--set", "steps=2", "--set", "batch_size=2")
# Accepts every result, as far as scores decide: what a model of random weights says means nothing.
ANY = ("--forget-margin", "0.99", "--keep-margin", "0.99", "--set", "ask=none")


def photographs(folder: Path, number: int = 3, seed: int = 0) -> Path:
    """A folder of random pictures of one person."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for index in range(number):
        pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"IMG_{index}.png")
    return folder


def ledger(folder: Path, model: Path, *options: str | Path) -> Path:
    """A new ledger over a checkpoint."""
    unsee("request", "init", "--model", model, "--ledger", folder, *SHORT, *ANY, *options)
    return folder


def request(book: Path, word: str, *words: str | Path, code: int = 0) -> Any:
    """What a command on a ledger prints, parsed where it is JSON."""
    return unsee("request", word, *words, "--ledger", book, code=code)
