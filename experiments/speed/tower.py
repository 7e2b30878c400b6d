"""Forward and backward of a vision tower: how near matrix products' speed, and where time goes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from experiments.speed.clock import busy_seconds, flop_counter, matmul_peak
from unsee.benchmarks.pocket import Pocket
from unsee.features.capture import flat, picture_features
from unsee.features.layers import choose_layers
from unsee.models.vlm import VLM
from unsee.training.distributed import DistributedContext
from unsee.training.preparation import prepared_model
from unsee.training.settings import TrainingSettings

WARM_UP, TIMED = 1, 3
ON_GPU = 5  # times as many repetitions on a GPU

KINDS = {
    "attention, backward": ("HeadwiseBackward", "attention_for_cpu_backward", "attention_backward"),
    "attention": ("Headwise", "attention_for_cpu", "scaled_dot_product"),
    "matrix products, backward": ("aten::mm",),
    "matrix products": ("aten::addmm", "aten::bmm", "aten::linear"),
}


def measure_tower(given: Mapping[str, Any]) -> dict[str, Any]:
    """Measures a forward and backward pass of pictures through the visual part.

    Args:
        given: The checkpoint ("model"), the type to compute in ("tower"), and optionally the
            "device", the number of "pictures" in a batch, and whether to "compile".

    Returns:
        `given`, and seconds and FLOPs a picture, the peak of matrix products, and the share of
        the time by kind of operator.
    """
    device, dtype = given.get("device", "cpu"), getattr(torch, given["tower"])
    pictures = given.get("pictures", 1)
    if device == "cpu":
        torch.set_num_threads(1)
    vlm = VLM.load(given["model"], visual_only=True, dtype=dtype, device=device)
    vlm.model.requires_grad_(False)
    parameters = vlm.parameters("visual")
    picture = Pocket().data().forget[0].pictures[0].open()
    inputs = vlm.collate_pictures([picture] * pictures)
    layers = choose_layers(vlm, ["projector"])

    def timed_pass() -> float:
        started = busy_seconds(device)
        features = picture_features(vlm, inputs, layers)
        torch.stack([flat(v).float().square().mean() for v in features.values()]).sum().backward()
        seconds = busy_seconds(device) - started
        for parameter in parameters.values():
            parameter.grad = None
        return seconds

    settings = TrainingSettings(compile=given.get("compile", False))
    factor = 1 if device == "cpu" else ON_GPU
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA][: 1 if device == "cpu" else 2]
    with prepared_model(DistributedContext(device=device), vlm, parameters, settings):
        times = [timed_pass() for _ in range((WARM_UP + TIMED) * factor)][WARM_UP * factor :]
        with profile(activities=activities) as profiled:
            timed_pass()
    with flop_counter() as counter:
        timed_pass()
    spent: dict[str, float] = {}
    for event in profiled.events() or ():
        if event.device_type != DeviceType.CPU:
            continue  # a kernel: its time also counts for the operator that launched it
        time = event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
        kind = kind_of(event)
        spent[kind] = spent.get(kind, 0.0) + time
    total = sum(spent.values())
    return {
        **given,
        "dtype": given["tower"],
        "pictures": pictures,
        "seconds": statistics.median(times) / pictures,
        "flops": counter.get_total_flops() / pictures,
        "matmul": matmul_peak(dtype, device),
        "spent": {kind: value / total for kind, value in sorted(spent.items())},
    }


def kind_of(event: Any) -> str:
    """Returns which of `KINDS` an operator belongs to, by its own name or its callers'."""
    calls = [event.name]
    while (event := event.cpu_parent) is not None:
        calls.append(event.name)
    for kind, names in KINDS.items():
        # Attention is recognised by any caller, other operators by their own name.
        candidates = calls if kind.startswith("attention") else calls[:1]
        if any(name in call for call in candidates for name in names):
            return kind
    return "all else"
