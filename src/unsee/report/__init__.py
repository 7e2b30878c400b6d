"""Records into one self-contained HTML file, and the verdict in a sentence.

Example:
    `report.write([Path("runs/demo")], Path("report.html"))`
"""

from __future__ import annotations

from unsee.report.judgement import verdict
from unsee.report.page import write
from unsee.report.reader import Run, Summary, parse, read

__all__ = ["Run", "Summary", "parse", "read", "verdict", "write"]
