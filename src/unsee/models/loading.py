"""Loads the weights of a Hugging Face model, and checks that none is missing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor, nn

from unsee.errors import ModelError, UnseeError, counted, first_line, shorten
from unsee.families import Family
from unsee.models.checkpoint import (
    assembled_names,
    check_shards,
    check_sizes,
    checkpoint_names,
    known_names,
    weight_map,
)


@contextmanager
def loading_errors(folder: Path) -> Iterator[None]:
    """Turns what transformers raises for a damaged checkpoint into a `ModelError`."""
    try:
        yield
    except (UnseeError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # A panic in Rust code of tokenizers is no `Exception`.
        raise ModelError(
            f"model {folder}: cannot be loaded ({shorten(first_line(error), 300)}). Download or "
            "save the checkpoint again."
        ) from error


def model_builder(family: Family) -> Any:
    """The class of transformers that builds a family's models, with `from_config`."""
    return getattr(transformers, family.auto_class)


def dtype_of(config: Any, dtype: str | torch.dtype) -> Any:
    """The torch dtype to load weights in; None if neither `dtype` nor config.json says one."""
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
    """A model with visual weights only; language-model weights are not read (meta device).

    On a CPU, weights that are stored in `dtype` stay memory-mapped until they are changed.

    Args:
        folder: The checkpoint.
        family: The family of the checkpoint.
        config: The Hugging Face configuration.
        dtype: The dtype of the weights.
        device: "cpu" or "cuda".
        trust_remote_code: Allow the checkpoint's own Python code to run.

    Raises:
        ModelError: If a visual tensor is missing or of another shape, or a shard is truncated.
    """
    from accelerate import init_empty_weights

    files = weight_map(folder, check=False)
    visual = family.parts.prefixes("visual")
    if any(name.startswith(visual) for name in assembled_names(family, files)):
        return _drop_language(folder, family, dtype, device, trust_remote_code)
    # Buffers (position ids) are computed and not stored, so they must not be empty.
    with init_empty_weights(include_buffers=False):
        model = model_builder(family).from_config(
            config, dtype=dtype, trust_remote_code=trust_remote_code, **family.model_options
        )
    # The meta device unties shared weights, which would then be counted twice.
    model.tie_weights()
    names = [n for n, _ in model.named_parameters() if n.startswith(visual)]
    # Shards of the language part are not opened: only their file sizes can be checked.
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


def load_whole(
    folder: Path,
    family: Family,
    dtype: str | torch.dtype,
    trust_remote_code: bool,
    options: Mapping[str, Any],
) -> Any:
    """A model with all its weights.

    Args:
        folder: The checkpoint.
        family: The family of the checkpoint.
        dtype: The dtype of the weights; "auto" is what config.json says.
        trust_remote_code: Allow the checkpoint's own Python code to run.
        options: Further options of `from_pretrained`.

    Raises:
        ModelError: If a tensor is missing or of another shape.
    """
    loaded: Any = model_builder(family).from_pretrained(
        folder,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        # transformers' own error does not name the tensor; `require_all_weights` does.
        ignore_mismatched_sizes=True,
        **family.model_options,
        **options,
    )
    model, info = loaded
    require_all_weights(folder, info)
    return model


def _drop_language(
    folder: Path, family: Family, dtype: torch.dtype, device: str, trust_remote_code: bool
) -> Any:
    """A model with visual weights only, some of which transformers makes from other tensors."""
    model = load_whole(folder, family, dtype, trust_remote_code, {})
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if not name.startswith(family.parts.prefixes("visual")):
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, nn.Parameter(parameter.to("meta")))
    model.tie_weights()
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and not tensor.is_meta:
                tensor.data = tensor.data.to(device)
    return model


def bypass_unread_layers(model: Any, family: Family) -> None:
    """Replaces layers whose output is not used by the identity; their weights stay in the model."""
    for name in family.unread_layers(model):
        model.get_submodule(name).forward = _identity


def _identity(hidden: Tensor, *_inputs: Any, **_options: Any) -> Tensor:
    return hidden


def require_all_weights(folder: Path, info: dict[str, Any]) -> None:
    """Refuses a model some of whose weights transformers has initialized at random.

    Args:
        folder: The checkpoint.
        info: The loading info that `from_pretrained` returns.

    Raises:
        ModelError: If a tensor is missing or of another shape.
    """
    missing = sorted(info.get("missing_keys") or []) + sorted(
        str(key) for key in info.get("mismatched_keys") or []
    )
    if missing:
        raise ModelError(
            f"model {folder}: {counted(len(missing), 'tensor is', 'tensors are')} missing or of "
            f"another shape, first {missing[0]}; such weights would be random. "
            "Download or save the checkpoint again."
        )


def kv_cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """The keyword argument for a model's key-value cache, which transformers 5.24 renamed."""
    parameters = inspect.signature(model.forward).parameters
    return {"cache" if "cache" in parameters else "past_key_values": cache}
