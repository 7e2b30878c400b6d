"""What the speed measurements compare, and the measurement of one of them in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from experiments.speed.clock import WARM_UP, StepClock, matmul_peak
from experiments.speed.tower import measure_tower
from unsee.benchmarks.pocket import Pocket
from unsee.data.selection import one_sample_per_picture
from unsee.models.vlm import VLM
from unsee.recipes.unlearn import make_recipe
from unsee.records.provenance import peak_memory
from unsee.training.trainer import Trainer
from unsee.types import Data, Picture, Sample

# A method, its fields, and the training settings that differ from the defaults.
Way = tuple[str, dict[str, Any], dict[str, Any]]

CACHED = {"augment": 0.0}
PAPER = {"paper": True}
FEATURES = {**PAPER, "supervision": "features"}
UPPER = {"train_layers": ["upper"]}

WAYS: dict[str, Way] = {
    "grad_diff, all weights": ("grad_diff", {"trains": "all"}, {}),
    "grad_diff, LoRA r16 on the LLM": ("grad_diff", {"trains": "language"}, {"lora": 16}),
    "VKD full": ("vkd", PAPER, {}),
    "VKD full, no retain loss": ("vkd", PAPER | {"w_retain": 0.0}, {}),
    "VKD full, asked of one batch in four": ("vkd", PAPER | {"answers_every": 4}, {}),
    "VKD features only": ("vkd", FEATURES, {}),
    "VKD features only, state on disk": ("vkd", FEATURES, {"offload": "shelf"}),
    "VKD features only, cache": ("vkd", FEATURES | CACHED, {}),
    "VKD features only, upper half": ("vkd", FEATURES | UPPER, {}),
    "VKD features only, upper half, cache": ("vkd", FEATURES | UPPER | CACHED, {}),
    "VKD features only, upper half, checkpointing": (
        "vkd",
        FEATURES | UPPER,
        {"checkpointing": True},
    ),
}
PLAIN = "VKD features only"

# Of interest on a GPU only; see `experiments.speed.gpu`.
ON_GPU: dict[str, Way] = {
    "VKD features only, no threads": ("vkd", FEATURES, {"workers": 0}),
    "VKD features only, compiled": ("vkd", FEATURES, {"compile": True}),
}

# Of interest on CPUs without instructions for the type that checkpoints are stored in.
IN_32_BITS: dict[str, Way] = {
    f"{way}, in 32 bits": (method, fields, settings | {"precision": "fp32"})
    for way, (method, fields, settings) in WAYS.items()
    if fields.items() >= FEATURES.items()
}

ALL_WAYS = WAYS | ON_GPU | IN_32_BITS

TIMED, TIMED_ON_GPU = 2, 8  # steps


def arguments(
    way: str,
    model: str | Path,
    out: Path,
    batch: int,
    people: int = 2,
    pictures: int = 1,
    size: int | None = None,
) -> dict[str, Any]:
    """Returns the arguments of a measurement, as `measure` takes them and JSON holds them.

    Args:
        way: One of `ALL_WAYS`.
        model: The checkpoint.
        out: The folder of the measurements.
        batch: Pictures of each side in a batch.
        people: People on each side.
        pictures: Pictures of each person.
        size: Width and height that pictures are enlarged to, in pixels; None leaves them.
    """
    return {
        "way": way,
        "model": str(model),
        "out": str(out),
        "batch": batch,
        "people": people,
        "pictures": pictures,
        "size": size,
    }


def make_data(people: int, pictures: int, size: int | None, folder: Path) -> Data:
    """Returns pocket's samples of some people to forget and of as many to keep.

    Args:
        people: People on each side.
        pictures: Pictures of each person.
        size: Width and height that pictures are enlarged to, in pixels; None leaves them.
        folder: Where enlarged pictures are stored.
    """
    data = Pocket().data()
    by_concept: dict[str, list[Sample]] = {}
    for sample in one_sample_per_picture([*data.forget, *data.retain]):
        if sample.answer and sample.concept:
            by_concept.setdefault(sample.concept, []).append(sample)
    chosen = [samples[:pictures] for samples in by_concept.values() if len(samples) >= pictures]

    def enlarged(sample: Sample) -> Sample:
        if size is None or sample.picture is None:
            return sample
        path = folder / f"{size}-{sample.picture.digest[:16]}.png"
        folder.mkdir(parents=True, exist_ok=True)
        sample.picture.open().resize((size, size)).save(path)
        return replace(sample, picture=Picture.from_path(path))

    sides = chosen[:people], chosen[people : 2 * people]
    forget, retain = ([enlarged(s) for person in side for s in person] for side in sides)
    return Data(forget, retain)


def measure(given: Mapping[str, Any]) -> dict[str, Any]:
    """Measures one way, or the vision tower alone where `given` has a "tower", in this process."""
    return measure_tower(given) if "tower" in given else measure_way(given)


def measure_way(given: Mapping[str, Any]) -> dict[str, Any]:
    """Measures what an image costs when it is trained on.

    Args:
        given: See `arguments`; a "device" may be added.

    Returns:
        `given`, and seconds and FLOPs an image, seconds of the optimizer a step, and memory.
    """
    device = given.get("device", "cpu")
    if device == "cpu":
        torch.set_num_threads(1)
    method_name, fields, settings = ALL_WAYS[given["way"]]
    out = Path(given["out"])
    data = make_data(given["people"], given["pictures"], given["size"], out / "pictures")
    # Only the first step of a period computes the answer loss: periods are timed as a whole.
    period = fields.get("answers_every", 1)
    timed = max(TIMED if device == "cpu" else TIMED_ON_GPU, period)
    training = {
        "steps": WARM_UP + timed + period,
        "batch_size": given["batch"],
        "save_every": 0,
        "lr": 1e-5,
        **settings,
    }
    if "offload" in training:
        training["offload"] = str(out / training["offload"])
    visual_only = fields.get("supervision") == "features"
    vlm = VLM.load(given["model"], visual_only=visual_only, device=device)
    clock = StepClock(period, device)
    recipe = make_recipe({"method": method_name, "set": {**fields, **training}})
    trainer = Trainer(recipe.training, progress=clock)
    result = recipe.method.unlearn(vlm, data, trainer)
    clock.stop()
    blocks = list(vlm.family.language_layers(vlm.model).values()) if not visual_only else []
    # Adapters wrap the model, which changes the beginning of its modules' names.
    language = sum(
        sum(flops.values())
        for name, flops in clock.counter.get_flop_counts().items()
        if any(name.endswith(f".{block}") for block in blocks)
    )
    images, updates = 2 * given["batch"], clock.updates[WARM_UP : WARM_UP + timed]
    stored = next(iter(vlm.parameters("visual").values())).dtype
    dtype = torch.float32 if trainer.settings.precision == "fp32" else stored

    def an_image(seconds: list[float]) -> list[float]:
        """Seconds an image of each period."""
        periods = [seconds[start : start + period] for start in range(0, timed, period)]
        return [sum(steps) / period / images for steps in periods]

    return {
        **given,
        "images": images,
        "wall": an_image(clock.wall_seconds()),
        # Without the optimizer, whose time does not depend on the size of the batch.
        "processor": an_image(
            [step - update for step, update in zip(clock.busy_seconds(), updates, strict=True)]
        ),
        "update": updates,
        "setup": clock.marks[1][0] - clock.marks[0][0],
        "flops": clock.counter.get_total_flops() / images / period,
        "language_flops": language / images / period,
        "layers": len(blocks),
        "layer_parameters": sum(
            p.numel() for n, p in vlm.parameters().items() if blocks and n.startswith(blocks[0])
        ),
        "peak": peak_memory(),
        "trained": result.history.trained,
        "matmul": matmul_peak(dtype, device),
        "dtype": str(dtype).removeprefix("torch."),
    }
