"""Figures of comparisons, and LaTeX tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.comparison import measures, summary_dict, write_run
from unsee.records.folder import SUMMARY
from unsee.studies.comparison import Cell
from unsee.studies.comparison_page import write
from unsee.studies.figures import FORMATS, draw_figures
from unsee.studies.results import attack_curves, collect, curves_by_attack


def relearning(end: float) -> dict[str, Any]:
    curves = {"unlearned": (0.0, end), "reference": (0.0, 0.1)}
    points = {
        model: [{"step": step, "value": value} for step, value in zip((0, 10), ends, strict=True)]
        for model, ends in curves.items()
    }
    return {"share": 0.2, "steps": 10, "modules": "visual", "curves": points}


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    runs = []
    for seed, end in ((0, 0.4), (1, 0.6)):
        folder = tmp_path / "runs" / f"vkd-seed{seed}"
        write_run(folder, 0.1)
        content = summary_dict(attacks={"relearn": [relearning(end)]})
        (folder / SUMMARY).write_text(json.dumps(content))
        runs.append(Cell("vkd", "10", seed, folder))
    return runs


def test_attack_curves_are_means_and_ranges_over_seeds(cells: list[Cell], tmp_path: Path) -> None:
    row = collect(cells, tmp_path)["10"][0]
    curves = attack_curves(row)["relearn 20 % visual"]
    assert curves["unlearned"] == [(0, 0.0, 0.0, 0.0), (10, 0.5, 0.4, 0.6)]
    assert curves["visual-retain"][-1] == (10, 0.1, 0.1, 0.1)


def test_draw_figures_writes_pdf_and_png_of_the_plane_and_each_attack(
    cells: list[Cell], tmp_path: Path
) -> None:
    results = collect(cells, tmp_path)
    files = draw_figures(results, tmp_path / "figures")
    stems = ("utility", "relearn-20-visual")
    assert {f.name for f in files} == {f"{stem}.{kind}" for stem in stems for kind in FORMATS}
    for file in files:
        if file.suffix == ".png":
            with Image.open(file) as picture:
                assert picture.width > 1000
                assert len(picture.convert("L").getcolors(256)) > 50
        else:
            assert file.read_bytes().startswith(b"%PDF")
    again = draw_figures(results, tmp_path / "again")
    assert [f.read_bytes() for f in again] == [f.read_bytes() for f in files]


def test_draw_figures_draws_every_reference(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "vkd-seed0"
    write_run(folder, 0.1)
    attack = relearning(0.4)
    attack["curves"]["visual_refit"] = attack["curves"]["reference"]
    refit = measures(0.3, 0.8)
    content = summary_dict(attacks={"relearn": [attack]}, visual_refit=refit)
    (folder / SUMMARY).write_text(json.dumps(content))
    results = collect([Cell("vkd", "10", 0, folder)], tmp_path)
    assert "visual-refit" in curves_by_attack(results["10"])["relearn 20 % visual"]
    assert len(draw_figures(results, tmp_path / "figures")) == 4


def test_write_draws_the_recovery_curves_on_the_page(cells: list[Cell], tmp_path: Path) -> None:
    write(cells, tmp_path, "Title", "unsee compare", tmp_path / "t.tex")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "relearn 20 % visual. Bold: vkd" in page.replace("&nbsp;", " ")
    latex = (tmp_path / "t.tex").read_text()
    assert "% Needs \\usepackage{booktabs}." in latex
    assert "\\caption{Under attack, 10 \\% forgotten}" in latex
