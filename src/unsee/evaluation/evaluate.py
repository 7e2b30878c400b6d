"""Evaluation: answer every question of every split, score the answers, estimate the means."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from unsee.errors import UnknownNameError
from unsee.evaluation.bootstrap import estimate, estimate_set
from unsee.evaluation.generation import MIN_NEW_TOKENS, answer_limit, answer_nlls, answers
from unsee.metrics import (
    METRICS,
    Metric,
    Output,
    SetMetric,
    row_concept,
    row_score,
    select_metrics,
)
from unsee.metrics.names import NAMING, People
from unsee.models.vlm import VLM
from unsee.types import AnswerLimit, Better, Estimate, Sample

DEFAULT_METRICS = ("accuracy", "cloze", "rouge_l", "probability")


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model.

    Attributes:
        measures: Mean scores with their intervals, by "split/modality/metric".
        rows: One row per sample, as `scores.jsonl` holds them.
    """

    measures: dict[str, Estimate]
    rows: list[dict[str, Any]] = field(default_factory=list)


def evaluate(
    vlm: VLM,
    splits: Mapping[str, Sequence[Sample]],
    *,
    metrics: Sequence[str] | None = None,
    better: Mapping[str, Better] | None = None,
    forgetting: Collection[str] | None = None,
    reference: Sequence[Mapping[str, Any]] | None = None,
    tasks: Mapping[str, Sequence[str]] | None = None,
    batch_size: int = 64,
    max_new_tokens: AnswerLimit | None = None,
    people: People | None = None,
    rules: Mapping[str, str] | None = None,
    outputs: Mapping[str, Sequence[Output]] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    on_rows: Callable[[list[dict[str, Any]]], None] | None = None,
) -> Evaluation:
    """Evaluates a model on splits.

    Args:
        vlm: The model.
        splits: Samples by split name.
        metrics: Registered names of metrics; by default accuracy, cloze, ROUGE-L and probability.
        better: Direction by "split/modality/metric"; the metric's own where not given.
        forgetting: The splits that ask about what is to be forgotten; by default those whose names
            begin with "forget".
        reference: The reference model's rows on the same splits, for metrics that compare with it.
        tasks: Restricts a metric, by its name, to these tasks; metrics that are not named are
            reported on all tasks that they apply to.
        batch_size: Number of samples that are generated or scored at once.
        max_new_tokens: Maximum length of an answer, in tokens, or that by task; by default there is
            room for the longest true answer of the splits.
        people: The names that `names_forgotten` and `names_kept` look for. If given, both are
            scored wherever answers are generated; by default they are scored if they are among
            `metrics`, with the people in the splits.
        rules: How metrics score, where it is not their default: a name of `Metric.rules` by
            "metric", or by "split/metric" for one split.
        outputs: What is scored, by split and in the order of its samples, where the model is an
            image encoder; None asks the model.
        on_batch: Called after every split with the number of samples done and of all samples.
        on_rows: Called after every split with its rows.

    Answers of logits that are not finite and empty answers are unscored, not wrong; so are those
    that were cut by the limit where another length could have made them right. The row's "fault"
    says so.

    Raises:
        UnknownNameError: If a metric is not registered.
        ConfigError: If a metric compares with a reference and none is given, needs a package that
            is not installed, or reads what the model does not have.

    Example:
        >>> evaluation = evaluate(vlm, {"forget": data.forget}, metrics=["probability"])
        >>> list(evaluation.measures)
        ['forget/vqa/probability']
        >>> evaluation.measures["forget/vqa/probability"].n == len(evaluation.rows) == 18
        True
    """
    names = list(metrics or DEFAULT_METRICS)
    if people is not None and any(METRICS.get(name).reads == "text" for name in names):
        names += NAMING
    selected, reported = select_metrics(names, reference is not None, outputs is not None)
    away = [name for name in splits if is_forgetting(name, forgetting)]
    for metric in selected:
        if metric.name in NAMING:
            metric.people = people or People.of(splits, away)  # type: ignore[attr-defined]
    sample_metrics = [metric for metric in selected if not isinstance(metric, SetMetric)]
    set_metrics = [metric for metric in selected if isinstance(metric, SetMetric)]
    if max_new_tokens is None:
        every = [sample for samples in splits.values() for sample in samples]
        generates = any(metric.reads == "text" for metric in sample_metrics)
        max_new_tokens = answer_limit(vlm, every) if generates else MIN_NEW_TOKENS
    reported_metrics = [metric for metric in sample_metrics if metric.name in reported]
    total, done = sum(len(samples) for samples in splits.values()), 0
    evaluation = Evaluation({})
    for split, samples in splits.items():
        forgets = split in away
        for metric in sample_metrics:
            _set_rule(metric, split, rules or {})
        if outputs is not None:
            found = outputs[split]
        else:
            found = _outputs(vlm, samples, sample_metrics, batch_size, max_new_tokens)
        rows = [
            _row(split, sample, output, sample_metrics, tasks or {})
            for sample, output in zip(samples, found, strict=True)
        ]
        evaluation.rows.extend(rows)
        if on_rows is not None:
            on_rows(rows)
        evaluation.measures.update(_measures(split, rows, reported_metrics, better or {}, forgets))
        reference_rows = [row for row in reference or () if row["split"] == split]
        evaluation.measures.update(
            _set_measures(split, rows, reference_rows, set_metrics, better or {}, forgets)
        )
        done += len(samples)
        if on_batch is not None:
            on_batch(done, total)
    return evaluation


def _set_rule(metric: Metric, split: str, rules: Mapping[str, str]) -> None:
    """Sets how a metric scores a split.

    Raises:
        UnknownNameError: If the metric knows no such rule.
    """
    rule = rules.get(f"{split}/{metric.name}", rules.get(metric.name, type(metric).rule))
    if rule != type(metric).rule and rule not in metric.rules:
        raise UnknownNameError(f"rule of metric '{metric.name}'", rule, metric.rules)
    metric.rule = rule


def is_forgetting(split: str, forgetting: Collection[str] | None) -> bool:
    """Whether a split asks about what is to be forgotten.

    Args:
        split: The split's name.
        forgetting: The splits that do; None goes by their names.
    """
    return split.startswith("forget") if forgetting is None else split in forgetting


def _outputs(
    vlm: VLM,
    samples: Sequence[Sample],
    metrics: Sequence[Metric],
    batch_size: int,
    max_new_tokens: AnswerLimit,
) -> list[Output]:
    """Returns the outputs that the metrics need, one per sample."""
    reads = {metric.reads for metric in metrics}
    # Without paraphrases, alternatives are compared with the true answer.
    needs_truth = any("alternatives" in reads and not sample.paraphrases for sample in samples)
    found = answers(
        vlm,
        samples,
        generate_answers="text" in reads,
        score_answers="logprobs" in reads or needs_truth,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
    outputs = [Output(a.text, a.nll, fault=a.fault, tokens=a.tokens) for a in found]
    rows = [
        i
        for i, sample in enumerate(samples)
        if any(metric.needs_alternatives(sample) for metric in metrics)
    ]
    return _with_alternatives(vlm, samples, outputs, rows, batch_size)


def _with_alternatives(
    vlm: VLM,
    samples: Sequence[Sample],
    outputs: list[Output],
    rows: Sequence[int],
    batch_size: int,
) -> list[Output]:
    """Adds the likelihoods of the alternative answers of some rows to their outputs."""
    kinds = ("paraphrases", "perturbed", "choices")
    alternatives = [
        (i, kind, replace(samples[i], answer=text))
        for i in rows
        for kind in kinds
        for text in getattr(samples[i], kind)
    ]
    likelihoods: dict[tuple[int, str], list[float]] = {}
    nlls = answer_nlls(vlm, [sample for _, _, sample in alternatives], batch_size)
    for (i, kind, _), nll in zip(alternatives, nlls, strict=True):
        likelihoods.setdefault((i, kind), []).append(nll)
    for i in rows:
        by_kind = (tuple(likelihoods.get((i, kind), ())) for kind in kinds)
        paraphrases, perturbed, choices = by_kind
        outputs[i] = replace(
            outputs[i], paraphrases=paraphrases, perturbed=perturbed, choices=choices
        )
    return outputs


def _row(
    split: str,
    sample: Sample,
    output: Output,
    metrics: Sequence[Metric],
    tasks: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Returns a sample's line of `scores.jsonl`."""
    scores = {
        m.name: m.score_or_nan(sample, output)
        for m in metrics
        if m.applies(sample) and sample.task in tasks.get(m.name, (sample.task,))
    }
    return {
        "split": split,
        "modality": sample.modality,
        "task": sample.task,
        "id": sample.id,
        "concept": sample.concept,
        **({"group": sample.group} if sample.group is not None else {}),
        **({"population": sample.population} if sample.population is not None else {}),
        # A record may be read from another working directory than the one it was made in.
        "picture": os.path.abspath(sample.picture.source) if sample.picture is not None else None,
        "question": sample.question,
        "truth": sample.answer,
        "output": output.text,
        **({"fault": output.fault} if output.fault is not None else {}),
        "scores": {name: None if math.isnan(s) else s for name, s in scores.items()},
    }


def _measures(
    split: str,
    rows: Sequence[Mapping[str, Any]],
    metrics: Sequence[Metric],
    better: Mapping[str, Better],
    forgetting: bool,
) -> dict[str, Estimate]:
    """Returns the measures of the sample metrics on a split."""
    measures = {}
    for modality in ("vqa", "text"):
        for metric in metrics:
            scored = [
                row for row in rows if row["modality"] == modality and metric.name in row["scores"]
            ]
            if scored:
                key = f"{split}/{modality}/{metric.name}"
                scores = [row_score(row, metric.name) for row in scored]
                measures[key] = estimate(
                    [s if math.isnan(s) else metric.reported(s, forgetting) for s in scores],
                    [row_concept(row) for row in scored],
                    better.get(key, metric.better),
                )
    return measures


def _set_measures(
    split: str,
    rows: Sequence[Mapping[str, Any]],
    reference: Sequence[Mapping[str, Any]],
    metrics: Sequence[SetMetric],
    better: Mapping[str, Better],
    forgetting: bool,
) -> dict[str, Estimate]:
    """Returns the measures of the set metrics on a split."""
    measures = {}
    for metric in metrics:
        for modality in ("both",) if metric.joins_modalities else ("vqa", "text"):
            model_rows, reference_rows = (
                [row for row in side if modality in ("both", row["modality"])]
                for side in (rows, reference)
            )
            units = metric.units(model_rows, reference_rows, forgetting)
            if units:
                # Joint scores depend on the question with a picture, so they are listed with these.
                key = f"{split}/{'vqa' if modality == 'both' else modality}/{metric.name}"
                combine = partial(metric.combine, forgetting=forgetting)
                measures[key] = estimate_set(units, combine, better.get(key, metric.better))
    return measures
