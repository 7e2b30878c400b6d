"""Figures of a comparison for papers, drawn with matplotlib: one PDF and one PNG a figure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee.errors import require_extra
from unsee.studies.results import CurveOverSeeds, Row, curves_by_attack, pareto_front, places_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("pdf", "png")
REFERENCES = {
    "visual-retain": ("black", "--"),
    "retain-only": ("0.5", ":"),
    "visual-refit": ("0.5", "-."),
    "target": ("0.5", "-"),
}
# Inches: the width of a page's text; height of a plane and of a panel of curves.
WIDTH, HEIGHT = 6.5, 4.0
# What a saved figure must not say, so that equal figures are equal files.
METADATA: Mapping[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "png": {"Software": None},
}


def draw_figures(results: Mapping[str, Sequence[Row]], folder: Path) -> list[Path]:
    """Draws forgetting against utility, and the recovery curves of every relearning attack.

    Args:
        results: The rows by forget ratio.
        folder: Where the files are written, such as "utility.pdf" and "relearn-20-visual.png".

    Returns:
        The files.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    require_extra("matplotlib", "figures", "--figures")
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    # Text stays text in a PDF, and no window is opened.
    with mpl.rc_context({"pdf.fonttype": 42, "font.size": 8, "svg.hashsalt": "unsee"}):
        for ratio, rows in results.items():
            end = f"-forget{ratio}" if len(results) > 1 else ""
            figures = {"utility": _plane(rows)}
            for attack, curves in curves_by_attack(rows).items():
                figures[_file_name(attack)] = _curves(curves, attack)
            for name, figure in figures.items():
                if figure is not None:
                    files += _save(figure, folder / f"{name}{end}")
    return files


def _file_name(attack: str) -> str:
    return re.sub(r"\W+", "-", attack).strip("-")


def _save(figure: Figure, stem: Path) -> list[Path]:
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in FORMATS]
    for kind, path in zip(FORMATS, paths, strict=True):
        figure.savefig(path, dpi=200, bbox_inches="tight", metadata=METADATA[kind])
    return paths


def _new_figure() -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)
    return figure, axes


def _plane(rows: Sequence[Row]) -> Figure | None:
    """Forgetting against utility, with the Pareto front; None without points."""
    places = places_of(rows)
    if not places:
        return None
    figure, axes = _new_figure()
    models = {row.name for row in rows if row.is_model}
    for number, (name, (x, y)) in enumerate(places.items()):
        color = REFERENCES[name][0] if name in models else f"C{number % 10}"
        marker = "D" if name in models else "os^vP*X"[number // 10 % 7]
        axes.plot(x, y, marker, color=color, label=name, linestyle="none")
    front = pareto_front({name: place for name, place in places.items() if name not in models})
    line = sorted(places[name] for name in front)
    axes.plot([x for x, _ in line], [y for _, y in line], color="0.7", linewidth=1, zorder=0)
    axes.set_xlabel("utility (MU)")
    axes.set_ylabel("forgetting (F_multi)")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _curves(curves: Mapping[str, CurveOverSeeds], attack: str) -> Figure:
    """The mean recovery curve of every entry with its range over seeds, and the references'."""
    figure, axes = _new_figure()
    number = 0
    for name, points in curves.items():
        color, style = REFERENCES.get(name, (f"C{number % 10}", ("-", "-.")[number // 10 % 2]))
        number += name not in REFERENCES
        steps, means, lows, highs = zip(*points, strict=True)
        axes.plot(steps, means, style, color=color, label=name)
        if lows != highs:
            axes.fill_between(steps, lows, highs, color=color, alpha=0.12, linewidth=0)
    axes.set_xlabel("attack steps")
    axes.set_ylabel("score on held-out pictures of the forgotten")
    axes.set_ylim(-0.02, 1.02)
    axes.set_title(attack)
    figure.legend(loc="outside right upper", frameon=False)
    return figure
