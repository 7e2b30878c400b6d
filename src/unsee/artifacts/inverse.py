"""Inverses of patches: a patched checkpoint becomes again the one before, byte for byte.

An inverse is a patch folder whose manifest says which patches it takes back. It also holds the few
files besides the weights that `unsee apply` replaces, as they were.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from unsee.artifacts.identity import Base
from unsee.artifacts.lineage import LINEAGE, read_lineage
from unsee.artifacts.manifest import (
    AGAIN,
    TENSORS,
    BaseTensor,
    ChangedTensor,
    Manifest,
    base_hash,
    chunks,
    patch_id,
    read_manifest,
    write_manifest,
)
from unsee.artifacts.model_card import BASE_CARD, CARD
from unsee.artifacts.rewriting import OtherFiles, sort_files, write_copy
from unsee.artifacts.stack import Stack, match_stack
from unsee.errors import ModelError, PatchError
from unsee.files import atomic_folder, hash_file, is_regular, path_text, refuse_nested
from unsee.models.checkpoint import resolve, weight_map
from unsee.models.validation import check_checkpoint

# The files besides the weights that applying a patch replaces, and the inverse's folder of them.
REPLACED = (CARD, BASE_CARD, LINEAGE)
FILES = "files"


def write_inverse(stack: Stack, folder: Path, out: Path) -> None:
    """Writes the inverse of a stack that is being applied to a checkpoint.

    Args:
        stack: The patches, matched with the checkpoint.
        folder: The checkpoint's folder.
        out: An existing, empty folder to write into.
    """
    base = stack.base
    names = sorted(base.replaced)
    manifest = _inverse_manifest(stack, folder, names)
    _write_stored(base, names, out / TENSORS)
    for name in manifest.restores:
        (out / FILES).mkdir(exist_ok=True)
        shutil.copyfile(folder / name, out / FILES / name)
    write_manifest(manifest, out)


def undo_patch(
    inverse: str | Path,
    model_folder: str | Path,
    out: str | Path,
    other_files: OtherFiles = "refuse",
) -> Manifest:
    """Writes the checkpoint from before patches were applied, from the patched one.

    Weights, and every file that applying had copied or replaced, are equal byte for byte. Files
    that it had left out, such as weights in other formats, are not part of either checkpoint.

    Args:
        inverse: The folder that `apply_patch` wrote as `inverse`.
        model_folder: The patched checkpoint.
        out: Folder to write, atomically.
        other_files: What to do with files over 10 MB of unknown kind.

    Returns:
        The manifest of the inverse.

    Raises:
        PatchError: If the inverse is damaged, or takes other patches back than the last ones on the
            checkpoint, or `out` lies in a folder that is read.
        ModelError: If the checkpoint is damaged, or `out` is in use or cannot be written.
    """
    manifest = read_manifest(inverse)
    inverse = Path(inverse)
    if not manifest.undoes:
        raise PatchError(
            f"patch {inverse} is no inverse. Give the folder that `unsee apply --inverse` wrote."
        )
    _check_files(inverse, manifest)
    out = Path(path_text("out=", out, "give a folder to write.", ModelError))
    folder = resolve(model_folder)
    refuse_nested(out, [("model", folder), ("inverse", inverse)], error=PatchError)
    with atomic_folder(out) as partial:
        check_checkpoint(folder, tensors=False)
        _check_lineage(inverse, manifest, folder)
        stack = match_stack([inverse], folder, weight_map(folder), [manifest])
        files = sort_files(stack.base, folder, other_files)
        write_copy(stack.base, files, folder, partial, dropped=REPLACED)
        for name in manifest.restores:
            shutil.copyfile(inverse / FILES / name, partial / name)
    return manifest


def _check_lineage(inverse: Path, manifest: Manifest, folder: Path) -> None:
    """Refuses a checkpoint whose last patches are others than an inverse takes back."""
    there = [step.id[:12] for step in read_lineage(folder).steps]
    undone = [identity[:12] for identity in manifest.undoes]
    if there[-len(undone) :] != undone:
        raise PatchError(
            f"inverse {inverse} takes back {', '.join(undone)}, and the patches on {folder} are "
            f"{', '.join(there) or 'none'}. Give the checkpoint that `unsee apply --inverse` wrote "
            "with it."
        )


def _inverse_manifest(stack: Stack, folder: Path, names: list[str]) -> Manifest:
    base = stack.base
    tensors = tuple(
        BaseTensor(n, base.entries[n].dtype, base.entries[n].shape, base.digest(n))
        if base.is_visual(n)
        else BaseTensor(n, None, base.entries[n].shape, None)
        for n in sorted(base.files)
    )
    entries = base.entries
    return Manifest(
        base_hash(tensors),
        tensors,
        tuple(
            ChangedTensor(
                n, entries[n].dtype, entries[n].shape, base.digest(n), base.stored_digest(n)
            )
            for n in names
        ),
        method="inverse",
        undoes=tuple(patch_id(manifest) for manifest in stack.manifests),
        restores={n: hash_file(folder / n) for n in REPLACED if is_regular(folder / n)},
    )


def _write_stored(base: Base, names: list[str], path: Path) -> None:
    """Writes tensors of a checkpoint's files into one safetensors file, piece by piece."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in names:
        entry = base.entries[name]
        end = offset + entry.stop - entry.start
        header[name] = {
            "dtype": entry.dtype,
            "shape": entry.shape,
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            with base.files[name].open("rb") as source:
                for chunk in chunks(source, base.entries[name]):
                    target.write(chunk)


def _check_files(inverse: Path, manifest: Manifest) -> None:
    """Refuses an inverse whose files besides the weights are not those that were stored."""
    for name, sha256 in manifest.restores.items():
        path = inverse / FILES / name
        if name not in REPLACED or not is_regular(path) or hash_file(path) != sha256:
            raise PatchError(f"patch {inverse}: {FILES}/{name} is missing or was altered. {AGAIN}")
