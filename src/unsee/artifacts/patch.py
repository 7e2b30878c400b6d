"""Visual patches: the tensors that unlearning changed, to be applied to the base checkpoint.

A patch is a folder of two files. `patch.safetensors` has the changed tensors, under the names and
in the dtypes that the base checkpoint's files use. `manifest.json` says which base it belongs to
and what every changed tensor was before and is after.

The base is identified by its tensors' names and shapes, all of them, and by the dtypes and bytes of
the visual ones. The language part's are left out on purpose: a patch is then made without opening
the language model's shards, and `unsee verify` can still compare them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from unsee.artifacts.identity import base_of, match_base
from unsee.artifacts.manifest import (
    MANIFEST,
    TENSORS,
    BaseTensor,
    ChangedTensor,
    Manifest,
    base_hash,
    chunks,
    read_manifest,
)
from unsee.artifacts.model_card import CARD, card_of_patched
from unsee.artifacts.redaction import redact
from unsee.errors import ModelError, PatchError
from unsee.files import atomic_folder, free_space, path_text
from unsee.models.checkpoint import (
    INDEX,
    SINGLE,
    Entry,
    checkpoint_names,
    known_names,
    read_header,
    refuse_not_finite,
    resolve,
    stored_tensors,
    weight_map,
)
from unsee.models.companions import LARGE, Companions, companions, refuse_foreign_file
from unsee.models.validation import check_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM


BASE_CARD = "README-base.md"
OUT = "give a folder to write."

# What happens to large files that are neither weights nor read by transformers.
OtherFiles = Literal["refuse", "copy", "leave-out"]


@dataclass(frozen=True)
class Applied:
    """The result of `apply_patch`.

    Attributes:
        manifest: The patch's manifest.
        rewritten: Names of the weight files that have changed tensors.
        copied: Names of the files that were copied byte for byte.
        left_out: Names of files that may still hold what was forgotten: weights in other formats,
            archives, and files that transformers does not read.
    """

    manifest: Manifest
    rewritten: tuple[str, ...]
    copied: tuple[str, ...]
    left_out: tuple[str, ...]


def write_patch(
    vlm: VLM, base_folder: str | Path, out: str | Path, meta: Mapping[str, Any] | None = None
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

    Raises:
        PatchError: If nothing changed, or a tensor outside the visual part did.
        ModelError: If the base is damaged, or `out` is in use or cannot be written.
    """
    meta = dict(meta or {})
    unknown = sorted(set(meta) - {"method", "parameters", "command", "names"})
    if unknown:
        raise PatchError(
            f"meta '{unknown[0]}' is unknown. Allowed: method, parameters, command, names."
        )
    out = Path(path_text("out=", out, OUT, ModelError))
    folder = path_text("base_folder=", base_folder, "give the checkpoint's folder.", ModelError)
    files = weight_map(Path(folder), check=not vlm.visual_only)
    parameters = vlm.parameters("visual")
    keys = checkpoint_names(vlm.family, files, list(parameters))
    entries = _entries({key: files[key] for key in keys.values()})
    if not vlm.visual_only:
        _refuse_language(vlm, files)
    hashes: dict[str, str] = {}
    changed: list[ChangedTensor] = []
    tensors: dict[str, Tensor] = {}
    for parameter, old in stored_tensors(files, keys):
        key, new = keys[parameter], parameters[parameter].detach()
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
    known = known_names(vlm.family, files, vlm.parameters("language"))
    shapes = {key: tuple(vlm.model.get_parameter(n).shape) for n, key in known.items()}
    base = tuple(
        BaseTensor(n, entries[n].dtype, entries[n].shape, hashes[n])
        if n in entries
        else BaseTensor(n, None, shapes.get(n), None)
        for n in sorted(files)
    )
    manifest = Manifest(
        base_hash(base),
        base,
        tuple(sorted(changed, key=lambda tensor: tensor.name)),
        meta.get("method"),
        dict(meta.get("parameters") or {}),
        redact(meta["command"], meta.get("names") or ()) if meta.get("command") else None,
    )
    with atomic_folder(out) as partial:
        save_file(tensors, partial / TENSORS, metadata={"format": "pt"})
        text = json.dumps(asdict(manifest), indent=1)
        (partial / MANIFEST).write_text(text + "\n", "utf-8")
    return manifest


def apply_patch(
    patch: str | Path,
    model_folder: str | Path,
    out: str | Path,
    other_files: OtherFiles = "refuse",
) -> Applied:
    """Writes a copy of a checkpoint with a visual patch on it.

    No tensor is loaded but those of the patch, one at a time: a shard is copied by the operating
    system, then the bytes of its changed tensors are overwritten in the copy. Headers, metadata,
    tensor order and the files that transformers reads stay as they are, but the base's model card,
    which moves to README-base.md for one that says what was changed. Weights in other formats,
    archives, logs and other files may hold what was forgotten and are left out.

    Args:
        patch: The patch's folder.
        model_folder: The base checkpoint's folder or hub id, sharded or not.
        out: Folder to write, atomically.
        other_files: What to do with files over 10 MB of unknown kind.

    Raises:
        PatchError: If the patch is damaged, belongs to another base, or changes anything but
            tensors of the visual part.
        ModelError: If the checkpoint is damaged, has large files of unknown kind, or links to
            files outside, or `out` is in use or cannot be written.
    """
    manifest = read_manifest(patch)
    patch, out = Path(patch), Path(path_text("out=", out, OUT, ModelError))
    given, model_folder = str(model_folder), resolve(model_folder)
    # From here on other processes are kept out.
    with atomic_folder(out) as partial:
        # The patch names the tensors of its base, and is compared with all of them.
        check_checkpoint(model_folder, tensors=False)
        files = weight_map(model_folder)
        places = match_base(manifest, base_of(model_folder, files), patch, model_folder)
        targets = {files[places[tensor.name]] for tensor in manifest.changed}
        single = (model_folder / SINGLE) in files.values()
        index = [] if single else [model_folder / INDEX]
        beside = companions(model_folder, [*files.values(), *index])
        kept, left_out = _other_files(beside, model_folder, other_files)
        whole = [*sorted(set(files.values()) - targets), *index, *kept]
        _require_space([*targets, *whole], out)
        entries = read_header(patch / TENSORS)
        for source in whole:
            name = source.relative_to(model_folder)
            target = partial / (BASE_CARD if name == Path(CARD) else name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        for shard in sorted(targets):
            shutil.copyfile(shard, partial / shard.name)
            header = read_header(shard)
            with (patch / TENSORS).open("rb") as new, (partial / shard.name).open("r+b") as file:
                for tensor in (t for t in manifest.changed if files[places[t.name]] == shard):
                    file.seek(header[places[tensor.name]].start)
                    for chunk in chunks(new, entries[tensor.name]):
                        file.write(chunk)
        card_of_patched(manifest, given).write(partial)
    return Applied(
        manifest,
        tuple(sorted(shard.name for shard in targets)),
        tuple(sorted(str(source.relative_to(model_folder)) for source in whole)),
        tuple(left_out),
    )


def apply_in_memory(patch: str | Path, vlm: VLM) -> Manifest:
    """Applies a visual patch to a loaded base model, in memory; nothing is written.

    Args:
        patch: The patch's folder.
        vlm: The base, as it was loaded.

    Raises:
        PatchError: If the patch is damaged or belongs to another base, or the base is quantized.
    """
    if vlm.quantization is not None:
        raise PatchError(
            "a visual patch cannot be applied to quantized weights. Type `unsee apply` first, then "
            "evaluate what it wrote."
        )
    manifest = read_manifest(patch)
    patch = Path(patch)
    files = weight_map(vlm.source)
    places = match_base(manifest, base_of(vlm.source, files), patch, vlm.source)
    parameters = vlm.parameters("visual")
    keys = checkpoint_names(vlm.family, files, list(parameters))
    names = {key: name for name, key in keys.items()}
    with safe_open(patch / TENSORS, "pt") as file, torch.no_grad():
        for tensor in manifest.changed:
            parameters[names[places[tensor.name]]].copy_(file.get_tensor(tensor.name))
    return manifest


def _entries(files: Mapping[str, Path]) -> dict[str, Entry]:
    headers = {shard: read_header(shard) for shard in sorted(set(files.values()))}
    return {name: headers[shard][name] for name, shard in files.items()}


def _refuse_language(vlm: VLM, files: Mapping[str, Path]) -> None:
    parameters = vlm.parameters("language")
    keys = checkpoint_names(vlm.family, files, list(parameters))
    for name, old in stored_tensors(files, keys):
        new = parameters[name].detach()
        if new.shape != old.shape or not _same(new.to("cpu", old.dtype), old):
            raise PatchError(
                f"tensor {keys[name]} of the language part was trained, and a visual patch cannot "
                "carry it. Use --save model, or train the visual part only."
            )


def _same(one: Tensor, two: Tensor) -> bool:
    return torch.equal(_bytes(one), _bytes(two))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(_bytes(tensor).numpy().data).hexdigest()


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
