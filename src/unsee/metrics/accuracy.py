"""Accuracy: the right letter, or exactly the right answer."""

from __future__ import annotations

from unsee.metrics import METRICS, Metric, Output, normalize_answer
from unsee.types import Sample


@METRICS.register("accuracy", source="MLLMU-Bench, arXiv 2410.22108")
class Accuracy(Metric):
    """Accuracy: the right letter of a classification, otherwise an exact match of the answer.

    The letter of a classification is the first character of the answer, in upper case; anything
    that is not an option is wrong. A ranking is right if the true answer has the highest likelihood
    per token among the choices. Other answers are compared ignoring case, surrounding spaces and
    final punctuation.

    Source: MLLMU-Bench, arXiv 2410.22108, its classification task; exact match elsewhere.

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.accuracy import Accuracy
        >>> sample = Sample("1", "Who is this?", "Ada Berg.")
        >>> Accuracy().score(sample, Output("ada berg"))
        1.0
        >>> Accuracy().score(sample, Output("Bo Lind"))
        0.0
    """

    def needs_alternatives(self, sample: Sample) -> bool:
        """Whether the sample is a ranking, which compares the likelihoods of the choices."""
        return sample.task == "ranking"

    def score(self, sample: Sample, output: Output) -> float:
        """Returns 1 if the answer is right, 0 if it is wrong, NaN without a true answer."""
        if not normalize_answer(sample.answer):
            return float("nan")
        if sample.task == "ranking":
            if not output.choices:
                return float("nan")
            best = min(range(len(output.choices)), key=output.choices.__getitem__)
            return float(normalize_answer(sample.choices[best]) == normalize_answer(sample.answer))
        if sample.task == "classification":
            return float(output.text.strip()[:1].upper() == sample.answer.strip()[:1].upper())
        return float(normalize_answer(output.text) == normalize_answer(sample.answer))
