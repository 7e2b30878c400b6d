"""Published aggregates of measures: Open-MMUnlearning's and FIUBench's. All of 0..1.

They register nothing: what they take comes from several splits, attacks and benchmarks.
"""

from __future__ import annotations

from collections.abc import Sequence

from unsee.errors import ConfigError


def _mean(values: Sequence[float], name: str) -> float:
    wrong = [value for value in values if not 0 <= value <= 1]
    if wrong or not values:
        raise ConfigError(f"{name} takes shares of 0..1, at least one; given {list(values)}.")
    return sum(values) / len(values)


def task_forgetting(cloze: float, classification: float, rouge_l: float) -> float:
    """F_task: mean of one minus each score on the forget split.

    Source: Open-MMUnlearning, arXiv 2610.10358, appendix A.3.3, equation 51.
    """
    return _mean([1 - cloze, 1 - classification, 1 - rouge_l], "F_task")


def forgetting_quality(
    multimodal: float, truth_ratio: float | None, probability: float, ks: float, js: float
) -> float:
    """FQ: mean of F_multi, TR, 1 - p, 1 - KS and 1 - JS.

    Args:
        multimodal: F_task of the pictured questions: the mean of the forget and the test split's.
        truth_ratio: On the forget split; None leaves the term out where no question has false
            answers to compare with, and the score then is not the published one.
        probability: Of the true answers on the forget split.
        ks: KS statistic to the reference.
        js: Jensen-Shannon distance to the reference.

    Source: Open-MMUnlearning, arXiv 2610.10358, appendix A.3.3, equation 53.
    """
    ratio = [] if truth_ratio is None else [truth_ratio]
    return _mean([multimodal, *ratio, 1 - probability, 1 - ks, 1 - js], "FQ")


def utility(retain: float, general: float) -> float:
    """MU: mean of retain and general utility.

    Source: Open-MMUnlearning, arXiv 2610.10358, appendix A.3.3, equation 56.
    """
    return _mean([retain, general], "MU")


def robustness(model_side: float, input_side: float, output_side: float) -> float:
    """Robustness: mean over the attacks' sides.

    Source: Open-MMUnlearning, arXiv 2610.10358, appendix A.3.3, equation 63.
    """
    return _mean([model_side, input_side, output_side], "Robustness")


def overall(quality: float, utility: float, robustness: float) -> float:
    """Overall: mean of FQ, MU and Robustness.

    Source: Open-MMUnlearning, arXiv 2610.10358, appendix A.3.3, equation 63.
    """
    return _mean([quality, utility, robustness], "Overall")


def membership_score(auc: float) -> float:
    """A membership attack's score: clip(1 - 2 |AUC - .5|, 0, 1); 1 is a blind attacker.

    Source: Open-MMUnlearning, arXiv 2610.10358, appendix A.3.3, equation 60.
    """
    return _mean([min(1.0, max(0.0, 1 - 2 * abs(auc - 0.5)))], "membership score")


def fiubench_forget_quality(ks: float, exact_match: float, membership: float, ape: float) -> float:
    """FIUBench's forget quality: .5 KS + .15 (1 - EM) + .2 (1 - MIA) + .15 (1 - APE).

    Args:
        ks: The KS term, higher better: the test's p-value (`forget_quality`).
        exact_match: `keyword_match` on the forget split.
        membership: The membership attack's measure.
        ape: `ape` on the forget split.

    Source: FIUBench, arXiv 2411.03554.
    """
    _mean([ks, exact_match, membership, ape], "FIUBench's forget quality")
    return 0.5 * ks + 0.15 * (1 - exact_match) + 0.2 * (1 - membership) + 0.15 * (1 - ape)
