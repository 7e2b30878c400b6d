"""Quantization: rounding the weights may undo small changes of unlearning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from unsee.attacks import ATTACKS, Attack, Subject
from unsee.errors import ConfigError

Scheme = Literal["rtn", "torchao", "bitsandbytes"]

# Numbers of bits that each scheme supports.
BITS: dict[Scheme, Sequence[int]] = {
    "rtn": range(2, 9),
    "torchao": (8,),
    "bitsandbytes": (4, 8),
}


@ATTACKS.register("quantize", source="arXiv 2410.16454")
@dataclass(frozen=True)
class Quantize(Attack):
    """Quantization: weight matrices are quantized to few bits and dequantized again.

    The copy has the dequantized values in its original dtype, so another attack can follow. Biases,
    norms and other vectors are not quantized. The attacker needs no data.

    Source: Zhang et al., arXiv 2410.16454 (round to nearest).
    Differs: quantizes weights only, not activations.

    Attributes:
        bits: Bits per weight; 0 disables the attack.
        scheme: "rtn" rounds to nearest with one scale per row; "torchao" (8 bits) and
            "bitsandbytes" (8 bits by rows, or 4 bits NF4 in blocks of 64) use these libraries.
        modules: The part whose weights are quantized.

    Example:
        >>> from unsee.attacks import Subject
        >>> from unsee.attacks.quantize import Quantize
        >>> attacked = Quantize(bits=2, modules="visual").apply(Subject(vlm))
        >>> weight = next(w for w in attacked.vlm.parameters("visual").values() if w.dim() == 2)
        >>> len(weight[0].unique()) <= 3
        True
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"bits": 0}

    bits: Annotated[int, Field(ge=0, le=8)] = 4
    scheme: Scheme = "rtn"
    modules: Literal["visual", "language", "all"] = "all"

    def apply(self, subject: Subject) -> Subject:
        """Returns the subject with a quantized copy of the model.

        Raises:
            ConfigError: If the scheme does not support the number of bits, or its library is not
                installed.
        """
        if self.bits == 0:
            return subject
        if self.bits not in BITS[self.scheme]:
            raise ConfigError(
                f"quantize: scheme={self.scheme} has no bits={self.bits}. Allowed: rtn 2 to 8, "
                "torchao 8, bitsandbytes 4 and 8."
            )
        schemes = {"rtn": self._rtn, "torchao": _torchao, "bitsandbytes": self._bitsandbytes}
        quantize = schemes[self.scheme]
        vlm = subject.vlm.copy()
        try:
            with torch.no_grad():
                for parameter in vlm.parameters(self.modules).values():
                    if parameter.dim() >= 2:
                        rows = parameter.flatten(1).float()
                        parameter.copy_(quantize(rows).view_as(parameter))
        except ImportError as error:
            raise ConfigError(
                f"quantize: scheme={self.scheme} needs a package that cannot be imported "
                f"({error}). Type: pip install 'unsee[quantized]', or --set scheme=rtn."
            ) from error
        return replace(subject, vlm=vlm)

    def _rtn(self, rows: Tensor) -> Tensor:
        return round_to_nearest(rows, self.bits)

    def _bitsandbytes(self, rows: Tensor) -> Tensor:
        from bitsandbytes import functional

        if self.bits == 4:
            packed, state = functional.quantize_4bit(rows.contiguous(), quant_type="nf4")
            dequantized: Tensor = functional.dequantize_4bit(packed, state)
        else:
            integers, scale, _ = functional.int8_vectorwise_quant(rows.half().contiguous())
            dequantized = functional.int8_vectorwise_dequant(integers, scale)
        return dequantized.float()


def round_to_nearest(
    rows: Float[Tensor, "rows columns"], bits: int
) -> Float[Tensor, "rows columns"]:
    """Rounds each row to multiples of its scale: its largest magnitude over 2^(bits-1) - 1.

    Example:
        >>> round_to_nearest(torch.tensor([[7.0, -3.4, 0.4, 1.6]]), bits=4)
        tensor([[ 7., -3.,  0.,  2.]])
    """
    largest = 2 ** (bits - 1) - 1
    scale = rows.abs().amax(1, keepdim=True) / largest
    # The scale of a row of zeros is 0; dividing by 1 leaves it as it is.
    divisor = scale.where(scale > 0, torch.ones_like(scale))
    integers = (rows / divisor).round().clamp(-largest, largest)
    rounded: Tensor = integers * scale
    return rounded


def _torchao(rows: Tensor) -> Tensor:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    layer = nn.Linear(rows.shape[1], rows.shape[0], bias=False, device=rows.device)
    layer.weight = nn.Parameter(rows.clone(), requires_grad=False)
    quantize_(layer, Int8WeightOnlyConfig())
    weight: Any = layer.weight
    dequantized: Tensor = weight.dequantize()
    return dequantized
