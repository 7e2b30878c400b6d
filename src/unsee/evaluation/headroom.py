"""Did the target model learn? How far it is above a model that never saw the people.

Scores of forgetting mean nothing about a model that knew too little to forget: it "forgets" with
any method. ReMem (arXiv 2605.03759) finds that of most published models of FIUBench and CLEAR.

Differs: ReMem's own threshold was not seen; `MIN_HEADROOM` is ours: four times the margin of the
tests of equivalence, so that half of what was known can be told from all and from nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from unsee.records.schema import LearnedCheck
from unsee.types import Sample

# Score above the floor, 0..1, from which a target model knows enough.
MIN_HEADROOM = 0.2


def check_headroom(
    measure: str,
    target: float,
    floor: float,
    floor_of: str,
    required: float = MIN_HEADROOM,
) -> LearnedCheck:
    """Returns whether a target model knew enough of what is to be forgotten.

    Args:
        measure: Key of the measure.
        target: The target model's score, 0..1.
        floor: Score of a model that never saw the people, 0..1.
        floor_of: Where `floor` comes from: "reference", "retain_only" or "chance".
        required: Smallest sufficient difference.

    Example:
        >>> check = check_headroom("forget/vqa/accuracy", 0.34, 0.25, "chance")
        >>> round(check.headroom, 2), check.enough
        (0.09, False)
    """
    headroom = target - floor
    return LearnedCheck(
        measure=measure,
        target=target,
        floor=floor,
        floor_of=floor_of,
        headroom=headroom,
        required=required,
        # 0.3 - 0.1 is below 0.2 by a rounding error.
        enough=headroom >= required - 1e-9,
    )


def chance(samples: Iterable[Sample]) -> float:
    """Returns the share of questions that guessing answers right: 1 over the number of options.

    Questions that are not answered by choosing an option count 0.

    Args:
        samples: The questions.

    Example:
        >>> options = Sample("1", "", "A", choices=("A", "B", "C", "D"), task="classification")
        >>> chance([options, Sample("2", "", "Lund")])
        0.125
    """
    shares = [
        1 / len(sample.choices) if sample.choices and sample.task == "classification" else 0.0
        for sample in samples
    ]
    return sum(shares) / len(shares) if shares else 0.0
