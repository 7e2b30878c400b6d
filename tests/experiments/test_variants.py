"""Variants of the experiments, run by the code of `unsee ablate`."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments.quality import ablation, robust, strength
from experiments.variants import run_variants, score_reported, score_validation

from unsee.benchmarks.pocket import Pocket
from unsee.recipes.plan import plan
from unsee.recipes.unlearn import make_recipe
from unsee.studies.comparison import ComparisonRequest


@pytest.mark.timeout(600)
def test_run_variants_yields_records_for_rows(cut: Path, tmp_path: Path) -> None:
    attacks = [
        {**attack, "steps": 1, "checkpoints": [0, 1]} for attack in robust.ATTACKERS.values()
    ]
    entries = {"default": ("vkd", {"steps": 1, "batch_size": 4})}
    request = ComparisonRequest("t", entries, (f"pocket@{cut}",), attacks=attacks, device="cpu")
    missing = [("default", 3)]
    ((cell, summary),) = run_variants(request, missing, tmp_path / "out", 1, score_validation)
    assert (cell.entry, cell.seed) == ("default", 3)
    row = ablation.variant_row(cell.entry, cell.seed, summary)
    assert row["variant"] == "default" and row["seed"] == 3 and row["seconds"] > 0
    assert {*ablation.COLUMNS} <= set(row) and "thread" in row["machine"]
    assert set(ablation.model_row("visual_retain", summary)) >= set(ablation.MEASURES)
    row = robust.make_row("visual-retain", 3, "validation", summary)
    assert set(row["curves"]) == set(robust.ATTACKERS) and "seconds" not in row
    assert [point["step"] for point in row["curves"]["20% all"]] == [0, 1]
    assert robust.make_row("target", 3, "validation", summary)["curves"] == {}
    # A finished run is not repeated.
    again = list(run_variants(request, missing, tmp_path / "out", 1, score_validation))
    assert again[0][1] == summary


def test_score_validation_and_reported_ask_the_same_splits_of_other_pictures(cut: Path) -> None:
    job, _ = plan(make_recipe({"data": str(cut)}), "run", "")
    validation, reported = score_validation(job), score_reported(job)
    assert set(validation.splits) == set(reported.splits)
    pocket = Pocket(cut)
    assert validation.splits["forget_holdout"] == pocket.load("forget_validation")
    assert reported.splits["forget_holdout"] == pocket.load("forget_holdout")
    assert {s.modality for s in validation.splits["forget"]} == {"text"}


def test_build_group_forgets_other_people(cut: Path, tmp_path: Path) -> None:
    pocket = Pocket(cut)
    folder = strength.build_group(pocket, 0, tmp_path / "group")
    group = Pocket(folder)
    assert not {*group.world.forgotten} & {*pocket.world.forgotten}
    assert len(group.world.forgotten) == min(strength.SIZE, len(pocket.world.retained))
    assert group.checkpoint("target").resolve() == pocket.checkpoint("target").resolve()
    recipe = make_recipe({"data": str(folder), "set": {"supervision": "features"}})
    job = strength.score_held_out(plan(recipe, "run", "")[0])
    assert set(job.splits) == {"forget_holdout", "retain_holdout", "general", "general_forget"}
    assert set(job.references) == {"target"}
    assert all(s.picture is not None for s in job.data.retain)
