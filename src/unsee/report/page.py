"""Writes the report: one self-contained HTML file about one or several runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from unsee.errors import RunError
from unsee.files import write_atomically
from unsee.records import reader
from unsee.report import charts, views


def write(
    runs: Sequence[Path],
    out: Path,
    advice: str = "Free some space or name another file with -o.",
) -> Path:
    """Writes the report on one or more runs.

    The same run folders always give the same bytes: the page does not hold the time of writing.

    Args:
        runs: Run folders; several get a comparison first and a section each.
        out: The HTML file, written atomically; its folder is created if it is missing.
        advice: The end of the message where it cannot be written: what to do about it.

    Returns:
        `out`.

    Raises:
        RunError: If no run is given, a folder is not a finished run, or `out` cannot be written.
    """
    if not runs:
        raise RunError(
            "no run folder was given. Name at least one: `unsee report runs/demo -o report.html`."
        )
    page = render([reader.read_run(folder) for folder in runs])
    out = Path(out)
    if out.is_dir():
        raise RunError(f"{out} is a folder. Name a file: `-o {out / 'report.html'}`.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}). {advice}") from error
    # A broken surrogate pair in an answer is shown as such and does not stop the page.
    encoded = page.encode("utf-8", errors="replace")
    write_atomically(out, encoded, concurrent=True, advice=advice)
    return out


def template(name: str) -> Template:
    """Returns a page's template, with the filters that pages share."""
    environment = Environment(
        loader=PackageLoader("unsee.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tight"] = tight
    environment.filters["code"] = code
    style = (files("unsee.report") / "style.css").read_text(encoding="utf-8")
    environment.globals["style"] = Markup(style)  # our own file
    return environment.get_template(name)


def render(runs: Sequence[reader.Run]) -> str:
    """The page as text."""
    shown = [views.view(run, f"r{number}") for number, run in enumerate(runs, start=1)]
    return template("page.html.j2").render(
        views=shown,
        compared=views.compared(shown) if len(shown) > 1 else [],
        key=charts.key,
    )


def tight(text: str) -> Markup:
    """A text whose percent signs stay on the line of their number."""
    return Markup(str(escape(text)).replace(" %", "&nbsp;%"))  # escaped just now


def code(text: str) -> Markup:
    """A text whose `commands` in backticks are set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # escaped just now
