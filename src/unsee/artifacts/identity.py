"""Whether a checkpoint is the base of a patch, and where in it the changed tensors are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from unsee.artifacts.manifest import (
    BaseTensor,
    ChangedTensor,
    Manifest,
    base_hash,
    range_digest,
)
from unsee.errors import PatchError
from unsee.families import Family, family_of
from unsee.models.checkpoint import Entry, model_type, read_config, read_header

HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Replaced:
    """A tensor of a checkpoint that a patch replaces.

    Attributes:
        patch: The patch's folder.
        name: The tensor's name in the patch.
        sha256: SHA-256 of its bytes there.
    """

    patch: Path
    name: str
    sha256: str


@dataclass(frozen=True)
class Base:
    """A checkpoint's tensors, with those of patches in their places; nothing is loaded.

    Attributes:
        family: The family of the checkpoint.
        files: The file of each tensor.
        entries: The header entry of each tensor.
        replaced: The tensors that patches replace; a later patch counts more than an earlier one.
    """

    family: Family
    files: Mapping[str, Path]
    entries: Mapping[str, Entry]
    replaced: Mapping[str, Replaced] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict, repr=False)

    def digest(self, name: str) -> str:
        """SHA-256 of a tensor's bytes; those of the files are hashed once."""
        if name in self.replaced:
            return self.replaced[name].sha256
        return self.stored_digest(name)

    def stored_digest(self, name: str) -> str:
        """SHA-256 of a tensor's bytes in the checkpoint's file, below all patches."""
        if name not in self._digests:
            with self.files[name].open("rb") as file:
                self._digests[name] = range_digest(file, self.entries[name])
        return self._digests[name]

    def patched(self, patch: Path, manifest: Manifest, places: Mapping[str, str]) -> Base:
        """The checkpoint with a further patch on it.

        Args:
            patch: The patch's folder.
            manifest: Its manifest.
            places: The checkpoint's name of each tensor that it changes.
        """
        new = {places[t.name]: Replaced(patch, t.name, t.after) for t in manifest.changed}
        return replace(self, replaced={**self.replaced, **new})

    def is_visual(self, name: str) -> bool:
        """Whether a tensor belongs to the visual part, by its name in the files."""
        stored = self.family.stored_names()
        if stored is not None:
            return stored.parameter(name)[0].startswith(self.family.parts.prefixes("visual"))
        longest = {
            part: max((len(p) for p in self._prefixes(part) if name.startswith(p)), default=-1)
            for part in ("visual", "language")
        }
        return longest["visual"] > longest["language"]

    def _prefixes(self, part: str) -> set[str]:
        """The prefixes of a part's tensor names in checkpoint files."""
        return {
            key[:-1]
            for prefix in self.family.parts.prefixes(part)
            for key in self.family.checkpoint_keys(f"{prefix}?")
            if key.endswith("?")
        }


def base_of(folder: Path, files: Mapping[str, Path]) -> Base:
    """A checkpoint's headers, for `match_base`.

    Args:
        folder: The checkpoint.
        files: The file of each tensor, from `weight_map`.

    Raises:
        ModelError: If config.json names no family, or a file is damaged.
    """
    config = read_config(folder)
    family = family_of(model_type(config, folder), config)
    headers = {shard: read_header(shard) for shard in sorted(set(files.values()))}
    return Base(family, files, {name: headers[shard][name] for name, shard in files.items()})


def match_base(manifest: Manifest, base: Base, patch: Path, folder: Path) -> dict[str, str]:
    """The name in a checkpoint's files of each tensor that a patch changes.

    A base that was saved again, under other tensor names or in other shards, is recognised by its
    visual tensors' dtypes, shapes and bytes, and by the shapes of the others.

    Args:
        manifest: The patch's manifest, from `read_manifest`.
        base: The checkpoint.
        patch: The patch's folder, for messages.
        folder: The checkpoint's folder, for messages.

    Raises:
        PatchError: If the checkpoint is not the patch's base, or the patch changes a tensor that
            the base does not have, has otherwise, or has outside the visual part.
    """
    names = fit(manifest, base)
    if names is None:
        refuse_base(manifest, base, patch, folder)
    return changed_places(manifest, base, names, patch)


def fit(manifest: Manifest, base: Base) -> dict[str, str] | None:
    """The checkpoint's name of each tensor of a patch's base; None if it is another base."""
    expected = {tensor.name: tensor for tensor in manifest.base}
    found = {name: _found(base, name, expected.get(name)) for name in base.files}
    if base_hash(found.values()) == manifest.base_sha256:
        return {name: name for name in found}
    return _match_content(base, expected) if found.keys() != expected.keys() else None


def changed_places(
    manifest: Manifest, base: Base, names: Mapping[str, str], patch: Path
) -> dict[str, str]:
    """The checkpoint's name of each tensor that a patch changes.

    Args:
        manifest: The patch's manifest.
        base: The checkpoint.
        names: From `fit`.
        patch: The patch's folder, for messages.

    Raises:
        PatchError: If one is not in the base, of another shape there, or not visual.
    """
    expected = {tensor.name: tensor for tensor in manifest.base}
    for tensor in manifest.changed:
        _check_changed(tensor, expected, base, names, patch)
    return {tensor.name: names[tensor.name] for tensor in manifest.changed}


def _found(base: Base, name: str, known: BaseTensor | None) -> BaseTensor:
    """A tensor of the checkpoint, with the fields that are known of its record."""
    entry = base.entries[name]
    hashed = known is not None and known.sha256 is not None
    digest = base.digest(name) if hashed else None
    return BaseTensor(name, entry.dtype, entry.shape, digest).as_known(known)


def _check_changed(
    tensor: ChangedTensor,
    expected: Mapping[str, BaseTensor],
    base: Base,
    names: Mapping[str, str],
    patch: Path,
) -> None:
    """Refuses a changed tensor that does not fit its place in the base."""
    name = names.get(tensor.name)
    if name is None or tensor.name not in expected:
        raise PatchError(
            f"patch {patch} changes the tensor {tensor.name}, which its base does not have. "
            "Get an undamaged copy of the patch."
        )
    if not base.is_visual(name):
        raise PatchError(
            f"patch {patch} changes the tensor {tensor.name}, which does not belong to the visual "
            "part. A visual patch leaves the language part as it is: get an undamaged copy."
        )
    entry = base.entries[name]
    if (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape):
        raise PatchError(
            f"patch {patch}: tensor {tensor.name} is {tensor.dtype} {list(tensor.shape)}, and "
            f"{entry.dtype} {list(entry.shape)} in the base. Get an undamaged copy of the patch."
        )


def refuse_base(manifest: Manifest, base: Base, patch: Path, folder: str | Path) -> NoReturn:
    """Raises for a checkpoint that is not the base, naming the first tensor that differs.

    Args:
        manifest: The patch's manifest.
        base: The checkpoint.
        patch: The patch's folder, for messages.
        folder: The checkpoint, for messages.
    """
    expected = {tensor.name: tensor for tensor in manifest.base}
    found = {name: _found(base, name, expected.get(name)) for name in base.files}
    if all(t.name in found and found[t.name].sha256 == t.after for t in manifest.changed):
        raise PatchError(f"patch {patch} is on {folder} already. Apply it to the base instead.")
    differing = [n for n in sorted({*expected, *found}) if expected.get(n) != found.get(n)]
    first = differing[0]
    raise PatchError(
        f"patch {patch} is for another base than {folder}: {len(differing)} of {len(expected)} "
        f"tensors differ, first {first} ({_words(expected.get(first))} expected, "
        f"{_words(found.get(first))} found). Expected base hash {manifest.base_sha256}, found "
        f"{base_hash(found.values())}. Give the checkpoint that the patch was made from."
    )


def _words(tensor: BaseTensor | None) -> str:
    if tensor is None:
        return "none"
    digest = f" {tensor.sha256[:12]}" if tensor.sha256 else ""
    shape = "of unknown shape" if tensor.shape is None else list(tensor.shape)
    return f"{tensor.dtype or 'tensor'} {shape}{digest}"


def _match_content(base: Base, expected: Mapping[str, BaseTensor]) -> dict[str, str] | None:
    """The names of a base's tensors in a checkpoint with other names; None if it is another.

    Tensors with the same bytes, such as biases of 0, are told apart by the ends of their names,
    which stay when a checkpoint is saved again.
    """
    visual = {name: t for name, t in expected.items() if t.sha256 is not None}
    free = [name for name in base.files if base.is_visual(name)]
    if not visual or len(free) != len(visual):
        return None
    # A head that shares the embeddings' weights may be stored or not.
    rest = Counter(
        t.shape
        for name, t in expected.items()
        if t.sha256 is None and t.shape is not None and not name.endswith(HEAD)
    )
    others = Counter(
        base.entries[name].shape
        for name in base.files
        if not base.is_visual(name) and not name.endswith(HEAD)
    )
    if rest - others:
        return None
    groups: dict[BaseTensor, list[str]] = {}
    for name in free:
        entry = base.entries[name]
        content = BaseTensor("", entry.dtype, entry.shape, base.digest(name))
        groups.setdefault(content, []).append(name)
    names: dict[str, str] = {}
    for name, tensor in sorted(visual.items()):
        candidates = groups.get(replace(tensor, name=""), [])
        match = _most_alike(name, candidates)
        if match is None:
            return None
        candidates.remove(match)
        names[name] = match
    return names


def _most_alike(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that shares the longest end with a name; None for none, or for two."""
    ranked = sorted(((_shared_end(name, other), other) for other in candidates), reverse=True)
    if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
        return None
    return ranked[0][1]


def _shared_end(one: str, two: str) -> int:
    """The number of last name parts, between dots, that two names share."""
    count = 0
    for left, right in zip(reversed(one.split(".")), reversed(two.split(".")), strict=False):
        if left != right:
            break
        count += 1
    return count
