"""Saves a model as its base was saved: the same files and tensor names, with other weights.

What transformers writes today, older versions cannot read: it renames tensors and settings. A
checkpoint that was loaded from a folder keeps that folder's files, so that it loads wherever its
base does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unsee.errors import ModelError, first_line, shorten
from unsee.families import Family, family_of
from unsee.models.checkpoint import (
    INDEX,
    SINGLE,
    known_names,
    read_config,
    read_header,
    read_json,
    weight_map,
)
from unsee.models.companions import PROCESSOR, matches, refuse_foreign_file
from unsee.models.loading import model_builder, require_all_weights
from unsee.models.processors import load_processor, quiet, save_processor

GENERATION = "generation_config.json"
TEMPLATES = "additional_chat_templates"


def save_model(model: Any, processor: Any, family: Family, source: Path, folder: Path) -> None:
    """Writes model and processor into a folder, and opens them again.

    Args:
        model: The Hugging Face model.
        processor: Its processor.
        family: Its family.
        source: The folder that it was loaded from. If that holds a checkpoint of the same tensors,
            its files are kept byte for byte but for the weights.
        folder: An existing folder to write to.

    Raises:
        ModelError: If what was written cannot be opened again.
    """
    keys = _base_names(model, family, source)
    if keys:
        _save_weights(model, keys, source, folder)
        _copy_files(source, folder)
        _write_config(model, source, folder)
    else:
        model.save_pretrained(folder)
        save_processor(processor, source, folder)
    reopen(folder)


def reopen(folder: Path) -> None:
    """Opens a checkpoint with transformers alone, as its users will; weights stay on the disk.

    Raises:
        ModelError: If a file or a tensor is missing or does not fit.
    """
    try:
        with quiet():
            config = read_config(folder)
            kind = config["model_type"]
            family = family_of(kind, config)
            _, info = model_builder(family).from_pretrained(
                folder,
                dtype="auto",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                device_map="meta",
                **family.model_options,
            )
            require_all_weights(folder, info)
            load_processor(folder, kind, trust_remote_code=False, family=family)
    except Exception as error:
        reason = shorten(first_line(error).replace(str(folder), "it"), 300)
        raise ModelError(
            f"the model was not saved: transformers cannot open what was written ({reason}). "
            "Nothing was left behind; check that the base itself can be opened: "
            "`unsee verify BASE BASE`."
        ) from error


def _base_names(model: Any, family: Family, source: Path) -> dict[str, str]:
    """The tensor name in the base's files of each parameter; empty if they are not the base's."""
    if not (source / SINGLE).exists() and not (source / INDEX).exists():
        return {}
    files = weight_map(source)
    # With the second names of shared weights, which files may hold as well.
    parameters = dict(model.named_parameters(remove_duplicate=False))
    keys = known_names(family, files, parameters)
    unknown = [name for name, _ in model.named_parameters() if name not in keys]
    headers = {shard: read_header(shard) for shard in set(files.values())}
    shapes = {key: headers[files[key]][key].shape for key in keys.values()}
    fits = all(tuple(parameters[name].shape) == shapes[key] for name, key in keys.items())
    return keys if fits and not unknown else {}


def _save_weights(model: Any, keys: Mapping[str, str], source: Path, folder: Path) -> None:
    """Writes every weight file of the base with the model's weights, one file at a time."""
    files = weight_map(source)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    named = {key: parameters[name] for name, key in keys.items()}
    size = 0
    for shard in sorted(set(files.values())):
        tensors: dict[str, Tensor] = {}
        pointers: set[int] = set()
        with safe_open(shard, "pt") as file:
            # Files hold tensors that are no parameters, such as position ids: they are kept.
            for key in file.keys():  # noqa: SIM118
                weight = named.get(key)
                tensor = file.get_tensor(key) if weight is None else weight.detach().cpu()
                # A file holds shared weights once a name.
                shared = tensor.data_ptr() in pointers
                tensors[key] = tensor.clone() if shared else tensor.contiguous()
                pointers.add(tensor.data_ptr())
                size += tensor.numel() * tensor.itemsize
        save_file(tensors, folder / shard.name, metadata={"format": "pt"})
    if not (source / SINGLE).exists():
        index = read_json(source / INDEX)
        metadata = index.get("metadata")
        index["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "total_size": size}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _copy_files(source: Path, folder: Path) -> None:
    """Copies the processor's, the tokenizer's and the generation settings as they are."""
    for path in sorted(source.iterdir()):
        if path.is_file() and matches(path.name, (*PROCESSOR, GENERATION)):
            refuse_foreign_file(path, source)
            shutil.copyfile(path, folder / path.name)
    for path in sorted((source / TEMPLATES).glob("*.jinja")):
        refuse_foreign_file(path, source)
        (folder / TEMPLATES).mkdir(exist_ok=True)
        shutil.copyfile(path, folder / TEMPLATES / path.name)


def _write_config(model: Any, source: Path, folder: Path) -> None:
    """Copies config.json; its dtype is changed if the weights are saved in another one."""
    shutil.copyfile(source / "config.json", folder / "config.json")
    config = read_config(source)
    saved = _name(next(model.parameters()).dtype)
    stated = [
        (section, key)
        for section in (config, *(v for k, v in config.items() if k.endswith("_config")))
        if isinstance(section, dict)
        for key in ("dtype", "torch_dtype")
        if section.get(key) is not None
    ]
    others = [(s, key) for s, key in stated if str(s[key]).removeprefix("torch.") != saved]
    named = any(section is config for section, _ in stated)
    if not others and named:
        return
    if not named:
        config["torch_dtype"] = saved
    for section, key in others:
        section[key] = saved
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
