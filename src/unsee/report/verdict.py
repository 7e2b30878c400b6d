"""The verdict on a record: its findings, and a sentence made of them."""

from __future__ import annotations

from dataclasses import dataclass

from unsee.records.schema import Summary
from unsee.report import findings
from unsee.report.findings import Finding, Level


@dataclass(frozen=True)
class Verdict:
    """The findings of one record, and the sentence made of them."""

    headline: str
    level: Level
    forgetting: Finding
    utility: Finding
    text: Finding
    relearning: Finding
    unscored: str = ""

    @property
    def body(self) -> str:
        """The sentence after its headline."""
        first = self.forgetting.clause
        kept, text = self.utility, self.text
        both = [part for part in (kept, text) if part.clause]
        glue = " and " if len({part.level in ("warn", "bad") for part in both}) == 1 else ", but "
        rest = glue.join(part.clause for part in both)
        said = "; ".join(part for part in (first, rest, self.relearning.clause) if part) + "."
        return f"{said} {self.unscored}".rstrip()

    @property
    def sentence(self) -> str:
        """The verdict."""
        return f"{self.headline}: {self.body}"


def verdict(summary: Summary) -> str:
    """The one-sentence verdict on a record, made from its numbers alone.

    Args:
        summary: The record; a verdict in it is ignored.

    Returns:
        Such as "Forgotten: asked about held-out pictures of the 4 people the model answers 2 %
        right (was 95 %, a model that never saw them: 3 %); everything else it sees is kept and
        all it has read is bit-for-bit the same."
    """
    return judge(summary).sentence


def judge(summary: Summary) -> Verdict:
    """The findings of a record."""
    forgetting = findings.forgetting(summary)
    utility = findings.utility(summary)
    text = findings.text(summary)
    relearning = findings.relearning(summary)
    if forgetting.label == findings.NOTHING and relearning.level != "unknown":
        relearning = Finding("unknown", "Nothing to bring back")
    headline, level = forgetting.label, forgetting.level
    if summary.kind == "audit" and relearning.level != "unknown":
        headline, level = relearning.label, relearning.level
    elif level == "good":
        flaws = [
            "at a cost" if "bad" in (utility.level, text.level) else "",
            "easily relearned" if relearning.level == "bad" else "",
        ]
        named = " and ".join(flaw for flaw in flaws if flaw)
        headline = f"{headline}, but {named}" if named else headline
        level = "warn" if named or "warn" in (utility.level, text.level) else "good"
    unscored = findings.unscored(summary)
    return Verdict(headline, level, forgetting, utility, text, relearning, unscored)
