"""Forward and backward of a vision tower: how near matrix products' speed, and where time goes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from unsee.benchmarks.pocket import Pocket
from unsee.features.capture import flat, picture_features
from unsee.features.layers import choose_layers
from unsee.models.vlm import VLM
from unsee.training.distributed import DistributedContext
from unsee.training.preparation import prepared_model
from unsee.training.settings import TrainingSettings

WARM, TIMED = 1, 3


ON_GPU = 5  # times as many there


KINDS = {
    "attention, backward": ("HeadwiseBackward", "attention_for_cpu_backward", "attention_backward"),
    "attention": ("Headwise", "attention_for_cpu", "scaled_dot_product"),
    "matrix products, backward": ("aten::mm",),
    "matrix products": ("aten::addmm", "aten::bmm", "aten::linear"),
}


def measure_tower(
    asked: Mapping[str, Any],
    flops: Any,
    peak: Callable[[torch.dtype, str], float],
    busy: Callable[[str], float],
) -> dict[str, Any]:
    """Seconds and share of the matmul peak of pictures' pass through the visual part and back.

    Args:
        asked: The checkpoint ("model"), what it computes in ("tower"), and where they are not
            usual, "device", how many "pictures" are seen together, and whether to "compile".
        flops: Counts of operators that torch's counter does not know.
        peak: Measures the FLOPs a second of matrix products in a type, on a device.
        busy: Reads the clock of a device.
    """
    device, dtype = asked.get("device", "cpu"), getattr(torch, asked["tower"])
    pictures = asked.get("pictures", 1)
    if device == "cpu":
        torch.set_num_threads(1)
    vlm = VLM.load(asked["model"], visual_only=True, dtype=dtype, device=device)
    vlm.model.requires_grad_(False)
    parameters = vlm.parameters("visual")
    picture = Pocket().data().forget[0].pictures[0].open()
    inputs = vlm.collate_pictures([picture] * pictures)
    layers = choose_layers(vlm, ["projector"])

    def there_and_back() -> float:
        started = busy(device)
        found = picture_features(vlm, inputs, layers)
        torch.stack([flat(v).float().square().mean() for v in found.values()]).sum().backward()
        took = busy(device) - started
        for parameter in parameters.values():
            parameter.grad = None
        return took

    settings = TrainingSettings(compile=asked.get("compile", False))
    many = 1 if device == "cpu" else ON_GPU
    kinds = [ProfilerActivity.CPU, ProfilerActivity.CUDA][: 1 if device == "cpu" else 2]
    with prepared_model(DistributedContext(device=device), vlm, parameters, settings):
        took = [there_and_back() for _ in range((WARM + TIMED) * many)][WARM * many :]
        with profile(activities=kinds) as seen:
            there_and_back()
    with FlopCounterMode(display=False, custom_mapping=flops) as counter:
        there_and_back()
    spent: dict[str, float] = {}
    for event in seen.events() or ():
        if event.device_type != DeviceType.CPU:
            continue  # a kernel: its time is also that of what called it
        time = event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
        kind = kind_of(event)
        spent[kind] = spent.get(kind, 0.0) + time
    total = sum(spent.values())
    return {
        **asked,
        "dtype": asked["tower"],
        "pictures": pictures,
        "seconds": statistics.median(took) / pictures,
        "flops": counter.get_total_flops() / pictures,
        "matmul": peak(dtype, device),
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
