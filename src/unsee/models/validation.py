"""Checks of a checkpoint's JSON files before anything is built from them.

transformers builds whatever config.json describes: a million layers take hours, and a hidden size
of a thousand million takes all memory. The stored tensors say what is possible, so that the
configuration is compared with them first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from unsee.errors import ModelError, shorten
from unsee.families import Family, family_of
from unsee.families.encoders.functions import allow
from unsee.models.checkpoint import (
    SINGLE,
    model_type,
    read_config,
    read_header,
    read_json,
    weight_map,
)
from unsee.models.companions import PROCESSOR, matches, refuse_not_regular
from unsee.models.stored import check_stored, skeleton
from unsee.models.templates import check_templates

AGAIN = "Download it again."
DTYPES = ("float64", "float32", "float16", "bfloat16")

# Sizes of tensors: at least 1, and at most the size of the checkpoint's weights.
SIZES = {
    *("hidden_size", "intermediate_size", "vocab_size", "embed_dim", "projection_dim"),
    *("vision_output_dim", "mlp_dim", "out_hidden_size", "head_dim", "num_channels"),
    *("in_channels", "patch_size", "temporal_patch_size", "spatial_patch_size", "image_size"),
    *("num_attention_heads", "num_key_value_heads", "num_heads", "attention_heads"),
    *("spatial_merge_size", "max_position_embeddings", "image_seq_length"),
}
LAYERS = {"num_hidden_layers", "num_layers", "num_global_layers", "depth", "n_layer", "n_layers"}
FLAGS = {
    *("output_hidden_states", "output_attentions", "output_scores", "output_logits", "use_cache"),
    *("do_sample", "return_dict", "return_dict_in_generate", "tie_word_embeddings"),
}
MOST = {
    "hidden_size": 1 << 20,
    "embed_dim": 1 << 20,
    "projection_dim": 1 << 20,
    "patch_size": 1024,
    "temporal_patch_size": 1024,
    "num_channels": 4096,
    "in_channels": 4096,
    "image_size": 16384,
    "num_attention_heads": 4096,
    "num_key_value_heads": 4096,
    "num_heads": 4096,
    "attention_heads": 4096,
    "spatial_merge_size": 64,
    "max_position_embeddings": 1 << 26,
}
LARGEST_SIZE = 1 << 25
LARGEST_ID = (1 << 31) - 1
MOST_LAYERS = 2000
MOST_LABELS = 100_000

# Sides of pictures in pixels; some processors count a picture's pixels instead.
LARGEST_SIDE = 16384
MOST_PIXELS = 1 << 30


def check_checkpoint(
    folder: Path, *, whole: bool = True, tensors: bool = True, trust_remote_code: bool = False
) -> dict[str, Any]:
    """Checks all that can be checked of a checkpoint without reading a weight.

    The JSON files, the chat templates, and that the stored tensors are those of the model that
    config.json describes.

    Args:
        folder: The checkpoint.
        whole: Open every weight file; otherwise only those with visual tensors.
        tensors: Compare the stored tensors with config.json.
        trust_remote_code: Allow the checkpoint's own Python code to run.

    Returns:
        The content of config.json.

    Raises:
        ModelError: If anything is damaged, or does not fit.
    """
    config = check_json_files(folder)
    if trust_remote_code:
        allow(config.get("function"))
    family = family_in(config, folder)
    check_templates(folder)
    check_layers(folder, config)
    files = weight_map(folder, check=whole)
    # Quantized weights have other names and shapes.
    if tensors and not config.get("quantization_config"):
        model = skeleton(folder, family, trust_remote_code)
        check_stored(folder, family, model, files, whole)
    return config


def family_in(config: Mapping[str, Any], folder: Path) -> Family:
    """The family that a config.json names.

    Args:
        config: The content of config.json.
        folder: The checkpoint, for messages.

    Raises:
        ModelError: If no family takes it.
    """
    kind = model_type(config, folder)
    try:
        return family_of(kind, config)
    except ModelError as error:
        raise ModelError(f"model {folder}: {error}") from error


def check_json_files(folder: Path) -> dict[str, Any]:
    """Checks every JSON file that transformers reads from a checkpoint; no weight is read.

    Args:
        folder: The checkpoint.

    Returns:
        The content of config.json.

    Raises:
        ModelError: If a file is a pipe or a device, too large, not JSON, nested too deep, no
            object, or has a value that no model can have.
    """
    config = read_config(folder)
    model_type(config, folder)
    for path in sorted(folder.iterdir()):
        if not matches(path.name, (*PROCESSOR, "generation_config.json")):
            continue
        refuse_not_regular(path, folder)
        if path.suffix == ".json":
            content = read_json(path)
            if path.name == "generation_config.json":
                _check_flags(content, "", path)
                _check_token_ids(content, "", path)
            if path.name.endswith("processor_config.json"):
                _check_processor(content, path)
    for name, section in _sections(config, folder):
        _check_section(section, name, folder)
        _check_flags(section, name, folder / "config.json")
        _check_token_ids(section, name, folder / "config.json")
    _check_image_token(config, folder)
    return config


def _check_image_token(config: Mapping[str, Any], folder: Path) -> None:
    """Refuses an image token that is no token of its own in the tokenizer's file."""
    key = "image_token_id" if "image_token_id" in config else "image_token_index"
    path = folder / "tokenizer.json"
    if config.get(key) is None or not path.exists():
        return
    added = read_json(path).get("added_tokens")
    if not isinstance(added, list) or not all(isinstance(entry, Mapping) for entry in added):
        raise ModelError(f"model {folder}: tokenizer.json has no list of added_tokens. {AGAIN}")
    names = {e["id"]: e.get("content") for e in added if type(e.get("id")) is int}
    if type(config[key]) is not int or config[key] not in names:
        images = [f"{i} ({name})" for i, name in names.items() if "im" in str(name).lower()]
        reason = "it must be the id of an added token of tokenizer.json"
        if images:
            reason += f", such as {shorten(', '.join(images), 80)}"
        _refuse(folder, "", key, config[key], reason)


def check_layers(folder: Path, config: Mapping[str, Any]) -> None:
    """Compares the number of layers and the sizes in config.json with the stored tensors.

    Only headers are read.

    Args:
        folder: The checkpoint.
        config: The content of its config.json.

    Raises:
        ModelError: If the configuration asks for more than is stored.
    """
    if not (folder / SINGLE).exists():
        return
    shards = sorted(set(weight_map(folder).values()))
    entries = [entry for shard in shards for entry in read_header(shard).values()]
    largest = max((size for entry in entries for size in entry.shape), default=0)
    elements = max((math.prod(entry.shape) for entry in entries), default=0)
    for name, section in _sections(config, folder):
        # Outside the nested configurations, old files keep sizes that nothing reads.
        for key in ("hidden_size", "intermediate_size") if name else ():
            value = section.get(key)
            # Some weights are fused or flattened, so only what fits in none is refused.
            if isinstance(value, int) and value > max(largest, elements):
                _refuse(folder, name, key, value, f"no stored tensor is larger than {elements:,}")
        for key in LAYERS & section.keys():
            if isinstance(section[key], int) and section[key] > len(entries):
                _refuse(folder, name, key, section[key], f"{len(entries)} tensors are stored")


def _sections(
    config: Mapping[str, Any], folder: Path, prefix: str = ""
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """config.json and the configurations nested in it, with their dotted names."""
    yield prefix, config
    for key, value in config.items():
        if isinstance(value, Mapping) and (key.endswith("_config") or key == "vision"):
            if key != "quantization_config":
                yield from _sections(value, folder, f"{prefix}{key}.")
        elif key.endswith("_config") and value is not None and not isinstance(value, bool):
            _refuse(folder, prefix, key, value, "allowed: an object")


def _check_section(section: Mapping[str, Any], name: str, folder: Path) -> None:
    """Checks the dtype, sizes, layers and labels of one configuration."""
    for key in ("dtype", "torch_dtype"):
        value = section.get(key)
        name_of_dtype = str(value).removeprefix("torch.")
        known = isinstance(getattr(torch, name_of_dtype, None), torch.dtype)
        if value is not None and name_of_dtype != "auto" and not known:
            _refuse(folder, name, key, value, f"allowed: {', '.join(DTYPES)}")
    for key in SIZES & section.keys():
        # Heads without a rotary part have a head_dim of 0.
        least = 0 if key == "head_dim" else 1
        _check_number(section[key], key, name, folder, least, MOST.get(key, LARGEST_SIZE))
    for key in LAYERS & section.keys():
        least = 0 if key == "num_global_layers" else 1
        _check_number(section[key], key, name, folder, least, MOST_LAYERS)
    labels = section.get("num_labels", 2)
    _check_number(labels, "num_labels", name, folder, 0, MOST_LABELS)
    heads, hidden = section.get("num_attention_heads"), section.get("hidden_size")
    if heads and hidden and not section.get("head_dim") and hidden % heads:
        _refuse(folder, name, "num_attention_heads", heads, f"it must divide {hidden}")
    groups = section.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(groups, int) and groups and heads % groups:
        _refuse(folder, name, "num_key_value_heads", groups, f"it must divide {heads}")


def _check_flags(section: Mapping[str, Any], name: str, path: Path) -> None:
    """Refuses switches that are neither true nor false."""
    for key in sorted(FLAGS & section.keys()):
        if section[key] is not None and not isinstance(section[key], bool):
            _refuse_processor(path, f"{name}{key}", section[key], "allowed: true, false")


def _check_token_ids(section: Mapping[str, Any], name: str, path: Path) -> None:
    """Refuses ids of special tokens that are no ids; -1 stands for none in older files."""
    for key in sorted(key for key in section if key.endswith("_token_id")):
        ids = section[key] if isinstance(section[key], list) else [section[key]]
        for number in ids:
            if number is None:
                continue
            if type(number) is not int or not -1 <= number <= LARGEST_ID:
                reason = f"allowed: ids of tokens, 0 to {LARGEST_ID:,}"
                _refuse_processor(path, f"{name}{key}", number, reason)


def _check_number(value: Any, key: str, name: str, folder: Path, least: int, most: int) -> None:
    """Refuses a size that is no whole number in its range; lists are checked by entry."""
    for number in value if isinstance(value, list) else [value]:
        if number is None:
            continue
        if type(number) is not int or not least <= number <= most:
            _refuse(folder, name, key, number, f"allowed: whole numbers, {least} to {most:,}")


def _check_processor(content: Mapping[str, Any], path: Path) -> None:
    """Checks the picture sizes of a processor's file, and of the ones nested in it."""
    for key, value in content.items():
        if isinstance(value, Mapping) and key in ("image_processor", "video_processor"):
            _check_processor(value, path)
        elif key in ("size", "crop_size"):
            # Processors with pictures of any size count their pixels instead.
            counts_pixels = bool({"merge_size", "min_pixels", "max_pixels"} & content.keys())
            most = MOST_PIXELS if counts_pixels else LARGEST_SIDE
            _check_sides(value, key, path, most)
        elif key == "patch_size" and value is not None:
            _check_sides(value, key, path, 1024)
        elif key == "image_std":
            numbers = value if isinstance(value, list) else [value]
            if not all(_is_positive(number) for number in numbers if number is not None):
                _refuse_processor(path, key, value, "allowed: numbers above 0")


def _check_sides(value: Any, key: str, path: Path, most: int) -> None:
    sides = value.items() if isinstance(value, Mapping) else [(key, value)]
    for name, side in sides:
        if side is not None and not (_is_positive(side) and side <= most):
            inner = key if name == key else f"{key}.{name}"
            _refuse_processor(path, inner, side, f"allowed: numbers from 1 to {most:,}")


def _is_positive(number: Any) -> bool:
    usable = isinstance(number, (int, float)) and not isinstance(number, bool)
    return usable and 0 < number < math.inf


def _refuse(folder: Path, name: str, key: str, value: Any, reason: str) -> None:
    raise ModelError(
        f"model {folder}: config.json says {name}{key} = {str(value)[:40]}; {reason}. Download "
        "or save the checkpoint again."
    )


def _refuse_processor(path: Path, key: str, value: Any, reason: str) -> None:
    raise ModelError(
        f"model {path.parent}: {path.name} says {key} = {str(value)[:40]}; {reason}. Download or "
        "save the checkpoint again."
    )
