"""The lineage of a checkpoint or of patches, to be printed: `unsee history`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unsee.artifacts.identity import base_of
from unsee.artifacts.lineage import LINEAGE, read_lineage
from unsee.artifacts.manifest import MANIFEST, Manifest, Step, patch_id, read_manifest, step_of
from unsee.artifacts.stack import patch_folders
from unsee.errors import PatchError, counted
from unsee.hub.names import PREFIX
from unsee.models.checkpoint import resolve, weight_map


@dataclass(frozen=True)
class History:
    """A lineage.

    Attributes:
        steps: The patches, in the order in which they are applied.
        intact: Whether the checkpoint's weights are those that the patches made; None for patches
            without a checkpoint.
        folders: The folders of the patches that were given, by identity.
    """

    steps: tuple[Step, ...]
    intact: bool | None = None
    folders: Mapping[str, str] = field(default_factory=dict)

    @property
    def base_sha256(self) -> str | None:
        """Identity of the checkpoint below all patches; None if there is no patch."""
        return self.steps[0].base_sha256 if self.steps else None

    def describe(self) -> str:
        """Returns the lineage as text: the base, then three lines for each patch."""
        if not self.steps:
            return f"no patch: the checkpoint has no {LINEAGE}"
        lines = [f"base: {self.base_sha256}"]
        for number, step in enumerate(self.steps, 1):
            where = ", ".join(f"{name} {count}" for name, count in step.where.items())
            folder = f", {self.folders[step.id]}" if step.id in self.folders else ""
            made = step.made or "at an unknown time"
            lines += [
                f"{number}. {step.id[:12]} {step.method or 'patch'}, made {made}{folder}",
                f"   {counted(step.tensors, 'tensor')} ({where}), {counted(step.values, 'weight')}",
                f"   state after it: {step.result_sha256}",
            ]
        if self.intact is not None:
            state = "as the patches made them" if self.intact else "CHANGED since"
            lines.append(f"weights: {state}")
        return "\n".join(lines)


def history_of(sources: Sequence[Path]) -> History:
    """The lineage of a checkpoint, or the common one of patches.

    Args:
        sources: One checkpoint's folder or hub id, or one or more patches: folders or
            hub:OWNER/NAME.

    Raises:
        PatchError: If a patch or a lineage is damaged, or the patches do not follow each other.
        ModelError: If a folder is neither a checkpoint nor a patch.
    """
    if not sources:
        raise PatchError("whose history? Give a checkpoint's folder, or those of patches.")
    folders = {
        source: patch_folders(source)[0] if str(source).startswith(PREFIX) else source
        for source in sources
    }
    patches = [source for source, folder in folders.items() if (folder / MANIFEST).exists()]
    if not patches and len(sources) == 1:
        return _of_checkpoint(resolve(sources[0]))
    others = [source for source in sources if source not in patches]
    if others:
        raise PatchError(
            f"'{others[0]}' is no visual patch: it has no {MANIFEST}. Give one checkpoint, or "
            "patches alone."
        )
    return _of_patches({patch: read_manifest(folders[patch]) for patch in patches})


def _of_checkpoint(folder: Path) -> History:
    lineage = read_lineage(folder)
    base = base_of(folder, weight_map(folder))
    intact = lineage.matches(lambda name: base.digest(name) if name in base.files else None)
    return History(lineage.steps, intact if lineage.steps else None)


def _of_patches(manifests: Mapping[Path, Manifest]) -> History:
    folders: dict[str, str] = {}
    steps: dict[str, Step] = {}
    for patch, manifest in manifests.items():
        if manifest.undoes:
            ids = ", ".join(identity[:12] for identity in manifest.undoes)
            raise PatchError(f"patch {patch} is an inverse, which takes back {ids}. Leave it out.")
        folders[patch_id(manifest)] = str(patch)
        steps |= {step.id: step for step in (*manifest.earlier, step_of(manifest))}
    made = {step.result_sha256 for step in steps.values()}
    ordered = [step for step in steps.values() if step.base_sha256 not in made]
    _refuse_several(ordered, folders)
    while len(ordered) < len(steps):
        here = ordered[-1].result_sha256
        following = [s for s in steps.values() if s.base_sha256 == here and s not in ordered]
        _refuse_several(following, folders)
        ordered += following
    return History(tuple(ordered), None, folders)


def _refuse_several(steps: Sequence[Step], folders: Mapping[str, str]) -> None:
    """Refuses a place in a lineage that is not exactly one patch's."""
    if len(steps) != 1:
        names = [folders.get(step.id, step.id[:12]) for step in steps]
        raise PatchError(
            f"the patches are no single stack: {' and '.join(names[:2])} do not follow each other. "
            "Give those of one stack."
        )
