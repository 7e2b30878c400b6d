"""Visual patches: the tensors that unlearning changed, to be applied to the base checkpoint.

A patch is a folder of two files. `patch.safetensors` has the changed tensors, under the names and
in the dtypes that the base checkpoint's files use. `manifest.json` says which base it belongs to
and what every changed tensor was before and is after.

A patch may be stacked: its base is then a checkpoint with earlier patches on it, which its
manifest lists. `unsee.artifacts.stack` matches a stack with a checkpoint.

The base is identified by its tensors' names and shapes, all of them, and by the dtypes and bytes of
the visual ones. The language part's are left out on purpose: a patch is then made without opening
the language model's shards, and `unsee verify` can still compare them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from unsee.artifacts.inverse import write_inverse
from unsee.artifacts.lineage import LINEAGE, lineage_of
from unsee.artifacts.manifest import (
    TENSORS,
    BaseTensor,
    ChangedTensor,
    Manifest,
    Step,
    base_hash,
    patch_id,
    read_manifest,
    write_manifest,
)
from unsee.artifacts.model_card import BASE_CARD, CARD, card_of_patched
from unsee.artifacts.redaction import redact
from unsee.artifacts.rewriting import OtherFiles, sort_files, write_copy
from unsee.artifacts.stack import Patches, Stack, match_stack, patch_folders, refuse_inverses
from unsee.errors import ModelError, PatchError
from unsee.families import is_encoder
from unsee.files import atomic_folder, path_text, refuse_nested
from unsee.models.checkpoint import (
    Entry,
    assembled_names,
    checkpoint_names,
    known_names,
    read_header,
    refuse_not_finite,
    resolve,
    stored_tensors,
    weight_map,
)
from unsee.models.file_tensors import FileTensors
from unsee.models.loading import load_whole
from unsee.models.validation import check_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM


OUT = "give a folder to write."


@dataclass(frozen=True)
class Applied:
    """The result of `apply_patch`.

    Attributes:
        manifest: The manifest of the (last) patch.
        lineage: The patches that are on the checkpoint now, in order.
        changed: Names of the tensors that differ from the checkpoint before.
        rewritten: Names of the weight files that have changed tensors.
        copied: Names of the files that were copied byte for byte.
        left_out: Names of files that may still hold what was forgotten: weights in other formats,
            archives, and files that transformers does not read.
    """

    manifest: Manifest
    lineage: tuple[Step, ...]
    changed: tuple[str, ...]
    rewritten: tuple[str, ...]
    copied: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Patch:
    """A visual patch that was checked, made by `open_patch`.

    Attributes:
        folder: Its folder.
        manifest: What it changes, and of which base.
    """

    folder: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """The identity: SHA-256 over its base's identity and what it replaces by what."""
        return patch_id(self.manifest)

    def apply(self, vlm: VLM) -> VLM:
        """Puts the patch on a loaded base model, in memory; see `apply_in_memory`.

        Args:
            vlm: The base; it is changed.

        Returns:
            The same model.
        """
        apply_in_memory(self.folder, vlm)
        return vlm


def open_patch(patch: str | Path) -> Patch:
    """Opens and checks a patch.

    Args:
        patch: Its folder, or hub:OWNER/NAME[@REVISION], which is downloaded.

    Raises:
        PatchError: If it is missing or damaged.
    """
    (folder,) = patch_folders(patch)
    return Patch(folder, read_manifest(folder))


def write_patch(
    vlm: VLM,
    base_folder: str | Path,
    out: str | Path,
    meta: Mapping[str, Any] | None = None,
    patches: Patches = (),
) -> Manifest:
    """Writes the difference between a model and its base checkpoint as a visual patch.

    Only the base's visual tensors are read, one at a time; with a fully loaded model its language
    tensors too, to make sure that the patch leaves nothing out.

    Args:
        vlm: The unlearned model; its visual part is enough.
        base_folder: The checkpoint it was loaded from.
        out: Folder to write, atomically.
        meta: "method", "parameters" and "command" for the manifest; "names" that the command must
            not spell out.
        patches: Patches that were put on the model before it was unlearned, in order. The new patch
            is stacked on them: its base is the checkpoint with all of them.

    Raises:
        PatchError: If nothing changed, a tensor outside the visual part did, or an earlier patch
            does not fit.
        ModelError: If the base is damaged, or `out` is in use or cannot be written.
    """
    meta = dict(meta or {})
    unknown = sorted(set(meta) - {"method", "parameters", "command", "names"})
    if unknown:
        raise PatchError(
            f"meta '{unknown[0]}' is unknown. Allowed: method, parameters, command, names."
        )
    out = Path(path_text("out=", out, OUT, ModelError))
    folder = Path(
        path_text("base_folder=", base_folder, "give the checkpoint's folder.", ModelError)
    )
    files = weight_map(folder, check=not vlm.visual_only)
    below = patch_folders(patches)
    stack = match_stack(below, folder, files) if below else None
    held = FileTensors(vlm.family, files, list(vlm.parameters("visual")))
    entries = _entries({key: files[key] for key in held.keys})
    if not vlm.visual_only:
        _refuse_language(vlm, files)
    now = held.read(vlm.parameters("visual"))
    hashes, changed, tensors = _differences(now, _before(files, held, stack), entries, folder)
    known = known_names(vlm.family, files, vlm.parameters("language"))
    shapes = {key: tuple(vlm.model.get_parameter(n).shape) for n, key in known.items()}
    base = tuple(
        BaseTensor(n, entries[n].dtype, entries[n].shape, hashes[n])
        if n in entries
        else BaseTensor(n, None, shapes.get(n), None)
        for n in sorted(files)
    )
    lineage = stack.lineage if stack is not None else lineage_of(folder, hashes.get)
    manifest = Manifest(
        base_hash(base),
        base,
        tuple(sorted(changed, key=lambda tensor: tensor.name)),
        meta.get("method"),
        dict(meta.get("parameters") or {}),
        redact(meta["command"], meta.get("names") or ()) if meta.get("command") else None,
        datetime.now(UTC).isoformat(timespec="seconds"),
        lineage.steps,
    )
    with atomic_folder(out) as partial:
        save_file(tensors, partial / TENSORS, metadata={"format": "pt"})
        write_manifest(manifest, partial)
    return manifest


def apply_patch(
    patch: Patches,
    model_folder: str | Path,
    out: str | Path,
    other_files: OtherFiles = "refuse",
    inverse: str | Path | None = None,
) -> Applied:
    """Writes a copy of a checkpoint with a visual patch on it, or with a stack of them.

    No tensor is loaded but those of the patches, piece by piece: a shard is copied by the operating
    system, then the bytes of its changed tensors are overwritten in the copy. Headers, metadata,
    tensor order and the files that transformers reads stay as they are, but the base's model card,
    which moves to README-base.md for one that says what was changed. The patches are listed in
    `unsee_lineage.json`. Weights in other formats, archives, logs and other files may hold what was
    forgotten and are left out. No state between two patches is written.

    Args:
        patch: The patch's folder, or several, each of which was made from the state after those
            before it.
        model_folder: The base checkpoint's folder or hub id, sharded or not; it may have earlier
            patches on it.
        out: Folder to write, atomically.
        other_files: What to do with files over 10 MB of unknown kind.
        inverse: Folder to write the inverse into, from which `undo_patch` restores the checkpoint.
            It holds what was forgotten.

    Raises:
        PatchError: If a patch is damaged, belongs to another base or state, is given twice, is an
            inverse, or changes anything but tensors of the visual part; or if a folder to write
            lies in one that is read.
        ModelError: If the checkpoint is damaged, has large files of unknown kind, or links to
            files outside, or a folder to write is in use or cannot be written.
    """
    patches = patch_folders(patch)
    if not patches:
        raise PatchError("no patch was given. Give the folders of one or more, in order.")
    manifests = tuple(read_manifest(path) for path in patches)
    refuse_inverses(patches, manifests, model_folder)
    out = Path(path_text("out=", out, OUT, ModelError))
    given, model_folder = str(model_folder), resolve(model_folder)
    inverse = None if inverse is None else Path(path_text("inverse=", inverse, OUT, ModelError))
    if inverse is not None and (out in (inverse, *inverse.parents) or inverse in out.parents):
        raise PatchError(
            f"the inverse {inverse} and the checkpoint {out} are one folder, or one in the other. "
            "Name another with --inverse: it holds what was forgotten."
        )
    read = [("model", model_folder), *(("patch", path) for path in patches)]
    refuse_nested(out, read, error=PatchError)
    if inverse is not None:
        refuse_nested(inverse, read, "--inverse", PatchError)
    # From here on other processes are kept out.
    with ExitStack() as folders:
        partial = folders.enter_context(atomic_folder(out))
        # The patch names the tensors of its base, and is compared with all of them.
        config = check_checkpoint(model_folder, tensors=False)
        stack = match_stack(patches, model_folder, weight_map(model_folder), manifests)
        files = sort_files(stack.base, model_folder, other_files)
        if inverse is not None:
            write_inverse(stack, model_folder, folders.enter_context(atomic_folder(inverse)))
        # The card of an earlier patch is replaced, and the base's own kept.
        patched = bool(stack.before.steps)
        names, dropped = ({}, (CARD,)) if patched else ({CARD: BASE_CARD}, ())
        write_copy(stack.base, files, model_folder, partial, names, dropped)
        lineage = stack.lineage
        encoder = is_encoder(config["model_type"])
        card_of_patched(manifests[-1], given, len(lineage.steps), encoder).write(partial)
        (partial / LINEAGE).write_text(lineage.text(), "utf-8")
    return Applied(
        manifests[-1],
        lineage.steps,
        tuple(sorted(stack.base.replaced)),
        tuple(shard.name for shard in files.rewritten),
        tuple(sorted(str(source.relative_to(model_folder)) for source in files.copied)),
        files.left_out,
    )


def apply_in_memory(patch: Patches, vlm: VLM) -> tuple[Manifest, ...]:
    """Applies a visual patch, or a stack of them, to a loaded base model; nothing is written.

    Args:
        patch: The patch's folder, or several, each of which was made from the state after those
            before it.
        vlm: The base, as it was loaded.

    Returns:
        The manifests of the patches.

    Raises:
        PatchError: If a patch is damaged, an inverse, or belongs to another base or state, or the
            base is quantized.
    """
    patches = patch_folders(patch)
    if vlm.quantization is not None and patches:
        raise PatchError(
            "a visual patch cannot be applied to quantized weights. Type `unsee apply` first, then "
            "evaluate what it wrote."
        )
    manifests = tuple(read_manifest(path) for path in patches)
    refuse_inverses(patches, manifests, vlm.source)
    stack = match_stack(patches, vlm.source, weight_map(vlm.source), manifests)
    parameters = vlm.parameters("visual")
    FileTensors(vlm.family, stack.base.files, list(parameters)).write(stack.tensors(), parameters)
    return stack.manifests


def _before(
    files: Mapping[str, Path], held: FileTensors, stack: Stack | None
) -> Iterator[tuple[str, Tensor]]:
    """Yields each visual tensor of the files with its name before the training, one at a time."""
    replaced = stack.base.replaced if stack is not None else {}
    yield from stored_tensors(files, {key: key for key in held.keys if key not in replaced})
    if stack is not None:
        yield from stack.tensors()


def _differences(
    now: Mapping[str, Tensor],
    before: Iterable[tuple[str, Tensor]],
    entries: Mapping[str, Entry],
    base_folder: Path,
) -> tuple[dict[str, str], list[ChangedTensor], dict[str, Tensor]]:
    """The hashes of all visual tensors before, the changed ones' records, and these tensors.

    Raises:
        PatchError: If nothing differs, or a tensor has another shape.
    """
    hashes: dict[str, str] = {}
    changed: list[ChangedTensor] = []
    tensors: dict[str, Tensor] = {}
    for key, old in before:
        new = now[key]
        if new.shape != old.shape:
            raise PatchError(
                f"tensor {key} is {list(old.shape)} in {base_folder}, but {list(new.shape)} in "
                "the model: that is not its base. Give the folder it was loaded from."
            )
        new = new.to("cpu", old.dtype).contiguous()
        hashes[key], after = _digest(old), _digest(new)
        if hashes[key] != after:
            refuse_not_finite({key: new}, "the patch was not written")
            entry = entries[key]
            changed.append(ChangedTensor(key, entry.dtype, entry.shape, hashes[key], after))
            tensors[key] = new
    if not changed:
        raise PatchError(
            f"nothing differs between the model and {base_folder}: there is no patch to write. "
            "Check that the method trained the visual part for at least one step."
        )
    return hashes, changed, tensors


def _entries(files: Mapping[str, Path]) -> dict[str, Entry]:
    headers = {shard: read_header(shard) for shard in sorted(set(files.values()))}
    return {name: headers[shard][name] for name, shard in files.items()}


def _refuse_language(vlm: VLM, files: Mapping[str, Path]) -> None:
    parameters = vlm.parameters("language")
    assembled = assembled_names(vlm.family, files)
    keys = checkpoint_names(vlm.family, files, [n for n in parameters if n not in assembled])
    made: Iterable[tuple[str, Tensor]] = ()
    if any(name in assembled for name in parameters):
        # Only transformers can say what it makes of the files' tensors.
        base = load_whole(vlm.source, vlm.family, vlm.model.dtype, False, {})
        made = ((n, p.detach()) for n, p in base.named_parameters() if n in assembled)
        made = ((name, tensor) for name, tensor in made if name in parameters)
    for name, old in chain(stored_tensors(files, keys), made):
        new = parameters[name].detach()
        if new.shape != old.shape or not _same(new.to("cpu", old.dtype), old):
            raise PatchError(
                f"tensor {keys.get(name, name)} of the language part was trained, and a visual "
                "patch cannot carry it. Use --save model, or train the visual part only."
            )


def _same(one: Tensor, two: Tensor) -> bool:
    return torch.equal(_bytes(one), _bytes(two))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(_bytes(tensor).numpy().data).hexdigest()
