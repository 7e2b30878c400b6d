"""Finds the parts of a vision-language model from what transformers says about its class.

`get_image_features` names the modules that a picture goes through, in their order: those are the
visual part, and the last of them writes what the LLM reads. Everything else is the language part.
Nothing is run, so that a model without weights (on the meta device) has the same parts.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from unsee.errors import ModelError
from unsee.types import Parts

FEATURES = "get_image_features"
# Modules of a model that read pictures, where `get_image_features` does not name them.
VISUAL = re.compile(
    r"vis(ion|ual)|image|patch|multi_?modal|^mm_|projector|connector|aligner|qformer"
)
PROJECTORS = re.compile(
    r"(projector|projection|connector|aligner|qformer|merger|resampler|adapter)[^.]*$"
)
NOT_VISUAL = re.compile(r"audio|speech|video|generation|text|language|lm_head|vq")
# Leaves of a block of the LLM that decide which expert runs; adapters would change the choice.
ROUTERS = re.compile(r"(^|_)(router|gate|shared_expert_gate)$")


@dataclass(frozen=True)
class Structure:
    """The parts and layers of a model, as names of its modules and parameters.

    Attributes:
        owner: The module that has `get_image_features`.
        parts: The parts as prefixes of parameter names.
        blocks: The blocks of the vision encoder, from its input to its output.
        readers: The modules whose outputs the LLM reads; the last is "the" projector.
        entry: The module with which the encoder begins, unless it is itself a reader.
        chain: Modules that a picture goes through, one after the other, where the class has no
            `get_image_features`.
        outside: Whether the last reader runs after `get_image_features`, on its result.
        language: The list of the LLM's blocks.
        lora_targets: Regular expression of the names of the LLM's linear layers.
    """

    owner: str
    parts: Parts
    blocks: tuple[str, ...]
    readers: tuple[str, ...]
    entry: str | None
    chain: tuple[str, ...]
    outside: bool
    language: str
    lora_targets: str


def find_structure(model: Any) -> Structure:
    """The structure of a model of a class of transformers.

    Args:
        model: The Hugging Face model; its weights may be on the meta device.

    Raises:
        ModelError: If its class does not say which modules read pictures.
    """
    spoken = _language_modules(model)
    owner, named, follows = _owner(model, spoken)
    others = [name for name in _children(model, owner) if name not in named]
    after = [
        name for name in others if follows and _reads_pictures(name, _get(model, name), spoken)
    ]
    modules = [name for name in (*named, *after) if isinstance(_get(model, name), nn.Module)]
    encoders = [n for n in modules if _longest_list(_get(model, n)) and not PROJECTORS.search(n)]
    encoders = encoders or modules[:1]
    follow = [name for name in modules if name not in encoders]
    projecting = [name for name in (*named, *after) if name not in encoders]
    if not follow:
        follow = _after_blocks(model, encoders[-1])
        projecting += follow
    visual = {n for name in (*named, *after) for n in _parameters(model, name)}
    projector = {n for name in projecting for n in _parameters(model, name)}
    rest = {n for n, _ in model.named_parameters(remove_duplicate=False)} - visual
    language = _language_list(model, rest, spoken)
    readers = tuple(_readers(model, follow or encoders[-1:]))
    return Structure(
        owner=owner,
        parts=Parts(
            encoder=cover(model, visual - projector),
            projector=cover(model, projector),
            language=cover(model, rest),
        ),
        blocks=tuple(block for name in encoders for block in _blocks(model, name)),
        readers=readers,
        entry=next((name for name in encoders[:1] if name not in readers), None),
        chain=() if follows else tuple(modules),
        outside=bool(follow) and follow[-1] in after,
        language=language,
        lora_targets=_lora_targets(model, language),
    )


def cover(model: nn.Module, names: set[str]) -> tuple[str, ...]:
    """The shortest prefixes that match exactly these parameter names."""
    everything = [n for n, _ in model.named_parameters(remove_duplicate=False)]
    prefixes: list[str] = []
    for name in everything:
        if name not in names or name.startswith(tuple(prefixes)):
            continue
        pieces = name.split(".")
        starts = [".".join(pieces[: i + 1]) + "." for i in range(len(pieces) - 1)]
        fitting = (s for s in starts if all(n in names for n in everything if n.startswith(s)))
        prefixes.append(next(fitting, name))
    return tuple(prefixes)


def _get(model: Any, name: str) -> Any:
    """A module or parameter by its dotted name."""
    found = model
    for piece in name.split(".") if name else ():
        found = getattr(found, piece)
    return found


def _children(model: Any, owner: str) -> list[str]:
    """The direct modules and parameters of a module and of the model, with their full names."""
    names = []
    for prefix in dict.fromkeys(("", owner)):
        module = _get(model, prefix)
        start = f"{prefix}." if prefix else ""
        direct = [*(n for n, _ in module.named_children()), *module._parameters]
        names += [f"{start}{n}" for n in direct if f"{start}{n}" != owner]
    return [n for n in names if not owner.startswith(f"{n}.") and _parameters(model, n)]


def _parameters(model: Any, name: str) -> list[str]:
    """The names of the parameters of a module, or that of a parameter."""
    found = _get(model, name)
    if isinstance(found, nn.Parameter):
        return [name]
    return [f"{name}.{n}" for n, _ in found.named_parameters(remove_duplicate=False)]


def _language_modules(model: Any) -> set[int]:
    """The identities of the LLM's decoder and of the embeddings of its tokens."""
    found = []
    for getter in ("get_decoder", "get_input_embeddings", "get_output_embeddings"):
        try:
            found.append(getattr(model, getter)())
        except (AttributeError, NotImplementedError):
            continue
    return {id(module) for module in found if module is not None and module is not model}


def _is_spoken(module: Any, spoken: set[int]) -> bool:
    """Whether a module is, or holds, a part of the LLM."""
    return isinstance(module, nn.Module) and any(id(m) in spoken for m in module.modules())


def _owner(model: Any, spoken: set[int]) -> tuple[str, list[str], bool]:
    """The module with `get_image_features`, and what it uses, in order, with full names.

    Without one, the modules that read pictures by their names; the last value is then False.
    """
    for name, module in model.named_modules():
        if not hasattr(type(module), FEATURES):
            continue
        start = f"{name}." if name else ""
        used = [
            f"{start}{n}"
            for n in references(module, FEATURES)
            if isinstance(getattr(module, n, None), nn.Module | nn.Parameter)
            and not _is_spoken(getattr(module, n), spoken)
            and _parameters(model, f"{start}{n}")
        ]
        if used:
            return name, used, True
    base = model.base_model_prefix if hasattr(model, model.base_model_prefix or "-") else ""
    for owner in dict.fromkeys((base, "")):
        named = [n for n in _children(model, owner) if _reads_pictures(n, _get(model, n), spoken)]
        named = [n for n in named if n.startswith(f"{owner}." if owner else "")]
        if any(
            isinstance(_get(model, n), nn.Module) and _longest_list(_get(model, n)) for n in named
        ):
            return owner, named, False
    raise ModelError(
        f"{type(model).__name__} has no {FEATURES} that names the modules which read a picture, so "
        "its visual part cannot be found."
    )


def references(module: Any, method: str) -> list[str]:
    """The attributes of `self` that a method uses, in the order of its source.

    Methods of the same object that it calls are followed.

    Args:
        module: The object.
        method: The method's name.
    """
    found: dict[str, None] = {}
    _follow(type(module), method, found, set())
    return list(found)


def _follow(kind: type, method: str, found: dict[str, None], seen: set[str]) -> None:
    """Adds the attributes that a method uses to `found`."""
    named = getattr(kind, method)
    function = named.fget if isinstance(named, property) else inspect.unwrap(named)
    if method in seen or not inspect.isfunction(function):
        return
    seen.add(method)
    for name in _self_attributes(function):
        called = getattr(kind, name, None)
        followed = callable(called) or isinstance(called, property)
        if followed and not name.startswith(("get_input", "get_encoder")):
            _follow(kind, name, found, seen)
        else:
            found.setdefault(name)


def _self_attributes(function: Callable[..., Any]) -> Iterator[str]:
    """The names after "self." in a function's source, in order."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return
    uses = [
        (node.lineno, node.col_offset, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    ]
    yield from (name for _, _, name in sorted(uses))


def _reads_pictures(name: str, child: Any, spoken: set[int]) -> bool:
    """Whether a module that `get_image_features` does not name belongs to the visual part."""
    leaf = name.rpartition(".")[2]
    return bool(
        VISUAL.search(leaf) and not NOT_VISUAL.search(leaf) and not _is_spoken(child, spoken)
    )


def _lists(module: nn.Module) -> list[tuple[int, str]]:
    """Length and name of every list of blocks in a module; lists in a block are left out."""
    found: list[tuple[int, str]] = []
    for name, child in module.named_modules():
        inner = name.startswith(tuple(f"{other}." for _, other in found))
        if type(child).__name__ == "ModuleList" and len(child) and not inner:
            found.append((len(child), name))
    return found


def _projects(name: str) -> bool:
    """Whether a list of blocks is inside a projector, by its name."""
    return any(PROJECTORS.search(piece) for piece in name.split("."))


def _longest_list(module: nn.Module) -> str | None:
    """The name of the longest list of blocks in a module; of equals the first."""
    lists = [(count, name) for count, name in _lists(module) if not _projects(name)]
    if not lists:
        return None
    longest = max(count for count, _ in lists)
    return next(name for count, name in lists if count == longest)


def _blocks(model: Any, tower: str) -> list[str]:
    """The names of the blocks of a vision encoder."""
    name = _longest_list(_get(model, tower))
    if name is None:
        return []
    home = f"{tower}.{name}" if name else tower
    return [f"{home}.{i}" for i in range(len(_get(model, home)))]


def _after_blocks(model: Any, tower: str) -> list[str]:
    """The children that a vision encoder uses after its blocks, with full names."""
    module = _get(model, tower)
    blocks = _longest_list(module)
    if not blocks:
        return []
    children = dict(module.named_children())
    order = [n for n in references(module, "forward") if n in children]
    if len(order) == 1:
        return _after_blocks(model, f"{tower}.{order[0]}")
    first = blocks.split(".")[0]
    if first not in order:
        return []
    later = order[order.index(first) + 1 :]
    # A lone norm at the end belongs to the encoder.
    later = [n for n in later if list(children[n].parameters())]
    return [f"{tower}.{n}" for n in later] if any(_mixes(children[n]) for n in later) else []


def _mixes(module: nn.Module) -> bool:
    """Whether a module has a weight that is a matrix, as no norm has."""
    return any(parameter.dim() > 1 for parameter in module.parameters())


def _readers(model: Any, modules: Iterable[str]) -> list[str]:
    """The modules of a projector whose outputs the LLM reads: its lists' members, and its end."""
    names = list(modules)
    found: list[str] = []
    for name in names:
        module = _get(model, name)
        if type(module).__name__ == "ModuleList":
            found += [f"{name}.{i}" for i in range(len(module))]
    last = names[-1]
    return found if found and found[-1].startswith(f"{last}.") else [*found, last]


def _language_list(model: Any, names: set[str], spoken: set[int]) -> str:
    """The name of the list of the LLM's blocks: the longest in its decoder."""
    prefixes = {name.rpartition(".")[0] for name in names}
    choices: list[tuple[bool, int, str]] = []
    for name, module in model.named_modules():
        if id(module) in spoken:
            choices += [(True, n, f"{name}.{inner}".strip(".")) for n, inner in _lists(module)]
    choices += [(False, n, name) for n, name in _lists(model)]
    language = [c for c in choices if any(p.startswith(f"{c[2]}.") for p in prefixes)]
    if not language:
        raise ModelError(f"{type(model).__name__} has no list of blocks in its language part.")
    return max(language, key=lambda choice: (choice[0], choice[1], "decoder" in choice[2]))[2]


def _lora_targets(model: Any, language: str) -> str:
    """A regular expression of the linear layers in the LLM's blocks."""
    blocks = _get(model, language)
    leaves = {
        name.rpartition(".")[2]
        for name, module in blocks.named_modules()
        if type(module) is nn.Linear
    }
    chosen = sorted(leaf for leaf in leaves if not ROUTERS.search(leaf) and not leaf.isdigit())
    return rf"{re.escape(language)}\.\d+\..*?({'|'.join(map(re.escape, chosen))})"
