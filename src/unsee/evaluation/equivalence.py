"""Equivalence with the reference model: two one-sided tests (TOST), paired by people.

A score that is no better than the reference's, or that falls below a threshold, does not show that
a model forgot: it may be damaged, or suppress what it knows. Shown is instead that it lies close to
the reference, on either side. The 90 % interval of the mean difference decides:

- within the margin: the two are *indistinguishable*;
- beyond the margin: they are *distinguishable*, above or below;
- neither: there are *not enough people to tell*.

The interval is Student's t over the differences of people, which also holds for few of them. Of
answers that are right or wrong it is at least as wide as the exact one of equal answers: a few
answers that are all the same are no proof that all further ones would be.

Source: Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987; for unlearning, arXiv 2607.19442.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from unsee.evaluation.evaluate import is_forgetting
from unsee.metrics import METRICS, SetMetric, row_concept, row_score

Outcome = Literal["indistinguishable", "distinguishable", "too_few"]

# Difference of two scores, 0..1, below which they count as equal.
MARGIN = 0.05
# Level of each of the two one-sided tests.
LEVEL = 0.05
# Probability with which a number of people that is called enough would decide the test.
POWER = 0.8

# Above this number of people, the noncentral t distribution is replaced by a normal one.
MAX_NONCENTRAL = 2000


@dataclass(frozen=True)
class PersonScores:
    """The mean score of every person.

    Attributes:
        by_person: Mean score, 0..1, by person; people without a scored answer are left out.
        resolution: Smallest step of a person's score: 1 over the smallest number of a person's
            questions if their scores are all 0 or 1, else 0.
    """

    by_person: Mapping[str, float] = field(default_factory=dict)
    resolution: float = 0.0


@dataclass(frozen=True)
class Equivalence:
    """The result of a test of equivalence.

    Attributes:
        outcome: "indistinguishable", "distinguishable" or "too_few".
        difference: Mean difference to the reference over people, -1..1.
        low: Lower end of the 90 % interval of `difference`; None if there is none.
        high: Upper end.
        margin: Difference below which two scores count as equal.
        p: The larger p-value of the two one-sided tests against a difference of `margin`; None if
            there is no interval.
        people: Number of people.
        needed: Number of people that would decide the test with probability `POWER`, if they
            differed as those that were asked; None if no number would.
        test: How the interval was computed.
    """

    outcome: Outcome
    difference: float
    low: float | None
    high: float | None
    margin: float
    p: float | None
    people: int
    needed: int | None
    test: str = "paired t"


def person_scores(scores: Iterable[float | None], people: Iterable[str]) -> PersonScores:
    """Returns the mean score of every person.

    Args:
        scores: One score, 0..1, per question; None and NaN are left out.
        people: Whom each question is about.

    Example:
        >>> person_scores([1, 0, 0, 0], ["Ada", "Ada", "Bo", "Bo"])
        PersonScores(by_person={'Ada': 0.5, 'Bo': 0.0}, resolution=0.5)
    """
    by_person: dict[str, list[float]] = {}
    for score, person in zip(scores, people, strict=True):
        if score is not None and not math.isnan(score):
            by_person.setdefault(person, []).append(float(score))
    if not by_person:
        return PersonScores()
    binary = all(score in (0.0, 1.0) for some in by_person.values() for score in some)
    return PersonScores(
        {person: sum(some) / len(some) for person, some in by_person.items()},
        1 / min(map(len, by_person.values())) if binary else 0.0,
    )


def measured_people(
    rows: Iterable[Mapping[str, Any]],
    metrics: Iterable[str],
    forgetting: Collection[str] | None = None,
) -> dict[str, PersonScores]:
    """Returns the scores of people by "split/modality/metric".

    Measures that are no mean over single answers, such as distances of distributions, are left out.

    Args:
        rows: Rows of one model, as `evaluate` returns them.
        metrics: Registered names.
        forgetting: The splits about what is to be forgotten, as for `evaluate`.
    """
    kinds = [METRICS.get(name) for name in metrics]
    by_answer = [kind() for kind in kinds if not issubclass(kind, SetMetric)]
    groups: dict[str, tuple[list[float], list[str]]] = {}
    for row in rows:
        for metric in by_answer:
            if metric.name in row["scores"]:
                key = f"{row['split']}/{row['modality']}/{metric.name}"
                scores, people = groups.setdefault(key, ([], []))
                score = row_score(row, metric.name)
                forgets = is_forgetting(row["split"], forgetting)
                # NaN stays unscored: `reported` may clip it to a bound.
                scores.append(score if math.isnan(score) else metric.reported(score, forgets))
                people.append(row_concept(row))
    return {key: person_scores(scores, people) for key, (scores, people) in groups.items()}


def compare_people(
    scores: PersonScores, reference: PersonScores, margin: float = MARGIN
) -> Equivalence | None:
    """Tests the scores of a model against a reference's, paired by people.

    Every person counts once, whatever the number of questions. None if both scored no person.

    Args:
        scores: The model's scores.
        reference: The reference model's.
        margin: Difference below which two scores count as equal.
    """
    pairs = [
        (score, reference.by_person[person])
        for person, score in scores.by_person.items()
        if person in reference.by_person
    ]
    if not pairs:
        return None
    resolution = max(scores.resolution, reference.resolution)
    return equivalence([a - b for a, b in pairs], margin, resolution)


def equivalence(
    differences: Sequence[float], margin: float = MARGIN, resolution: float = 0.0
) -> Equivalence:
    """Tests whether a mean difference over people lies within the margin (paired t, TOST).

    Args:
        differences: Score of the model minus that of the reference, by person.
        margin: Difference below which two scores count as equal, 0..1.
        resolution: Smallest step of a person's score, 1 over the number of questions, if answers
            are right or wrong, else 0. If no answer of Q differs, the share of all answers that do
            is below 1 - 0.05^(1/Q) at the same level (Clopper and Pearson, 1934); the interval is
            not narrower than that.

    Example:
        Four people; the mean is 0.01, its standard error 0.0091, and t(0.95, 3) = 2.353.

        >>> test = equivalence([0.03, 0.0, -0.01, 0.02])
        >>> test.outcome, round(test.low, 4), round(test.high, 4)
        ('indistinguishable', -0.0115, 0.0315)
    """
    from scipy.stats import t

    values = np.asarray(differences, dtype=float)
    count, mean = len(values), float(values.mean())
    spread = float(values.std(ddof=1)) if count > 1 else 0.0
    if count == 1:
        needed = people_needed(mean, spread, margin, resolution)
        return Equivalence("too_few", mean, None, None, margin, None, count, needed)
    error = spread / math.sqrt(count)
    exact = 1 - LEVEL ** (resolution / count)
    half = max(float(t.ppf(1 - LEVEL, count - 1)) * error, exact)
    gap = margin - abs(mean)
    p = float(t.sf(gap / error, count - 1)) if error > 0 else float(gap <= 0)
    if resolution and gap > 0:
        p = max(p, (1 - gap) ** (count / resolution))
    outcome = decide(mean - half, mean + half, margin)
    needed = count if outcome != "too_few" else people_needed(mean, spread, margin, resolution)
    return Equivalence(outcome, mean, mean - half, mean + half, margin, p, count, needed)


def compare_intervals(
    interval: tuple[float, float | None, float | None],
    reference: tuple[float, float | None, float | None],
    people: int,
    margin: float = MARGIN,
    min_people: int = 5,
) -> Equivalence:
    """Tests two numbers of which only the 95 % intervals are known, such as areas under curves.

    The difference is taken to be normal, with independent errors of a quarter of each interval's
    width (1.96 errors to either side).

    Args:
        interval: Value, lower and upper end for the model; ends are None if there is no interval.
        reference: Value, lower and upper end for the reference.
        people: Number of people, or of samples if that is all that is known.
        margin: Difference below which two numbers count as equal.
        min_people: Number of people from which there is an interval.
    """
    from scipy.stats import norm

    difference = interval[0] - reference[0]
    errors = [
        (high - low) / (2 * float(norm.ppf(0.975)))
        for _, low, high in (interval, reference)
        if low is not None and high is not None
    ]
    if len(errors) < 2:
        return Equivalence(
            "too_few", difference, None, None, margin, None, people, min_people, "none"
        )
    error = math.hypot(*errors)
    half = float(norm.ppf(1 - LEVEL)) * error
    p = float(norm.sf((margin - abs(difference)) / error)) if error > 0 else 0.0
    outcome = decide(difference - half, difference + half, margin)
    needed: int | None = people
    if outcome == "too_few":
        needed = people_needed(difference, error * math.sqrt(people), margin)
    return Equivalence(
        outcome,
        difference,
        difference - half,
        difference + half,
        margin,
        p,
        people,
        needed,
        "unpaired normal",
    )


def decide(low: float, high: float, margin: float) -> Outcome:
    """Returns what an interval of a difference says.

    Args:
        low: Lower end.
        high: Upper end.
        margin: Difference below which two scores count as equal.

    Example:
        >>> decide(-0.02, 0.04, 0.05), decide(0.06, 0.2, 0.05), decide(-0.01, 0.2, 0.05)
        ('indistinguishable', 'distinguishable', 'too_few')
    """
    # A difference such as 0.3 - 0.25 is the margin itself, but for a rounding error.
    if -margin + 1e-9 < low and high < margin - 1e-9:
        return "indistinguishable"
    beyond = low > margin + 1e-9 or high < -margin - 1e-9
    return "distinguishable" if beyond else "too_few"


def people_needed(
    difference: float, spread: float, margin: float, resolution: float = 0.0
) -> int | None:
    """Returns the smallest number of people that decides the test with probability `POWER`.

    Of a difference within the margin, that is the number that shows equivalence; of a larger one,
    the number that shows a difference beyond the margin. Power is that of the noncentral t
    distribution, and of the normal one above `MAX_NONCENTRAL` people.

    Args:
        difference: The mean difference.
        spread: Standard deviation of the differences over people.
        margin: Difference below which two scores count as equal.
        resolution: As for `equivalence`.

    Returns:
        None if the difference is exactly the margin, which no number of people decides.

    Example:
        >>> people_needed(0.0, 0.1, 0.05), people_needed(0.1, 0.1, 0.05)
        (36, 27)
    """
    gap = abs(margin - abs(difference))
    if gap < 1e-9:
        return None
    exact = math.ceil(resolution * math.log(LEVEL) / math.log1p(-gap)) if gap < 1 else 2
    return max(2, exact, _people_of_t(difference, spread, margin))


def _people_of_t(difference: float, spread: float, margin: float) -> int:
    """The smallest number of people with which Student's t decides with probability `POWER`."""
    from scipy.stats import norm

    gap = abs(margin - abs(difference))
    if spread == 0:
        return 2
    effects = [gap / spread]
    if abs(difference) < margin:
        effects.append((margin + abs(difference)) / spread)
    normal = float(((norm.ppf(1 - LEVEL) + norm.ppf(POWER)) / effects[0]) ** 2)
    if normal > MAX_NONCENTRAL:
        return math.ceil(normal)
    low, high = 1, 2
    while _power(effects, high) < POWER:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(effects, middle) >= POWER else (middle, high)
    return high


def _power(effects: Sequence[float], people: int) -> float:
    """The probability that one-sided tests with these effect sizes all reject, or a bound on it."""
    from scipy.stats import nct, t

    critical = t.ppf(1 - LEVEL, people - 1)
    powers = [float(nct.sf(critical, people - 1, e * math.sqrt(people))) for e in effects]
    # Far in the tail the noncentral distribution is not computed, and the test always rejects.
    return sum(1.0 if math.isnan(power) else power for power in powers) - (len(powers) - 1)


def unsigned_gaps(
    steps: Sequence[int], gaps: Sequence[float]
) -> tuple[float, tuple[int, float]] | None:
    """Returns the mean unsigned gap between two recovery curves, and where it is largest.

    In a signed mean, weakness at the first steps and strength at the last ones cancel.

    Args:
        steps: Steps of the attack, ascending.
        gaps: Score of the model minus the reference's at these steps, -1..1.

    Returns:
        The mean of the absolute gap over the steps, linear between them, and the step and the
        signed gap where that is largest; None without steps.

    Example:
        >>> unsigned_gaps([0, 10, 20], [-0.2, 0.2, 0.2])
        (0.15, (0, -0.2))
    """
    if not steps:
        return None
    worst = max(zip(steps, gaps, strict=True), key=lambda point: abs(point[1]))
    if len(steps) == 1:
        return abs(gaps[0]), worst
    area = 0.0
    for i in range(len(steps) - 1):
        a, b, width = gaps[i], gaps[i + 1], steps[i + 1] - steps[i]
        # Two triangles where the curves cross, else a trapezoid.
        mean = (abs(a) + abs(b)) / 2 if a * b >= 0 else (a * a + b * b) / (2 * abs(a - b))
        area += width * mean
    return area / (steps[-1] - steps[0]), worst
