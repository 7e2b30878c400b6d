"""How the arguments of the public API are read, and how a call is written as a command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unsee.attacks import Attack, Chain
from unsee.errors import ConfigError
from unsee.models.vlm import VLM
from unsee.progress import Bar, ProgressCallback
from unsee.recipes.components import attack_entry, build_chains, chain_text
from unsee.recipes.parsing import format_value
from unsee.recipes.sources import shipped_checkpoint
from unsee.recipes.specs import parse_spec

Location = str | Path
Progress = Bar | ProgressCallback | None


def named_splits(
    data: Location | Sequence[Location] | Mapping[str, Location],
) -> dict[str, str]:
    """Locations of samples by the name of their split.

    Args:
        data: A mapping; or one or more locations, each of which may be NAME=PATH. Without NAME the
            split is that of the benchmark, or "data".

    Example:
        >>> named_splits(["pocket:general", "mine=people.jsonl", "others.jsonl"])
        {'general': 'pocket:general', 'mine': 'people.jsonl', 'data': 'others.jsonl'}

    Raises:
        ConfigError: If two have the same name.
    """
    if isinstance(data, Mapping):
        return {name: str(path) for name, path in data.items()}
    splits: dict[str, str] = {}
    for location in [data] if isinstance(data, str | Path) else data:
        # The "=" of "?ratio=5" names no split: what stands before it is no name.
        name, separator, path = str(location).partition("=")
        if not separator or not re.fullmatch(r"[\w-]+", name):
            spec = parse_spec(str(location))
            name, path = (spec.split if spec else "data"), str(location)
        if name in splits:
            raise ConfigError(
                f"--data {location}: the split '{name}' is given twice. Type NAME=PATH."
            )
        splits[name] = path
    return splits


def chains_of(
    attacks: str | Sequence[str | Attack | Chain], fields: Mapping[str, Any]
) -> list[Chain]:
    """The chains that attacks stand for; "all" stands for several.

    Args:
        attacks: One or more, as they are typed or as objects.
        fields: Fields of every attack that has them, or of one as "ATTACK.field". Fields that an
            attack itself sets count more.

    Raises:
        ConfigError: If an attack or a field is unknown.
    """
    listed = [attacks] if isinstance(attacks, str) else attacks
    texts = [a if isinstance(a, str) else chain_text(a, complete=False) for a in listed]
    return build_chains(texts, fields)


def source_of(model: Location) -> str:
    """A checkpoint's folder or hub id.

    Raises:
        ConfigError: If it is a loaded model.
    """
    if isinstance(model, VLM):
        raise ConfigError(
            "a loaded VLM cannot be given here, because the record must say from which files a run "
            "can be repeated. Save it with vlm.save(FOLDER) and give the folder, or train it in "
            "memory with Method.unlearn(vlm, data, trainer)."
        )
    source: str = shipped_checkpoint(str(model))
    return source


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as a recipe holds them: locations as text, attacks as entries."""
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
    if "attacks" in plain:
        attacks = plain["attacks"]
        listed = [attacks] if isinstance(attacks, str | Attack) else attacks
        plain["attacks"] = [attack_entry(attack) for attack in listed]
    return plain


def given_sources(options: Mapping[str, Any], *names: str) -> dict[str, str]:
    """The locations among the options that are given, by name."""
    return {name: source_of(options[name]) for name in names if options.get(name) is not None}


def command_line(
    word: str,
    options: Mapping[str, Any],
    arguments: Sequence[Location] = (),
    overrides: Mapping[str, Any] | None = None,
) -> str:
    """Returns the command line that does the same as a call.

    Args:
        word: The command, such as "unlearn".
        options: Options by name; None and False are left out.
        arguments: Positional arguments.
        overrides: Fields that follow as key=value.
    """
    words = ["unsee", word, *map(str, arguments)]
    words += [f"{key}={format_value(value)}" for key, value in (overrides or {}).items()]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif isinstance(value, list | tuple):
            words += [word for item in value for word in (option, str(item))]
        elif value is not None and value is not False and value != "":
            words += [option, str(value)]
    return shlex.join(words)
