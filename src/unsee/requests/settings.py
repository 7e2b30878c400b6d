"""From a ledger's settings to the recipe and the job of a step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unsee.attacks import Chain
from unsee.data.selection import split_holdout
from unsee.errors import ConfigError, DataError, quoted
from unsee.recipes.components import chain_text
from unsee.recipes.job import Job
from unsee.recipes.plan import plan
from unsee.recipes.sources import read_samples, shipped_checkpoint
from unsee.recipes.unlearn import Recipe, make_recipe
from unsee.requests.entries import LedgerSettings, Started
from unsee.requests.photographs import without_names
from unsee.runs.preflight import check_attack
from unsee.types import Sample

# The split of the questions about the people of an earlier request.
EARLIER = "forget_"
KEPT = "retain_holdout"


@dataclass(frozen=True)
class PlannedStep:
    """A step that can be run.

    Attributes:
        job: The job, whose record names no person and no path.
        splits: The split that scores each request, or "kept", by its name.
        not_measured: What cannot be measured or attacked with the photographs given, and why.
        notes: Notes for the user.
    """

    job: Job
    splits: Mapping[str, str]
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
    if recipe.method.changes_language:
        raise ConfigError(
            f"a ledger stacks visual patches, which cannot carry what {recipe.method.name} with "
            f"trains={recipe.method.trains} changes. Type --set trains=visual, or another --method."
        )
    return recipe


def _recipe(
    settings: LedgerSettings, fields: Mapping[str, Any], attacks: Sequence[str], seed: int
) -> Recipe:
    return make_recipe(
        {
            "model": "MODEL",
            "forget": "PHOTOGRAPHS",
            "retain": "RETAIN" if settings.retain else None,
            "strangers": "STRANGERS" if settings.strangers else None,
            "method": settings.method,
            "set": dict(fields),
            "attacks": list(attacks),
            "save": "patch",
            "seed": seed,
            "device": settings.device,
            "trust_remote_code": settings.trust_remote_code,
        }
    )


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
        earlier: The samples of each earlier request whose photographs are at hand.

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
    # What was kept and forgotten is measured from where the ledger began.
    job = replace(job, references={"target": base})
    job, splits, absent = _with_questions(job, forget, earlier)
    chains, refused = _possible(job)
    command = f"unsee request run {' '.join(started.requests)}"
    job = replace(job, attacks=chains, command=command, recipe=recipe.text(command))
    return PlannedStep(job, splits, (*absent, *refused), notes)


def _with_questions(
    job: Job, forget: Mapping[str, Sequence[Sample]], earlier: Mapping[str, Sequence[Sample]]
) -> tuple[Job, dict[str, str], list[str]]:
    """The job with questions about everyone, the split of each, and who cannot be asked about."""
    splits: dict[str, Sequence[Sample]] = dict(job.splits)
    data, scored, absent = job.data, {}, []
    if "forget" not in splits and any(s.answer for s in data.retain):
        kept, held = split_holdout(data.retain, seed=job.settings.seed)
        data = replace(data, retain=kept)
        splits[KEPT] = [s for s in held if s.answer]
    if splits.get(KEPT):
        scored["kept"] = KEPT
    else:
        absent.append("the people to keep: --retain has no questions and answers")
    for name, samples in {**forget, **earlier}.items():
        # Held-out pictures alone show that the person was forgotten, and not only the photograph.
        asked = [s for s in without_names(samples, name) if s.answer and s.picture is not None]
        if name in forget and asked:
            held = [s for s in splits.get("forget_holdout", ()) if _is_of(s, name)]
            asked = held or asked
        if asked:
            scored[name] = EARLIER + name
            splits[EARLIER + name] = asked
        else:
            absent.append(f"request {name}: its photographs have no questions and answers")
    forgetting = [*job.forgetting, *(s for s in splits if s.startswith(EARLIER))]
    # The language part is loaded even if nothing is asked, to show that text is answered as before.
    job = replace(job, splits=splits, data=data, forgetting=list(dict.fromkeys(forgetting)))
    return replace(job, visual_only=False), scored, absent


def _is_of(sample: Sample, request: str) -> bool:
    return sample.concept == request or (sample.concept or "").startswith(f"{request} person ")


def _possible(job: Job) -> tuple[tuple[Chain, ...], list[str]]:
    """The attacks that can be made on the data, and why the others cannot."""
    possible: list[Chain] = []
    refused: dict[str, list[str]] = {}
    for chain in job.attacks:
        try:
            check_attack(chain, job.attacker, job.splits, "target" in job.references)
            possible.append(chain)
        except (ConfigError, DataError) as error:
            why = str(error).partition(" needs ")[2] or str(error)
            refused.setdefault(why, []).append(chain_text(chain, complete=False))
    return tuple(possible), [
        f"the attacks {', '.join(names)}, which need {why}" for why, names in refused.items()
    ]


def model_folder(settings: LedgerSettings) -> str:
    """The deployed model as a folder or hub id."""
    return shipped_checkpoint(settings.model)
