"""Quantization of models that are evaluated only: 8 bits by torchao, 4 by bitsandbytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch

from unsee.errors import ConfigError, ModelError

LoadIn = Literal["8bit", "4bit"]

# The library for each width. Both run on CPUs and GPUs. bitsandbytes' 8-bit layers cannot multiply
# Mllama's tiles on a CPU, and torchao's 4-bit quantization skips layers of some widths.
LIBRARIES: Mapping[str, str] = {"8bit": "torchao", "4bit": "bitsandbytes"}


@dataclass(frozen=True)
class Quantization:
    """How the linear layers of a model are quantized.

    "8bit" is int8 with one scale a row, by torchao; "4bit" is NF4 in blocks, by bitsandbytes.

    Source: Dettmers et al., arXiv 2305.14314, section 3 (NF4).

    Attributes:
        load_in: "8bit" or "4bit"; None for a checkpoint that is stored quantized.
        library: The quantization library.
        version: The version of the library; None if it is not installed.
    """

    load_in: str | None
    library: str
    version: str | None

    def config(self, dtype: torch.dtype) -> Any:
        """The quantization config for transformers; `dtype` is what the layers compute in."""
        import transformers

        untyped: Any = transformers
        if self.library == "torchao":
            from torchao.quantization import Int8WeightOnlyConfig

            return untyped.TorchAoConfig(Int8WeightOnlyConfig())
        return untyped.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )


def quantization_for(load_in: str) -> Quantization:
    """The quantization that `load_in` names; nothing is loaded.

    Args:
        load_in: "8bit" or "4bit".

    Raises:
        ConfigError: If `load_in` is neither, or its library is not installed.
    """
    if load_in not in LIBRARIES:
        raise ConfigError(f"load_in '{load_in}' is unknown. Allowed: {', '.join(LIBRARIES)}.")
    library = LIBRARIES[load_in]
    installed = _installed_version(library)
    if installed is None:
        raise ConfigError(
            f"load_in '{load_in}' needs {library}, which is not installed. Type pip install "
            "'unsee[quantized]', or load the weights as they are."
        )
    return Quantization(load_in, library, installed)


def stored_quantization(config: Mapping[str, Any]) -> Quantization | None:
    """The quantization that a checkpoint's config.json declares; None if it declares none."""
    stored = config.get("quantization_config")
    if not stored:
        return None
    library = str(stored.get("quant_method", "an unnamed library"))
    return Quantization(None, library, _installed_version(library))


def refuse_unquantized(model: Any, wanted: Quantization) -> None:
    """Refuses a model that `wanted` should have quantized and did not.

    Raises:
        ModelError: If no layer is quantized.
    """
    if all(type(parameter) is torch.nn.Parameter for parameter in model.parameters()):
        raise ModelError(
            f"{wanted.library} {wanted.version} has quantized no layer of this model. Load the "
            "weights as they are."
        )


def avoid_packing(model: Any) -> None:
    """Keeps layers of unsupported shapes away from bitsandbytes' packed CPU kernels.

    These need a multiple of 32 outputs and whole blocks of inputs, which some vision towers do not
    have.
    """
    for layer in model.modules():
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        if state is not None and (state.shape[0] % 32 or state.shape[1] % state.blocksize):
            layer.support_avx512bf16_for_cpu = False


def _installed_version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
