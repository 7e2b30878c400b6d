"""Stacks of patches: each is made from the state after the ones before it.

A stack is matched by hashes alone, in one pass over the visual tensors, and no state in between is
written. What does not fit is refused with the patch, the state that it fits, and what to type.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from unsee.artifacts.identity import Base, base_of, changed_places, fit, refuse_base
from unsee.artifacts.lineage import Lineage, lineage_of
from unsee.artifacts.manifest import MANIFEST, TENSORS, Manifest, patch_id, read_manifest, step_of
from unsee.errors import PatchError
from unsee.files import path_text
from unsee.hub.names import PREFIX, find
from unsee.hub.snapshots import snapshot

if TYPE_CHECKING:
    from torch import Tensor

# One patch's folder, or several in the order in which they were made.
Patches = str | PathLike[str] | Sequence[str | PathLike[str]]


@dataclass(frozen=True)
class Stack:
    """Patches, matched with the checkpoint that they are applied to.

    Attributes:
        patches: Their folders, in order.
        manifests: Their manifests.
        base: The checkpoint with all of them on it.
        before: The lineage of the checkpoint itself.
    """

    patches: tuple[Path, ...]
    manifests: tuple[Manifest, ...]
    base: Base
    before: Lineage

    @property
    def lineage(self) -> Lineage:
        """The lineage of the checkpoint with all patches on it."""
        steps = (*self.before.steps, *map(step_of, self.manifests))
        names = {*(self.before.tensors or {}), *self.base.replaced}
        return Lineage(steps, {name: self.base.digest(name) for name in sorted(names)})

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yields each replaced tensor by its name in the checkpoint's files, patch by patch."""
        for patch in dict.fromkeys(replaced.patch for replaced in self.base.replaced.values()):
            with safe_open(patch / TENSORS, "pt") as file:
                for name, replaced in self.base.replaced.items():
                    if replaced.patch == patch:
                        yield name, file.get_tensor(replaced.name)


def patch_folders(patches: Patches) -> tuple[Path, ...]:
    """Patches' folders as a tuple; one folder is a stack of one, hub:OWNER/NAME is downloaded.

    Raises:
        PatchError: If one is no path, or cannot be downloaded.
    """
    if isinstance(patches, str | bytes | PathLike) or not isinstance(patches, Iterable):
        patches = (patches,)
    return tuple(map(_folder, patches))


def _folder(patch: object) -> Path:
    """The folder of a patch as it is given."""
    advice = "give the folder of a patch, such as runs/job/patch, or hub:OWNER/NAME."
    text = path_text("patch ", patch, advice, PatchError)
    # A patch alone is no checkpoint: without the prefix it is a folder.
    repository = find(text) if text.startswith(PREFIX) else None
    if repository is None:
        return Path(text)
    return snapshot(repository, "model", [MANIFEST, TENSORS], "patch ", PatchError, [MANIFEST])


def refuse_inverses(
    patches: Sequence[Path], manifests: Sequence[Manifest], model: str | Path
) -> None:
    """Refuses inverses among patches that are to be put on a model.

    Args:
        patches: The patches' folders.
        manifests: Their manifests.
        model: The checkpoint, as it was given.

    Raises:
        PatchError: If one takes patches back.
    """
    for path, manifest in zip(patches, manifests, strict=True):
        if manifest.undoes:
            raise PatchError(
                f"patch {path} is an inverse, which takes patches back. Type: unsee undo {path} "
                f"--model {model} --out DIR"
            )


def match_stack(
    patches: Sequence[Path],
    folder: Path,
    files: Mapping[str, Path],
    manifests: Sequence[Manifest] | None = None,
) -> Stack:
    """Matches patches with a checkpoint, one after the other.

    Args:
        patches: The patches' folders, in order; with none of them, the checkpoint as it is.
        folder: The checkpoint.
        files: The file of each of its tensors, from `weight_map`.
        manifests: The patches' manifests where they were read before, from `read_manifest`.

    Raises:
        PatchError: If a patch is damaged, does not fit the state after those before it, or changes
            anything but tensors of the visual part.
        ModelError: If the checkpoint is damaged.
    """
    if manifests is None:
        manifests = tuple(read_manifest(patch) for patch in patches)
    base = base_of(folder, files)
    lineage = lineage_of(folder, lambda name: base.digest(name) if name in files else None)
    stack = Stack(tuple(patches), tuple(manifests), base, lineage)
    _refuse_twice(stack, folder)
    states = [base]
    for patch, manifest in zip(patches, manifests, strict=True):
        names = fit(manifest, states[-1])
        if names is None:
            raise _misfit(stack, states, folder)
        places = changed_places(manifest, states[-1], names, patch)
        states.append(states[-1].patched(patch, manifest, places))
    return replace(stack, base=states[-1])


def _refuse_twice(stack: Stack, folder: Path) -> None:
    """Refuses a patch that is given twice, or that is on the checkpoint already."""
    seen: dict[str, Path] = {}
    applied = {step.id for step in stack.before.steps}
    for number, (patch, manifest) in enumerate(zip(stack.patches, stack.manifests, strict=True)):
        identity = patch_id(manifest)
        others = [*stack.patches[:number], *stack.patches[number + 1 :]]
        if identity in seen:
            same = "" if seen[identity] == patch else f": {seen[identity]} is the same patch"
            raise PatchError(f"patch {patch} is given twice{same}. {_type(others, folder)}")
        if identity in applied:
            advice = _type(others, folder) if others else "Apply it to the base instead."
            raise PatchError(f"patch {patch} is on {folder} already. {advice}")
        seen[identity] = patch


def _misfit(stack: Stack, states: Sequence[Base], folder: Path) -> PatchError:
    """The error for the first patch that does not fit.

    Args:
        stack: All patches.
        states: The checkpoint, and the state after each patch that fits; the next one does not.
        folder: The checkpoint's folder.
    """
    number = len(states) - 1
    patch, manifest = stack.patches[number], stack.manifests[number]
    order = _order(stack, states[-1], number)
    if order is not None:
        after = stack.patches[order[order.index(number) - 1]]
        return PatchError(
            f"patch {patch} fits the state after {after}, which is given later. "
            f"{_type([*stack.patches[:number], *(stack.patches[i] for i in order)], folder)}"
        )
    there = {step.id for step in stack.before.steps}
    given = {patch_id(m): path for path, m in zip(stack.patches, stack.manifests, strict=True)}
    missing = [s for s in manifest.earlier if s.id not in there and s.id not in given]
    if missing:
        words = ", ".join(filter(None, (missing[0].method, missing[0].made)))
        below = [s.id for s in manifest.earlier if s.id not in there]
        right = [given.pop(i, Path(f"PATCH-{i[:12]}")) for i in below]
        return PatchError(
            f"patch {patch} fits the state after the patch {missing[0].id[:12]} ({words}), which "
            "is neither given nor on the model. `unsee history PATCH` prints a patch's identity. "
            f"{_type([*right, *given.values()], folder)}"
        )
    for earlier, state in enumerate(states[:-1]):
        if fit(manifest, state) is not None:
            where = stack.patches[earlier - 1] if earlier else folder
            own = f"the state after {where}" if earlier else f"{folder} itself"
            return PatchError(
                f"patch {patch} was made from {own}, not from the state after "
                f"{stack.patches[number - 1]}: patches of one state cannot be stacked. Apply one "
                "of them, and unlearn again from that state (`unsee unlearn --patch`)."
            )
    state_name = f"{folder} after {stack.patches[number - 1]}" if number else folder
    try:
        refuse_base(manifest, states[-1], patch, state_name)
    except PatchError as error:
        return error


def _order(stack: Stack, state: Base, number: int) -> list[int] | None:
    """An order in which all patches from one on fit; None if there is none."""
    left, order = list(range(number, len(stack.patches))), []
    while left:
        for index in left:
            names = fit(stack.manifests[index], state)
            if names is not None:
                patch, manifest = stack.patches[index], stack.manifests[index]
                places = changed_places(manifest, state, names, patch)
                state = state.patched(patch, manifest, places)
                left.remove(index)
                order.append(index)
                break
        else:
            return None
    return order


def _type(patches: Iterable[Path], folder: Path) -> str:
    """The command that applies patches in an order that fits."""
    words = ["unsee", "apply", *map(str, patches), "--model", str(folder), "--out", "DIR"]
    return f"Type: {shlex.join(words)}"
