"""BLEU: n-gram overlap of the answer and the true answer."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

from unsee.metrics import METRICS, Metric, Output, normalize_answer
from unsee.types import Sample


@cache
def _scorer() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)


@METRICS.register("bleu", source="Papineni et al., 2002; MLLMU-Bench, arXiv 2410.22108")
class Bleu(Metric):
    """Sentence-level BLEU-4, averaged over the answers.

    Source: Papineni et al., 2002; MLLMU-Bench, arXiv 2410.22108, which averages sentences.
    Differs: uses sacrebleu's tokenizer and exponential smoothing (the benchmark's script splits at
    spaces and counts no match as 0.1), and no n-grams longer than the sentence, so that a right
    answer of two words scores 1. Scaled to 0..1 instead of 0..100.

    Needs sacrebleu (`unsee[bleu]`).

    Example:
        >>> from unsee import Sample
        >>> from unsee.metrics import Output
        >>> from unsee.metrics.bleu import Bleu
        >>> sample = Sample("1", "Who is this?", "Ada Berg")
        >>> Bleu().score(sample, Output("Ada Berg"))
        1.0
        >>> round(Bleu().score(sample, Output("Ada Lind")), 2)
        0.5
    """

    requires: ClassVar[tuple[str, str] | None] = ("sacrebleu", "bleu")

    def applies(self, sample: Sample) -> bool:
        """Whether the task is generation or caption."""
        return sample.task in ("generation", "caption")

    def score(self, sample: Sample, output: Output) -> float:
        """Returns a value in 0..1; NaN without a true answer."""
        if not normalize_answer(sample.answer):
            return float("nan")
        score = _scorer().sentence_score(output.text, [sample.answer]).score / 100
        # The geometric mean is computed from logarithms, and may round to just above 1.
        return min(float(score), 1.0)
