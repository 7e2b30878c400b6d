"""How the arguments of the public API are read, and how a call is written as a command line."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from unsee.attacks import Attack, Chain
from unsee.errors import ConfigError, quoted
from unsee.files import path_text
from unsee.models.vlm import VLM
from unsee.progress import Bar, ProgressCallback
from unsee.recipes.components import attack_entry, build_chains, chain_text
from unsee.recipes.parsing import format_value
from unsee.recipes.sources import shipped_checkpoint
from unsee.recipes.specs import parse_spec

Location = str | Path
T = TypeVar("T")
Progress = Bar | ProgressCallback | None


def location_text(argument: str, value: object) -> str:
    """A location as text.

    Args:
        argument: The name of the argument that it is.
        value: Text or a path; anything else is refused.

    Example:
        >>> location_text("forget", Path("photos"))
        'photos'

    Raises:
        ConfigError: If it is neither, empty, or longer than a path can be.
    """
    return path_text(
        f"{argument}=",
        value,
        f"give a path, a hub id or the name of a split as text, such as {argument}='DIR'.",
    )


def folder_of(out: object) -> Path:
    """The folder that is to be written.

    Raises:
        ConfigError: If it is neither text nor a path.
    """
    return Path(location_text("out", out))


def listed(argument: str, values: object, kind: type[T], least: int | None = None) -> list[T]:
    """The items of an argument that takes several.

    Args:
        argument: Its name.
        values: The items, or one of them.
        kind: The type of an item.
        least: The smallest number that is allowed.

    Example:
        >>> listed("seeds", (0, 1), int, 0), listed("metrics", "accuracy", str)
        ([0, 1], ['accuracy'])

    Raises:
        ConfigError: If it is no sequence, or an item is of another type or too small.
    """
    items = [values] if isinstance(values, kind) and not isinstance(values, bool) else values
    if isinstance(items, list | tuple | range | set | frozenset):
        return [one(argument, item, kind, least) for item in items]
    raise ConfigError(
        f"{argument}={quoted(values)} is not allowed: give a list, each of type {kind.__name__}."
    )


def one(argument: str, value: object, kind: type[T], least: int | None = None) -> T:
    """The value of an argument of a plain type.

    Args:
        argument: The name of the argument, for the message.
        value: The value given.
        kind: The type that is allowed.
        least: The least number that is allowed; None for any.

    Raises:
        ConfigError: If it is of another type or too small.
    """
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if fits and (least is None or (isinstance(value, int) and value >= least)):
        return value  # type: ignore[return-value]
    allowed = kind.__name__ if least is None else f"a whole number of {least} or more"
    raise ConfigError(f"{argument}={quoted(value)} is not allowed: give {allowed}.")


def mapping(argument: str, value: object) -> dict[str, Any]:
    """The value of an argument that is fields with values.

    Raises:
        ConfigError: If it is no mapping, or a key is no text.
    """
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return dict(value)
    raise ConfigError(
        f"{argument}={quoted(value)} is not allowed: give fields with values, such as "
        f"{argument}={{'lr': 1e-4}}."
    )


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
        return {name: location_text(name, path) for name, path in mapping("data", data).items()}
    splits: dict[str, str] = {}
    if not isinstance(data, str | os.PathLike | list | tuple):
        location_text("data", data)
    for location in [data] if isinstance(data, str | os.PathLike) else data:
        location_text("data", location)
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
    texts = []
    for attack in attack_list(attacks):
        if isinstance(attack, Mapping):
            raise ConfigError(
                f"attacks: {quoted(attack)} is not allowed here: give text as after --attack, such "
                "as 'relearn?share=0.2', or attack objects."
            )
        texts.append(attack if isinstance(attack, str) else chain_text(attack, complete=False))
    return build_chains(texts, mapping("fields", fields))


def attack_list(attacks: object) -> list[str | Attack | Chain | Mapping[str, Any]]:
    """The attacks of an argument that takes one or several.

    Raises:
        ConfigError: If it holds anything but text, attacks, chains of them and fields.
    """
    single = isinstance(attacks, str | Attack | Mapping)
    items = [attacks] if single else attacks
    if isinstance(items, list | tuple):
        for item in items:
            chain = item if isinstance(item, tuple) else ()
            if not (chain and all(isinstance(part, Attack) for part in chain)) and not isinstance(
                item, str | Attack | Mapping
            ):
                break
        else:
            return list(items)
    raise ConfigError(
        f"attacks={quoted(attacks)} is not allowed: give a list of text as after --attack, such as "
        "'relearn?share=0.2', or of attack objects."
    )


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
    source: str = shipped_checkpoint(location_text("model", model))
    return source


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as a recipe holds them: locations as text, attacks as entries."""
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
    if plain.get("attacks") is not None:
        plain["attacks"] = [attack_entry(attack) for attack in attack_list(plain["attacks"])]
    return plain


def given_locations(options: Mapping[str, Any], *names: str) -> dict[str, str]:
    """The locations that were given, by name, as text."""
    given = {name: options.get(name) for name in names}
    return {name: location_text(name, at) for name, at in given.items() if at is not None}


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
