"""unsee: make a multimodal LLM stop recognising what it sees, and keep what it has read.

The names below are the public API. They are imported when first used, so that `import unsee` is
quick and loads no torch.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# The module of each public name.
_MODULES = {
    "ATTACKS": "unsee.attacks",
    "BENCHMARKS": "unsee.benchmarks",
    "Batch": "unsee.types",
    "Callback": "unsee.training.watching",
    "Comparison": "unsee.api",
    "Data": "unsee.types",
    "Estimate": "unsee.types",
    "FAMILIES": "unsee.families",
    "Ledger": "unsee.api",
    "METHODS": "unsee.methods",
    "METRICS": "unsee.metrics",
    "MetaEvaluation": "unsee.api",
    "Method": "unsee.methods",
    "Picture": "unsee.types",
    "Run": "unsee.api",
    "Sample": "unsee.types",
    "Trainer": "unsee.training.trainer",
    "TrainingResult": "unsee.training.trainer",
    "TrainingSettings": "unsee.training.settings",
    "UnseeError": "unsee.errors",
    "VLM": "unsee.models.vlm",
    "ablate": "unsee.api",
    "apply": "unsee.api",
    "apply_patch": "unsee.artifacts.patch",
    "audit": "unsee.api",
    "compare": "unsee.api",
    "compare_records": "unsee.api",
    "create_ledger": "unsee.api",
    "demo": "unsee.api",
    "doctor": "unsee.api",
    "evaluate": "unsee.api",
    "export": "unsee.api",
    "finetune": "unsee.api",
    "history": "unsee.api",
    "list_runs": "unsee.report.past_runs",
    "load_patch": "unsee.api",
    "meta_evaluate": "unsee.api",
    "open_ledger": "unsee.api",
    "purge": "unsee.api",
    "push": "unsee.api",
    "read_run": "unsee.api",
    "run": "unsee.api",
    "serve": "unsee.api",
    "undo": "unsee.api",
    "unlearn": "unsee.api",
    "verify": "unsee.api",
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
    "Callback",
    "Comparison",
    "Data",
    "Estimate",
    "Ledger",
    "MetaEvaluation",
    "Method",
    "Picture",
    "Run",
    "Sample",
    "Trainer",
    "TrainingResult",
    "TrainingSettings",
    "UnseeError",
    "__version__",
    "ablate",
    "apply",
    "apply_patch",
    "audit",
    "compare",
    "compare_records",
    "create_ledger",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "finetune",
    "history",
    "list_runs",
    "load_patch",
    "meta_evaluate",
    "open_ledger",
    "purge",
    "push",
    "read_run",
    "run",
    "serve",
    "undo",
    "unlearn",
    "verify",
    "write_patch",
]

if TYPE_CHECKING:
    from unsee.api import (
        Comparison,
        Ledger,
        MetaEvaluation,
        Run,
        ablate,
        apply,
        audit,
        compare,
        compare_records,
        create_ledger,
        demo,
        doctor,
        evaluate,
        export,
        finetune,
        history,
        load_patch,
        meta_evaluate,
        open_ledger,
        purge,
        push,
        read_run,
        run,
        serve,
        undo,
        unlearn,
        verify,
    )
    from unsee.artifacts.patch import apply_patch, write_patch
    from unsee.attacks import ATTACKS
    from unsee.benchmarks import BENCHMARKS
    from unsee.errors import UnseeError
    from unsee.families import FAMILIES
    from unsee.methods import METHODS, Method
    from unsee.metrics import METRICS
    from unsee.models.vlm import VLM
    from unsee.report.past_runs import list_runs
    from unsee.training.settings import TrainingSettings
    from unsee.training.trainer import Trainer, TrainingResult
    from unsee.training.watching import Callback
    from unsee.types import Batch, Data, Estimate, Picture, Sample


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used."""
    if name == "Settings":
        warnings.warn("unsee.Settings is now unsee.TrainingSettings", FutureWarning, stacklevel=2)
        name = "TrainingSettings"
    if name not in _MODULES:
        raise AttributeError(f"module 'unsee' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)
