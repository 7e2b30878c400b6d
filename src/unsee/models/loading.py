"""Checkpoint files to the weights of a Hugging Face model, and what must not be missing."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from unsee.errors import ModelError
from unsee.families import Family
from unsee.models.checkpoint import (
    check_shards,
    check_sizes,
    checkpoint_names,
    known_names,
    weight_map,
)


def dtype_of(config: Any, dtype: str | torch.dtype) -> Any:
    """The dtype to load weights as; None where neither the caller nor config.json says."""
    if isinstance(dtype, torch.dtype):
        return dtype
    return getattr(torch, config.dtype) if isinstance(config.dtype, str) else config.dtype


def load_visual(
    folder: Path,
    family: Family,
    config: Any,
    dtype: torch.dtype,
    device: str,
    trust_remote_code: bool,
) -> Any:
    """A model with visual weights alone; those of the language part sit on the meta device.

    Weights that are stored as they are wanted stay mapped from their file until they change, on a
    CPU.

    Raises:
        ModelError: If a visual tensor is missing or of another shape, or a shard is cut short.
    """
    from accelerate import init_empty_weights

    # Buffers (position ids) are computed, not stored: they must not be empty.
    with init_empty_weights(include_buffers=False):
        model = AutoModelForImageTextToText.from_config(
            config, dtype=dtype, trust_remote_code=trust_remote_code
        )
    # Going to the meta device unties what the full model shares, and it would count twice.
    model.tie_weights()
    prefixes = family.parts.prefixes("visual")
    names = [n for n, _ in model.named_parameters() if n.startswith(prefixes)]
    # Shards of the language part are never opened: of them, sizes alone can be checked.
    files = weight_map(folder, check=False)
    keys = checkpoint_names(family, files, names)
    check_shards(files, {files[key] for key in keys.values()})
    width = dtype.itemsize
    for shard in sorted({files[key] for key in keys.values()}):
        with safe_open(shard, "pt") as file:
            for name in (n for n in names if files[keys[n]] == shard):
                owner, _, leaf = name.rpartition(".")
                stored = file.get_tensor(keys[name])
                width = min(width, stored.itemsize)
                tensor = stored.to(device, dtype)
                if tensor.shape != model.get_parameter(name).shape:
                    raise ModelError(
                        f"model {folder}: {keys[name]} is of another shape than config.json says, "
                        f"{list(tensor.shape)}. Download or save the checkpoint again."
                    )
                setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor))
    for name, buffer in list(model.named_buffers()):
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, buffer.to(device))
    rest = {n: p.numel() * width for n, p in model.named_parameters() if n not in keys}
    check_sizes(files, {key: rest[n] for n, key in known_names(family, files, rest).items()})
    return model


def bypass_unread_layers(model: Any, family: Family) -> None:
    """Lets the layers that nothing reads pass on their input; their weights stay where they are."""
    for name in family.unread_layers(model):
        model.get_submodule(name).forward = _pass_on


def _pass_on(hidden: Tensor, *_inputs: Any, **_options: Any) -> Tensor:
    return hidden


def require_all_weights(folder: Path, info: dict[str, Any]) -> None:
    """Refuses a model that transformers filled up with random weights.

    Args:
        folder: The checkpoint.
        info: What `from_pretrained` says of the loading.

    Raises:
        ModelError: If a tensor is missing or of another shape.
    """
    gaps = sorted(info.get("missing_keys") or []) + sorted(
        str(key) for key in info.get("mismatched_keys") or []
    )
    if gaps:
        raise ModelError(
            f"model {folder}: {len(gaps)} tensors are missing or of another shape, first "
            f"{gaps[0]}; they would be random. Download or save the checkpoint again."
        )


def kv_cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """The keyword argument that hands a model its keys and values; transformers 5.24 renamed it."""
    known = inspect.signature(model.forward).parameters
    return {"cache" if "cache" in known else "past_key_values": cache}
