"""The report as a reader gets it, parsed."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

from support.report_record import (
    make_run,
)
from unsee import report


class Page(HTMLParser):
    """A page as its reader gets it: headings, ids, images, references and visible text."""

    VOID = frozenset({"meta", "link", "img", "br", "hr"})

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.stack: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))
        assert self.stack == [], "every element is closed"
        self.text = re.sub(r"\s+", " ", self.text.replace("\xa0", " "))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def levels(self) -> list[int]:
        return [int(tag[1]) for tag, _ in self.tags if re.fullmatch(r"h[1-6]", tag)]


def page_of(tmp_path: Path, **changes: Any) -> Page:
    run = make_run(tmp_path / "run", **changes)
    return Page(report.write([run], tmp_path / "report.html"))


def check_page(page: Page) -> None:
    """What holds for every page: one title, headings without gaps, nothing from outside."""
    levels = page.levels()
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert not page.named("script")
    for attributes in (a for _, a in page.tags):
        assert not any(name.startswith("on") for name in attributes)
        assert all(
            (attributes.get(name) or "data:").startswith(("data:", "#")) for name in ("src", "href")
        )
    assert all(image["alt"] for image in page.named("img"))
    assert all(header.get("scope") for header in page.named("th"))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = {a["href"] for a in page.named("a")}
    assert {str(link)[1:] for link in links} <= set(ids)
    assert "None" not in page.text and "nan" not in page.text.split()
