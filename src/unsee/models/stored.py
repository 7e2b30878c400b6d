"""Compares what config.json describes with the tensors that a checkpoint stores.

The model is built without memory (on the meta device) and only headers of weight files are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from unsee.errors import ModelError, counted
from unsee.families import Family
from unsee.models import embedding_network as embedding_network  # registers its Auto classes
from unsee.models.checkpoint import Entry, assembled_names, keys_of, known_names, read_header
from unsee.models.loading import loading_errors, model_builder
from unsee.models.processors import quiet

FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
AGAIN = "Download or save the checkpoint again."
# A parameter of a numbered block: the list's name, the block's number, the rest of the name.
BLOCK = re.compile(r"(.+?)\.(\d+)\.(.+)")


def skeleton(folder: Path, family: Family, trust_remote_code: bool = False) -> Any:
    """The Hugging Face model that config.json describes, on the meta device.

    Args:
        folder: The checkpoint.
        family: The family of the checkpoint.
        trust_remote_code: Allow the checkpoint's own Python code to run.

    Raises:
        ModelError: If it cannot be built.
    """
    with quiet(), loading_errors(folder):
        config = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
        with torch.device("meta"):
            model = model_builder(family).from_config(
                config,
                dtype=torch.float32,
                trust_remote_code=trust_remote_code,
                **family.model_options,
            )
        model.tie_weights()
    return model


def check_stored(
    folder: Path, family: Family, model: Any, files: Mapping[str, Path], whole: bool
) -> None:
    """Compares a model with the stored tensors: names, shapes, dtypes and numbers of layers.

    Args:
        folder: The checkpoint.
        family: The family of the checkpoint.
        model: From `skeleton`.
        files: The file of each tensor, from `weight_map`.
        whole: Read the headers of all files; otherwise only of those with visual tensors.

    Raises:
        ModelError: If they do not fit.
    """
    parameters = dict(model.named_parameters())
    keys = known_names(family, files, parameters)
    language = family.parts.prefixes("language")
    assembled = assembled_names(family, files)
    missing = [name for name in parameters if name not in keys and name not in assembled]
    # Without a single known name, transformers may know the names that the file uses.
    strange = not any(name.startswith(language) for name in keys)
    missing = [n for n in missing if not (strange and n.startswith(language))]
    if missing:
        raise ModelError(
            f"model {folder}: {counted(len(missing), 'tensor is', 'tensors are')} missing that "
            f"config.json asks for, first {missing[0]}; such weights would be random. {AGAIN}"
        )
    _check_layers(folder, family, keys, files)
    opened = {files[k] for n, k in keys.items() if whole or not n.startswith(language)}
    headers = {shard: read_header(shard) for shard in sorted(opened)}
    for name, key in keys.items():
        if files[key] in headers:
            entry = headers[files[key]].get(key)
            if entry is None:
                raise ModelError(
                    f"model {folder}: the index places {key} in {files[key].name}, which does not "
                    f"have it. {AGAIN}"
                )
            _check_tensor(folder, key, entry, tuple(parameters[name].shape))


def _check_tensor(folder: Path, key: str, entry: Entry, shape: tuple[int, ...]) -> None:
    if entry.shape != shape:
        raise ModelError(
            f"model {folder}: {key} is of another shape than config.json says: "
            f"{list(entry.shape)} is stored, {list(shape)} expected. {AGAIN}"
        )
    if entry.dtype not in FLOATS:
        raise ModelError(
            f"model {folder}: {key} is stored as {entry.dtype}, which is no weight of a model that "
            f"can be trained. Allowed: {', '.join(sorted(FLOATS))}. {AGAIN}"
        )


def _check_layers(
    folder: Path, family: Family, keys: Mapping[str, str], files: Mapping[str, Path]
) -> None:
    """Refuses a configuration with fewer layers than are stored, which would be left out."""
    last: dict[tuple[str, str], int] = {}
    for name in keys:
        if match := BLOCK.fullmatch(name):
            block, number, leaf = match.groups()
            last[block, leaf] = max(last.get((block, leaf), 0), int(number))
    counts: dict[str, int] = {}
    for (block, _), number in last.items():
        counts[block] = max(counts.get(block, 0), number + 1)
    for block, leaf in last:
        count = counts[block]
        beyond = f"{block}.{count}.{leaf}"
        stored = keys_of(family, files, beyond)
        if stored:
            raise ModelError(
                f"model {folder}: config.json says that {block} has {count} layers, and the "
                f"weights hold more ({stored[0]}). {AGAIN}"
            )
