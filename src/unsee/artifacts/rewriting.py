"""Copies of a checkpoint in which the tensors of patches replace its own, without loading it."""

from __future__ import annotations

import shutil
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unsee.artifacts.identity import Base
from unsee.artifacts.lineage import LINEAGE
from unsee.artifacts.manifest import TENSORS, chunks
from unsee.errors import ModelError
from unsee.files import free_space
from unsee.models.checkpoint import INDEX, SINGLE, read_header
from unsee.models.companions import LARGE, Companions, companions, refuse_foreign_file

# What happens to large files that are neither weights nor read by transformers.
OtherFiles = Literal["refuse", "copy", "leave-out"]


@dataclass(frozen=True)
class Copied:
    """The files of a checkpoint, sorted by what a copy does with them.

    Attributes:
        rewritten: Weight files with replaced tensors.
        copied: Files that are copied byte for byte.
        left_out: Names of files that may still hold what was forgotten.
    """

    rewritten: tuple[Path, ...]
    copied: tuple[Path, ...]
    left_out: tuple[str, ...]


def sort_files(base: Base, folder: Path, other_files: OtherFiles) -> Copied:
    """Sorts the files of a checkpoint.

    Args:
        base: The checkpoint, with the tensors that patches replace.
        folder: Its folder.
        other_files: What to do with files over 10 MB of unknown kind.

    Raises:
        ModelError: If a large file is of unknown kind and `other_files` is "refuse", or a file
            links to another place.
    """
    rewritten = {base.files[name] for name in base.replaced}
    single = (folder / SINGLE) in base.files.values()
    index = [] if single else [folder / INDEX]
    weights = set(base.files.values())
    beside = companions(folder, [*weights, *index, folder / LINEAGE])
    kept, left_out = _other_files(beside, folder, other_files)
    copied = (*sorted(weights - rewritten), *index, *kept)
    return Copied(tuple(sorted(rewritten)), copied, tuple(left_out))


def write_copy(
    base: Base,
    files: Copied,
    folder: Path,
    out: Path,
    names: Mapping[str, str] | None = None,
    dropped: Container[str] = (),
) -> None:
    """Copies a checkpoint's files; the bytes of replaced tensors are overwritten in the copies.

    Args:
        base: The checkpoint, with the tensors that patches replace.
        files: Its files, from `sort_files`.
        folder: Its folder.
        out: An existing folder to write into.
        names: Other names for copied files.
        dropped: Names of files that are not copied.

    Raises:
        ModelError: If the disk has too little space.
    """
    _require_space([*files.rewritten, *files.copied], out)
    for source in files.copied:
        name = str(source.relative_to(folder))
        if name not in dropped:
            target = out / (names or {}).get(name, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    for shard in files.rewritten:
        shutil.copyfile(shard, out / shard.name)
    for patch in dict.fromkeys(replaced.patch for replaced in base.replaced.values()):
        entries = read_header(patch / TENSORS)
        with (patch / TENSORS).open("rb") as new:
            for shard in files.rewritten:
                with (out / shard.name).open("r+b") as file:
                    for name, replaced in base.replaced.items():
                        if replaced.patch == patch and base.files[name] == shard:
                            file.seek(base.entries[name].start)
                            for chunk in chunks(new, entries[replaced.name]):
                                file.write(chunk)


def _other_files(
    beside: Companions, folder: Path, other_files: OtherFiles
) -> tuple[list[Path], list[str]]:
    """Files to copy besides the weights, and names of those that are left out.

    Raises:
        ModelError: If a large file is of unknown kind, and `other_files` is "refuse".
    """
    names = {path: str(path.relative_to(folder)) for path in (*beside.weights, *beside.unknown)}
    if other_files == "copy":
        for path in beside.unknown:
            refuse_foreign_file(path, folder)
        return [*beside.copied, *beside.unknown], [names[path] for path in beside.weights]
    large = [path for path in beside.unknown if path.stat().st_size >= LARGE]
    if large and other_files == "refuse":
        raise ModelError(
            f"model {folder}: {names[large[0]]} ({large[0].stat().st_size / 1e6:,.0f} MB) is "
            "neither weights nor a file that transformers reads, and may hold what was forgotten. "
            "Type --other-files leave-out, or --other-files copy if it does not."
        )
    return [*beside.copied], sorted(names.values())


def _require_space(sources: Iterable[Path], out: Path) -> None:
    needed = sum(path.stat().st_size for path in sources)
    place, free = free_space(out)
    if free < needed:
        raise ModelError(
            f"folder {out}: {needed:,} bytes are needed and {free:,} are free in {place}. Free "
            "some space, or name another place with --out."
        )
