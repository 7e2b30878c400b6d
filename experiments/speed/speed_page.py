"""Writes docs/speed.md and docs/speed.svg from what `experiments.speed.speed` has measured."""

from __future__ import annotations

import json
import statistics
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.pages import DOCS, replace_above_mark
from experiments.pages import table as markdown_table
from unsee.records.provenance import describe_this_machine
from unsee.report.charts import HEIGHT, WIDTH, Dot, Line, line_chart

PAGE, CHART = DOCS / "speed.md", DOCS / "speed.svg"

SHAPES = {
    "pocket": "Pocket (1.4 million parameters, 48 pixels, 32 bits, batches of 16 and 16)",
    "7b": "CLIP-L/14-336 and an LLM of 7B's shape (bfloat16, batches of 2 and 2)",
}
LAYERS = 32  # language layers of the published 7B
BATCH = 32  # images a step, of both sides together, that an optimizer step is divided by

STYLE = """
text { font: 10px sans-serif; fill: #565c66; } .grid { stroke: #e6e6e1; }
.line { fill: none; stroke: #0b5fb0; stroke-width: 1.6; } .marker { fill: #0b5fb0; }
.title { font-size: 11px; fill: #1b1e23; }
"""
CHARTS = {
    "people": "people (pocket, 4 pictures each)",
    "pictures": "pictures of each of 4 people (pocket)",
    "size": "pixels per side (CLIP-L, 12 layers)",
    "depth": "layers (CLIP-L, 336 pixels)",
}

# The measurements of one way, one a round.
Rounds = Sequence[Mapping[str, Any]]


def read_measurements(out: Path, shape: str, ways: Mapping[str, int]) -> dict[str, Rounds]:
    """Returns the measurements of a shape by way; empty unless all ways were measured."""
    measurements: dict[str, Rounds] = {
        way: [json.loads(p.read_text("utf-8")) for p in sorted(out.glob(f"{shape}-{n}-*.json"))]
        for way, n in ways.items()
    }
    return measurements if all(measurements.values()) else {}


def median(rounds: Rounds, key: str) -> float:
    """Returns the median over all timed steps of all rounds."""
    return float(statistics.median(value for row in rounds for value in row[key]))


def cost(rounds: Rounds, forward: float = 1.0, trained: float = 1.0) -> float:
    """Returns processor seconds per image, with its share of an optimizer step of `BATCH` images.

    Args:
        rounds: The measurements of a way.
        forward: A multiple of the measured FLOPs.
        trained: A multiple of the trained parameters.
    """
    return median(rounds, "processor") * forward + median(rounds, "update") * trained / BATCH


def ways_table(measurements: Mapping[str, Rounds]) -> str:
    """Returns what every way costs as markdown; ratios are to the first."""
    head = [
        "way",
        "seconds per image",
        "range",
        "processor seconds",
        "of baseline",
        "images per second",
        "seconds per update",
        "peak memory (GB)",
        "trained parameters",
        "GFLOP per image",
        "of matmul peak",
    ]
    first = cost(next(iter(measurements.values())))
    # The largest that was measured, since the machine's load varies; one for each type.
    peaks: dict[str, float] = {}
    for row in (row for rounds in measurements.values() for row in rounds):
        peaks[row["dtype"]] = max(peaks.get(row["dtype"], 0.0), row["matmul"])
    rows = []
    for way, rounds in measurements.items():
        wall, processor = median(rounds, "wall"), cost(rounds)
        seconds = [value for row in rounds for value in row["wall"]]
        flops = rounds[0]["flops"]
        rows.append(
            [
                way,
                f"{wall:.3g}",
                f"{min(seconds):.3g} to {max(seconds):.3g}",
                f"{processor:.3g}",
                f"{processor / first:.1%}",
                f"{1 / processor:.3g}",
                f"{median(rounds, 'update'):.3g}",
                f"{statistics.median(row['peak'] for row in rounds) / 1e9:.2f}",
                f"{rounds[0]['trained']:,}",
                f"{flops / 1e9:,.4g}",
                f"{flops / median(rounds, 'processor') / peaks[rounds[0]['dtype']]:.0%}",
            ]
        )
    listed = ", ".join(f"{peak / 1e9:,.0f} in {dtype}" for dtype, peak in peaks.items())
    return (
        f"{markdown_table(head, rows)}\n\n"
        f"Measured matmul peak (GFLOP per processor second): {listed}."
    )


def full_size_table(measurements: Mapping[str, Rounds]) -> str:
    """Returns what all language layers would cost, extrapolated by FLOPs, as markdown."""
    head = [
        "way",
        "TFLOP per image",
        "of baseline",
        "processor seconds",
        "of baseline",
        "peak memory at least (GB)",
        "of baseline",
    ]
    rows = []
    first: tuple[float, float, float] | None = None
    for way, rounds in measurements.items():
        row, layers = rounds[0], rounds[0]["layers"]
        flops = row["flops"] + (LAYERS / layers - 1 if layers else 0) * row["language_flops"]
        absent = (LAYERS - layers) * row["layer_parameters"] if layers else 0
        # Weights alone, or also their gradients and two optimizer states, in 2 bytes each.
        all_weights = way.endswith("all weights")
        more = 2 * (4 if all_weights else 1) * absent
        trained = 1 + absent / row["trained"] if all_weights else 1
        seconds = cost(rounds, flops / row["flops"], trained)
        memory = statistics.median(r["peak"] for r in rounds) + more
        first = first or (flops, seconds, memory)
        rows.append(
            [
                way,
                f"{flops / 1e12:.3g}",
                f"{flops / first[0]:.1%}",
                f"{seconds:.3g}",
                f"{seconds / first[1]:.1%}",
                f"{memory / 1e9:.1f}",
                f"{memory / first[2]:.1%}",
            ]
        )
    return markdown_table(head, rows)


def tables(out: Path, shape: str, ways: Mapping[str, int]) -> str:
    """Returns what some ways cost; empty unless all of them were measured.

    Args:
        out: The folder of the measurements.
        shape: The model: "pocket" or "7b".
        ways: The ways, and their numbers in file names; the others are compared with the first.
    """
    measurements = read_measurements(out, shape, ways)
    if not measurements:
        return ""
    text = ways_table(measurements)
    if shape == "7b":
        layers = next(iter(measurements.values()))[0]["layers"]
        text += (
            f"\n\nOf {LAYERS} language layers, {layers} were there. All of them, by FLOPs "
            "(seconds) and by what their weights take (memory; gradients and two optimizer "
            f"states where they are trained):\n\n{full_size_table(measurements)}"
        )
    return text


def draw_charts(out: Path) -> bool:
    """Draws how the cost grows; returns False if that was not measured."""
    drawing = ET.Element("svg", xmlns="http://www.w3.org/2000/svg")
    ET.SubElement(drawing, "style").text = STYLE
    step = HEIGHT + 24
    for number, (name, label) in enumerate(CHARTS.items()):
        paths = sorted(out.glob(f"{name}-*.json"), key=lambda p: int(p.stem.split("-")[1]))
        rows = {int(p.stem.split("-")[1]): json.loads(p.read_text("utf-8")) for p in paths}
        if not rows:
            return False
        dots = [Dot(x, cost([row])) for x, row in rows.items()]
        chart = ET.fromstring(
            line_chart(
                [Line("features only", "unlearned", dots)],
                uid=name,
                title=f"Processor seconds per image by {label}",
                desc=", ".join(f"{dot.x:g}: {dot.y:.3g}" for dot in dots),
                x_label=label,
                share=False,
            )
        )
        x, y = number % 2 * (WIDTH + 20), number // 2 * step
        place = {"x": x, "y": y + 20, "width": WIDTH, "height": HEIGHT}
        chart.attrib.update({key: f"{value:g}" for key, value in place.items()})
        drawing.append(chart)
        text = ET.SubElement(drawing, "text", {"x": f"{x:g}", "y": f"{y + 14:g}", "class": "title"})
        text.text = "processor seconds per image"
    drawing.set("viewBox", f"0 0 {2 * WIDTH + 20:g} {2 * step:g}")
    CHART.write_text(ET.tostring(drawing, encoding="unicode") + "\n", "utf-8")
    return True


def towers_table(out: Path) -> str:
    """Returns the tower's share of the matmul peak, and of the time by kind of operator."""
    measurements = [
        json.loads(path.read_text("utf-8")) for path in sorted(out.glob("tower-*.json"))
    ]
    if not measurements:
        return ""
    kinds = list(measurements[0]["spent"])
    head = [
        "weights",
        "processor seconds",
        "TFLOP",
        "TFLOP per second of matrix products",
        "share of that",
        *kinds,
    ]
    rows = [
        [
            row["dtype"],
            f"{row['seconds']:.2f}",
            f"{row['flops'] / 1e12:.2f}",
            f"{row['matmul'] / 1e12:.2f}",
            f"{row['flops'] / row['seconds'] / row['matmul']:.0%}",
            *(f"{row['spent'].get(kind, 0):.0%}" for kind in kinds),
        ]
        for row in measurements
    ]
    return markdown_table(head, rows)


def setup_sentence(out: Path) -> str:
    """Returns the seconds up to the end of the first step by number of pictures, as a sentence."""
    rows = [json.loads(p.read_text("utf-8")) for p in out.glob("pictures-*.json")]
    times = [
        f"{row['setup']:.1f} s with {2 * row['people'] * row['pictures']}"
        for row in sorted(rows, key=lambda row: int(row["pictures"]))
    ]
    return "Up to the end of the first step, by pictures of both sides: " + ", ".join(times) + "."


def write(out: Path, ways: Mapping[str, int], command: str) -> None:
    """Writes the page and its charts; what stands below the page's mark stays.

    Args:
        out: The folder of the measurements.
        ways: The ways, and their numbers in file names.
        command: What the page says it was written by.
    """
    text = (
        f"# What an image costs\n\nWritten by `{command}` on {describe_this_machine()}, one "
        "thread per measurement. Seconds are medians over the timed steps of all rounds, per "
        "training image of the forget or retain set. Wall-clock seconds vary with the load of a "
        "shared machine; everything else is based on processor seconds, measured side by side. "
        f"Processor seconds include the optimizer update (one per step) as for batches of {BATCH} "
        "images, the default; wall-clock seconds are of the batches as they were. The share of the "
        "measured matmul peak is that of forward and backward passes.\n"
    )
    for shape, title in SHAPES.items():
        if section := tables(out, shape, ways):
            text += f"\n## {title}\n\n{section}\n"
    if towers := towers_table(out):
        text += (
            "\n## Where the time goes\n\nOne picture of 336 pixels through CLIP-L/14 and the "
            "projector and back, all weights trained; the last columns are shares of the "
            f"operators' time.\n\n{towers}\n"
        )
    if draw_charts(out):
        text += (
            "\n## How it grows\n\nVKD from features alone; one size is changed at a time.\n\n"
            f"![Processor seconds per image]({CHART.name})\n\n{setup_sentence(out)}\n"
        )
    replace_above_mark(PAGE, text)
