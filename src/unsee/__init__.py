"""unsee: make a multimodal LLM stop recognising what it sees, and keep what it has read.

The names below are the public API. They are imported when first used, so that `import unsee` is
quick and loads no torch.
"""

from __future__ import annotations

import importlib
import warnings

__version__ = "0.1.0"

_HOMES = {
    "ATTACKS": "unsee.attacks",
    "BENCHMARKS": "unsee.benchmarks",
    "Batch": "unsee.types",
    "Data": "unsee.types",
    "Estimate": "unsee.types",
    "FAMILIES": "unsee.families",
    "METHODS": "unsee.methods",
    "METRICS": "unsee.metrics",
    "Method": "unsee.methods",
    "Picture": "unsee.types",
    "Sample": "unsee.types",
    "Trainer": "unsee.training.trainer",
    "TrainingResult": "unsee.training.trainer",
    "TrainingSettings": "unsee.training.settings",
    "UnseeError": "unsee.errors",
    "VLM": "unsee.models.vlm",
    "apply_patch": "unsee.artifacts.patch",
    "write_patch": "unsee.artifacts.patch",
}

__all__ = [
    "ATTACKS",
    "BENCHMARKS",
    "FAMILIES",
    "METHODS",
    "METRICS",
    "VLM",
    "Batch",
    "Data",
    "Estimate",
    "Method",
    "Picture",
    "Sample",
    "Trainer",
    "TrainingResult",
    "TrainingSettings",
    "UnseeError",
    "__version__",
    "apply_patch",
    "write_patch",
]


def __getattr__(name: str) -> object:
    """Imports a public name when it is first asked for."""
    if name == "Settings":
        warnings.warn("unsee.Settings is now unsee.TrainingSettings", FutureWarning, stacklevel=2)
        name = "TrainingSettings"
    if name not in _HOMES:
        raise AttributeError(f"module 'unsee' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
