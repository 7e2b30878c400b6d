"""Builds a certificate from the record of a run; nothing is run or measured here."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from unsee import __version__
from unsee.artifacts.manifest import (
    MANIFEST,
    TENSORS,
    Manifest,
    patch_bytes,
    patch_id,
    read_manifest,
)
from unsee.artifacts.pseudonyms import PSEUDONYM
from unsee.artifacts.redaction import redact
from unsee.certificates import schema, statements
from unsee.certificates.schema import Certificate
from unsee.errors import RunError, first_line, shorten
from unsee.files import hash_file, read_text
from unsee.records.folder import RECIPE, SUMMARY
from unsee.records.reader import MODELS, Run, read_run
from unsee.records.schema import (
    AttackedModel,
    AttackOutcome,
    Attacks,
    Guarantees,
    MethodRecord,
    Provenance,
    RelearningOutcome,
    Summary,
)
from unsee.report import wording
from unsee.report.verdict import judge

# Fields of an attack's entry in the record that are its budget.
BUDGET = ("share", "data", "worst_case", "steps", "lr", "batch_size", "modules", "rank", "seed")


def build_certificate(
    run: Path | str,
    request: schema.Request | None = None,
    *,
    patch: Path | str | None = None,
    issued: str | None = None,
) -> Certificate:
    """Returns the certificate of a finished run; unsigned, and nothing is written.

    The same arguments always give the same certificate.

    Args:
        run: The run folder.
        request: What the controller knows of the request; None if nothing.
        patch: The visual patch, if it is no longer in the run folder.
        issued: When the certificate is made (ISO 8601); None is now.

    Raises:
        RunError: If the folder is not a finished run, it unlearned nothing, or its record holds
            what no run writes.
        PatchError: If the patch is damaged.
    """
    read = read_run(run)
    summary = read.summary
    if summary.method is None:
        raise RunError(
            f"run folder {read.folder}: is a record of `unsee {summary.kind}`, which unlearns "
            "nothing, and a certificate is about an unlearned model. Give the folder of `unsee "
            "unlearn`, `unsee run` or `unsee request`."
        )
    folder = _patch_folder(read, patch)
    manifest = read_manifest(folder) if folder is not None else None
    try:
        return _certificate(read, request or schema.Request(), folder, manifest, issued)
    except ValidationError as error:
        first = error.errors()[0]
        key = "/".join(str(part) for part in first["loc"])
        raise RunError(
            f"run folder {read.folder}: its record gives '{key}' of a certificate a value that is "
            f"not allowed ({first['msg']}). Restore the record, or run the command of the run "
            "again with a new --out."
        ) from error


def _patch_folder(run: Run, patch: Path | str | None) -> Path | None:
    """The folder of the run's patch; None if none was saved."""
    if patch is not None:
        return Path(patch)
    saved = run.summary.artifacts.patch if run.summary.artifacts is not None else None
    folder = run.folder / saved if saved else None
    if folder is not None and not folder.exists():
        raise RunError(
            f"run folder {run.folder}: its patch is not in it any more. Name it: --patch DIR."
        )
    return folder


def _certificate(
    run: Run,
    request: schema.Request,
    folder: Path | None,
    manifest: Manifest | None,
    issued: str | None,
) -> Certificate:
    summary = run.summary
    judged = judge(summary)
    equivalence = statements.equivalence(summary, judged)
    changes = _changes(summary, manifest)
    certificate = Certificate(
        issued=issued or now(),
        request=request,
        run=_run_facts(run),
        base=_base(run, manifest),
        result=_result(summary, folder, manifest),
        changes=changes,
        verdict=schema.Verdict(
            level=judged.level,
            headline=shorten(judged.headline, 300),
            sentence=shorten(judged.sentence, 4000),
        ),
        measures=tuple(_measures(summary)),
        attacks=schema.AttackSet(
            run=tuple(_attacks(summary)), not_run=tuple(summary.not_attacked or ())
        ),
        equivalence=equivalence,
        residual_risk=statements.residual_risk(summary, judged, equivalence, request),
        limits=statements.LIMITS,
        software=_software(summary),
        verify=statements.verify_commands(request, manifest is not None),
    )
    # What JSON would write otherwise, such as 1 for 1.0, is settled here once.
    return Certificate.model_validate_json(json.dumps(certificate.to_dict()))


def now() -> str:
    """This moment as ISO 8601 in UTC, to the second."""
    moment = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return moment.isoformat().replace("+00:00", "Z")


def _run_facts(run: Run) -> schema.RunFacts:
    summary = run.summary
    method = summary.method or MethodRecord(name="none")
    names = {entry.concept for entry in summary.gallery or () if entry.concept}
    benchmark = summary.benchmark
    return schema.RunFacts(
        record_sha256=hash_file(run.folder / SUMMARY),
        kind=shorten(summary.kind, 300),
        finished=summary.created,
        command=shorten(redact(summary.command, names), 4000) if summary.command else None,
        method=method.name,
        source=method.source,
        parameters={key: _setting(key, value) for key, value in method.parameters.items()},
        cost_seconds=summary.cost.seconds if summary.cost is not None else None,
        people=benchmark.forgotten if benchmark is not None else None,
    )


def _setting(key: str, value: Any) -> str:
    """A hyperparameter as text; a path becomes the key in capitals."""
    if isinstance(value, str) and ("/" in value or "\\" in value):
        return key.upper()
    return shorten(wording.plain(value), 4000)


def _base(run: Run, manifest: Manifest | None) -> schema.Checkpoint:
    made = run.summary.provenance or Provenance()
    guarantees = run.summary.guarantees or Guarantees()
    return schema.Checkpoint(
        name=_base_name(run),
        weights_sha256=made.start_weights_sha256,
        weights_part="visual" if guarantees.language_part_sha256 is None else "all",
        identity_sha256=manifest.base_sha256 if manifest is not None else None,
        earlier_patches=tuple(step.id for step in manifest.earlier) if manifest is not None else (),
    )


def _base_name(run: Run) -> str | None:
    """The last part of the base checkpoint's name in the recipe; None if the recipe has none."""
    try:
        recipe = yaml.safe_load(read_text(run.folder / RECIPE))
    except FileNotFoundError:
        return None
    except (yaml.YAMLError, RecursionError) as error:
        raise RunError(
            f"{run.folder / RECIPE}: cannot be read ({first_line(error)}). Restore the file."
        ) from error
    recipe = recipe if isinstance(recipe, dict) else {}
    model, benchmark = recipe.get("model"), recipe.get("benchmark")
    if isinstance(model, str) and model:
        name = re.split(r"[/\\]", model.rstrip("/\\"))[-1]
        # A redacted run has a keyed hash in its place.
        return shorten(name, 300) if name and not PSEUDONYM.fullmatch(name) else None
    return shorten(f"{benchmark}:target", 300) if isinstance(benchmark, str) else None


def _result(summary: Summary, folder: Path | None, manifest: Manifest | None) -> schema.Result:
    made = summary.provenance or Provenance()
    saved = summary.artifacts
    kinds = ("patch", "model", "adapter")
    kind: Any = next((name for name in kinds if saved is not None and getattr(saved, name)), None)
    if folder is None or manifest is None:
        return schema.Result(saved=kind, weights_sha256=made.result_weights_sha256)
    return schema.Result(
        saved=kind or "patch",
        weights_sha256=made.result_weights_sha256,
        patch_id=patch_id(manifest),
        manifest_sha256=hash_file(folder / MANIFEST),
        tensors_sha256=hash_file(folder / TENSORS),
        patch_bytes=patch_bytes(folder),
    )


def _changes(summary: Summary, manifest: Manifest | None) -> schema.Changes:
    checked = summary.guarantees or Guarantees()
    tensors = None
    if manifest is not None:
        tensors = tuple(
            schema.TensorChange(
                name=tensor.name,
                dtype=tensor.dtype,
                shape=tensor.shape,
                before=tensor.before,
                after=tensor.after,
            )
            for tensor in manifest.changed
        )
    return schema.Changes(
        tensors=tensors,
        changed=checked.changed_tensors,
        total=checked.total_tensors,
        outside_visual=checked.changed_outside_visual,
        text=schema.TextCheck(
            identical=checked.text_identical,
            probes=checked.text_probes,
            language_part_unchanged=checked.language_part_sha256_unchanged,
            language_part_sha256=checked.language_part_sha256,
            statement=statements.text_check(checked),
        ),
    )


def _measures(summary: Summary) -> Iterator[schema.MeasureRow]:
    keys = dict.fromkeys(key for model in MODELS for key in summary.measures_of(model))
    for key in keys:
        scores = {}
        better: Any = "higher"
        for model in MODELS:
            found = summary.measures_of(model).get(key)
            if found is not None:
                better = found.better
                scores[model] = schema.Score(
                    value=found.value,
                    low=found.low,
                    high=found.high,
                    n=found.n,
                    n_unscored=found.n_unscored,
                )
        group: Any = wording.group_of(key, summary.forgetting)
        yield schema.MeasureRow(key=key, group=group, better=better, models=scores)


def _attacks(summary: Summary) -> Iterator[schema.AttackRow]:
    for outcome in summary.relearn:
        yield _relearning(outcome)
    for name, outcomes in (summary.attacks or Attacks()).others.items():
        for other in outcomes:
            yield from _other_attack(name, other)


def _relearning(outcome: RelearningOutcome) -> schema.AttackRow:
    values = {key: getattr(outcome, key) for key in BUDGET}
    models = {}
    for model in outcome.curves:
        points = [point for point in outcome.curve(model) if point.value is not None]
        if points:
            worst = max(points, key=lambda point: (point.value or 0.0, -point.step))
            models[model] = schema.AttackScore(
                before=points[0].value,
                after=worst.value,
                low=worst.low,
                high=worst.high,
                step=worst.step,
            )
    return schema.AttackRow(
        attack="relearn",
        access=("white_box",),
        budget={k: wording.plain(v) for k, v in values.items() if v is not None},
        reads=outcome.measure or "score",
        models=models,
    )


def _other_attack(name: str, outcome: AttackOutcome) -> Iterator[schema.AttackRow]:
    budget = dict(_budget(outcome.parameters))
    answers, readings = {}, {}
    for model, attacked in outcome.models.items():
        forget = attacked.answers.forget if attacked.answers is not None else None
        if forget is not None:
            answers[model] = schema.AttackScore(
                before=forget.before,
                after=forget.after,
                low=forget.low,
                high=forget.high,
                n=forget.n,
            )
        for index, reading in enumerate(attacked.readings or ()):
            readings[index, model] = schema.AttackScore(
                before=reading.baseline,
                after=reading.forget,
                low=reading.low,
                high=reading.high,
                n=reading.n,
            )
    if answers:
        yield schema.AttackRow(
            attack=name, access=outcome.access, budget=budget, reads="answers", models=answers
        )
    for index in sorted({number for number, _ in readings}):
        row = {model: score for (number, model), score in readings.items() if number == index}
        yield schema.AttackRow(
            attack=name,
            access=outcome.access,
            budget=budget,
            reads=_reading_name(outcome, index),
            models=row,
        )


def _reading_name(outcome: AttackOutcome, index: int) -> str:
    """The name of a number that an attack reads off the models."""
    for model in (outcome.models.get("unlearned", AttackedModel()), *outcome.models.values()):
        readings = model.readings or ()
        if index < len(readings):
            return readings[index].name or "number"
    return "number"


def _budget(parameters: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """The fields of every attack of a chain, under "field", or "attack.field" in a chain."""
    for attack, fields in parameters.items():
        for key, value in fields.items():
            yield key if len(parameters) == 1 else f"{attack}.{key}", _setting(key, value)


def _software(summary: Summary) -> schema.Software:
    made = summary.provenance or Provenance()
    return schema.Software(
        certificate_by=__version__,
        unsee=made.unsee,
        commit=made.commit,
        dirty=made.dirty,
        python=made.python,
        torch=made.torch,
        transformers=made.transformers,
        platform=made.platform,
        device=made.device,
        seed=made.seed,
    )
