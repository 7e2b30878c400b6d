"""From an evaluation request to a job: reads the data and decides what is scored and how."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from unsee.artifacts.stack import patch_folders
from unsee.attacks import AttackerData, required_data
from unsee.benchmarks import Benchmark
from unsee.data.overlaps import overlap_notes
from unsee.data.selection import split_holdout
from unsee.errors import ConfigError
from unsee.evaluation.evaluate import DEFAULT_METRICS
from unsee.evaluation.lm_eval import LmEvalSuite, open_suite
from unsee.families import is_encoder
from unsee.metrics import needs_reference, select_metrics
from unsee.models.checkpoint import peek_config, read_config, resolve
from unsee.recipes.benchmark_defaults import (
    benchmark_fields,
    forgotten,
    measure_directions,
    one_benchmark,
    scoring,
)
from unsee.recipes.captions import CAPTION_FIELDS, captions, require_text_tower
from unsee.recipes.encoder_audit import encoder_audit
from unsee.recipes.evaluate import EvaluationRequest, TaskSelection
from unsee.recipes.job import NO_ANSWERS, Job
from unsee.recipes.plan import HELD_FORGET
from unsee.recipes.sources import read_samples, shipped_checkpoint
from unsee.recipes.specs import Spec, parse_spec
from unsee.training.launcher import is_main_process
from unsee.types import Data, Sample

LOGGER = logging.getLogger("unsee")


def evaluation(request: EvaluationRequest, command: str) -> Job:
    """A job that leaves the model as it is: what it is scored on, and which attacks are made.

    Args:
        request: What is asked for.
        command: What to type to do it again.

    Raises:
        UnseeError: If a file, a sample or a metric cannot be used; nothing is written then.
    """
    request = _resolved(request)
    encoder = is_encoder(peek_config(request.model).get("model_type"))
    if request.attacks and encoder:
        return encoder_audit(request, command)
    attacks, paths = request.attacks, request.splits
    suite = _suite(request.tasks)
    opened: dict[Spec, Benchmark] = {}
    splits = {name: read_samples(path, name, opened) for name, path in paths.items()}
    benchmark, names = one_benchmark(paths, opened) if paths else (None, {})
    defaults = benchmark_fields(benchmark, splits, request.rules)
    _require_answers(request.model, splits, paths)
    encoder = encoder and bool(splits)
    if encoder:
        require_text_tower(request.model)
        splits = {name: captions(some, name, paths[name]) for name, some in splits.items()}
        defaults |= CAPTION_FIELDS
    metrics = _metrics(request, defaults.get("metrics", DEFAULT_METRICS), encoder)
    attacker = _attacker(request, splits, benchmark, opened)
    forgotten_splits = [*forgotten(paths), *(name for name in HELD_FORGET if name not in paths)]
    defaults |= {"metrics": metrics, "scoring": scoring(paths)}
    _log_overlaps(request, splits, attacker, forgotten_splits)
    if request.max_new_tokens is not None:
        defaults["max_new_tokens"] = request.max_new_tokens
    return Job(
        kind="audit" if attacks else "evaluate",
        command=command,
        recipe=request.text(command),
        data=Data(attacker.forget, attacker.retain),
        non_members=attacker.non_members,
        splits={name: samples for name, samples in splits.items() if samples},
        attacks=attacks,
        better=measure_directions(splits, forgotten_splits, benchmark, names),
        forgetting=[name for name in splits if name in forgotten_splits],
        suite=suite,
        patches=patch_folders(request.patch),
        **defaults,
        **request.job_fields(),
    )


def _resolved(request: EvaluationRequest) -> EvaluationRequest:
    """The request with the folders of checkpoints that ship with a benchmark."""
    references = {name: shipped_checkpoint(path) for name, path in request.references.items()}
    return replace(request, model=shipped_checkpoint(request.model), references=references)


def _suite(tasks: TaskSelection | None) -> LmEvalSuite | None:
    if tasks is None:
        return None
    return open_suite(tasks.names, tasks.path, tasks.limit, tasks.shots, tasks.chat_template)


def _metrics(request: EvaluationRequest, default: Sequence[str], encoder: bool) -> tuple[str, ...]:
    """The metrics to score, refused if one lacks the reference or the model that it reads.

    Args:
        request: The request.
        default: Those to score if it names none.
        encoder: Whether the model is an image encoder.
    """
    has_reference = "reference" in request.references
    metrics = tuple(request.metrics or default)
    if request.attacks and not has_reference:
        # An attack's outcome is measured without a reference; the report says that there is none.
        metrics = tuple(name for name in metrics if not needs_reference(name))
    select_metrics(metrics, has_reference, encoder)
    return metrics


def _require_answers(
    model: str, splits: Mapping[str, Sequence[Sample]], paths: Mapping[str, str]
) -> None:
    """Refuses sets that nothing can be asked from, but for a reason in the model first.

    Args:
        model: The checkpoint.
        splits: The samples of each set.
        paths: Where they are, for the message.

    Raises:
        ConfigError: If a set has no answers.
        ModelError: If the checkpoint, which may be an image encoder, is not there.
    """
    for name, samples in splits.items():
        if not any(sample.answer for sample in samples):
            config = peek_config(model) or read_config(resolve(model))
            if is_encoder(config.get("model_type")):
                raise ConfigError(
                    f"model {model}: {NO_ANSWERS}. Compare its photographs with unsee audit: "
                    "--forget DIR --retain DIR --target BEFORE --attack prototype."
                )
            raise ConfigError(
                f"the {name} set {paths[name]} has no answers to score. Give a table with columns "
                "image, question, answer, concept, or NAME:SPLIT of a benchmark."
            )


def _attacker(
    request: EvaluationRequest,
    splits: dict[str, list[Sample]],
    benchmark: Benchmark | None,
    opened: dict[Spec, Benchmark],
) -> AttackerData:
    """The samples that the attacker has, apart from those that score the attack.

    Adds the held-out splits to `splits` where they are not given: the benchmark's, else some of
    "forget".
    """
    forget, attacks = splits.get("forget", []), request.attacks
    given = {"retain": request.retain, "non_members": request.non_members}
    samples = {name: read_samples(path, name, opened) for name, path in given.items() if path}
    spec = parse_spec(request.splits.get("forget", ""))
    if attacks and "forget_holdout" not in splits and spec is not None:
        source = benchmark or spec.open(opened)
        held = source.held_out() if spec.split == source.attacked else {}
        splits |= {name: list(held[name]) for name in held if name not in splits}
        needs = required_data(attacks)
        if "retain" in needs and "retain" not in samples:
            samples["retain"] = list(source.data().retain)
        if "non_members" in needs and "non_members" not in samples:
            samples["non_members"] = list(source.non_members())
    if attacks and "forget_holdout" not in splits:
        forget, splits["forget_holdout"] = split_holdout(forget)
        splits["forget"] = forget
    retain = samples.get("retain", splits.get("retain", []))
    return AttackerData(forget, retain, samples.get("non_members", ()))


def _log_overlaps(
    request: EvaluationRequest,
    splits: Mapping[str, Sequence[Sample]],
    attacker: AttackerData,
    forgotten_splits: Sequence[str],
) -> None:
    """Logs what is both forgotten and kept in a user's own sets; a benchmark's are as published."""
    own = {name: parse_spec(path) is None for name, path in request.splits.items()}
    forget = [
        s for name in splits if name in forgotten_splits and own.get(name) for s in splits[name]
    ]
    retain = [
        s for name in splits if name.startswith("retain") and own.get(name) for s in splits[name]
    ]
    if request.retain is not None and parse_spec(request.retain) is None:
        retain += attacker.retain
    if is_main_process():
        for note in overlap_notes(forget, retain):
            LOGGER.warning(note)
