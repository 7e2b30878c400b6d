"""Evaluation: ask every sample of every split, score the answers, estimate the means."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from unsee.evaluation.bootstrap import estimate, estimate_set
from unsee.evaluation.generation import answer_and_score, answer_nlls
from unsee.metrics import Metric, Output, SetMetric, select_metrics
from unsee.models.vlm import VLM
from unsee.types import Better, Estimate, Sample

DEFAULT_METRICS = ("accuracy", "cloze", "rouge_l", "probability")


@dataclass(frozen=True)
class Evaluation:
    """What a model scored.

    Attributes:
        measures: By "split/modality/metric".
        rows: One a sample, as `scores.jsonl` holds them.
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
    max_new_tokens: int = 24,
    on_batch: Callable[[int, int], None] | None = None,
    on_rows: Callable[[list[dict[str, Any]]], None] | None = None,
) -> Evaluation:
    """Scores a model on splits.

    Args:
        vlm: The model.
        splits: Samples by split name.
        metrics: Registered names; by default accuracy, cloze, ROUGE-L and probability.
        better: Direction by "split/modality/metric"; the metric's own where not given.
        forgetting: The splits that ask about what is to be forgotten; by default those whose names
            begin with "forget".
        reference: The reference model's rows on the same splits, for metrics that compare.
        tasks: The only tasks that a metric is reported on, by its name; all that it applies to
            where not given.
        batch_size: Samples generated or scored at once.
        max_new_tokens: Longest answer.
        on_batch: Told how many samples are done, and of how many.
        on_rows: Given the rows of every split once it is scored.

    Raises:
        UnknownNameError: If a metric is not registered.
        ConfigError: If a metric compares with a reference, and none is given.
    """
    every, wanted = select_metrics(metrics or DEFAULT_METRICS, reference is not None)
    chosen = [metric for metric in every if not isinstance(metric, SetMetric)]
    sets = [metric for metric in every if isinstance(metric, SetMetric)]
    total, done = sum(len(samples) for samples in splits.values()), 0
    result = Evaluation({})
    for split, samples in splits.items():
        away = split.startswith("forget") if forgetting is None else split in forgetting
        outputs = _outputs(vlm, samples, chosen, batch_size, max_new_tokens)
        only = tasks or {}
        rows = [_row(split, s, o, chosen, only) for s, o in zip(samples, outputs, strict=True)]
        result.rows.extend(rows)
        if on_rows is not None:
            on_rows(rows)
        named = [metric for metric in chosen if metric.name in wanted]
        result.measures.update(_measures(split, samples, rows, named, better or {}, away))
        theirs = [row for row in reference or () if row["split"] == split]
        result.measures.update(_set_measures(split, rows, theirs, sets, better or {}, away))
        done += len(samples)
        if on_batch is not None:
            on_batch(done, total)
    return result


def _outputs(
    vlm: VLM,
    samples: Sequence[Sample],
    metrics: Sequence[Metric],
    batch_size: int,
    max_new_tokens: int,
) -> list[Output]:
    reads = {metric.reads for metric in metrics}
    stand_in = any("alternatives" in reads and not sample.paraphrases for sample in samples)
    texts, nlls = answer_and_score(
        vlm,
        samples,
        say="text" in reads,
        score="logprobs" in reads or stand_in,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
    outputs = [Output(text, nll) for text, nll in zip(texts, nlls, strict=True)]
    compared = [
        i
        for i, sample in enumerate(samples)
        if any(metric.needs_alternatives(sample) for metric in metrics)
    ]
    return _with_alternatives(vlm, samples, outputs, compared, batch_size)


def _with_alternatives(
    vlm: VLM,
    samples: Sequence[Sample],
    outputs: list[Output],
    compared: Sequence[int],
    batch_size: int,
) -> list[Output]:
    """The outputs, with the likelihoods of other answers where a metric compares them."""
    kinds = ("paraphrases", "perturbed", "choices")
    asked = [
        (i, kind, replace(samples[i], answer=text))
        for i in compared
        for kind in kinds
        for text in getattr(samples[i], kind)
    ]
    found: dict[tuple[int, str], list[float]] = {}
    nlls = answer_nlls(vlm, [sample for _, _, sample in asked], batch_size)
    for (i, kind, _), value in zip(asked, nlls, strict=True):
        found.setdefault((i, kind), []).append(value)
    for i in compared:
        others = (tuple(found.get((i, kind), ())) for kind in kinds)
        outputs[i] = Output(outputs[i].text, outputs[i].nll, *others)
    return outputs


def _row(
    split: str,
    sample: Sample,
    output: Output,
    metrics: Sequence[Metric],
    tasks: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    scores = {
        m.name: m.score(sample, output)
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
        # A record may be read from another folder than the one it was made in.
        "picture": os.path.abspath(sample.picture.source) if sample.picture is not None else None,
        "question": sample.question,
        "truth": sample.answer,
        "output": output.text,
        "scores": {name: None if math.isnan(s) else s for name, s in scores.items()},
    }


def _measures(
    split: str,
    samples: Sequence[Sample],
    rows: Sequence[Mapping[str, Any]],
    metrics: Sequence[Metric],
    better: Mapping[str, Better],
    away: bool,
) -> dict[str, Estimate]:
    found = {}
    for modality in ("vqa", "text"):
        for metric in metrics:
            some = [
                (row["scores"][metric.name], sample.concept or sample.id)
                for row, sample in zip(rows, samples, strict=True)
                if sample.modality == modality and metric.name in row["scores"]
            ]
            if some:
                key = f"{split}/{modality}/{metric.name}"
                scores = [
                    math.nan if s is None else metric.reported(float(s), away) for s, _ in some
                ]
                way = better.get(key, metric.better)
                found[key] = estimate(scores, [c for _, c in some], way)
    return found


def _set_measures(
    split: str,
    rows: Sequence[Mapping[str, Any]],
    reference: Sequence[Mapping[str, Any]],
    metrics: Sequence[SetMetric],
    better: Mapping[str, Better],
    away: bool,
) -> dict[str, Estimate]:
    found = {}
    for metric in metrics:
        for modality in ("both",) if metric.joins_modalities else ("vqa", "text"):
            mine, theirs = (
                [row for row in some if modality in ("both", row["modality"])]
                for some in (rows, reference)
            )
            units = metric.units(mine, theirs, away)
            if units:
                # A joint score rests on the pictured question too, and so stands with those.
                place = "vqa" if modality == "both" else modality
                key = f"{split}/{place}/{metric.name}"
                way = better.get(key, metric.better)
                found[key] = estimate_set(units, partial(metric.combine, forgetting=away), way)
    return found
