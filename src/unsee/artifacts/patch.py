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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from unsee.artifacts.manifest import (
    MANIFEST,
    TENSORS,
    BaseTensor,
    ChangedTensor,
    Manifest,
    base_hash,
    chunks,
    range_digest,
    read_manifest,
)
from unsee.artifacts.model_card import CARD, card_of_patched
from unsee.artifacts.redaction import redact
from unsee.errors import ModelError, PatchError
from unsee.files import atomic_folder, free_space
from unsee.models.checkpoint import (
    INDEX,
    SINGLE,
    Entry,
    checkpoint_names,
    known_names,
    read_header,
    resolve,
    stored_tensors,
    weight_map,
)

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM


BASE_CARD = "README-base.md"


# Weights in other formats still hold what was forgotten, so `apply` leaves them out.
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack"}


@dataclass(frozen=True)
class Applied:
    """The result of `apply_patch`.

    Attributes:
        manifest: The patch's manifest.
        rewritten: Names of the weight files that have changed tensors.
        copied: Names of the files that were copied byte for byte.
        left_out: Names of weight files in other formats, which still hold what was forgotten.
    """

    manifest: Manifest
    rewritten: tuple[str, ...]
    copied: tuple[str, ...]
    left_out: tuple[str, ...]


def write_patch(
    vlm: VLM, base_folder: str | Path, out: Path, meta: Mapping[str, Any] | None = None
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
    files = weight_map(Path(base_folder), check=not vlm.visual_only)
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
    with atomic_folder(Path(out)) as partial:
        save_file(tensors, partial / TENSORS, metadata={"format": "pt"})
        text = json.dumps(asdict(manifest), indent=1)
        (partial / MANIFEST).write_text(text + "\n", "utf-8")
    return manifest


def apply_patch(patch: str | Path, model_folder: str | Path, out: Path) -> Applied:
    """Writes a copy of a checkpoint with a visual patch on it.

    No tensor is loaded but those of the patch, one at a time: a shard is copied by the operating
    system, then the bytes of its changed tensors are overwritten in the copy. Headers, metadata,
    tensor order and all other files stay as they are, but the base's model card, which moves to
    README-base.md for one that says what was changed.

    Args:
        patch: The patch's folder.
        model_folder: The base checkpoint's folder or hub id, sharded or not.
        out: Folder to write, atomically.

    Raises:
        PatchError: If the patch is damaged or belongs to another base.
        ModelError: If the checkpoint is damaged, or `out` is in use or cannot be written.
    """
    patch, out = Path(patch), Path(out)
    manifest = read_manifest(patch)
    given, model_folder = str(model_folder), resolve(model_folder)
    files = weight_map(model_folder)
    _refuse_other_base(manifest, files, patch, model_folder)
    targets = {files[tensor.name] for tensor in manifest.changed}
    kept, left_out = _other_files(model_folder, files)
    whole = [*sorted(set(files.values()) - targets), *kept]
    _require_space([*targets, *whole], out)
    entries = read_header(patch / TENSORS)
    with atomic_folder(out) as partial:
        for source in whole:
            name = source.relative_to(model_folder)
            target = partial / (BASE_CARD if name == Path(CARD) else name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        for shard in sorted(targets):
            shutil.copyfile(shard, partial / shard.name)
            places = read_header(shard)
            with (patch / TENSORS).open("rb") as new, (partial / shard.name).open("r+b") as file:
                for tensor in (t for t in manifest.changed if files[t.name] == shard):
                    file.seek(places[tensor.name].start)
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
    patch = Path(patch)
    manifest = read_manifest(patch)
    files = weight_map(vlm.source)
    _refuse_other_base(manifest, files, patch, vlm.source)
    parameters = vlm.parameters("visual")
    keys = checkpoint_names(vlm.family, files, list(parameters))
    names = {key: name for name, key in keys.items()}
    with safe_open(patch / TENSORS, "pt") as file, torch.no_grad():
        for tensor in manifest.changed:
            parameters[names[tensor.name]].copy_(file.get_tensor(tensor.name))
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


def _refuse_other_base(
    manifest: Manifest, files: Mapping[str, Path], patch: Path, folder: Path
) -> None:
    """Raises unless the checkpoint is the patch's base, naming the first tensor that differs."""
    expected = {tensor.name: tensor for tensor in manifest.base}
    found: dict[str, BaseTensor] = {}
    for name, entry in _entries(files).items():
        known, digest = expected.get(name), None
        if known is not None and known.sha256 is not None:
            with files[name].open("rb") as file:
                digest = range_digest(file, entry)
        found[name] = BaseTensor(name, entry.dtype, entry.shape, digest).as_known(known)
    if base_hash(found.values()) == manifest.base_sha256:
        return
    if all(name in found and found[name].sha256 == t.after for name, t in _named(manifest)):
        raise PatchError(f"patch {patch} is on {folder} already. Apply it to the base instead.")
    differing = [name for name in sorted(expected | found) if expected.get(name) != found.get(name)]
    first = differing[0]
    raise PatchError(
        f"patch {patch} is for another base than {folder}: {len(differing)} of {len(expected)} "
        f"tensors differ, first {first} ({_words(expected.get(first))} expected, "
        f"{_words(found.get(first))} found). Expected base hash {manifest.base_sha256}, found "
        f"{base_hash(found.values())}. Give the checkpoint that the patch was made from."
    )


def _named(manifest: Manifest) -> Iterator[tuple[str, ChangedTensor]]:
    return ((tensor.name, tensor) for tensor in manifest.changed)


def _words(tensor: BaseTensor | None) -> str:
    if tensor is None:
        return "none"
    digest = f" {tensor.sha256[:12]}" if tensor.sha256 else ""
    shape = "of unknown shape" if tensor.shape is None else list(tensor.shape)
    return f"{tensor.dtype or 'tensor'} {shape}{digest}"


def _other_files(folder: Path, files: Mapping[str, Path]) -> tuple[list[Path], list[str]]:
    """Files to copy besides the weights, and names of weights that are left out."""
    used = set(files.values())
    stale = set() if (folder / SINGLE) not in used else {folder / INDEX}
    kept: list[Path] = []
    left_out: list[str] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or path in used or any(p.startswith(".") for p in name.parts):
            continue
        other_index = path.name.endswith(".index.json") and path.name != INDEX
        if path.suffix.lower() in WEIGHTS or path in stale or other_index:
            left_out.append(str(name))
        else:
            kept.append(path)
    return kept, left_out


def _require_space(sources: Iterable[Path], out: Path) -> None:
    needed = sum(path.stat().st_size for path in sources)
    place, free = free_space(out)
    if free < needed:
        raise ModelError(
            f"folder {out}: {needed:,} bytes are needed and {free:,} are free in {place}. Free "
            "some space, or name another place with --out."
        )
