"""Results of a comparison, and the files that it writes."""

from __future__ import annotations

import csv
import platform
from pathlib import Path

import pytest

from support import ROOT
from support.comparison import write_run
from unsee.records.schema import EquivalenceTest, LearnedCheck, RelearningOutcome
from unsee.studies import comparison_page, ratings_page
from unsee.studies.comparison import Cell, slug
from unsee.studies.comparison_page import write
from unsee.studies.results import Result, Row, collect, mean_and_range, pareto_front


def test_mean_and_range_shows_a_range_only_of_different_values() -> None:
    assert mean_and_range([]) == "" and mean_and_range([0.5]) == "0.500"
    assert mean_and_range([1, 2, 3], 1) == "2.0 (1.0 to 3.0)"


def test_pareto_front_leaves_out_dominated_points() -> None:
    points = {"a": (0.9, 0.2), "b": (0.5, 0.5), "c": (0.5, 0.4), "d": (0.1, 0.9)}
    assert pareto_front(points) == ["a", "b", "d"]


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    """Three entries and two seeds; the run of c|d with seed 1 failed."""
    runs = []
    for name, values in {"a": (0.2, 0.9), "b": (0.5, 0.3), "c|d": (0.2, None)}.items():
        for seed, value in enumerate(values):
            folder = tmp_path / "runs" / f"{slug(name, '10')}-seed{seed}"
            if value is not None:
                write_run(folder, value)
            error = None if value is not None else "no <luck>\nat all"
            runs.append(Cell(name, "10", seed, folder, error))
    return runs


def test_collect_ranks_entries_within_a_seed(cells: list[Cell], tmp_path: Path) -> None:
    rows = {row.name: row for row in collect(cells, tmp_path)["10"]}
    # Seed 0: a and c tie for ranks 1 and 2; seed 1: b before a, c failed.
    assert rows["a"].values("rank") == [1.5, 2.0]
    assert rows["b"].values("rank") == [3.0, 1.0]
    assert rows["c|d"].values("rank") == [1.5]
    assert rows["visual-retain"].values("distance") == [0]
    assert rows["a"].values("memory (MB)") == [5.0, 5.0]
    assert list(rows) == ["c|d", "a", "b", "target", "visual-retain"]


def test_write_shows_results_and_failures_in_every_file(cells: list[Cell], tmp_path: Path) -> None:
    write(cells, tmp_path, "Trial", "unsee compare", tmp_path / "docs" / "own.md")
    table = (tmp_path / "docs" / "own.md").read_text()
    assert f"Written by `unsee compare` on {platform.platform()}, " in table
    assert not (tmp_path / "table.md").exists()
    assert "| c\\|d | 1.5 |" in table and "seed 1: no &lt;luck> at all" in table
    assert "<luck>" not in table
    assert "| a | 1.8 (1.5 to 2.0) |" in table
    page = (tmp_path / "report.html").read_text()
    assert "no &lt;luck&gt;" in page and "<luck>" not in page and "<svg" in page
    lines = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [line["seed"] for line in lines if line["name"] == "a"] == ["0", "1"]
    assert next(x for x in lines if x["error"])["distance"] == ""


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_write_escapes_names_that_spreadsheets_read_as_formulas(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"
    write_run(folder, 0.2)
    write([Cell(name, "10", 0, folder)], tmp_path, "Trial", "unsee compare")
    lines = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert lines[0]["name"] == f"'{name}" and lines[0]["seed"] == "0"
    assert f"| {name} |" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("page", "meaning"),
    [("compare", comparison_page.MEANING), ("meta", ratings_page.MEANING)],
)
def test_shipped_results_explain_their_columns_as_write_does(page: str, meaning: str) -> None:
    assert meaning in (ROOT / "docs" / f"results-{page}.md").read_text("utf-8")


def test_tables_show_the_tests_against_the_reference_and_the_headroom(tmp_path: Path) -> None:
    def test_of(outcome: str, attack: str = "", difference: float = 0.0) -> EquivalenceTest:
        key = "forget_holdout/vqa/accuracy"
        return EquivalenceTest(
            attack=attack, step=20, measure=key, outcome=outcome, difference=difference
        )

    check = LearnedCheck(measure="m", target=0.3, floor=0.2, headroom=0.1, enough=False)
    curve = RelearningOutcome(
        share=0.2, steps=20, unsigned_area_to_reference=0.25, worst_gap=-0.4, worst_step=20
    )
    attack = "relearn?share=0.2"
    results = [
        Result(
            Cell("a", "10", seed, tmp_path),
            {"distance": 0.1},
            relearning=(curve,),
            equivalence=(test_of("indistinguishable"), test_of(outcome, attack, -0.4)),
            learned=check,
        )
        for seed, outcome in enumerate(("indistinguishable", "distinguishable"))
    ]
    *_, table = comparison_page.tables([Row("a", results)])
    assert table.title == "Against the visual-retain reference"
    assert table.rows == [
        [
            "a",
            "indistinguishable",
            "1: indistinguishable, 1: distinguishable",
            "accuracy after 20 steps of relearn?share=0.2, 40 points above",
            "0.250",
            "-0.400",
        ]
    ]
    notes = comparison_page.notes([Row("a", results)])
    assert any("of 0.2 that are needed: scores of forgetting mean nothing" in n for n in notes)
