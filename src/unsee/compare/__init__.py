"""Comparisons: every method tuned alike and run alike, or every part of one method turned off.

Example:
    `cells = compare(Asked("...", {"vkd": ("vkd", {})}), Path("runs/compare"))`
"""

from __future__ import annotations

from unsee.compare.comparison import Asked, Cell, compare
from unsee.compare.output import write
from unsee.compare.parts import variants

__all__ = ["Asked", "Cell", "compare", "variants", "write"]
