"""The parts of a recipe from plain values: method, training settings, attacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from unsee.attacks import ATTACKS, Attack, Chain
from unsee.attacks.suites import SUITES
from unsee.errors import ConfigError, UnknownNameError, quoted
from unsee.methods import METHODS, Method
from unsee.recipes.parsing import (
    collect,
    format_value,
    parse_overrides,
    rename_fields,
    unknown_fields,
    validate,
)
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


def collect_method(
    problems: list[str],
    kind: type[Method],
    values: Mapping[str, Any],
    beside: Iterable[str] = (),
) -> tuple[Method | None, TrainingSettings | None]:
    """A method and its training settings, from one mapping of the fields of both.

    Args:
        problems: A message for each mistake is added to it.
        kind: The method's class; its defaults and presets apply.
        values: Values by current field name.
        beside: Names that could stand in the same place and are suggested for a misspelled one.

    Returns:
        Method and settings; None for one that has a value which is not allowed.
    """
    own, training = {f.name for f in fields(kind)}, {f.name for f in fields(TrainingSettings)}
    known = own | training | set(kind.presets)
    aliases = {**{name: name for name in beside}, **kind.aliases}
    problems += unknown_fields(kind.name, values, known, aliases)
    problems += [
        f"{kind.name}: {key}={quoted(value)} is not allowed: type {key}=true or {key}=false."
        for key, value in values.items()
        if key in kind.presets and not isinstance(value, bool)
    ]
    expanded = kind.expanded(values)
    settings = collect(
        problems, TrainingSettings, {k: v for k, v in expanded.items() if k in training}
    )
    method = collect(problems, kind, {k: v for k, v in expanded.items() if k in own})
    return method, settings


def attack_entries(problems: list[str], given: Any) -> tuple[str | dict[str, Any], ...]:
    """The entries of `attacks` in a recipe; one alone needs no list.

    Args:
        problems: A message for each mistake is added to it.
        given: What stands there: a list of texts and mappings, or one of them, or None.
    """
    entries = given if isinstance(given, list | tuple) else [] if given is None else [given]
    for entry in entries:
        if not isinstance(entry, str | Mapping):
            problems.append(
                f"attacks: {quoted(entry)} is not allowed: give text as after --attack, such as "
                "'relearn?share=0.2', or a mapping, such as {share: 0.2}."
            )
    return tuple(
        entry if isinstance(entry, str) else dict(entry)
        for entry in entries
        if isinstance(entry, str | Mapping)
    )


def collect_chains(
    problems: list[str], entries: Sequence[str | Mapping[str, Any]], seed: int
) -> list[Chain]:
    """The attacks of a recipe's `attacks` list.

    Args:
        problems: A message for each mistake is added to it.
        entries: Text as after `--attack`; or a mapping with the key "attack" (such a text;
            relearning if there is none) and fields.
        seed: Seed of attacks that draw samples, unless an entry gives another.
    """
    chains: list[Chain] = []
    for entry in entries:
        values = {"attack": entry} if isinstance(entry, str) else dict(entry)
        name = values.pop("attack", "relearn")
        try:
            if not isinstance(name, str):
                raise ConfigError(
                    f"attacks: attack={quoted(name)} is not allowed: type a name that "
                    "`unsee list attacks` prints, such as {attack: relearn}."
                )
            chains += build_chains([name], values, seed)
        except ConfigError as error:
            problems.append(str(error))
    return chains


def changed_fields(component: Any) -> dict[str, Any]:
    """The fields of a method or an attack that differ from their defaults.

    Args:
        component: An instance of a dataclass whose fields all have defaults.
    """
    defaults = asdict(type(component)())
    return {k: value for k, value in asdict(component).items() if value != defaults[k]}


def chain_text(chain: Attack | Chain, complete: bool = True) -> str:
    """An attack or a chain as it is typed after `--attack`, so that `build_chains` reads it.

    Args:
        chain: One attack, or several that are composed.
        complete: Whether fields at their defaults are written too.

    Example:
        >>> (chain,) = build_chains(["quantize?bits=3+jailbreak"])
        >>> chain_text(chain, complete=False)
        'quantize?bits=3+jailbreak'
        >>> chain_text(chain[0])
        'quantize?bits=3&scheme=rtn&modules=all'
    """
    texts = []
    for attack in (chain,) if isinstance(chain, Attack) else chain:
        values = asdict(attack) if complete else changed_fields(attack)  # type: ignore[call-overload]
        pairs = "&".join(f"{name}={format_value(value)}" for name, value in values.items())
        texts.append(f"{attack.name}?{pairs}" if pairs else attack.name)
    return "+".join(texts)


def build_chains(
    typed: Sequence[str], values: Mapping[str, Any] | None = None, seed: int = 0
) -> list[Chain]:
    """Attacks as they are typed: NAME?field=value&field=value, with "+" between those of a chain.

    Args:
        typed: One text a chain; "all" is every registered attack, each alone, and the name of a
            suite, such as "standard", the attacks of `unsee.attacks.suites`.
        values: Fields by name, for all attacks that have them, or by "attack.field" for one.
        seed: Seed of attacks that draw samples, unless another is given.

    Raises:
        ConfigError: If an attack, a field or a value is not allowed.
    """
    values = values or {}
    names = [name for text in typed for name in _expanded(text.strip())]
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


def _expanded(text: str) -> Sequence[str]:
    """The attacks that "all" or the name of a suite stands for; else the text itself."""
    if text == "all":
        return ATTACKS.names()
    if text in SUITES:
        return SUITES[text]
    for piece in text.split("+"):
        name = piece.partition("?")[0].strip()
        if name in SUITES:
            raise ConfigError(
                f"'{text}': '{name}' is a suite of attacks, which has no fields and is no part of "
                f"a chain. Type {name} alone, and fields of its attacks with --set "
                "ATTACK.FIELD=VALUE."
            )
    return [text]


def _typed_attack(text: str) -> tuple[str, dict[str, Any]]:
    name, _, rest = text.partition("?")
    if not name.strip():
        raise ConfigError(
            f"attacks: {quoted(text)} names no attack. Type NAME?field=value&field=value, with + "
            "between the attacks of a chain."
        )
    pairs = rest.split("&") if rest else []
    values = parse_overrides(pairs)
    if len(values) < len(pairs):
        raise ConfigError(f"attack {quoted(text)}: a field is given twice. Keep one.")
    return name.strip(), values


def attack_entry(attack: str | Attack | Chain | Mapping[str, Any]) -> dict[str, Any]:
    """An attack as a recipe's `attacks` list holds it.

    Args:
        attack: NAME?field=value&field=value, with "+" between the attacks of a chain; or an attack
            or a chain as objects; or an entry, which is copied.

    Example:
        >>> attack_entry("relearn?share=0.2&modules=all")
        {'share': 0.2, 'modules': 'all'}
        >>> attack_entry(ATTACKS.get("quantize")(bits=3))
        {'attack': 'quantize', 'bits': 3}
        >>> attack_entry("quantize?bits=3+jailbreak")
        {'attack': 'quantize?bits=3+jailbreak'}

    Raises:
        ConfigError: If an attack is unknown or a field has no value.
    """
    if isinstance(attack, Mapping):
        return dict(attack)
    text = attack if isinstance(attack, str) else chain_text(attack, complete=False)
    pieces = [_typed_attack(piece) for piece in text.split("+")]
    for name, _ in pieces:
        if name != "all" and name not in SUITES:
            ATTACKS.get(name)
    (name, values), *others = pieces
    if others:
        return {"attack": text}
    # An entry that names no attack is relearning.
    return values if name == "relearn" and values else {"attack": name, **values}
