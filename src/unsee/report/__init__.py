"""Records into one self-contained HTML file, and the verdict in a sentence.

Example:
    `report.write([Path("runs/demo")], Path("report.html"))`
"""

from __future__ import annotations

from unsee.records.reader import Run, parse_summary, read_run
from unsee.records.schema import Summary
from unsee.report.page import write
from unsee.report.verdict import verdict

__all__ = ["Run", "Summary", "parse_summary", "read_run", "verdict", "write"]
