"""Forward and backward of a vision tower: how near matrix products' speed, and where time goes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from unsee.benchmarks.pocket import Pocket
from unsee.features import choose_layers, flat, represent
from unsee.model import VLM

WARM, TIMED = 1, 3
KINDS = {
    "attention, backward": ("HeadwiseBackward", "attention_for_cpu_backward"),
    "attention": ("Headwise", "attention_for_cpu", "scaled_dot_product"),
    "matrix products, backward": ("aten::mm",),
    "matrix products": ("aten::addmm", "aten::bmm", "aten::linear"),
}


def measure_tower(
    model: str, dtype: str, flops: Any, peak: Callable[[torch.dtype], float]
) -> dict[str, Any]:
    """Seconds and share of the matmul peak of one picture's pass through the visual part and back.

    Args:
        model: The checkpoint.
        dtype: What it computes in.
        flops: Counts of operators that torch's counter does not know.
        peak: Measures the FLOPs a processor second of matrix products.
    """
    torch.set_num_threads(1)
    vlm = VLM.load(model, visual_only=True, dtype=getattr(torch, dtype))
    vlm.model.requires_grad_(False)
    parameters = list(vlm.parameters("visual").values())
    for parameter in parameters:
        parameter.requires_grad_(True)
    inputs = vlm.collate_pictures([Pocket().data().forget[0].pictures[0].open()])
    layers = choose_layers(vlm, ["projector"])

    def there_and_back() -> float:
        started = time.process_time()
        found = represent(vlm, inputs, layers)
        torch.stack([flat(v).float().square().mean() for v in found.values()]).sum().backward()
        took = time.process_time() - started
        for parameter in parameters:
            parameter.grad = None
        return took

    took = [there_and_back() for _ in range(WARM + TIMED)][WARM:]
    with FlopCounterMode(display=False, custom_mapping=flops) as counter:
        there_and_back()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        there_and_back()
    spent: dict[str, float] = {}
    for event in seen.events() or ():
        kind = kind_of(event)
        spent[kind] = spent.get(kind, 0.0) + event.self_cpu_time_total
    total = sum(spent.values())
    return {
        "dtype": dtype,
        "seconds": statistics.median(took),
        "flops": counter.get_total_flops(),
        "matmul": peak(getattr(torch, dtype)),
        "spent": {kind: value / total for kind, value in sorted(spent.items())},
    }


def kind_of(event: Any) -> str:
    """What an operator is part of: itself, or what called it."""
    calls = [event.name]
    while (event := event.cpu_parent) is not None:
        calls.append(event.name)
    for kind, names in KINDS.items():
        seen = calls if kind.startswith("attention") else calls[:1]
        if any(name in call for call in seen for name in names):
            return kind
    return "all else"
