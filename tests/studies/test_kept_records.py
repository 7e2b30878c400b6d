"""Kept records: a comparison's pages made again from one file, and damaged files."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from support.cli import unsee
from support.comparison import write_run
from unsee.errors import RunError
from unsee.studies.comparison import Cell
from unsee.studies.comparison_page import write
from unsee.studies.kept_records import read_records, write_records


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    runs = []
    for entry, seed, accuracy in (("vkd", 0, 0.1), ("vkd", 1, 0.2), ("npo", 0, 0.5)):
        folder = tmp_path / "out" / "runs" / f"{entry}-forget10-seed{seed}"
        write_run(folder, accuracy)
        runs.append(Cell(entry, "10", seed, folder, tuned=3))
    failed = tmp_path / "out" / "runs" / "idk-forget10-seed0"
    chosen = tmp_path / "out" / "tuned" / "vkd-forget10.json"
    chosen.parent.mkdir()
    chosen.write_text('{"set": {"lr": 0.01}, "trials": [1, 2, 3]}')
    return [*runs, Cell("idk", "10", 0, failed, "the loss is not finite")]


def test_pages_made_from_kept_records_equal_those_of_the_runs(
    cells: list[Cell], tmp_path: Path
) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    write(cells, out, "Title", "unsee compare", out / "t.tex")
    write_records(cells, out, tmp_path / "kept.jsonl.xz", "Title", "unsee compare")
    kept = read_records([tmp_path / "kept.jsonl.xz"], again)
    assert '"gallery"' not in (kept.cells[0].folder / "summary.json").read_text("utf-8")
    write(kept.cells, again, kept.title, kept.command, again / "t.tex")
    for name in ("table.md", "table.csv", "report.html", "t.tex"):
        assert (again / name).read_bytes() == (out / name).read_bytes(), name
    assert "lr=0.01" in (again / "table.md").read_text()
    assert "the loss is not finite" in (again / "table.csv").read_text()


def test_compare_from_records_writes_pages_without_a_run(cells: list[Cell], tmp_path: Path) -> None:
    records = tmp_path / "kept.jsonl.xz"
    write_records(cells, tmp_path / "out", records, "Title", "unsee compare --seeds 0")
    out, table = tmp_path / "again", tmp_path / "paper.tex"
    unsee("compare", "--from-records", records, "--out", out, "--table", table, "--json", code=1)
    assert "unsee compare --seeds 0" in (out / "report.html").read_text("utf-8")
    assert "vkd & " in table.read_text()
    error = unsee("compare", "--from-records", records, "--seeds", "0", code=2)
    assert "--seeds cannot be given with --from-records" in error
    assert "not empty" in unsee("compare", "--from-records", records, "--out", out, code=2)


def test_compare_from_several_records_makes_one_page(cells: list[Cell], tmp_path: Path) -> None:
    kept = [tmp_path / "a.jsonl.xz", tmp_path / "b.jsonl.xz"]
    for path, own in zip(kept, (cells[:2], cells[2:]), strict=True):
        write_records(own, tmp_path / "out", path, "Title", f"unsee compare {path.stem}")
    given = [text for path in kept for text in ("--from-records", path)]
    unsee("compare", *given, "--out", tmp_path / "both", "--json", code=1)
    whole = tmp_path / "whole"
    write(cells, whole, "Title", "unsee compare a.jsonl` and `unsee compare b.jsonl")
    written = (tmp_path / "both" / "table.md").read_text("utf-8")
    assert "`unsee compare a.jsonl` and `unsee compare b.jsonl`" in written
    assert written.count("| vkd |") == (whole / "table.md").read_text("utf-8").count("| vkd |") > 0
    twice = ["--from-records", kept[0], *given, "--out", tmp_path / "twice"]
    error = unsee("compare", *twice, code=2)
    assert "has vkd with seed 0, which is in" in error
    assert not (tmp_path / "twice").exists()


@pytest.mark.parametrize(
    "damage", ["missing", "text", "cut", "list", "other_head", "traversal", "no_seed"]
)
def test_read_records_refuses_damaged_files(damage: str, cells: list[Cell], tmp_path: Path) -> None:
    path, folder = tmp_path / "kept.jsonl.xz", tmp_path / "again"
    write_records(cells, tmp_path / "out", path)
    head, first, *_ = lzma.open(path, "rt").read().splitlines()  # noqa: SIM115
    lines = {
        "list": "[1]\n",
        "other_head": "{}\n",
        "traversal": f"{head}\n{first.replace('vkd-forget10-seed0', '../../evil')}\n",
        "no_seed": f"{head}\n" + first.replace('"seed"', '"sede"') + "\n",
    }
    if damage == "missing":
        path.unlink()
    elif damage == "text":
        path.write_text("hello")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        with lzma.open(path, "wt") as file:
            file.write(lines[damage])
    with pytest.raises(RunError, match=r"kept\.jsonl\.xz"):
        read_records([path], folder)
    assert not (tmp_path / "evil").exists()
