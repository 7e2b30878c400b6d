"""Quantization: store the weights in fewer bits, and see whether small changes round away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from unsee.attacks import ATTACKS, Attack, Subject
from unsee.errors import ConfigError


@ATTACKS.register("quantize", source="arXiv 2410.16454")
@dataclass(frozen=True)
class Quantize(Attack):
    """Quantization: every weight matrix is stored in fewer bits; nothing of the target is needed.

    The weights are put back as the numbers that the stored ones stand for, so that another attack
    can follow. Biases, norms and other vectors stay.

    Source: Zhang et al., arXiv 2410.16454 (round to nearest).
    Differs: weights alone, not activations.

    Attributes:
        bits: Of a stored weight; 0 stores them as they are.
        scheme: Round to nearest with a scale a row ("rtn"), or what a library does: "torchao"
            (8 bits) or "bitsandbytes" (8 bits by rows, 4 bits NF4 by blocks of 64).
        modules: Whose weights.
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"bits": 0}

    bits: Annotated[int, Field(ge=0, le=8)] = 4
    scheme: Literal["rtn", "torchao", "bitsandbytes"] = "rtn"
    modules: Literal["visual", "language", "all"] = "all"

    def apply(self, subject: Subject) -> Subject:
        """The subject with a quantized copy of the model.

        Raises:
            ConfigError: If the scheme has no such number of bits, or its library is missing.
        """
        if self.bits == 0:
            return subject
        if self.bits == 1 or (self.scheme, self.bits) not in {
            ("rtn", self.bits), ("torchao", 8), ("bitsandbytes", 8), ("bitsandbytes", 4),
        }:  # fmt: skip
            raise ConfigError(
                f"quantize: scheme={self.scheme} has no bits={self.bits}. Allowed: rtn 2 to 8, "
                "torchao 8, bitsandbytes 4 and 8."
            )
        stored = {"rtn": self._rtn, "torchao": _torchao, "bitsandbytes": self._bitsandbytes}
        vlm = subject.vlm.copy()
        try:
            with torch.no_grad():
                for parameter in vlm.parameters(self.modules).values():
                    if parameter.dim() >= 2:
                        rows = parameter.flatten(1).float()
                        parameter.copy_(stored[self.scheme](rows).view_as(parameter))
        except ImportError as error:
            raise ConfigError(
                f"quantize: scheme={self.scheme} needs a package that is missing ({error}). Type "
                f"`pip install {self.scheme}`, or --set scheme=rtn."
            ) from error
        return replace(subject, vlm=vlm)

    def _rtn(self, rows: Tensor) -> Tensor:
        return round_to_nearest(rows, self.bits)

    def _bitsandbytes(self, rows: Tensor) -> Tensor:
        from bitsandbytes import functional

        if self.bits == 4:
            packed, state = functional.quantize_4bit(rows.contiguous(), quant_type="nf4")
            back: Tensor = functional.dequantize_4bit(packed, state)
        else:
            whole, scale, _ = functional.int8_vectorwise_quant(rows.half().contiguous())
            back = functional.int8_vectorwise_dequant(whole, scale)
        found: Tensor = back.float()
        return found


def round_to_nearest(
    rows: Float[Tensor, "rows columns"], bits: int
) -> Float[Tensor, "rows columns"]:
    """Each row as whole multiples of its own step: its largest magnitude over 2^(bits-1) - 1."""
    most = 2 ** (bits - 1) - 1
    step = rows.abs().amax(1, keepdim=True) / most
    # A row of zeros has no step, and stays.
    whole = (rows / step.where(step > 0, torch.ones_like(step))).round().clamp(-most, most)
    found: Tensor = whole * step
    return found


def _torchao(rows: Tensor) -> Tensor:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    layer = nn.Linear(rows.shape[1], rows.shape[0], bias=False, device=rows.device)
    layer.weight = nn.Parameter(rows.clone(), requires_grad=False)
    quantize_(layer, Int8WeightOnlyConfig())
    weight: Any = layer.weight
    found: Tensor = weight.dequantize()
    return found
