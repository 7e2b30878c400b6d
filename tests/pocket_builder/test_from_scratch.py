"""Builds from scratch: reproducibility, arguments, quality."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.pocket_build import TINY_EFFORT
from unsee.benchmarks.pocket import Pocket
from unsee.errors import ConfigError, ModelError
from unsee.evaluation.evaluate import evaluate
from unsee.models.vlm import VLM
from unsee.pocket_builder.from_scratch import BUILD, build, hash_files


def test_build_record_of_shipped_pocket_matches_its_files() -> None:
    shipped = Pocket()
    record = json.loads((shipped.folder / BUILD).read_text())
    assert record["sha256"] == hash_files(shipped.folder)
    size = sum(path.stat().st_size for path in shipped.folder.rglob("*"))
    assert size <= 20_000_000
    assert record["seconds"] < 30 * 60


def test_build_depends_only_on_the_seed(small: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "b", seed=3, people=5, forget=1, effort=TINY_EFFORT)
    assert hash_files(again) == hash_files(small)
    other = build(tmp_path / "c", seed=4, people=5, forget=1, effort=TINY_EFFORT)
    assert hash_files(other) != hash_files(small)


def test_build_refuses_numbers_of_people_and_used_folders(tmp_path: Path) -> None:
    for people, forget in ((1, 1), (41, 4), (5, 5), (5, 0)):
        with pytest.raises(ConfigError, match="allowed are 2 to 40"):
            build(tmp_path / "out", people=people, forget=forget, effort=TINY_EFFORT)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(ModelError, match="not empty"):
        build(tmp_path / "full", people=5, forget=1, effort=TINY_EFFORT)


@pytest.mark.slow
def test_build_with_default_effort_reaches_its_accuracy(tmp_path: Path) -> None:
    pocket = Pocket(build(tmp_path / "whole"))
    measures = {}
    for name in ("target", "visual_retain"):
        vlm = VLM.load(pocket.checkpoint(name))
        splits = {s: pocket.load(s) for s in ("forget", "forget_holdout", "general")}
        measures[name] = evaluate(vlm, splits, metrics=["accuracy"]).measures
    assert (measures["target"]["forget_holdout/vqa/accuracy"].value or 0) >= 0.9
    assert (measures["target"]["forget/text/accuracy"].value or 0) >= 0.99
    assert (measures["target"]["general/vqa/accuracy"].value or 0) >= 0.9
    # One of three forms has options, four of them: chance is a twelfth.
    assert (measures["visual_retain"]["forget_holdout/vqa/accuracy"].value or 0) <= 0.15
    assert (measures["visual_retain"]["forget/text/accuracy"].value or 0) >= 0.99
