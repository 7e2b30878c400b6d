"""What an image costs, by every way to unlearn, side by side: docs/speed.md and its charts.

    python -m experiments.speed.speed [--shapes pocket,7b] [--rounds 3] [--layers 1] [--out DIR]

Each measurement is a process of its own with one thread, and the ways take turns, round by round,
so that a change of the machine's load meets all alike. "7b" is LLaVA-1.5-7B's shape in bfloat16
with random weights, with `--layers` of its 32 language layers; what all 32 cost is reckoned by
FLOPs. What is measured already is not measured again; `--write` measures nothing. With
`--only WAY ...`, those alone are measured, and a table is printed instead.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from experiments.pages import ROOT
from experiments.speed import shapes
from experiments.speed.speed_page import tables, write
from experiments.speed.tower import measure_tower
from unsee.benchmarks.pocket import Pocket
from unsee.data.selection import one_sample_per_picture
from unsee.models.vlm import VLM
from unsee.recipes.components import build_method, build_settings
from unsee.records.provenance import peak_memory
from unsee.training.trainer import Trainer
from unsee.types import Data, Picture, Sample

STILL = {"augment": 0.0, "augment_retain": 0.0, "cache_memory": 4.0}


FEATURES = {"supervision": "features"}


UPPER = {"train_layers": ["upper"]}


# What is trained how: the method, its fields, and the training settings that differ.
WAYS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "grad_diff, all weights": ("grad_diff", {"trains": "all"}, {}),
    "grad_diff, LoRA r16 on the LLM": ("grad_diff", {"trains": "language"}, {"lora": 16}),
    "VKD full": ("vkd", {}, {}),
    "VKD full, no retain loss": ("vkd", {"w_retain": 0.0}, {}),
    "VKD full, asked of one batch in four": ("vkd", {"answers_every": 4}, {}),
    "VKD features only": ("vkd", FEATURES, {}),
    "VKD features only, state on disk": ("vkd", FEATURES, {"offload": "shelf"}),
    "VKD features only, cache": ("vkd", FEATURES | STILL, {}),
    "VKD features only, upper half": ("vkd", FEATURES | UPPER, {}),
    "VKD features only, upper half, cache": ("vkd", FEATURES | UPPER | STILL, {}),
    "VKD features only, upper half, checkpointing": (
        "vkd",
        FEATURES | UPPER,
        {"checkpointing": True},
    ),
}


PLAIN = "VKD features only"


# What is of interest on a GPU alone; see `experiments.speed.gpu`.
ON_GPU: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "VKD features only, no threads": ("vkd", FEATURES, {"workers": 0}),
    "VKD features only, compiled": ("vkd", FEATURES, {"compile": True}),
}


# And on CPUs without instructions for what checkpoints are stored in.
IN_32_BITS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    f"{way}, in 32 bits": (method, fields, settings | {"precision": "fp32"})
    for way, (method, fields, settings) in WAYS.items()
    if fields.items() >= FEATURES.items()
}


EVERY = WAYS | ON_GPU | IN_32_BITS


WARM, TIMED, TIMED_ON_GPU = 2, 2, 8  # steps


# How the cost grows: one thing at a time.
SIZES, DEPTHS, PEOPLE, PICTURES = (224, 336, 448), (6, 12, 24), (1, 2, 4, 8), (1, 2, 4, 8)


DTYPES = ("float32", "bfloat16")


DEPTH = 12  # layers, where the size is varied


def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Of torch's attention on CPUs, which its counter leaves out."""
    return int(sdpa_flop_count(query, key, value))


def attention_backward_flops(
    grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any
) -> int:
    """Of its gradient."""
    return int(sdpa_backward_flop_count(grad, query, key, value))


ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
}


def busy(device: str) -> float:
    """Seconds that the processor has worked; of a GPU, seconds by the wall once it is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class Clock:
    """Takes the time of steps and of the optimiser in them, and counts the FLOPs of the last."""

    def __init__(self, counted: int = 1, device: str = "cpu") -> None:
        """Starts; counts in the last `counted` steps."""
        self.counted, self.device = counted, device
        self.marks = [self._mark()]
        self.updates: list[float] = [0.0]
        self.counter = FlopCounterMode(display=False, custom_mapping=ATTENTION)
        self._hooks = [
            register_optimizer_step_pre_hook(lambda *_: self._update(begins=True)),
            register_optimizer_step_post_hook(lambda *_: self._update(begins=False)),
        ]

    def stop(self) -> None:
        """Looks at no more optimisers."""
        for hook in self._hooks:
            hook.remove()

    def _mark(self) -> tuple[float, float]:
        worked = busy(self.device)
        return time.perf_counter(), worked

    def _update(self, begins: bool) -> None:
        if begins:
            self._began = busy(self.device)
        else:
            # Of one step there may be several, of some of the weights each.
            self.updates[-1] += busy(self.device) - self._began

    def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        """See `unsee.training.loop.Progress`."""
        self.marks.append(self._mark())
        self.updates.append(0.0)
        if step == steps - self.counted:
            self.counter.__enter__()
        elif step == steps:
            self.counter.__exit__(None, None, None)

    def took(self, clock: int) -> list[float]:
        """Seconds of each timed step, by the wall (0) or of the processor (1)."""
        times = [mark[clock] for mark in self.marks[WARM : -self.counted]]
        return [after - before for before, after in pairwise(times)]


def matmul_peak(dtype: torch.dtype, device: str = "cpu") -> float:
    """FLOPs a processor second of the best of some matrix products."""
    shapes = [(1154, 1024, 4096), (2308, 1024, 4096)]
    if device != "cpu":
        shapes += [(16384, 1024, 4096), (8192, 8192, 8192)]
    best = 0.0
    for rows, inner, columns in shapes:
        a, b = (
            torch.randn(*shape, device=device).to(dtype)
            for shape in ((rows, inner), (inner, columns))
        )
        for _ in range(12):
            before = busy(device)
            for _ in range(4):
                a @ b
            best = max(best, 8 * rows * inner * columns / (busy(device) - before))
    return best


def samples(people: int, pictures: int, size: int | None, folder: Path) -> Data:
    """So many people to forget and as many to keep, with so many pictures each.

    Args:
        people: How many.
        pictures: Of each.
        size: Pixels that the pictures are enlarged to; None leaves them as they are.
        folder: Where enlarged pictures are kept.
    """
    data = Pocket().data()
    by_concept: dict[str, list[Sample]] = {}
    for sample in one_sample_per_picture([*data.forget, *data.retain]):
        if sample.answer and sample.concept:
            by_concept.setdefault(sample.concept, []).append(sample)
    chosen = [some[:pictures] for some in by_concept.values() if len(some) >= pictures]

    def enlarged(sample: Sample) -> Sample:
        if size is None or sample.picture is None:
            return sample
        path = folder / f"{size}-{sample.picture.digest[:16]}.png"
        folder.mkdir(parents=True, exist_ok=True)
        sample.picture.open().resize((size, size)).save(path)
        return replace(sample, picture=Picture.from_path(path))

    sides = chosen[:people], chosen[people : 2 * people]
    forget, retain = ([enlarged(s) for some in side for s in some] for side in sides)
    return Data(forget, retain)


def measure(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What one way costs in this process."""
    device = asked.get("device", "cpu")
    if device == "cpu":
        torch.set_num_threads(1)
    method_name, fields, settings = EVERY[asked["way"]]
    out = Path(asked["out"])
    data = samples(asked["people"], asked["pictures"], asked["size"], out / "pictures")
    method = build_method(method_name, fields)
    # Steps of which only the first asks the LLM are taken together.
    period = fields.get("answers_every", 1)
    timed = max(TIMED if device == "cpu" else TIMED_ON_GPU, period)
    steps = WARM + timed + period
    made = {"steps": steps, "batch_size": asked["batch"], "save_every": 0, "lr": 1e-5, **settings}
    if "offload" in made:
        made["offload"] = str(out / made["offload"])
    visual_only = fields.get("supervision") == "features"
    vlm = VLM.load(asked["model"], visual_only=visual_only, device=device)
    clock = Clock(period, device)
    trainer = Trainer(build_settings(method_name, made), progress=clock)
    result = method.unlearn(vlm, data, trainer)
    clock.stop()
    counts = clock.counter.get_flop_counts()
    blocks = list(vlm.family.language_layers(vlm.model).values()) if not visual_only else []
    # Adapters wrap the model, so that its name is not always the same.
    language = sum(
        sum(found.values())
        for name, found in counts.items()
        if any(name.endswith(f".{block}") for block in blocks)
    )
    images, updates = 2 * asked["batch"], clock.updates[WARM : WARM + timed]
    stored = next(iter(vlm.parameters("visual").values())).dtype
    dtype = torch.float32 if trainer.settings.precision == "fp32" else stored

    def together(seconds: list[float]) -> list[float]:
        groups = [seconds[start : start + period] for start in range(0, timed, period)]
        return [sum(group) / period / images for group in groups]

    return {
        **asked,
        "images": images,
        "wall": together(clock.took(0)),
        # The optimiser's part is one for the whole batch, however large it is.
        "processor": together(
            [t - update for t, update in zip(clock.took(1), updates, strict=True)]
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


def measured(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a way costs in this process, or the tower alone."""
    if "tower" in given:
        return measure_tower(given, ATTENTION, matmul_peak, busy)
    return measure(given)


def asked(
    way: str, model: str | Path, out: Path, batch: int, people: int = 2, pictures: int = 1,
    size: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The arguments of a measurement."""
    return {
        "way": way, "model": str(model), "out": str(out), "batch": batch, "people": people,
        "pictures": pictures, "size": size,
    }  # fmt: skip


def once(name: str, given: dict[str, Any], out: Path) -> dict[str, Any]:
    """Measures in a process of its own, if that is not done yet."""
    path = out / f"{name}.json"
    if not path.exists():
        print(name, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "experiments.speed.speed", "--measure", json.dumps(given)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        path.write_text(done.stdout.splitlines()[-1] + "\n", "utf-8")
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def side_by_side(shape: str, ways: Mapping[str, int], rounds: int, layers: int, out: Path) -> None:
    """Measures some ways, numbered, `rounds` times in turn."""
    names = {
        f"{shape}-{number}-{turn}": way for turn in range(rounds) for way, number in ways.items()
    }
    if all((out / f"{name}.json").exists() for name in names):
        return
    model: Path = Pocket().checkpoint("target")
    if shape == "7b":
        model = out / "7b"
        if not model.exists():
            shapes.make(model, layers)
    for name, way in names.items():
        given = asked(way, model, out, 16, 4, 8)
        if shape == "7b":
            given = asked(way, model, out, 2, size=336)
        once(name, given, out)
    if shape == "7b":
        shutil.rmtree(model)


def growth(out: Path) -> None:
    """Measures how the cost grows, of features alone."""
    target = Pocket().checkpoint("target")
    for people in PEOPLE:
        once(f"people-{people}", asked(PLAIN, target, out, 16, people, 4), out)
    for pictures in PICTURES:
        once(f"pictures-{pictures}", asked(PLAIN, target, out, 16, 4, pictures), out)
    for name, depth, size in [
        *((f"size-{size}", DEPTH, size) for size in SIZES),
        *((f"depth-{depth}", depth, 336) for depth in DEPTHS),
    ]:
        if not (out / f"{name}.json").exists():
            model = shapes.make(out / "grown", 0, depth, size)
            once(name, asked(PLAIN, model, out, 1, size=size), out)
            shutil.rmtree(model)


def towers(out: Path) -> None:
    """Measures the vision tower alone, forward and backward, in 32 and in 16 bits."""
    missing = [dtype for dtype in DTYPES if not (out / f"tower-{dtype}.json").exists()]
    if missing:
        model = shapes.make(out / "tower", 0)
        for dtype in missing:
            once(f"tower-{dtype}", {"model": str(model), "tower": dtype}, out)
        shutil.rmtree(model)


def main() -> None:
    """Measures what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="pocket,7b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "speed")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", nargs="+", choices=EVERY, metavar="WAY")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(json.loads(options.measure))))
        return
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    shapes_asked = options.shapes.split(",")
    numbers = {way: number for number, way in enumerate(EVERY)}
    ways = {way: numbers[way] for way in options.only or WAYS}
    if not options.write:
        for shape in shapes_asked:
            side_by_side(shape, ways, options.rounds, options.layers, out)
    if options.only:
        print("\n\n".join(tables(out, shape, ways) for shape in shapes_asked))
        return
    if not options.write:
        growth(out)
        towers(out)
    typed = f"python -m experiments.speed.speed --shapes {options.shapes} --rounds {options.rounds}"
    write(out, ways, typed)


if __name__ == "__main__":
    main()
