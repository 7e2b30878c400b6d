"""The documentation site: its menu and its generated pages cover everything registered."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import nbformat
import yaml

import unsee
from support import ROOT
from support.site import gen_pages, generated_pages
from unsee.cli.catalogue import KINDS, names

DOCS = ROOT / "docs"


def menu(entry: Any) -> list[str]:
    """The pages that a part of the menu names."""
    if isinstance(entry, dict):
        entry = list(entry.values())
    return [p for part in entry for p in menu(part)] if isinstance(entry, list) else [entry]


def settings() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    return content


def test_pages_cover_every_registered_name() -> None:
    pages = generated_pages()
    for kind in KINDS:
        for name in names(kind):
            page = pages[f"reference/{kind}/{name}.md"]
            assert page.startswith(f"# {name}\n"), name
            assert f"]({name}.md)" in pages[f"reference/{kind}/index.md"], name


def test_pages_list_every_field_of_a_method_or_attack() -> None:
    pages = generated_pages()
    for kind, registry in (("methods", unsee.METHODS), ("attacks", unsee.ATTACKS)):
        for name, item in registry.items():
            listed = re.findall(r"^\| `(\w+)` \|", pages[f"reference/{kind}/{name}.md"], re.M)
            assert {field.name for field in fields(item)} <= set(listed), name


def test_pages_list_every_public_name() -> None:
    pages = generated_pages()
    for name in set(unsee.__all__) - {"__version__"}:
        assert re.search(rf"\.{name}\b", pages["reference/api.md"]), name


def test_papers_page_names_everything_with_a_source() -> None:
    assert gen_pages().PAPERS in (DOCS / "papers.md").read_text("utf-8")
    tables = gen_pages().papers_tables()
    for kind in KINDS:
        for name in names(kind):
            assert f"(reference/{kind}/{name}.md)" in tables


def test_menu_names_every_page() -> None:
    pages = generated_pages()
    listed = menu(settings()["nav"])
    written = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")}
    kinds = {f"reference/{kind}/" for kind in KINDS}
    assert {p for p in listed if p.endswith(".md")} == written | {"tutorial.md", "reference/api.md"}
    assert {p for p in listed if not p.endswith(".md")} == kinds
    assert all(page in pages for page in ("reference/api.md", *(f"{k}index.md" for k in kinds)))
    assert len(listed) == len(set(listed))


def test_site_is_built_strictly_and_loads_nothing_from_elsewhere() -> None:
    assert settings()["strict"] is True
    assert settings()["theme"]["font"] is False
    assert "mkdocs build --strict" in (ROOT / "Makefile").read_text("utf-8")


def test_tutorial_is_committed_without_outputs() -> None:
    notebook = nbformat.read(DOCS / "tutorial.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) >= 3
    for cell in cells:
        assert cell.outputs == [] and cell.execution_count is None
        compile(cell.source, "tutorial", "exec")


def test_tutorial_becomes_a_page() -> None:
    text, pictures = gen_pages().tutorial(execute=False)
    assert text.startswith("# Tutorial")
    assert pictures == {}
