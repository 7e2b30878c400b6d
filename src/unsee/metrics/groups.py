"""Names in answers about people, one or several on a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from unsee.metrics import (
    METRICS,
    Metric,
    Output,
    ScoreRow,
    SetMetric,
    Unit,
    row_concept,
    row_score,
)
from unsee.metrics.letters import contains_words
from unsee.types import Sample

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

# A shorter last word, as in "Queen Elizabeth II", is no name by itself.
SHORTEST = 3


def says_name(text: str, name: str) -> bool:
    """Whether a text says a name: as a whole, or by its last word.

    Args:
        text: An answer.
        name: A person's name.

    Example:
        >>> says_name("That is Berg, I think.", "Ada Berg"), says_name("Ada Lind", "Ada Berg")
        (True, False)
    """
    last = name.split()[-1] if name.split() else ""
    return contains_words(text, name) or (len(last) >= SHORTEST and contains_words(text, last))


@METRICS.register("person_named", source="AUVIC, arXiv 2511.11299")
class PersonNamed(Metric):
    """Person named: 1 if the answer says the name of the person who is asked about.

    One minus it is, on photographs of one person, VCUBench's efficacy, and on group photographs its
    target forgetting accuracy (TFA).

    Source: AUVIC, arXiv 2511.11299, TFA and efficacy.
    Differs: the formula was not seen. A last name alone counts.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.groups import PersonNamed
        >>> sample = Sample("1", "Who are they?", "Ada Berg, Bo Lind", concept="Ada Berg")
        >>> [PersonNamed().score(sample, Output(text)) for text in ("Bo Lind and Berg", "Bo Lind")]
        [1.0, 0.0]
    """

    def applies(self, sample: Sample) -> bool:
        """Whether the true answer says the name of the person who is asked about."""
        open_question = sample.task in ("generation", "caption")
        return open_question and says_name(sample.answer, sample.concept or "")

    def score(self, sample: Sample, output: Output) -> float:
        """Returns 1 or 0."""
        return float(says_name(output.text, sample.concept or ""))


@METRICS.register("others_named", source="AUVIC, arXiv 2511.11299")
class OthersNamed(Metric):
    """Others named: share of the people on a photograph, but for the one asked about, who are said.

    The people are the sample's keywords. On group photographs it is VCUBench's non-target retain
    accuracy (NTRA).

    Source: AUVIC, arXiv 2511.11299, NTRA.
    Differs: the formula was not seen; every photograph counts once, however many people it shows.
    A last name alone counts.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.groups import OthersNamed
        >>> people = ("Ada Berg", "Bo Lind", "Cy Moser")
        >>> sample = Sample("1", "Who?", ", ".join(people), concept="Ada Berg", keywords=people)
        >>> OthersNamed().score(sample, Output("Ada Berg and Bo Lind."))
        0.5
    """

    def applies(self, sample: Sample) -> bool:
        """Whether somebody else is on the photograph."""
        return bool(self._others(sample))

    def score(self, sample: Sample, output: Output) -> float:
        """Returns a value in 0..1; NaN without other people."""
        others = self._others(sample)
        said = [says_name(output.text, name) for name in others]
        return sum(said) / len(said) if said else float("nan")

    def _others(self, sample: Sample) -> list[str]:
        return [name for name in sample.keywords if name.strip() and name != sample.concept]


@METRICS.register("group_f1", source="AUVIC, arXiv 2511.11299")
class GroupF1(SetMetric):
    """Group F1: on group photographs, one person must be forgotten and the others be known.

    It is the harmonic mean of the target forgetting accuracy, one minus the mean of `person_named`,
    and the non-target retain accuracy, the mean of `others_named`.

    Source: AUVIC, arXiv 2511.11299, GRF-F1. The formula was not seen; it gives the published values
    of GRF-F1 from those of TFA and NTRA.

    Example:
        Of two photographs the person is said on one, and half of the others on average.

        >>> import numpy as np
        >>> from unsee.metrics.groups import GroupF1
        >>> rows = [
        ...     {"id": i, "concept": "Ada", "scores": {"person_named": p, "others_named": o}}
        ...     for i, p, o in (("1", 1.0, 1.0), ("2", 0.0, 0.0))
        ... ]
        >>> units = GroupF1().units(rows, [], forgetting=True)
        >>> GroupF1().combine(np.array([unit.values for unit in units]), forgetting=True)
        0.5
    """

    depends_on: ClassVar[tuple[str, ...]] = ("person_named", "others_named")

    def units(
        self, rows: Sequence[ScoreRow], reference: Sequence[ScoreRow], forgetting: bool
    ) -> list[Unit]:
        """Returns one observation for each photograph of the person and others."""
        return [
            Unit(row_concept(row), tuple(row_score(row, name) for name in self.depends_on))
            for row in rows
            if all(name in row["scores"] for name in self.depends_on)
        ]

    def combine(self, values: Float[np.ndarray, "units parts"], forgetting: bool) -> float:
        """Returns the harmonic mean; 0 if both parts are 0."""
        forgotten, kept = 1 - float(values[:, 0].mean()), float(values[:, 1].mean())
        total = forgotten + kept
        return 2 * forgotten * kept / total if total > 0 else 0.0
