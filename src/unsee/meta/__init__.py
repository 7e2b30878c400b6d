"""Meta-evaluation: which metrics can be trusted, judged on models whose past is known.

Example:
    `failed = measure(Asked(models=8), Path("runs/meta"))`
"""

from __future__ import annotations

from unsee.meta.evaluation import Asked, measure
from unsee.meta.output import write

__all__ = ["Asked", "measure", "write"]
