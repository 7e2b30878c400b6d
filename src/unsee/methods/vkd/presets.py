"""Settings of VKD that go together, by the name that a recipe switches them on with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The paper's objective at the output and the teacher's features, without inner attacks.
PAPER: Mapping[str, Any] = {
    "supervision": "full",
    "answers_every": 1,
    "steps": 200,
    "lr": 5e-4,
    "w_keep": 20.0,
    "w_erase": 2.0,
    "scale_erase": False,
    "alike_steps": 1.0,
    "erase_strength": 1.5,
    "population": "kept",
    "relearn_steps": 0,
}

# Attacked in every step, by a longer and slower attacker than by default.
ROBUST: Mapping[str, Any] = {
    **PAPER,
    "supervision": "features",
    "steps": 400,
    "w_keep": 80.0,
    "relearn_steps": 20,
    "relearn_lr": 1e-3,
    "relearn_every": 1,
}

# Embeddings are compared with each other: beyond the mean, a person is found there again.
ENCODERS: Mapping[str, Any] = {
    **PAPER,
    "supervision": "features",
    "w_keep": 80.0,
    "w_erase": 10.0,
    "erase_strength": 1.0,
}

PRESETS = {"paper": PAPER, "robust": ROBUST}
