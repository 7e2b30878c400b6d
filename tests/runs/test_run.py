"""Running a job: finished folders, stage results, and measures that need a reference."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from unsee.errors import ConfigError, RunError
from unsee.files import write_json_with_digest
from unsee.progress import Bar
from unsee.recipes.job import Job
from unsee.records.folder import PARTS, RunFolder
from unsee.records.reader import read_run
from unsee.records.schema import Measure, SampleResult
from unsee.runs.preflight import finished_run
from unsee.runs.run import run
from unsee.runs.stage_cache import StageCache
from unsee.runs.stages import ModelScores, require_reference_values
from unsee.types import Data

RESULT = TypeAdapter(SampleResult)


@pytest.fixture
def job(tiny_folder: Path, data: Data) -> Job:
    """A job that evaluates the tiny model on a few questions."""
    return Job(
        kind="evaluate",
        command="unsee evaluate",
        recipe="# unsee evaluate\nmodel: tiny\n",
        model=tiny_folder,
        data=data,
        splits={"forget": data.forget[:2]},
        forgetting=("forget",),
        metrics=("accuracy",),
        max_new_tokens=2,
    )


def test_run_reads_a_finished_folder_and_leaves_it_as_it_is(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert finished_run(job, out) is None
    first = run(job, out, Bar(None))
    assert first == read_run(out)
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    # The command in the first line of the recipe does not count.
    retyped = replace(job, recipe=job.recipe.replace("# unsee", "# python -m unsee"))
    assert run(retyped, out, Bar(None)) == first == finished_run(job, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == written
    other = replace(job, recipe=job.recipe.replace("tiny", "other"))
    with pytest.raises(RunError, match="holds a finished run"):
        run(other, out, Bar(None))


def test_run_keeps_results_when_the_disk_is_full(job: Job, tmp_path: Path) -> None:
    """A limit on the size of files, below that of the page and above that of all others."""
    out, whole = tmp_path / "run", tmp_path / "whole"
    run(job, whole, Bar(None))
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(RunError, match=r"report\.html cannot be written .*same command again"):
            run(job, out, Bar(None))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (out / PARTS).iterdir()] == ["scores-unlearned.json"]
    resumed = run(job, out, Bar(None))
    assert resumed is not None
    assert resumed.summary.measures == read_run(whole).summary.measures


def test_stage_cache_computes_once_and_names_results_of_other_versions(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", "# unsee\n")
    result = SampleResult(split="forget", id="1", scores={"accuracy": 0.1 + 0.2})
    cache = StageCache(folder)
    assert cache.get_or_compute(RESULT, "scores", "target", lambda: result) == result
    assert (folder.path / ".parts" / "scores-target.json").exists()
    again = StageCache(RunFolder.open(folder.path, "# unsee\n"))
    assert again.get_or_compute(RESULT, "scores", "target", lambda: pytest.fail("twice")) == result
    kept = folder.path / ".parts" / "scores-target.json"
    kept.write_text("{}")
    with pytest.raises(RunError, match=f"{kept} is damaged.*Remove it"):
        again.get_or_compute(RESULT, "scores", "target", lambda: result)
    write_json_with_digest(kept, {"name": "scores-target", "value": {}})
    with pytest.raises(RunError, match="'scores-target' is not of this version"):
        again.get_or_compute(RESULT, "scores", "target", lambda: result)


@pytest.mark.parametrize("reference", [{}, {"forget/vqa/accuracy": Measure(value=None)}])
def test_require_reference_values_refuses_measures_that_the_reference_lacks(
    reference: dict[str, Measure],
) -> None:
    measures = {"forget/vqa/accuracy": Measure(value=0.5, better="reference")}
    scores = {
        "unlearned": ModelScores(measures=measures, rows=()),
        "reference": ModelScores(measures=reference, rows=()),
    }
    with pytest.raises(ConfigError, match="'forget/vqa/accuracy' is judged by its distance"):
        require_reference_values(scores)
    require_reference_values(scores | {"reference": scores["unlearned"]})
    # Without any reference model, the report says that there is none.
    require_reference_values({"unlearned": scores["unlearned"]})
