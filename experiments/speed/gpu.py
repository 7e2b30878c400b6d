"""What an image costs on a GPU, by every way to unlearn: docs/speed-gpu.md.

    python -m experiments.speed.gpu --out DIR [--layers 32] [--only TEXT]
    python -m experiments.speed.gpu --out DIR --write

The first command measures, on a machine with a GPU; existing measurements are not repeated. The
second writes the page, on any machine. The model is LLaVA-1.5-7B's shape in bfloat16 with random
weights and, with all its 32 language layers, as large.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.pages import DOCS, ROOT, replace_above_mark, table
from experiments.speed import random_checkpoint, ways
from experiments.speed.ways import ON_GPU, PLAIN, arguments, make_data
from unsee.features.pictures import random_view_collator
from unsee.models.vlm import VLM
from unsee.training.prefetch import Prefetcher

SMALL, LARGE = 4, 16  # pictures of each side in a batch: with the LLM, and without
FIRST = "grad_diff, all weights"

# The ways in the order in which they are measured, and their batches.
BATCHES = {
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
    "as it is": {},
    "compiled (`compile=true`)": {"compile": True},
}
TOWER_BATCH = 32  # pictures
THREADS = (0, 1, 4, 8)


def measure(out: Path, layers: int, only: str) -> None:
    """Measures what is missing.

    Args:
        out: The folder of the measurements.
        layers: Language layers of the model.
        only: What the names of the ways to measure contain; "" for all.
    """
    start = time.perf_counter()
    model = out / "7b"
    if not model.exists():
        random_checkpoint.make(model, layers)
    about = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "memory": torch.cuda.get_device_properties(0).total_memory,
    }
    (out / "machine.json").write_text(json.dumps(about) + "\n", "utf-8")
    for name, given in _measurements(model, out).items():
        path = out / f"{name}.json"
        if path.exists() or only not in given.get("way", name):
            continue
        torch.cuda.reset_peak_memory_stats()
        run = measure_pictures if name == "pictures" else ways.measure
        try:
            result = run(given)
        except RuntimeError as error:
            # The other measurements are still of use if one runs out of memory.
            print(f"{name}: {error}", flush=True)
        else:
            path.write_text(json.dumps(result) + "\n", "utf-8")
        gc.collect()
        torch.cuda.empty_cache()
        held = torch.cuda.memory_allocated() / 1e9
        print(f"{name}: {time.perf_counter() - start:.0f} s, {held:.2f} GB held", flush=True)


def _measurements(model: Path, out: Path) -> dict[str, dict[str, Any]]:
    """The arguments of all measurements, by the name of their file."""
    tower = {"model": str(model), "tower": "bfloat16", "device": "cuda", "pictures": TOWER_BATCH}
    measurements: dict[str, dict[str, Any]] = {
        "pictures": {"model": str(model), "out": str(out)},
        **{f"tower-{n}": {**tower, **options} for n, options in enumerate(TOWERS.values())},
    }
    for number, (way, batch) in enumerate(BATCHES.items()):
        given = arguments(way, model, out, batch, people=4, pictures=4, size=336)
        measurements[f"way-{number}"] = {**given, "device": "cuda"}
    return measurements


def measure_pictures(given: Mapping[str, Any]) -> dict[str, Any]:
    """Measures the milliseconds until a picture is augmented and on the GPU, by threads.

    Args:
        given: The checkpoint ("model"), and the folder of the measurements ("out").
    """
    vlm = VLM.load(given["model"], visual_only=True, device="cuda")
    samples = make_data(4, 4, 336, Path(given["out"]) / "pictures").forget
    collate = random_view_collator(vlm, samples[0].pictures[0])

    def make(number: int) -> None:
        collate(samples, np.random.default_rng(number), 1.0, False)

    milliseconds, batches = {}, 12
    for threads in THREADS:
        with Prefetcher(make, threads, batches) as prefetch:
            prefetch(0)
            started = time.perf_counter()
            for number in range(1, batches):
                prefetch(number)
            seconds = time.perf_counter() - started
        milliseconds[str(threads)] = 1e3 * seconds / (batches - 1) / len(samples)
    return milliseconds


def ways_table(out: Path) -> str:
    """Returns what every way costs as markdown; ratios are to the first."""
    head = [
        "way",
        "pictures per batch",
        "ms per image",
        "range",
        "of baseline",
        "TFLOP per image",
        "of baseline",
        "of matmul peak",
        "ms per update",
        "peak memory (GB)",
        "of baseline",
    ]
    measurements = {
        way: json.loads(path.read_text("utf-8"))
        for number, way in enumerate(BATCHES)
        if (path := out / f"way-{number}.json").exists()
    }
    first, plain = measurements[FIRST], measurements[PLAIN]
    peak = max(row["matmul"] for row in measurements.values())

    def cost(row: Mapping[str, Any]) -> float:
        """Seconds per image, with its share of an optimizer step of 32 images, the default."""
        return float(statistics.median(row["processor"]) + statistics.median(row["update"]) / 32)

    rows = []
    for way, row in measurements.items():
        # The counter does not see compiled operators.
        flops = (plain if way in ON_GPU else row)["flops"]
        seconds, every = statistics.median(row["processor"]), row["processor"]
        rows.append(
            [
                way,
                str(row["images"]),
                f"{1e3 * cost(row):.3g}",
                f"{1e3 * min(every):.3g} to {1e3 * max(every):.3g}",
                f"{cost(row) / cost(first):.1%}",
                f"{flops / 1e12:.3g}",
                f"{flops / first['flops']:.1%}",
                f"{flops / seconds / peak:.0%}",
                f"{1e3 * statistics.median(row['update']):.3g}",
                f"{row['peak'] / 1e9:.1f}",
                f"{row['peak'] / first['peak']:.1%}",
            ]
        )
    return f"{table(head, rows)}\n\nMeasured matmul peak: {peak / 1e12:,.0f} TFLOP per second."


def towers_table(out: Path) -> str:
    """Returns the tower's share of the matmul peak, and of the time by kind of operator."""
    rows = [json.loads((out / f"tower-{n}.json").read_text("utf-8")) for n in range(len(TOWERS))]
    kinds = list(rows[0]["spent"])
    head = ["tower", "ms per picture", "TFLOP per second", "of matrix products", *kinds]
    # The counter does not see compiled operators.
    flops, peak = rows[0]["flops"], max(row["matmul"] for row in rows)
    cells = [
        [
            name,
            f"{1e3 * row['seconds']:.3g}",
            f"{flops / row['seconds'] / 1e12:.0f}",
            f"{flops / row['seconds'] / peak:.0%}",
            *(f"{row['spent'].get(kind, 0):.0%}" for kind in kinds),
        ]
        for name, row in zip(TOWERS, rows, strict=True)
    ]
    return table(head, cells)


def pictures_sentence(out: Path) -> str:
    """Returns how long it takes to read a picture, as a sentence."""
    times = json.loads((out / "pictures.json").read_text("utf-8"))
    cores = json.loads((out / "machine.json").read_text("utf-8"))["cores"]
    listed = ", ".join(f"{time:.2g} ms with {n}" for n, time in times.items() if n != "0")
    return (
        f"Opening, augmenting and processing a picture and copying it to the GPU takes {listed} "
        f"per picture, by number of threads ({cores} cores), and {times['0']:.2g} ms if the step "
        "waits for it."
    )


def write(out: Path) -> None:
    """Writes the page; what stands below its mark stays."""
    machine = json.loads((out / "machine.json").read_text("utf-8"))
    layers = json.loads((out / "way-0.json").read_text("utf-8"))["layers"]
    text = (
        f"# What an image costs on a GPU\n\nWritten by `python -m experiments.speed.gpu` on one "
        f"{machine['gpu']} ({machine['memory'] / 1e9:.0f} GB; torch {machine['torch']}). CLIP-L/14 "
        f"at 336 pixels and an LLM of 7B's shape with {layers} layers, random weights in bfloat16; "
        "costs are per training image of the forget or retain set, reading and augmentation "
        "included. Milliseconds are medians over the timed steps, with the optimizer update as for "
        "batches of 32 images; the range and the share of the matmul peak are without the update."
        "\n\n"
        f"{ways_table(out)}\n\n## Where the time goes\n\n{TOWER_BATCH} pictures of 336 pixels "
        "through CLIP-L/14 and the projector and back, all weights trained; the last columns are "
        f"shares of the kernels' time.\n\n{towers_table(out)}\n\n## Pictures\n\n"
        f"{pictures_sentence(out)}\n"
    )
    replace_above_mark(DOCS / "speed-gpu.md", text)


def main() -> None:
    """Measures, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--only", default="", help="measure only names that contain this")
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
