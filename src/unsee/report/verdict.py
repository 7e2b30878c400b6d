"""The verdict on a record: its findings, and a sentence made of them."""

from __future__ import annotations

from dataclasses import dataclass

from unsee.records.schema import Summary
from unsee.report import findings
from unsee.report.equivalence import equivalence, worst_relearning
from unsee.report.findings import Finding, Level
from unsee.report.recognition import recognition


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
    equivalence: Finding | None = None

    @property
    def body(self) -> str:
        """The sentence after its headline."""
        first = self.forgetting.clause
        kept, text = self.utility, self.text
        both = [part for part in (kept, text) if part.clause]
        glue = " and " if len({part.level in ("warn", "bad") for part in both}) == 1 else ", but "
        rest = glue.join(part.clause for part in both)
        # The tests rest on every attack, and take the place of what is said of relearning alone.
        attacked = self.equivalence or self.relearning
        said = "; ".join(part for part in (first, rest, attacked.clause) if part) + "."
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


# Labels of what was forgotten that bar a judgement by the tests.
BARRED = ("Broken", "Renamed", findings.NOTHING, findings.NOT_LEARNED)

# Labels where nothing says what a model that never saw the people would answer.
UNCOMPARED = ("No reference", "Measured", "Attacked", "Not measured")


def judge(summary: Summary) -> Verdict:
    """The findings of a record."""
    photographs = summary.recognition is not None
    forgetting = recognition(summary) if photographs else findings.forgetting(summary)
    utility = findings.utility(summary)
    text = findings.text(summary)
    relearning = findings.relearning(summary)
    # What photographs show is never outvoted by tests that cannot tell, for want of people.
    barred = forgetting.label in BARRED or (photographs and forgetting.level == "bad")
    tested = None if barred else equivalence(summary)
    if tested is not None:
        alone = worst_relearning(summary)
        relearning = relearning if alone is None else alone
    if not barred and tested is None:
        answered = findings.recovered_answers(summary)
        if answered is not None and relearning.level == "unknown":
            relearning = answered
    unknown = forgetting.label in (findings.NOTHING, findings.NOT_LEARNED)
    if unknown and relearning.label != "Not attacked":
        relearning = Finding("unknown", "Nothing to bring back")
    headline, level = _headline(summary, forgetting, utility, text, relearning, tested)
    unscored = findings.unscored(summary)
    return Verdict(headline, level, forgetting, utility, text, relearning, unscored, tested)


def _headline(
    summary: Summary,
    forgetting: Finding,
    utility: Finding,
    text: Finding,
    relearning: Finding,
    tested: Finding | None,
) -> tuple[str, Level]:
    """The words before the sentence, and their level."""
    cost = "at a cost" if "bad" in (utility.level, text.level) else ""
    if tested is not None:
        headline, level, flaws = tested.label, tested.level, [cost]
        flaws = flaws if level == "good" else []
    elif forgetting.label in BARRED or (
        summary.recognition is not None and forgetting.level == "bad"
    ):
        return forgetting.label, forgetting.level
    elif relearning.level != "unknown" and (
        summary.kind == "audit"
        or (forgetting.label in UNCOMPARED and relearning.label.startswith("Recoverable"))
    ):
        return relearning.label, relearning.level
    else:
        headline, level = forgetting.label, forgetting.level
        flaws = [cost, "easily relearned" if relearning.level == "bad" else ""]
        flaws = flaws if level == "good" else []
    named = " and ".join(flaw for flaw in flaws if flaw)
    if level == "good":
        level = "warn" if named or "warn" in (utility.level, text.level) else "good"
    return f"{headline}, but {named}" if named else headline, level
