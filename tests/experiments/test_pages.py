"""What the experiments share: records, figures and pages."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from experiments.pages import (
    DOCS,
    append_row,
    load_or_make,
    machines,
    mean_and_range,
    read_rows,
    replace_above_mark,
    replace_section,
    shown_value,
    table,
)
from experiments.quality import (
    ablation,
    group_photographs,
    llama_cpp,
    no_retain,
    photograph_count,
    photos,
    refit,
    requests,
    robust,
    rules,
    strength,
)

from unsee.api import compare_records
from unsee.recipes.unlearn import make_recipe
from unsee.records.schema import Measure


def section(page: str, mark: str) -> str:
    """What a page has between two marks."""
    text = (DOCS / page).read_text("utf-8")
    begin, end = f"<!-- {mark}:begin -->\n", f"\n<!-- {mark}:end -->"
    return text[text.index(begin) + len(begin) : text.index(end)]


def test_ablation_section_is_what_the_kept_records_say() -> None:
    rows = read_rows(Path(ablation.__file__).with_suffix(".jsonl"))
    assert section("vkd.md", "ablation") == ablation.section(rows)


def test_robust_sections_are_what_the_kept_records_say() -> None:
    rows = read_rows(Path(robust.__file__).with_suffix(".jsonl"))
    for mark, body in robust.sections(rows).items():
        assert section("robust.md", mark) == body


def test_strength_section_is_what_the_kept_records_say() -> None:
    for mark in ("strength", "strength_longer"):
        rows = read_rows(Path(strength.__file__).with_name(f"{mark}.jsonl"))
        assert section("vkd.md", mark) == strength.section(rows)
        assert {row["setting"] for row in rows} <= {strength.TARGET, *strength.VARIANTS}


def test_llama_cpp_section_is_what_the_kept_figures_say() -> None:
    kept = json.loads(llama_cpp.KEPT.read_text("utf-8"))
    assert section("deploy.md", "llama") == llama_cpp.section(kept)
    wrong = {name for name, own in kept["rows"].items() if max(own.values()) > 0.05}
    assert wrong == {"llava"}, "its class token is last in llama.cpp"


def test_refit_section_is_what_the_kept_records_say() -> None:
    rows, others = (
        read_rows(Path(page.__file__).with_suffix(".jsonl")) for page in (refit, robust)
    )
    assert {row["variant"] for row in rows} == set(refit.MADE)
    assert section("robust.md", "refit") == refit.section(rows, others)


def test_rules_section_is_what_the_kept_answers_say() -> None:
    assert section("published.md", "rules") == rules.section()


@pytest.mark.parametrize("name", robust.VARIANTS)
def test_robust_variants_are_settings_that_vkd_has(name: str) -> None:
    method, changes = robust.VARIANTS[name]
    make_recipe({"method": method, "set": changes})


def test_append_row_adds_to_the_file(tmp_path: Path) -> None:
    path, rows = tmp_path / "new" / "rows.jsonl", [{"a": 1}]
    assert read_rows(path) == []
    append_row(path, rows, {"a": 2})
    append_row(path, rows, {"a": 3})
    assert rows == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert read_rows(path) == rows[1:]


def test_load_or_make_makes_a_file_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "one.json"
    assert load_or_make(path, lambda: {"a": 1}) == {"a": 1}
    assert load_or_make(path, lambda: {"a": 2}) == {"a": 1}


def test_mean_and_range_gives_the_range_of_several_values() -> None:
    assert mean_and_range([]) == "" and mean_and_range([0.5]) == "0.500"
    assert mean_and_range([0.1, 0.2], "+.2f") == "+0.15 (+0.10 to +0.20)"


def test_shown_value_is_empty_without_a_value() -> None:
    measures = {"a": Measure(value=0.25), "b": Measure(value=None)}
    assert [shown_value(measures, key) for key in "abc"] == ["0.250", "", ""]
    assert shown_value(None, "a") == ""


def test_machines_names_each_machine_once() -> None:
    assert machines([{}, {"machine": "X"}, {"machine": "X"}]) == (
        "Linux x86_64, 2 cores, no GPU and X"
    )


def test_table_escapes_cells() -> None:
    assert table(["a"], [["b|c\nd"]]) == "| a |\n| --- |\n| b\\|c d |"


def test_replace_section_leaves_the_rest_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a:begin -->\nold\n<!-- a:end -->\nafter\n")
    replace_section(page, "a", "new")
    assert page.read_text() == "before\n<!-- a:begin -->\nnew\n<!-- a:end -->\nafter\n"


def test_replace_above_mark_keeps_what_stands_below(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    replace_above_mark(page, "first\n")
    page.write_text(page.read_text() + "mine\n")
    replace_above_mark(page, "second\n")
    assert page.read_text() == "second\n\n<!-- by hand -->\nmine\n"


STANDARD = (
    "standard",
    "rivals",
    "older",
    "standard_seed1",
    "standard_default",
    "standard_seed2",
)


def test_page_of_the_standard_attacks_is_made_from_the_kept_records(tmp_path: Path) -> None:
    folder = Path(robust.__file__).parent
    kept = [folder / f"{name}.jsonl.xz" for name in STANDARD]
    compare_records(kept, out=tmp_path / "out", table=tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == (DOCS / "results-standard.md").read_text()


def test_readme_shows_rows_of_the_page_of_photographs() -> None:
    shown = section("../README.md", "photographs")
    assert shown == photos.readme_section((DOCS / "results-photos.md").read_text("utf-8"))
    assert len(shown.splitlines()) == 2 + len(photos.README_ROWS)


@pytest.mark.parametrize(
    ("module", "mark"),
    [(photograph_count, "photographs"), (no_retain, "no-retain"), (group_photographs, "groups")],
)
def test_tables_of_few_photographs_are_what_the_kept_rows_say(
    module: ModuleType, mark: str
) -> None:
    assert section("few-photographs.md", mark) == module.section(read_rows(module.ROWS))


@pytest.mark.parametrize("name", ["requests", "requests_paper", "requests_photos"])
def test_tables_of_requests_are_what_the_kept_rows_say(name: str) -> None:
    rows = read_rows(Path(requests.__file__).with_name(f"{name}.jsonl"))
    assert section("requests.md", name) == requests.section(rows, name)
