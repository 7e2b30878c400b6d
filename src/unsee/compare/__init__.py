"""Comparisons: every method tuned alike and run alike, or every part of one method turned off.

Example:
    `cells = compare(Asked("...", {"vkd": ("vkd", {})}), Path("runs/compare"))`
"""

from __future__ import annotations

from unsee.compare.comparison import Asked, Cell, compare, variants
from unsee.compare.output import write

__all__ = ["Asked", "Cell", "compare", "variants", "write"]
