"""Checkpoints on disk: folders, safetensors files and tensor names. Pickles are never read."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unsee.errors import ConfigError, ModelError, TrainingError, first_line
from unsee.families.encoders.functions import KIND, is_function
from unsee.files import combine_digests, is_regular, path_text
from unsee.hub.names import find
from unsee.hub.snapshots import snapshot

if TYPE_CHECKING:
    from unsee.families import Family


INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER = "adapter_config.json"
ONNX = ".onnx"
AGAIN = "Download it again."

# The files of a checkpoint on the hub that are downloaded.
DOWNLOADED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")

# What may be given as a checkpoint.
GIVE = (
    "a checkpoint folder (with config.json), or a hub id such as llava-hf/llava-1.5-7b-hf, with "
    "@REVISION for a branch, a tag or a commit; or MODULE:FUNCTION, which returns a network"
)

MERGE = (
    "from peft import PeftModel; from transformers import AutoModelForImageTextToText as Model; "
    "PeftModel.from_pretrained(Model.from_pretrained('BASE'), '{folder}').merge_and_unload()"
    ".save_pretrained('MERGED')"
)

# The deepest nesting of a configuration, and the most bytes of a JSON file, by its name.
DEEPEST = 64
MOST_BYTES = {
    "tokenizer.json": 200_000_000,
    "vocab.json": 50_000_000,
    "added_tokens.json": 50_000_000,
    "tokenizer_config.json": 50_000_000,
    INDEX: 100_000_000,
}
MOST_OTHERWISE = 5_000_000


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 over a tensor's dtype, shape and bytes."""
    tensor = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{tensor.dtype}|{tuple(tensor.shape)}|".encode())
    digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in name order."""
    return combine_digests({name: tensor_digest(tensor) for name, tensor in tensors.items()})


def refuse_not_finite(tensors: Mapping[str, Tensor], claim: str) -> None:
    """Refuses weights that are to be saved and are not finite.

    Args:
        tensors: The weights by name; those on the meta device are not looked at.
        claim: What was not done, for the message.

    Raises:
        TrainingError: If a value is infinite or not a number.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.is_meta and not bool(tensor.isfinite().all()):
            raise TrainingError(
                f"tensor {name} has values that are not finite after the training; {claim}. Lower "
                "the learning rate (--set lr=...), and give another --out."
            )


def stored_tensors(
    files: Mapping[str, Path], keys: Mapping[str, str]
) -> Iterator[tuple[str, Tensor]]:
    """Yields each parameter name with its tensor from the files, one at a time, shard by shard.

    Args:
        files: The file of each tensor, from `weight_map`.
        keys: The tensor name of each parameter, from `checkpoint_names`.
    """
    for shard in sorted({files[key] for key in keys.values()}):
        with safe_open(shard, "pt") as file:
            for name, key in keys.items():
                if files[key] == shard:
                    yield name, file.get_tensor(key)


def resolve(source: str | Path, revision: str | None = None) -> Path:
    """The local folder of a checkpoint; a hub id is downloaded first, safetensors files only.

    Args:
        source: A folder, or a hub id with or without @REVISION.
        revision: The revision of a hub id that names none.

    Raises:
        ModelError: If there is no such folder and the hub has no such checkpoint, or it is an
            adapter of another one.
    """
    folder = _folder_of(source, revision)
    if (folder / ADAPTER).exists() or list(folder.glob("adapter_model.*")):
        raise ModelError(
            f"model {source}: an adapter ({ADAPTER}), not a checkpoint. Merge it into its base "
            f'first: python -c "{MERGE.format(folder=folder)}", copy the base\'s processor and '
            "tokenizer files into MERGED, and give that folder."
        )
    return folder


def _folder_of(source: str | Path, revision: str | None) -> Path:
    """The local folder of a checkpoint, which may have to be downloaded."""
    text = path_text("model ", source, f"give {GIVE}.", ModelError)
    if text.endswith(ONNX):
        raise ModelError(
            f"model '{source}': an ONNX graph has no weights by name that could be trained and "
            "patched. Give what it was exported from: the checkpoint in the Hugging Face layout, "
            "or a function of yours that returns the PyTorch network with its preprocessing, "
            "--model MODULE:FUNCTION."
        )
    if is_function(text):
        from unsee.models.embedding_network import function_checkpoint

        return function_checkpoint(text, tensor_digest)
    repository = find(text)
    if revision is not None and (repository is None or repository.revision is not None):
        where = "a folder" if repository is None else f"given at {repository.revision} already"
        raise ModelError(
            f"model '{source}': revision={revision} cannot be read, because it is {where}. Leave "
            "the revision out."
        )
    if repository is not None:
        repository = repository.at(revision or repository.revision)
        needed = ["config.json", ADAPTER]
        return snapshot(repository, "model", DOWNLOADED, "model ", ModelError, needed)
    if Path(text).is_file():
        raise ModelError(
            f"model '{source}': a file, and a checkpoint is a folder. Give the one that it is in: "
            f"{Path(text).parent}."
        )
    if not Path(text).is_dir():
        raise ModelError(f"model '{source}': no such folder. Give {GIVE}.")
    return Path(text)


def read_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's config.json.

    Raises:
        ModelError: If it is missing or not JSON.
    """
    path = folder / "config.json"
    if not path.exists() and not path.is_symlink():
        raise ModelError(
            f"model {folder}: no config.json, so it is no Hugging Face checkpoint. Give the folder "
            "that `save_pretrained` wrote."
        )
    return read_json(path)


def peek_config(source: str | Path) -> dict[str, Any]:
    """The config.json of a checkpoint, before any weight is downloaded; empty if it has none.

    Whatever is wrong with the checkpoint is said when it is loaded.

    Args:
        source: A folder, or a hub id with or without @REVISION.
    """
    if is_function(str(source)):
        return {"model_type": KIND}
    try:
        repository = find(source)
        if repository is None:
            return read_config(Path(source))
        return read_config(snapshot(repository, "model", ["config.json"], "model ", ModelError))
    except (ModelError, ConfigError):
        return {}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint.

    Raises:
        ModelError: If it is no ordinary file, too large, not JSON, nested too deep, or no object.
    """
    folder, name = path.parent, path.name
    if not is_regular(path):
        raise ModelError(f"model {folder}: {name} is not an ordinary file. Give the file itself.")
    most = MOST_BYTES.get(name, MOST_OTHERWISE)
    if path.stat().st_size > most:
        raise ModelError(
            f"model {folder}: {name} has {path.stat().st_size:,} bytes; at most {most:,} are "
            "read. Download the checkpoint again."
        )
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        reason = first_line(error)[:200]
        raise ModelError(
            f"model {folder}: {name} cannot be read ({reason}). Download it again."
        ) from error
    except RecursionError as error:
        raise ModelError(f"model {folder}: {name} is nested too deep. {AGAIN}") from error
    if not isinstance(content, dict):
        raise ModelError(
            f"model {folder}: {name} holds {_shown(content)} instead of an object. {AGAIN}"
        )
    if name != "tokenizer.json" and _is_deeper(content, DEEPEST):
        raise ModelError(
            f"model {folder}: {name} is nested too deep: at most {DEEPEST} levels. {AGAIN}"
        )
    return content


def _shown(value: Any) -> str:
    """A JSON value for a message, cut short."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is_deeper(value: Any, most: int) -> bool:
    """Whether a JSON value has more levels than `most`."""
    if not isinstance(value, (dict, list)):
        return False
    nested = value.values() if isinstance(value, dict) else value
    return most == 0 or any(_is_deeper(entry, most - 1) for entry in nested)


def model_type(config: Mapping[str, Any], folder: Path) -> str:
    """The `model_type` of a config.json.

    Raises:
        ModelError: If it is not text.
    """
    kind = config.get("model_type", "none given")
    if not isinstance(kind, str):
        raise ModelError(
            f"model {folder}: config.json has model_type {_shown(kind)} instead of a name. {AGAIN}"
        )
    return kind


def weight_map(folder: Path, *, check: bool = True) -> dict[str, Path]:
    """The safetensors file that holds each tensor of a checkpoint, by tensor name.

    Args:
        folder: The checkpoint.
        check: Open every shard and compare it with the index. Otherwise no shard of an index is
            opened; see `check_shards`.

    Raises:
        ModelError: If there are no safetensors (pickled weights are refused), a shard is missing
            or damaged, or the index names a tensor that its shard does not have.
    """
    index = folder / INDEX
    if (folder / SINGLE).exists():
        # As in transformers, the single file takes precedence over an index.
        files = dict.fromkeys(tensor_names(folder / SINGLE), folder / SINGLE)
    elif index.exists():
        try:
            shards: dict[str, str] = read_json(index)["weight_map"]
            outside = [file for file in shards.values() if Path(file).name != file]
        except (ModelError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"model {folder}: {INDEX} is damaged ({error!r}). Download it again."
            ) from error
        if outside:
            raise ModelError(
                f"model {folder}: {INDEX} names the file '{outside[0]}', which is not in the "
                "folder itself. Download the checkpoint again."
            )
        files = {name: folder / file for name, file in shards.items()}
    else:
        pickles = sorted(p.name for p in folder.glob("*") if p.suffix in {".bin", ".pt", ".pth"})
        content = f"only pickled weights ({', '.join(pickles)})" if pickles else "no weights"
        raise ModelError(
            f"model {folder}: {content}. Only safetensors are read, since a pickle can run code. "
            "Load it where you trust it and save it again with safe_serialization=True."
        )
    for shard in sorted(set(files.values())):
        if not shard.exists():
            raise ModelError(f"model {folder}: shard {shard.name} is missing. Download it again.")
        if not is_regular(shard):
            raise ModelError(
                f"model {folder}: shard {shard.name} is not an ordinary file. Give the file itself."
            )
    if check:
        check_shards(files, files.values())
    return files


def check_shards(files: Mapping[str, Path], shards: Iterable[Path]) -> None:
    """Compares the headers of shards with the index; no weight is read.

    Args:
        files: The file of each tensor, from `weight_map`.
        shards: The shards to open.

    Raises:
        ModelError: If a shard is damaged or truncated, or lacks a tensor that the index places in
            it.
    """
    for shard in sorted(set(shards)):
        absent = {n for n, f in files.items() if f == shard} - set(tensor_names(shard))
        if absent:
            raise ModelError(
                f"model {shard.parent}: the index places {min(absent)} in {shard.name}, which does "
                "not have it. Download the checkpoint again."
            )


def check_sizes(files: Mapping[str, Path], needed: Mapping[str, int]) -> None:
    """Compares the file sizes of shards with what the index places in them; none is opened.

    Args:
        files: The file of each tensor, from `weight_map`.
        needed: The minimum size of each tensor in bytes, by name.

    Raises:
        ModelError: If a shard is too small.
    """
    for shard in sorted({files[name] for name in needed}):
        least = sum(size for name, size in needed.items() if files[name] == shard)
        size = shard.stat().st_size
        if size < least:
            raise ModelError(
                f"model {shard.parent}: shard {shard.name} is truncated: it has {size:,} bytes, "
                f"and the tensors that the index places in it take {least:,}. Download it again."
            )


@dataclass(frozen=True)
class Entry:
    """The header entry of one tensor in a safetensors file.

    Attributes:
        dtype: The dtype in safetensors' notation, such as "BF16".
        shape: The shape.
        start: The offset of its first byte in the file.
        stop: The offset after its last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(shard: Path) -> dict[str, Entry]:
    """The entries of a safetensors file's header, by tensor name; no weight is read.

    Raises:
        ModelError: If the file is damaged or truncated.
    """
    tensor_names(shard)
    with shard.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: Entry(
            entry["dtype"],
            tuple(entry["shape"]),
            *(8 + length + offset for offset in entry["data_offsets"]),
        )
        for name, entry in header.items()
    }


def tensor_names(shard: Path) -> list[str]:
    """The tensor names in a safetensors file, read from its header.

    Raises:
        ModelError: If the file is damaged or truncated.
    """
    if not is_regular(shard):
        raise ModelError(f"shard {shard} is not an ordinary file. Give the file itself.")
    try:
        with safe_open(shard, "pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"shard {shard} is damaged ({first_line(error)}). Download it again."
        ) from error


def checkpoint_names(
    family: Family, files: Mapping[str, Path], names: Sequence[str]
) -> dict[str, str]:
    """The tensor name in the checkpoint's files of each parameter.

    Args:
        family: The family of the checkpoint.
        files: The file of each tensor, from `weight_map`.
        names: Names of the model's parameters.

    Raises:
        ModelError: If a parameter is in no file.
    """
    keys = known_names(family, files, names)
    for name in names:
        if name not in keys:
            raise ModelError(f"the checkpoint has no tensor for parameter {name}.")
    return keys


def known_names(family: Family, files: Mapping[str, Path], names: Iterable[str]) -> dict[str, str]:
    """Like `checkpoint_names`, but parameters that are in no file are left out.

    Args:
        family: The family of the checkpoint.
        files: The file of each tensor, from `weight_map`.
        names: Names of the model's parameters.
    """
    stored = family.stored_names()
    if stored is not None:
        return stored.find(files, names)
    keys: dict[str, str] = {}
    for name in names:
        for key in family.checkpoint_keys(name):
            if key in files:
                keys.setdefault(name, key)
    return keys


def keys_of(family: Family, files: Mapping[str, Path], name: str) -> list[str]:
    """The tensors in a checkpoint's files that parameter `name` may be read from.

    Args:
        family: The family of the checkpoint.
        files: The file of each tensor, from `weight_map`.
        name: The parameter's name.
    """
    stored = family.stored_names()
    if stored is not None:
        return [key for key in files if stored.parameter(key)[0] == name]
    return [key for key in family.checkpoint_keys(name) if key in files]


def assembled_names(family: Family, files: Mapping[str, Path]) -> frozenset[str]:
    """The parameters that transformers makes from other tensors, such as fused experts.

    Args:
        family: The family of the checkpoint.
        files: The file of each tensor, from `weight_map`.
    """
    stored = family.stored_names()
    return frozenset() if stored is None else stored.assembled(files)
