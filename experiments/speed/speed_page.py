"""Writes docs/speed.md and docs/speed.svg from what `experiments.speed.speed` has measured."""

from __future__ import annotations

import json
import statistics
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.pages import ROOT
from unsee.records.provenance import describe_this_machine
from unsee.report.charts import HEIGHT, WIDTH, Dot, Line, line_chart

DOC, CHART = ROOT / "docs" / "speed.md", ROOT / "docs" / "speed.svg"


SHAPES = {
    "pocket": "Pocket (1.4 million parameters, 48 pixels, 32 bits, batches of 16 and 16)",
    "7b": "CLIP-L/14-336 and a LLM of 7B's shape (bfloat16, batches of 2 and 2)",
}


LAYERS = 32  # language layers of the published 7B


BATCH = 32  # images a step, of both sides together, that an update is shared out among


STYLE = """
text { font: 10px sans-serif; fill: #565c66; } .grid { stroke: #e6e6e1; }
.line { fill: none; stroke: #0b5fb0; stroke-width: 1.6; } .marker { fill: #0b5fb0; }
.title { font-size: 11px; fill: #1b1e23; }
"""


CHARTS = {
    "people": "people (pocket, 4 pictures each)",
    "pictures": "pictures of each of 4 people (pocket)",
    "size": "pixels a side (CLIP-L, 12 layers)",
    "depth": "layers (CLIP-L, 336 pixels)",
}


def results(out: Path, shape: str, ways: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
    """What was measured of a shape, by way; empty unless all ways were."""
    found = {
        way: [json.loads(p.read_text("utf-8")) for p in sorted(out.glob(f"{shape}-{n}-*.json"))]
        for way, n in ways.items()
    }
    return found if all(found.values()) else {}


def median(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """The median over all timed steps of all rounds."""
    return float(statistics.median(value for row in rows for value in row[key]))


def cost(rows: Sequence[Mapping[str, Any]], forward: float = 1.0, trained: float = 1.0) -> float:
    """Processor seconds an image, its share of an update of the default batch included.

    Args:
        rows: What was measured.
        forward: Multiple of the FLOPs.
        trained: Multiple of the trained parameters.
    """
    return median(rows, "processor") * forward + median(rows, "update") * trained / BATCH


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What every way costs, as a markdown table; ratios are to the first."""
    titles = [
        "way", "seconds an image", "range", "processor seconds", "of the first", "images a second",
        "seconds an update",
        "peak memory (GB)", "trained parameters", "GFLOP an image", "of matmul peak",
    ]  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    first = cost(next(iter(found.values())))
    # The machine's, not that of the moment; by what is computed in.
    peaks: dict[str, float] = {}
    for row in (row for rows in found.values() for row in rows):
        peaks[row["dtype"]] = max(peaks.get(row["dtype"], 0.0), row["matmul"])
    for way, rows in found.items():
        wall, processor = median(rows, "wall"), cost(rows)
        every = [value for row in rows for value in row["wall"]]
        flops = rows[0]["flops"]
        cells = [
            way, f"{wall:.3g}", f"{min(every):.3g} to {max(every):.3g}", f"{processor:.3g}",
            f"{processor / first:.1%}", f"{1 / processor:.3g}", f"{median(rows, 'update'):.3g}",
            f"{statistics.median(row['peak'] for row in rows) / 1e9:.2f}",
            f"{rows[0]['trained']:,}", f"{flops / 1e9:,.4g}",
            f"{flops / median(rows, 'processor') / peaks[rows[0]['dtype']]:.0%}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    said = ", ".join(f"{peak / 1e9:,.0f} in {dtype}" for dtype, peak in peaks.items())
    lines.append(f"\nMeasured matmul peak (GFLOP a processor second): {said}.")
    return "\n".join(lines)


def whole(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What all language layers would cost, by FLOPs, as a markdown table."""
    titles = ["way", "TFLOP an image", "of the first", "processor seconds", "of the first",
              "peak memory at least (GB)", "of the first"]  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    first: tuple[float, float, float] | None = None
    for way, rows in found.items():
        row, layers = rows[0], rows[0]["layers"]
        flops = row["flops"] + (LAYERS / layers - 1 if layers else 0) * row["language_flops"]
        absent = (LAYERS - layers) * row["layer_parameters"] if layers else 0
        # Weights alone, or also their gradients and two optimizer states, in 2 bytes each.
        everything = way.endswith("all weights")
        more = 2 * (4 if everything else 1) * absent
        trained = 1 + absent / row["trained"] if everything else 1
        seconds = cost(rows, flops / row["flops"], trained)
        memory = statistics.median(r["peak"] for r in rows) + more
        first = first or (flops, seconds, memory)
        cells = [
            way, f"{flops / 1e12:.3g}", f"{flops / first[0]:.1%}", f"{seconds:.3g}",
            f"{seconds / first[1]:.1%}", f"{memory / 1e9:.1f}", f"{memory / first[2]:.1%}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables(out: Path, shape: str, ways: Mapping[str, int]) -> str:
    """What some ways cost; empty unless all of them were measured.

    Args:
        out: Where measurements are.
        shape: Of the model: "pocket" or "7b".
        ways: With the numbers in their files' names; the others are compared with the first.
    """
    found = results(out, shape, ways)
    if not found:
        return ""
    text = table(found)
    if shape == "7b":
        layers = next(iter(found.values()))[0]["layers"]
        text += (
            f"\n\nOf {LAYERS} language layers, {layers} were there. All of them, by FLOPs "
            "(seconds) and by what their weights take (memory; gradients and two optimizer "
            f"states where they are trained):\n\n{whole(found)}"
        )
    return text


def chart(out: Path) -> bool:
    """Draws how the cost grows; False if nothing of it was measured."""
    drawn = ET.Element("svg", xmlns="http://www.w3.org/2000/svg")
    ET.SubElement(drawn, "style").text = STYLE
    step = HEIGHT + 24
    for number, (name, label) in enumerate(CHARTS.items()):
        paths = sorted(out.glob(f"{name}-*.json"), key=lambda p: int(p.stem.split("-")[1]))
        rows = {int(p.stem.split("-")[1]): json.loads(p.read_text("utf-8")) for p in paths}
        if not rows:
            return False
        dots = [Dot(x, cost([row])) for x, row in rows.items()]
        inner = ET.fromstring(
            line_chart(
                [Line("features only", "unlearned", dots)],
                uid=name,
                title=f"Processor seconds an image by {label}",
                desc=", ".join(f"{dot.x:g}: {dot.y:.3g}" for dot in dots),
                x_label=label,
                share=False,
            )
        )
        x, y = number % 2 * (WIDTH + 20), number // 2 * step
        place = {"x": x, "y": y + 20, "width": WIDTH, "height": HEIGHT}
        inner.attrib.update({key: f"{value:g}" for key, value in place.items()})
        drawn.append(inner)
        text = ET.SubElement(drawn, "text", {"x": f"{x:g}", "y": f"{y + 14:g}", "class": "title"})
        text.text = "processor seconds an image"
    drawn.set("viewBox", f"0 0 {2 * WIDTH + 20:g} {2 * step:g}")
    CHART.write_text(ET.tostring(drawn, encoding="unicode") + "\n", "utf-8")
    return True


def towers(out: Path) -> str:
    """The tower alone: share of the matmul peak, and of the time by kind of operator."""
    rows = [json.loads(path.read_text("utf-8")) for path in sorted(out.glob("tower-*.json"))]
    if not rows:
        return ""
    kinds = list(rows[0]["spent"])
    titles = ["weights", "processor seconds", "TFLOP", "TFLOP a second of matrix products",
              "share of that", *kinds]  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    for row in rows:
        rate = row["flops"] / row["seconds"] / row["matmul"]
        cells = [row["dtype"], f"{row['seconds']:.2f}", f"{row['flops'] / 1e12:.2f}",
                 f"{row['matmul'] / 1e12:.2f}", f"{rate:.0%}",
                 *(f"{row['spent'].get(kind, 0):.0%}" for kind in kinds)]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def setups(out: Path) -> str:
    """Seconds before the second step by number of pictures, in a sentence."""
    rows = [json.loads(p.read_text("utf-8")) for p in out.glob("pictures-*.json")]
    said = [
        f"{row['setup']:.1f} s with {2 * row['people'] * row['pictures']}"
        for row in sorted(rows, key=lambda row: int(row["pictures"]))
    ]
    return "Up to the end of the first step, by pictures of both sides: " + ", ".join(said) + "."


def write(out: Path, ways: Mapping[str, int], command: str) -> None:
    """Writes the page."""
    text = (
        f"# What an image costs\n\nWritten by `{command}` on {describe_this_machine()}, "
        "one thread a "
        "measurement. Seconds are medians over the timed steps of all rounds; an image is one that "
        "is trained on, to forget or to keep. Where a machine is shared with other work, seconds "
        "by the wall swing with it; all else rests on processor seconds, taken side by side. These "
        f"count the optimiser's update (one a step) as in batches of {BATCH} images, the default; "
        "seconds by the wall are of the batches as they were. The share of the measured "
        "matmul peak is that of forward and backward passes.\n"
    )
    for shape, title in SHAPES.items():
        if found := tables(out, shape, ways):
            text += f"\n## {title}\n\n{found}\n"
    alone = towers(out)
    if alone:
        text += (
            "\n## Where the time goes\n\nOne picture of 336 pixels through CLIP-L/14 and the "
            "projector and back, all weights trained; the last columns are shares of the "
            f"operators' time.\n\n{alone}\n"
        )
    if chart(out):
        text += (
            "\n## How it grows\n\nVKD from features alone, one thing at a time.\n\n"
            f"![Processor seconds an image]({CHART.name})\n\n{setups(out)}\n"
        )
    own = DOC.read_text("utf-8") if DOC.exists() else ""
    mark = "<!-- by hand -->"
    rest = own[own.index(mark) :] if mark in own else f"{mark}\n"
    DOC.write_text(f"{text}\n{rest}", "utf-8")
