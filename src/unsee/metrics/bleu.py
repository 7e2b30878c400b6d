"""BLEU: how many runs of words the answer shares with the true answer."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

from unsee.metrics import METRICS, Metric, Output, plain
from unsee.types import Sample


@cache
def _scorer() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)


@METRICS.register("bleu")
class Bleu(Metric):
    """BLEU of each sentence, up to four words long, averaged over the sentences.

    Source: Papineni et al., 2002; MLLMU-Bench, arXiv 2410.22108, which averages sentences.
    Differs: sacrebleu's tokens and exponential smoothing (its script splits at spaces, and counts
    no match as .1), and no run longer than the sentence, so that a right answer of two words
    scores 1; as a share of 0..1 and not of 100.
    """

    name: ClassVar[str] = "bleu"
    source: ClassVar[str] = "Papineni et al., 2002; MLLMU-Bench, arXiv 2410.22108"

    def applies(self, sample: Sample) -> bool:
        """Generation and caption tasks only."""
        return sample.task in ("generation", "caption")

    def score(self, sample: Sample, output: Output) -> float:
        """0 to 1; NaN without a true answer."""
        if not plain(sample.answer):
            return float("nan")
        found = _scorer().sentence_score(output.text, [sample.answer]).score / 100
        # Its geometric mean goes through logarithms, and may round to just above 1.
        return min(float(found), 1.0)
