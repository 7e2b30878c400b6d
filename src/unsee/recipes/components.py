"""Components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from unsee.attacks import ATTACKS, Chain
from unsee.errors import UnknownNameError
from unsee.methods import METHODS, Method
from unsee.recipes.parsing import parse_overrides, rename_fields, validate
from unsee.training.settings import TrainingSettings


def build_method(name: str, values: Mapping[str, Any]) -> Method:
    """A method with these hyperparameters.

    Raises:
        ConfigError: If the method, a field or a value is not allowed.
    """
    return validate(METHODS.get(name), values)


def build_settings(name: str, values: Mapping[str, Any]) -> TrainingSettings:
    """Training settings: a method's own defaults, changed by `values`.

    Raises:
        ConfigError: If a field or a value is not allowed.
    """
    given = rename_fields(TrainingSettings, values)
    return validate(TrainingSettings, {**METHODS.get(name).defaults, **given})


def build_chains(
    typed: Sequence[str], values: Mapping[str, Any] | None = None, seed: int = 0
) -> list[Chain]:
    """Attacks as they are typed: NAME?field=value&field=value, with "+" between those of a chain.

    Args:
        typed: One text a chain; "all" is every registered attack, each alone.
        values: Fields by name, for all attacks that have them, or by "attack.field" for one.
        seed: Of the attacks that draw, unless said otherwise.

    Raises:
        ConfigError: If an attack, a field or a value is not allowed.
    """
    values = values or {}
    names = [n for text in typed for n in (ATTACKS.names() if text == "all" else [text])]
    parsed = [[_typed_attack(piece) for piece in text.split("+")] for text in names]
    kinds = {name: ATTACKS.get(name) for chain in parsed for name, _ in chain}
    known = {
        name: {f.name for f in fields(kind)} | set(getattr(kind, "aliases", {}))  # type: ignore[arg-type]
        for name, kind in kinds.items()
    }
    allowed = {f"{n}.{f}" for n, some in known.items() for f in some}.union(*known.values())
    for key in values:
        if key not in allowed:
            raise UnknownNameError(f"field of {', '.join(known)}", key, allowed)

    def build(name: str, given: dict[str, Any]) -> Any:
        shared = {"seed": seed} | {k: v for k, v in values.items() if "." not in k}
        own = {k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{name}.")}
        return validate(
            kinds[name], {k: v for k, v in shared.items() if k in known[name]} | own | given
        )

    return [tuple(build(name, given) for name, given in chain) for chain in parsed]


def _typed_attack(text: str) -> tuple[str, dict[str, Any]]:
    name, _, rest = text.partition("?")
    return name.strip(), parse_overrides(rest.split("&")) if rest else {}


def attack_entry(text: str) -> dict[str, Any]:
    """An attack as a recipe's `attacks` list holds it, from how it is typed.

    Args:
        text: NAME?field=value&field=value, with "+" between the attacks of a chain.

    Example:
        >>> attack_entry("relearn?share=0.2&modules=all")
        {'share': 0.2, 'modules': 'all'}
        >>> attack_entry("quantize?bits=3")
        {'attack': 'quantize', 'bits': 3}
        >>> attack_entry("quantize?bits=3+jailbreak")
        {'attack': 'quantize?bits=3+jailbreak'}

    Raises:
        ConfigError: If an attack is unknown or a field has no value.
    """
    pieces = [_typed_attack(piece) for piece in text.split("+")]
    for name, _ in pieces:
        if name != "all":
            ATTACKS.get(name)
    (name, values), *others = pieces
    if others:
        return {"attack": text}
    # An entry that names no attack is relearning.
    return values if name == "relearn" and values else {"attack": name, **values}
