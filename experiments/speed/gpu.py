"""What an image costs on a GPU, by every way to unlearn: docs/speed-gpu.md.

    python -m experiments.speed.gpu --out DIR [--layers 32] [--only TEXT]
    python -m experiments.speed.gpu --out DIR --write

The first line measures, on a machine with a GPU; what is measured already is not measured again.
The second writes the page, on any machine. The model is LLaVA-1.5-7B's shape
in bfloat16 with random weights and, with all its 32 language layers, as large.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.pages import ROOT
from experiments.speed import shapes, speed
from experiments.speed.speed import ON_GPU, PLAIN, asked, samples
from unsee.features.pictures import random_view_collator
from unsee.models.vlm import VLM
from unsee.training.prefetch import Prefetcher

DOC = ROOT / "docs" / "speed-gpu.md"


SMALL, LARGE = 4, 16  # pictures of each side in a batch: where the LLM is asked, and where not


FIRST = "grad_diff, all weights"


# In the order in which they are measured.
WAYS = {
    FIRST: SMALL,
    PLAIN: LARGE,
    "VKD full": SMALL,
    "VKD features only, upper half": LARGE,
    "VKD features only, cache": LARGE,
    "VKD features only, upper half, cache": LARGE,
    **dict.fromkeys(ON_GPU, LARGE),
    "VKD full, asked of one batch in four": SMALL,
    "grad_diff, LoRA r16 on the LLM": SMALL,
    "VKD full, no retain loss": SMALL,
}


TOWERS: dict[str, dict[str, Any]] = {
    "as it is": {}, "compiled (`compile=true`)": {"compile": True}
}  # fmt: skip


SEEN = 32  # pictures that the tower sees together


THREADS = (0, 1, 4, 8)


def measure(out: Path, layers: int, only: str) -> None:
    """Measures what is missing."""
    start = time.perf_counter()
    model = out / "7b"
    if not model.exists():
        shapes.make(model, layers)
    about = {
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cores": os.cpu_count(),
        "memory": torch.cuda.get_device_properties(0).total_memory,
    }  # fmt: skip
    (out / "machine.json").write_text(json.dumps(about) + "\n", "utf-8")
    wanted: list[tuple[str, dict[str, Any]]] = [
        (f"tower-{number}", {
            "model": str(model), "tower": "bfloat16", "device": "cuda", "pictures": SEEN, **more,
        })
        for number, more in enumerate(TOWERS.values())
    ]  # fmt: skip
    wanted.insert(0, ("pictures", {"model": str(model), "out": str(out)}))
    for number, (way, batch) in enumerate(WAYS.items()):
        given = asked(way, model, out, batch, people=4, pictures=4, size=336)
        wanted.append((f"way-{number}", {**given, "device": "cuda"}))
    for name, given in wanted:
        path = out / f"{name}.json"
        if path.exists() or only not in given.get("way", name):
            continue
        torch.cuda.reset_peak_memory_stats()
        run = pictures if name == "pictures" else speed.measured
        try:
            found = run(given)
        except RuntimeError as error:
            # Of one way that does not fit, all others are still of use.
            print(f"{name}: {error}", flush=True)
        else:
            path.write_text(json.dumps(found) + "\n", "utf-8")
        gc.collect()
        torch.cuda.empty_cache()
        held = torch.cuda.memory_allocated() / 1e9
        print(f"{name}: {time.perf_counter() - start:.0f} s, {held:.2f} GB held", flush=True)


def pictures(given: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds a picture until it is augmented, read and on the GPU, by number of threads."""
    vlm = VLM.load(given["model"], visual_only=True, device="cuda")
    some = samples(4, 4, 336, Path(given["out"]) / "pictures").forget
    collate = random_view_collator(vlm, some[0].pictures[0], answers=False)

    def make(number: int) -> None:
        collate(some, np.random.default_rng(number), 1.0)

    found, batches = {}, 12
    for threads in THREADS:
        with Prefetcher(make, threads, batches) as ahead:
            ahead(0)
            began = time.perf_counter()
            for number in range(1, batches):
                ahead(number)
            took = time.perf_counter() - began
        found[str(threads)] = 1e3 * took / (batches - 1) / len(some)
    return found


def ways(out: Path) -> str:
    """What every way costs, as a markdown table; ratios are to the first."""
    titles = ["way", "pictures a batch", "ms an image", "range", "of the first", "TFLOP an image",
              "of the first", "of matmul peak", "ms an update", "peak memory (GB)",
              "of the first"]  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    found = {
        way: json.loads(path.read_text("utf-8"))
        for number, way in enumerate(WAYS)
        if (path := out / f"way-{number}.json").exists()
    }
    first, plain = found[FIRST], found[PLAIN]
    peak = max(row["matmul"] for row in found.values())

    def cost(row: dict[str, Any]) -> float:
        """Seconds an image, with its share of an update of 32 images, the default."""
        return float(statistics.median(row["processor"]) + statistics.median(row["update"]) / 32)

    for way, row in found.items():
        # What is compiled is not seen by the counter.
        flops = (plain if way in ON_GPU else row)["flops"]
        seconds, every = statistics.median(row["processor"]), row["processor"]
        cells = [
            way, str(row["images"]), f"{1e3 * cost(row):.3g}",
            f"{1e3 * min(every):.3g} to {1e3 * max(every):.3g}", f"{cost(row) / cost(first):.1%}",
            f"{flops / 1e12:.3g}", f"{flops / first['flops']:.1%}", f"{flops / seconds / peak:.0%}",
            f"{1e3 * statistics.median(row['update']):.3g}", f"{row['peak'] / 1e9:.1f}",
            f"{row['peak'] / first['peak']:.1%}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(f"\nMeasured matmul peak: {peak / 1e12:,.0f} TFLOP a second.")
    return "\n".join(lines)


def towers(out: Path) -> str:
    """The tower alone: share of the matmul peak, and of the time by kind of operator."""
    rows = [json.loads((out / f"tower-{n}.json").read_text("utf-8")) for n in range(len(TOWERS))]
    kinds = list(rows[0]["spent"])
    titles = ["tower", "ms a picture", "TFLOP a second", "of matrix products", *kinds]
    lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    flops, peak = rows[0]["flops"], max(row["matmul"] for row in rows)
    for name, row in zip(TOWERS, rows, strict=True):
        rate = flops / row["seconds"]
        cells = [
            name, f"{1e3 * row['seconds']:.3g}", f"{rate / 1e12:.0f}", f"{rate / peak:.0%}",
            *(f"{row['spent'].get(kind, 0):.0%}" for kind in kinds),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def threads(out: Path) -> str:
    """What it takes to read pictures, in a sentence."""
    found = json.loads((out / "pictures.json").read_text("utf-8"))
    cores = json.loads((out / "machine.json").read_text("utf-8"))["cores"]
    said = ", ".join(f"{n} {took:.2g} ms" for n, took in found.items() if n != "0")
    return (
        f"Until a picture is opened, augmented, as the model reads it and on the GPU: {said} a "
        f"picture, by the threads that do it ({cores} cores); {found['0']:.2g} ms where the step "
        "waits for it."
    )


def write(out: Path) -> None:
    """Writes the page; what stands below its mark stays."""
    machine = json.loads((out / "machine.json").read_text("utf-8"))
    layers = json.loads((out / "way-0.json").read_text("utf-8"))["layers"]
    text = (
        f"# What an image costs on a GPU\n\nWritten by `python -m experiments.speed.gpu` on one "
        f"{machine['gpu']} ({machine['memory'] / 1e9:.0f} GB; torch {machine['torch']}). CLIP-L/14 "
        f"at 336 pixels and a LLM of 7B's shape with {layers} layers, random weights in bfloat16; "
        "an image is one that is trained on, to forget or to keep, read and augmented on the way. "
        "Milliseconds are medians over the timed steps, with the update's share as in batches of "
        "32 images; the range and the share of the matmul peak are without the update.\n\n"
        f"{ways(out)}\n\n## Where the time goes\n\n{SEEN} pictures of 336 pixels through CLIP-L/14 "
        "and the projector and back, all weights trained; the last columns are shares of the "
        f"kernels' time.\n\n{towers(out)}\n\n## Pictures\n\n{threads(out)}\n"
    )
    own = DOC.read_text("utf-8") if DOC.exists() else ""
    mark = "<!-- by hand -->"
    rest = own[own.index(mark) :] if mark in own else f"{mark}\n"
    DOC.write_text(f"{text}\n{rest}", "utf-8")


def main() -> None:
    """Measures, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--only", default="", help="measure names that contain this alone")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    out = options.out.resolve()
    if options.write:
        write(out)
        return
    out.mkdir(parents=True, exist_ok=True)
    measure(out, options.layers, options.only)


if __name__ == "__main__":
    main()
