"""Aggregates of measures of Open-MMUnlearning and MLUBench. All values are in 0..1.

They are functions and no registered metrics, since they combine several splits and attacks.
"""

from __future__ import annotations

from collections.abc import Sequence

from unsee.errors import ConfigError


def _mean(values: Sequence[float], name: str) -> float:
    wrong = [value for value in values if not 0 <= value <= 1]
    if wrong or not values:
        raise ConfigError(f"{name} takes at least one value in 0..1; given {list(values)}.")
    return sum(values) / len(values)


def task_forgetting(cloze: float, classification: float, rouge_l: float) -> float:
    """Returns F_task: the mean of one minus each score on the forget split.

    Args:
        cloze: Cloze accuracy.
        classification: Accuracy of the classification questions.
        rouge_l: ROUGE-L of the generation questions.

    Source: Open-MMUnlearning, arXiv 2610.10358, appendix A.3.3, equation 51.

    Example:
        >>> task_forgetting(cloze=0.25, classification=0.5, rouge_l=0.75)
        0.5
    """
    return _mean([1 - cloze, 1 - classification, 1 - rouge_l], "F_task")


def forgetting_quality(
    multimodal: float, truth_ratio: float | None, probability: float, ks: float, js: float
) -> float:
    """Returns the forgetting quality FQ: mean of F_multi, TR, 1 - p, 1 - KS and 1 - JS.

    Args:
        multimodal: F_multi: F_task of the questions with pictures, averaged over the forget and the
            test split.
        truth_ratio: Truth ratio on the forget split; None leaves the term out where no question has
            false answers, and the value is then not comparable with published ones.
        probability: Probability of the true answers on the forget split.
        ks: Kolmogorov-Smirnov statistic against the reference model.
        js: Jensen-Shannon distance to the reference model.

    Source: Open-MMUnlearning, arXiv 2610.10358, appendix A.3.3, equation 53.
    """
    ratio = [] if truth_ratio is None else [truth_ratio]
    return _mean([multimodal, *ratio, 1 - probability, 1 - ks, 1 - js], "FQ")


def utility(retain: float, general: float) -> float:
    """Returns the model utility MU: the mean of retain and general utility.

    Source: Open-MMUnlearning, arXiv 2610.10358, appendix A.3.3, equation 56.
    """
    return _mean([retain, general], "MU")


def robustness(model_side: float, input_side: float, output_side: float) -> float:
    """Returns the robustness: the mean over three kinds of attacks.

    Args:
        model_side: Score under attacks on the weights.
        input_side: Score under attacks on the question or the picture.
        output_side: Score under attacks that read outputs, such as membership inference.

    Source: Open-MMUnlearning, arXiv 2610.10358, appendix A.3.3, equation 63.
    """
    return _mean([model_side, input_side, output_side], "Robustness")


def overall(quality: float, utility: float, robustness: float) -> float:
    """Returns the overall score: the mean of FQ, MU and robustness.

    Args:
        quality: Forgetting quality, FQ.
        utility: Model utility, MU.
        robustness: Robustness.

    Source: Open-MMUnlearning, arXiv 2610.10358, appendix A.3.3, equation 63.
    """
    return _mean([quality, utility, robustness], "Overall")


def membership_score(auc: float) -> float:
    """Returns clip(1 - 2 |AUC - 0.5|, 0, 1): 1 if a membership attack does no better than chance.

    Source: Open-MMUnlearning, arXiv 2610.10358, appendix A.3.3, equation 60.
    """
    return _mean([min(1.0, max(0.0, 1 - 2 * abs(auc - 0.5)))], "membership score")


def lifelong_drift(after_own: Sequence[float], after_all: Sequence[float]) -> float:
    """Returns the drift of a sequence of requests: how much later ones changed earlier results.

    It is the sum over the requests of |P(M_t, t) - P(M_T, t)|: the score of request t on the model
    right after it, and on the model after all T requests. 0 means that nothing wore down.

    Args:
        after_own: A score of each request's own split, on the model right after that request.
        after_all: The score of the same splits on the model after the last request.

    Raises:
        ConfigError: If the lists differ in length, are empty, or hold values outside 0..1.

    Source: MLUBench, arXiv 2606.12809, equation 1.

    Example:
        >>> lifelong_drift([0.75, 0.5, 1.0], [0.25, 0.75, 1.0])
        0.75
    """
    if len(after_own) != len(after_all):
        raise ConfigError(
            f"lifelong_drift compares {len(after_own)} scores with {len(after_all)}; give one of "
            "each request in both lists."
        )
    _mean([*after_own, *after_all], "lifelong_drift")
    return sum(abs(a - b) for a, b in zip(after_own, after_all, strict=True))
