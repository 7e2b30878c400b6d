"""Jobs whose record names nobody: the words that may stay, and the job with a redactor."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from unsee.artifacts.pseudonyms import Pseudonyms, Salt, find_salt
from unsee.artifacts.redactor import Redactor
from unsee.attacks import ATTACKS
from unsee.benchmarks import BENCHMARKS
from unsee.errors import ConfigError, RunError
from unsee.evaluation.open_answers import QUESTIONS
from unsee.families import ENCODERS, FAMILIES
from unsee.files import is_read_by_others
from unsee.methods import METHODS
from unsee.metrics import METRICS
from unsee.recipes import plain_yaml
from unsee.recipes.catalog import shipped_recipes
from unsee.recipes.evaluate import EvaluationOptions, TaskSelection
from unsee.recipes.finetune import Finetune
from unsee.recipes.job import NO_ANSWERS, SWITCHED_OFF, Job
from unsee.recipes.unlearn import RunOptions
from unsee.records.folder import key_of_run
from unsee.training.settings import TrainingSettings
from unsee.training.tracking import TRACKERS
from unsee.types import Sample

LOGGER = logging.getLogger("unsee")


def redacted(job: Job, out: Path) -> Job:
    """Returns the job with a redactor, if its recipe asks for one; the job itself otherwise.

    Args:
        job: The job.
        out: The run folder, beside which the key is if `salt` names no other file.

    Raises:
        ConfigError: If the key cannot be used, or a setting would keep or publish what is redacted.
        RunError: If the folder holds a run that was redacted with another key.
    """
    if not job.redact or job.redactor is not None:
        return job
    _refuse_contradictions(job)
    salt = open_salt(job.salt, out)
    redactor = Redactor(Pseudonyms(salt.key), vocabulary()).knowing(_samples(job))
    return replace(
        job,
        redactor=redactor,
        key=salt,
        command=redactor.command(job.command),
        recipe=redacted_recipe(job.recipe, redactor),
    )


def open_salt(given: str | None, out: Path) -> Salt:
    """Returns the key of a redacted run.

    Args:
        given: The file that was named; None for the one of UNSEE_SALT, else OUT.salt.
        out: The run folder.

    Raises:
        ConfigError: If the file cannot be used.
        RunError: If the folder holds a run that was redacted with another key.
    """
    salt = find_salt(given, out)
    used = key_of_run(out)
    if used is not None and used != Pseudonyms(salt.key).key_id:
        missing = f"{salt.path} does not exist" if salt.is_new else f"that in {salt.path} is not it"
        raise RunError(
            f"{out} holds a run that was redacted with the key {used}, and {missing}. Name the "
            "file with the key: --salt FILE."
        )
    if not salt.is_new and is_read_by_others(salt.path):
        LOGGER.warning(
            f"others can read the key in {salt.path.name}, and find out whom pseudonyms stand for. "
            f"Type: chmod 600 {salt.path.name}."
        )
    return salt


def redacted_recipe(text: str, redactor: Redactor) -> str:
    """Returns a recipe's text with keyed hashes for what a user typed, and without paths.

    Args:
        text: YAML whose first line is the command.
        redactor: Knows the words that may stay.
    """
    first, _, body = text.partition("\n")
    values = plain_yaml.parse(body, "recipe") or {}
    command = redactor.command(first.removeprefix("#").strip())
    return f"# {command}\n{plain_yaml.dump(redactor.typed(values))}"


@cache
def vocabulary() -> frozenset[str]:
    """The words that name nobody: names that are registered, fields, and their choices."""
    registries = (METHODS, ATTACKS, METRICS, BENCHMARKS, FAMILIES, ENCODERS)
    words = {name for registry in registries for name in registry.names()}
    words |= {ratio for _, benchmark in BENCHMARKS.items() for ratio in benchmark.ratios}
    kinds: list[Any] = [
        *(kind for _, kind in METHODS.items()),
        *(kind for _, kind in ATTACKS.items()),
        *(RunOptions, EvaluationOptions, TaskSelection, Finetune, TrainingSettings),
    ]
    for kind in kinds:
        hints = get_type_hints(kind, include_extras=True)
        words |= set(getattr(kind, "aliases", {})) | set(getattr(kind, "presets", {}))
        for item in fields(kind):
            words.add(item.name)
            words |= set(_choices(hints[item.name]))
            words |= set(_texts(item.default if item.default is not MISSING else None))
        words |= set(_texts(getattr(kind, "defaults", {})))
    words |= {"constant", "cosine", "linear", "all", "standard", "set", "attacks", "method"}
    words |= {*QUESTIONS, SWITCHED_OFF, NO_ANSWERS}
    words |= {"encoder", "projector", "language", "visual", *shipped_recipes()}
    words |= set(TRACKERS)
    # The counts in the first lines of a run.
    words |= {"samples", "pictures", "people"}
    return frozenset(words | {name.removesuffix(".yaml") for name in shipped_recipes()})


def _choices(hint: Any) -> Iterator[str]:
    """The texts that a type allows by name."""
    if get_origin(hint) is Literal:
        yield from (value for value in get_args(hint) if isinstance(value, str))
    else:
        for part in get_args(hint):
            if not isinstance(part, str):
                yield from _choices(part)


def _texts(value: Any) -> Iterator[str]:
    """The texts in a default."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _samples(job: Job) -> Iterator[Sample]:
    yield from (*job.data.forget, *job.data.retain, *job.data.text_only, *job.non_members)
    for samples in job.splits.values():
        yield from samples


def _refuse_contradictions(job: Job) -> None:
    """Refuses what would keep or publish personal data of a redacted run.

    Raises:
        ConfigError: If a setting does.
    """
    refuse_names(job.names)
    if getattr(job.method, "cache", None):
        raise ConfigError(
            "cache: a redacted run keeps no features of its pictures, and cache=DIR would keep the "
            "teacher's for ever. Leave cache out; features are then cached in memory."
        )
    people = {sample.concept for sample in _samples(job) if sample.concept}
    for split in job.splits:
        if names_someone(split, people):
            raise ConfigError(
                "a split is called like one of the people, and a redacted record has the names of "
                "its splits. Name it otherwise, such as --data people=PATH."
            )


def refuse_names(names: bool) -> None:
    """Refuses `names` together with `redact`.

    Raises:
        ConfigError: If names is true.
    """
    if names:
        raise ConfigError(
            "redact and names contradict each other: names lets the saved card name the people. "
            "Leave one of them out."
        )


def names_someone(text: str, people: Iterable[str]) -> bool:
    """Whether a text has a word of a person's name that the package does not use itself.

    Args:
        text: The text.
        people: The names.
    """
    known = set(vocabulary()) | {"forget", "retain", "holdout", "general", "data"}
    words = {word for name in people for word in _words(name)} - known
    return bool(words & set(_words(text)))


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return re.findall(r"[^\W_]+", "".join(c for c in folded if not unicodedata.combining(c)))
