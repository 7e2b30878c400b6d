"""From a ledger's settings to the recipe and the job of a step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unsee.attacks import Chain
from unsee.errors import ConfigError, quoted
from unsee.recipes.attack_data import LEDGER, available_data, missing_data
from unsee.recipes.components import chain_text
from unsee.recipes.job import Job
from unsee.recipes.photographs import runnable_attacks
from unsee.recipes.plan import plan
from unsee.recipes.sources import read_samples, shipped_checkpoint
from unsee.recipes.unlearn import Recipe, RunOptions, make_recipe
from unsee.report.wording import by_reason
from unsee.requests.entries import LedgerSettings, Started
from unsee.requests.photographs import distinct_pictures, held_pictures, without_names
from unsee.runs.preflight import check_chain
from unsee.types import Sample

# Keys of a recipe, besides fields of the method and the training, that a ledger's --set may change.
OPEN = frozenset({"ask", "holdout_share", "max_new_tokens"})


@dataclass(frozen=True)
class PlannedStep:
    """A step that can be run.

    Attributes:
        job: The job, whose record names no person and no path.
        requests: Ids of the requests that it answers.
        not_measured: What cannot be measured or attacked with the photographs given, and why.
        notes: Notes for the user.
    """

    job: Job
    requests: tuple[str, ...]
    not_measured: tuple[str, ...]
    notes: Sequence[str]


def check_settings(settings: LedgerSettings) -> Recipe:
    """Returns the recipe of a ledger's steps, after checking everything that needs no weights.

    Args:
        settings: The settings.

    Raises:
        ConfigError: If a field, an attack or a margin is not allowed.
    """
    margins = ("forget_margin", "keep_margin", "attack_margin")
    for name in margins:
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and 0 < value < 1):
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} {quoted(value)} is not allowed: give a number in (0, 1).")
    recipe = _recipe(settings, settings.set, settings.attacks, settings.seed)
    for chain in recipe.attacks:
        check_chain(chain)
    return recipe


def _recipe(
    settings: LedgerSettings, fields: Mapping[str, Any], attacks: Sequence[str], seed: int
) -> Recipe:
    fixed = sorted({field.name for field in dataclasses.fields(RunOptions)} & set(fields) - OPEN)
    if fixed:
        raise ConfigError(
            f"--set {fixed[0]}=... is not allowed: the ledger decides it. Allowed are fields of "
            f"the method and of the training, and {', '.join(sorted(OPEN))}."
        )
    recipe = make_recipe(
        {
            "model": "MODEL",
            "forget": "PHOTOGRAPHS",
            "retain": "RETAIN" if settings.retain else None,
            "strangers": "STRANGERS" if settings.strangers else None,
            "method": settings.method,
            "attacks": list(attacks),
            "save": "patch",
            "redact": settings.redact,
            "seed": seed,
            "device": settings.device,
            "trust_remote_code": settings.trust_remote_code,
        },
        fields,
    )
    method = recipe.method
    if method.changes_language:
        field = method.language_field
        raise ConfigError(
            f"a ledger stacks visual patches, which cannot carry what {method.name} with {field}="
            f"{getattr(method, field)} changes. Type --set {field}=visual, or another --method."
        )
    return recipe


def plan_step(
    settings: LedgerSettings,
    started: Started,
    models: tuple[Path, Path],
    forget: Mapping[str, Sequence[Sample]],
    earlier: Mapping[str, Sequence[Sample]],
) -> PlannedStep:
    """Plans the run that answers one request, or several together.

    Args:
        settings: The ledger's settings.
        started: The step.
        models: The base checkpoint, and it with the patches of all earlier requests on it.
        forget: The samples of each request to answer.
        earlier: The samples of requests that were answered before. Their pictures are kept as the
            model sees them now, with these people erased.

    Raises:
        UnseeError: If the data or a setting cannot be used.
    """
    attacks = settings.attacks if started.attacks is None else started.attacks
    fields = {**settings.set, **started.set}
    recipe = _recipe(settings, fields, attacks, settings.seed + started.step - 1)
    given = {"forget": [s for name in forget for s in without_names(forget[name], name)]}
    if settings.retain is not None:
        given["retain"] = without_names(read_samples(settings.retain, "retain", notes=[]), "kept")
    if settings.strangers is not None:
        strangers = read_samples(settings.strangers, "strangers", notes=[])
        given["strangers"] = without_names(strangers, "stranger")
    base, model = models
    job, notes = plan(replace(recipe, model=str(model)), "unlearn", "", given)
    # What was kept and forgotten is measured from where the ledger began. The language part is
    # loaded even if nothing is asked, to show that text is answered as before.
    job = replace(job, references={"target": base}, visual_only=False)
    if "answers" not in recipe.method.required:
        held = held_pictures(earlier, job.data.forget, len(distinct_pictures(job.data.retain)))
        job = replace(job, data=replace(job.data, retain=(*job.data.retain, *held)))
    chains, refused = _possible(recipe.attacks, job)
    command = f"unsee request run {' '.join(started.requests)}"
    job = replace(
        job,
        attacks=chains,
        attacks_left_out=refused,
        command=command,
        recipe=recipe.text(command),
    )
    # Attacks that cannot be made stand in the record, by reason.
    notes = [note for note in notes if not note.startswith("attack ")]
    return PlannedStep(job, started.requests, _not_made(refused), notes)


def _possible(attacks: Sequence[Chain], job: Job) -> tuple[tuple[Chain, ...], dict[str, str]]:
    """The attacks that can be made on the data, and why each of the others cannot."""
    if job.open_questions is not None or job.encoder:
        possible, refused, _ = runnable_attacks(
            attacks, job.splits, job.encoder, job.non_members, LEDGER
        )
        return possible, refused
    has = available_data(job.attacker, job.splits, "target" in job.references)
    missing = [(chain, missing_data(chain, has, LEDGER)) for chain in attacks]
    return tuple(chain for chain, why in missing if why is None), {
        chain_text(chain, complete=False): why for chain, why in missing if why is not None
    }


def _not_made(refused: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each reason why attacks were not made."""
    named = by_reason(refused).items()
    return tuple(
        f"attack{'s' if names[1:] else ''} {', '.join(names)}: {why}." for why, names in named
    )


def model_folder(settings: LedgerSettings) -> str:
    """The deployed model as a folder or hub id."""
    return shipped_checkpoint(settings.model)
