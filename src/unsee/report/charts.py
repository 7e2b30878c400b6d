"""Charts as inline SVG: lines with interval bands, strips of scores, and scatter plots.

Colours and dashes come from style.css by class, so that light, dark and print share one drawing.
Models differ in dash and marker as well as in colour.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 272.0, 178.0


LEFT, RIGHT, TOP, BOTTOM = 40.0, 10.0, 10.0, 34.0


@dataclass(frozen=True)
class Dot:
    """A point of a line, with its interval where there is one."""

    x: float
    y: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """A named line; `style` is the class that gives its colour, dash and marker."""

    name: str
    style: str
    dots: Sequence[Dot]
    markers: bool = True


@dataclass(frozen=True)
class Mark:
    """A model's score on a strip."""

    name: str
    style: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Point:
    """A named point of a plane of 0..1; those of the front are joined."""

    name: str
    style: str
    x: float
    y: float
    front: bool = False


def line_chart(
    lines: Sequence[Line],
    *,
    uid: str,
    title: str,
    desc: str,
    x_label: str,
    share: bool,
    percent: bool = True,
) -> Markup:
    """A line chart with interval bands.

    Args:
        lines: Drawn in order, the last on top.
        uid: Unique in the page; links title and description to the drawing.
        title: What the chart shows, read out instead of the drawing.
        desc: What is to be seen in it.
        x_label: Under the horizontal axis.
        share: Whether the values are of 0..1, and the axis spans that.
        percent: Whether such values are shown as 0..100 %.
    """
    dots = [dot for line in lines for dot in line.dots if dot.y is not None]
    x_low, x_high = min((d.x for d in dots), default=0.0), max((d.x for d in dots), default=1.0)
    x_ticks = [tick for tick in ticks(x_low, x_high) if x_low <= tick <= x_high]
    if share:
        y_ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    else:
        values = [v for d in dots for v in (d.y, d.low, d.high) if v is not None]
        y_ticks = ticks(min([*values, 0.0]), max(values, default=1.0))
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def across(x: float) -> float:
        return LEFT + (x - x_low) / ((x_high - x_low) or 1.0) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_low) / ((y_high - y_low) or 1.0) * (HEIGHT - TOP - BOTTOM)

    svg = _svg(uid, title, desc, {"viewBox": f"0 0 {WIDTH:g} {HEIGHT:g}", "class": "chart"})
    for tick in y_ticks:
        _add(svg, "line", x1=LEFT, x2=WIDTH - RIGHT, y1=up(tick), y2=up(tick), **_class("grid"))
        text = f"{100 * tick:.0f}" if share and percent else _short(tick)
        text += "\N{NO-BREAK SPACE}%" if share and percent and tick == y_high else ""
        _text(svg, text, LEFT - 6, up(tick) + 3.5, "end")
    for tick in x_ticks:
        _text(svg, _short(tick), across(tick), HEIGHT - BOTTOM + 14, "middle")
    _text(svg, x_label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "middle", "axis-label")
    for line in lines:
        _band(svg, line, across, up)
    for line in lines:
        drawn = [(across(dot.x), up(dot.y), dot) for dot in line.dots if dot.y is not None]
        if drawn:
            path = _path([(x, y) for x, y, _ in drawn])
            _add(svg, "path", d=path, **_class(f"line {line.style}"))
        for x, y, dot in drawn if line.markers else ():
            marker = _marker(svg, x, y, line.style, 2.7)
            _hint(marker, f"{line.name}, {x_label} {_short(dot.x)}: {_say(dot, share, percent)}")
    return _markup(svg)


def _band(
    svg: ET.Element, line: Line, across: Callable[[float], float], up: Callable[[float], float]
) -> None:
    """Draws the interval band of a line, if at least two points have an interval."""
    ends = [(d.x, d.low, d.high) for d in line.dots if d.low is not None and d.high is not None]
    if len(ends) > 1:
        edge = [(across(x), up(high)) for x, _, high in ends]
        edge += [(across(x), up(low)) for x, low, _ in reversed(ends)]
        _add(svg, "path", d=f"{_path(edge)}Z", **_class(f"band {line.style}"))


def scatter(
    points: Sequence[Point], *, uid: str, title: str, desc: str, x_label: str, y_label: str
) -> Markup:
    """Named points of a plane of 0..1, both better when larger, the front joined.

    Each axis goes from a round number below the points to 1.

    Args:
        points: What is drawn.
        uid: Unique in the page; links title and description to the drawing.
        title: What the chart shows, read out instead of the drawing.
        desc: What is to be seen in it.
        x_label: Under the horizontal axis.
        y_label: Above the vertical axis.
    """
    wide, high, left = 640.0, 400.0, 44.0
    x_ticks = ticks(min(0.75, *(p.x for p in points)), 1.0, 5)
    y_ticks = ticks(min(0.75, *(p.y for p in points)), 1.0, 5)

    def across(x: float) -> float:
        return left + (x - x_ticks[0]) / (1 - x_ticks[0]) * (wide - left - 110)

    def up(y: float) -> float:
        return high - BOTTOM - (y - y_ticks[0]) / (1 - y_ticks[0]) * (high - 24 - BOTTOM)

    svg = _svg(uid, title, desc, {"viewBox": f"0 0 {wide:g} {high:g}", "class": "chart"})
    for tick in y_ticks:
        ends = {"x1": left, "x2": across(1), "y1": up(tick), "y2": up(tick)}
        _add(svg, "line", **ends, **_class("grid"))
        _text(svg, f"{tick:g}", left - 6, up(tick) + 3.5, "end")
    for tick in x_ticks:
        _text(svg, f"{tick:g}", across(tick), high - BOTTOM + 14, "middle")
    _text(svg, x_label, (left + across(1)) / 2, high - 4, "middle", "axis-label")
    _text(svg, y_label, left, 12, "start", "axis-label")
    joined = sorted((across(p.x), up(p.y)) for p in points if p.front)
    if len(joined) > 1:
        _add(svg, "path", d=_path(joined), **_class("line term"))
    spots = [(across(p.x), up(p.y), p) for p in sorted(points, key=lambda p: -p.y)]
    names = place_labels([(x, y, point.name) for x, y, point in spots], wide)
    for (x, y, point), (start, base) in zip(spots, names, strict=True):
        if abs(base - 3.5 - y) > 11:
            end = start if start > x else start + text_width(point.name)
            _add(svg, "line", x1=x, y1=y, x2=end, y2=base - 3.5, **_class("leader"))
    for (x, y, point), (start, base) in zip(spots, names, strict=True):
        marker = _marker(svg, x, y, point.style, 4.0)
        _hint(marker, f"{point.name}: {x_label} {point.x:.3f}, {y_label} {point.y:.3f}")
        _text(svg, point.name, start, base, "start")
    return _markup(svg)


def strip(marks: Sequence[Mark], *, uid: str, title: str, percent: bool = True) -> Markup:
    """A strip from 0 to 1: the scores before and after above, the references below.

    Positions are in percent, so the strip stretches while markers and text keep their size.

    Args:
        marks: The models' scores, drawn in order, the last on top.
        uid: Unique in the page; links title and description to the drawing.
        title: Name of the measure, read out instead of the drawing.
        percent: Whether scores are shown as 0..100 %.
    """
    desc = "; ".join(f"{mark.name} {_unit(mark.value, percent)}" for mark in marks)
    svg = _svg(uid, title, desc, {"width": "100%", "height": "36", "class": "strip"})
    for tick in (0, 25, 50, 75, 100):
        _add(svg, "line", x1=f"{tick}%", x2=f"{tick}%", y1=2, y2=34, **_class("grid"))
    ends = {mark.style: mark.value for mark in marks}
    if "target" in ends and "unlearned" in ends:
        x1, x2 = f"{100 * ends['target']:.2f}%", f"{100 * ends['unlearned']:.2f}%"
        _add(svg, "line", x1=x1, x2=x2, y1=11, y2=11, **_class("way"))
    for mark in marks:
        if mark.low is not None and mark.high is not None:
            # A standard error may reach beyond the scale.
            low, high = f"{100 * max(0, mark.low):.2f}%", f"{100 * min(1, mark.high):.2f}%"
            y = _lane(mark)
            _add(svg, "line", x1=low, x2=high, y1=y, y2=y, **_class(f"whisker {mark.style}"))
    for mark in marks:
        # A nested drawing is the only way to put a shape at a percentage.
        x = f"{100 * mark.value:.2f}%"
        place = _add(svg, "svg", x=x, y=_lane(mark), overflow="visible")
        marker = _marker(place, 0.0, 0.0, mark.style, 5.0)
        _hint(marker, f"{mark.name}: {_unit(mark.value, percent)}")
    return _markup(svg)


def _lane(mark: Mark) -> float:
    return 26.0 if mark.style in ("reference", "retain-only", "visual-refit") else 11.0


def key(style: str) -> Markup:
    """The short stroke with a marker that stands before a model's name in a legend."""
    box = {"width": "30", "height": "14", "class": "key", "aria-hidden": "true"}
    svg = ET.Element("svg", box)
    _add(svg, "line", x1=1, x2=29, y1=7, y2=7, **_class(f"line {style}"))
    _marker(svg, 15, 7, style, 3.6)
    return _markup(svg)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Returns round numbers that span a range, in steps of 1, 2 or 5 times a power of ten.

    Args:
        low: Lower end of the range.
        high: Upper end of the range.
        count: Approximate number of steps.
    """
    if not high > low:
        high = low + 1.0
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def thin(dots: Sequence[Dot], limit: int = 160) -> list[Dot]:
    """At most `limit` points: the means of equal runs of steps, with their range as the band."""
    if len(dots) <= limit:
        return list(dots)
    size = math.ceil(len(dots) / limit)
    binned = []
    for start in range(0, len(dots), size):
        values = [d.y for d in dots[start : start + size] if d.y is not None]
        if values:
            middle = dots[min(start + size // 2, len(dots) - 1)].x
            binned.append(Dot(middle, sum(values) / len(values), min(values), max(values)))
    return binned


def _marker(parent: ET.Element, x: float, y: float, style: str, size: float) -> ET.Element:
    """Circle, diamond, square, triangle or ring: each model has a shape beside its colour."""
    name = _class(f"marker {style}")
    if style == "reference":
        d = 1.3 * size
        return _add(parent, "path", d=f"M{x} {y - d}L{x + d} {y}L{x} {y + d}L{x - d} {y}Z", **name)
    if style == "retain-only":
        return _add(parent, "rect", x=x - size, y=y - size, width=2 * size, height=2 * size, **name)
    if style == "visual-refit":
        d = 1.3 * size
        return _add(parent, "path", d=f"M{x} {y - d}L{x + d} {y + d}L{x - d} {y + d}Z", **name)
    return _add(parent, "circle", cx=x, cy=y, r=size, **name)


def _svg(uid: str, title: str, desc: str, attributes: dict[str, str]) -> ET.Element:
    svg = ET.Element("svg", {"role": "img", "aria-labelledby": f"{uid}-t {uid}-d", **attributes})
    # ET escapes what is put in text and attributes, so record texts cannot become markup.
    ET.SubElement(svg, "title", id=f"{uid}-t").text = title
    ET.SubElement(svg, "desc", id=f"{uid}-d").text = desc
    return svg


def _add(parent: ET.Element, tag: str, **attributes: str | float) -> ET.Element:
    written = {
        name: value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
        for name, value in attributes.items()
    }
    return ET.SubElement(parent, tag, written)


def _class(name: str) -> dict[str, str | float]:
    return {"class": name}


def _text(
    parent: ET.Element, text: str, x: float, y: float, anchor: str, style: str = "tick"
) -> None:
    element = _add(parent, "text", x=x, y=y, **{"text-anchor": anchor, "class": style})
    element.text = text


def _hint(element: ET.Element, text: str) -> None:
    ET.SubElement(element, "title").text = text


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points)


def _say(dot: Dot, share: bool, percent: bool) -> str:
    y = dot.y or 0.0
    if not share:
        return f"{y:.4g}"
    if dot.low is None or dot.high is None:
        return _unit(y, percent)
    ends = [f"{100 * v:.0f}" if percent else f"{v:.2f}" for v in (dot.low, dot.high)]
    return f"{_unit(y, percent)} ({ends[0]} to {ends[1]})"


def _unit(value: float, percent: bool) -> str:
    return f"{100 * value:.0f}\N{NO-BREAK SPACE}%" if percent else f"{value:.2f}"


def _short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):g}{unit}"
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _markup(svg: ET.Element) -> Markup:
    return Markup(ET.tostring(svg, encoding="unicode"))  # escaped by ElementTree


def text_width(name: str) -> float:
    """Approximate width of a name in the drawing."""
    return 6.2 * len(name)


def place_labels(
    spots: Sequence[tuple[float, float, str]], right: float
) -> list[tuple[float, float]]:
    """Returns where the names of points start: near them, without overlaps.

    Args:
        spots: Position and name of every point, in the order in which names are placed.
        right: Right edge of the drawing.
    """
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y, _ in spots]
    starts = []
    for x, y, name in spots:
        rows = sorted(range(-14, 15), key=lambda row: (abs(row), -row))
        sides = [(x + 8, y + 3.5), (x - 8 - text_width(name), y + 3.5)]
        offers = [(start, base + 12 * row) for row in rows for start, base in sides]
        boxes = [(start, base - 9, start + text_width(name), base + 2) for start, base in offers]
        free = (
            number
            for number, box in enumerate(boxes)
            if box[0] >= 0 and box[2] <= right and not any(_overlap(box, b) for b in taken)
        )
        chosen = next(free, 0)
        taken.append(boxes[chosen])
        starts.append(offers[chosen])
    return starts


def _overlap(one: tuple[float, ...], two: tuple[float, ...]) -> bool:
    """Whether two boxes (left, top, right, bottom) overlap."""
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
