"""Wording of a record's numbers and keys in the report."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from unsee.records.schema import Measure
from unsee.report.findings import percent

# Metrics that are shown in percent; all others are shown as numbers of 0..1.
SHARES = frozenset(
    "accuracy cloze probability keyword_match ape attack_success refusal_rate joint_right "
    "joint_wrong acc acc_norm exact_match accuracy_mllmu accuracy_mmunlearner names_forgotten "
    "names_kept said_before same_answer said_of_others rank_1 verification_rate zero_shot "
    "caption_found".split()
)

# Shown where a model was not measured.
NONE = "\N{EN DASH}"

SPLITS = {
    "forget_holdout/vqa": "Held out",
    "forget/vqa": "Training pictures",
    "retain_holdout/vqa": "Held out",
    "retain/vqa": "Training pictures",
    "general/vqa": "Pictures of other people",
    "general_forget/vqa": "Pictures of forgotten people",
    "forget/text": "Forgotten people, by name",
    "forget_holdout/text": "Forgotten people, by name, held out",
    "retain/text": "Other people, by name",
    "retain_holdout/text": "Other people, by name, held out",
    "general/text": "General questions",
    "train_forget/vqa": "Training questions about forgotten people",
    "train_retain/vqa": "Training questions about other people",
    "test/vqa": "Other pictures",
    "harmless/vqa": "Safe pictures",
    "forget_holdout/features": "Held out, by features",
    "forget/features": "Training pictures, by features",
    "retain_holdout/features": "Held out, by features",
    "retain/features": "Training pictures, by features",
    "others/vqa": "Pictures of other people",
}
METRICS = {
    "accuracy": "accuracy",
    "cloze": "cloze",
    "rouge_l": "ROUGE-L",
    "rouge_l_recall": "ROUGE-L recall",
    "bleu": "BLEU",
    "ape": "APE",
    "ks": "KS statistic",
    "js": "Jensen-Shannon distance",
    "joint_rouge": "joint ROUGE-L",
    "probability": "probability",
    "accuracy_mllmu": "accuracy (MLLMU-Bench's letters)",
    "accuracy_mmunlearner": "accuracy (MMUnlearner's letters)",
    "rouge_l_ascii": "ROUGE-L (ASCII)",
    "rouge_l_recall_ascii": "ROUGE-L recall (ASCII)",
    "names_forgotten": "names another forgotten person",
    "names_kept": "names a kept person",
    "said_before": "says what it said before",
    "same_answer": "same answer as before",
    "said_of_others": "mistaken for a forgotten person",
    "rank_1": "rank-1 retrieval",
    "verification_auc": "verification AUC",
    "verification_rate": "verification at 1 % false accepts",
    "zero_shot": "zero-shot naming",
    "caption_rank": "reciprocal rank of the caption",
    "caption_found": "caption found",
    "association": "association (cosine)",
    "core_association": "association with the bare fact (cosine)",
    "association_gap": "association above other captions",
}
GROUPS = (
    (
        "forgotten",
        "Forgotten",
        "Pictures of the forgotten people: should be no better than the reference.",
    ),
    ("kept", "Kept", "Pictures of other people: should not change."),
    ("general", "General", "What anyone can see in a picture: should not change."),
    ("text", "Text", "Questions without a picture: should be exactly as before."),
    (
        "ability",
        "General ability",
        "Tasks of lm-evaluation-harness: should not change. Intervals are 1.96 standard errors.",
    ),
    ("other", "Others", "All other questions: should not change."),
)
BETTER = {
    "lower": "\N{DOWNWARDS ARROW} lower",
    "higher": "\N{UPWARDS ARROW} higher",
    "reference": "= reference",
}


def group_of(key: str, forgetting: Collection[str] = (), lost_by_name: bool = False) -> str:
    """The group of a "split/modality/metric" key.

    Args:
        key: The key.
        forgetting: The splits that ask about what is to be forgotten, besides those named so.
        lost_by_name: Whether forgotten people are to be unknown by name too.
    """
    split, _, rest = key.partition("/")
    if rest.startswith("text") and not (lost_by_name and split in forgetting):
        return "text"
    if split in forgetting:
        return "forgotten"
    named = {"forget": "forgotten", "retain": "kept", "general": "general"}
    return named.get(split.split("_")[0], "other")


def place(prefix: str) -> str:
    """Words for a "split/modality" prefix."""
    split, _, modality = prefix.partition("/")
    by_name = ", by name" if modality == "text" else ""
    return SPLITS.get(prefix, words(split) + by_name)


def metric_name(metric: str) -> str:
    """Words for a metric's name."""
    name, _, layer = metric.partition("@")
    words = METRICS.get(name, name.replace("_", " "))
    return f"{words}, layer {layer}" if layer else words


def is_share(metric: str) -> bool:
    """Whether a metric is shown in percent, at whatever layer."""
    return metric.partition("@")[0] in SHARES


def score(metric: str, value: float | None) -> str:
    """A score: in percent where it is a share of right answers."""
    if value is None:
        return "unscored"
    return percent(value) if is_share(metric) else f"{value:.2f}"


def way(metric: str, before: float | None, after: float | None) -> str:
    """Words for two scores, such as "95 → 2 %".

    Args:
        metric: The metric's name.
        before: The first score, 0..1; None leaves it out.
        after: The second score, 0..1; None is "unscored".
    """
    now = score(metric, after)
    return now if before is None else f"{score(metric, before).removesuffix(' %')} → {now}"


def interval(metric: str, found: Measure) -> str:
    """A 95 % interval, such as "0 to 7"; empty where there is none."""
    if found.low is None or found.high is None:
        return ""
    if is_share(metric):
        return f"{100 * found.low:.0f} to {100 * found.high:.0f}"
    return f"{found.low:.2f} to {found.high:.2f}"


def signed(value: float) -> str:
    """A number of two decimals with its sign."""
    text = f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
    return "0.00" if text[1:] == "0.00" else text


def duration(seconds: float) -> str:
    """A time in a fitting unit: "0.4 s", "42 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def steps(count: float) -> str:
    """A number of training steps, which may lie between two: "15 steps", "2.5 steps", "1 step"."""
    number = f"{count:.0f}" if count >= 10 else f"{count:.2g}"
    return f"{number} step" if number == "1" else f"{number} steps"


def size(count: float) -> str:
    """Bytes with a decimal unit: "312 MB"."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 999.5:
            return (
                f"{value:.0f} {unit}" if value >= 10 or unit == "bytes" else f"{value:.1f} {unit}"
            )
        value /= 1000
    return f"{value:.1f} TB"


def words(key: str) -> str:
    """A key as words: "peak_memory_bytes" reads "Peak memory bytes"."""
    return key.replace("_", " ").capitalize()


def plain(value: Any) -> str:
    """Any value of a record on one line."""
    if value is None:
        return "not recorded"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (Mapping, list, tuple)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns what has the same reason, by reason.

    Example:
        >>> by_reason({"relearn": "no answers", "probe": "no pictures", "perturb": "no answers"})
        {'no answers': ['relearn', 'perturb'], 'no pictures': ['probe']}
    """
    named: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        named.setdefault(reason, []).append(name)
    return named
