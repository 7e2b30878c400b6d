"""Runs that are given photographs alone: asked openly, compared by features, and judged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from unsee.benchmarks import BENCHMARKS
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.recipes.job import Job
from unsee.recipes.plan import plan
from unsee.recipes.unlearn import make_recipe
from unsee.records.folder import RunFolder
from unsee.records.schema import Guarantees, MethodRecord, Summary
from unsee.report.verdict import judge
from unsee.runs.equivalence_tests import equivalence_tests
from unsee.runs.headroom import learned_check
from unsee.runs.photographs import PhotographResults, measure_photographs
from unsee.runs.stage_cache import StageCache


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Photographs of three of pocket's people to forget, and of five to keep."""
    pocket = BENCHMARKS.get("pocket").open()
    root = tmp_path_factory.mktemp("photographs")
    found = {}
    for side, most in (("forget", 3), ("retain", 5)):
        people: dict[str, Path] = {}
        for sample in pocket.load(side):
            if sample.concept and sample.picture is not None and sample.picture.path is not None:
                people.setdefault(sample.concept, sample.picture.path.parent)
        for name, folder in sorted(people.items())[:most]:
            (root / side / name).mkdir(parents=True)
            for picture in sorted(folder.glob("*.png"))[:8]:
                shutil.copy(picture, root / side / name)
        found[side] = root / side
    return found


def planned(folders: dict[str, Path], retain: bool = True, **values: object) -> Job:
    given = {"model": "pocket:target", "forget": str(folders["forget"])}
    given |= {"retain": str(folders["retain"])} if retain else {}
    return plan(make_recipe({**given, **values}), "unlearn", "unsee unlearn")[0]


def measured(
    job: Job, checkpoint: str, out: Path, whole: bool = False
) -> tuple[PhotographResults, Summary]:
    """What a run measures whose unlearned model is a checkpoint, or has its visual part."""
    folder = RunFolder.open(out, job.recipe)
    pocket = BENCHMARKS.get("pocket").open()
    source = pocket.checkpoint(checkpoint)  # type: ignore[arg-type]
    assert source is not None
    vlm = VLM.load(source, visual_only=not whole)
    results = measure_photographs(job, vlm, folder, StageCache(folder), Bar(None))
    summary = Summary(
        method=MethodRecord(name="vkd"),
        forgetting=tuple(job.forgetting),
        recognition=results.record,
        guarantees=results.with_text(Guarantees(text_probes=0)),
        measures=results.measures["unlearned"],
        **{name: found for name, found in results.measures.items() if name != "unlearned"},
    )
    checks = {
        "learned": learned_check(job, summary),
        "equivalence": equivalence_tests(job, results.rows, None, results.people),
    }
    return results, summary.model_copy(update=checks)


def test_model_that_still_knows_the_people_gets_no_good_verdict(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    results, summary = measured(planned(folders), "target", tmp_path / "run")
    verdict = judge(summary)
    assert (verdict.headline, verdict.level) == ("Still recognised", "bad")
    before, after = (part["forget_holdout/vqa/said_before"] for part in
                     (results.measures["target"], results.measures["unlearned"]))  # fmt: skip
    assert before == after
    assert before.value is not None
    assert before.value > 0.8
    assert summary.learned is not None
    assert summary.learned.floor_of == "other_people"
    assert summary.guarantees is not None
    assert summary.guarantees.text_identical
    # Three people are too few for an interval over people.
    assert before.low is None
    assert {person.photographs for person in results.record.people} == {8}
    assert {person.held_out for person in results.record.people} == {2}
    assert all(len(person.sha256) == 8 for person in results.record.people)


def test_model_that_never_saw_the_faces_is_not_said_to_recognise_them(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    job = planned(folders, reference="pocket:visual_retain")
    results, summary = measured(job, "visual_retain", tmp_path / "run", whole=True)
    said = results.measures["unlearned"]["forget_holdout/vqa/said_before"]
    assert said.value is not None
    assert said.value < 0.2
    verdict = judge(summary)
    assert verdict.forgetting.level != "bad"
    assert not verdict.headline.startswith("Still")
    # It is the reference itself, so no test finds a difference.
    assert summary.equivalence
    assert not any(test.measure.endswith("same_answer") for test in summary.equivalence)
    assert {test.difference for test in summary.equivalence} == {0.0}


def test_nothing_is_asked_if_the_recipe_says_so_and_features_are_compared_still(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    results, summary = measured(planned(folders, ask="none"), "target", tmp_path / "run")
    assert results.record.not_asked is not None
    assert results.record.not_asked.startswith("questions were switched off")
    assert not any("/vqa/" in key for key in results.measures["target"])
    assert judge(summary).level == "bad"
    assert judge(summary).headline == "Still matched"


def test_without_people_to_keep_no_verdict_is_good(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    _, summary = measured(planned(folders, retain=False), "visual_retain", tmp_path / "run")
    verdict = judge(summary)
    assert verdict.level != "good"
    assert "nobody to keep was given" in verdict.sentence
    assert "drawn faces stand in for other people" in verdict.sentence


def test_language_weights_that_cannot_be_read_are_named_as_the_reason(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    pocket = BENCHMARKS.get("pocket").open()
    target = pocket.checkpoint("target")
    assert target is not None
    whole = VLM.load(target)
    folder = tmp_path / "sharded"
    whole.model.save_pretrained(folder, max_shard_size="1MB")
    for path in Path(target).iterdir():
        if path.suffix in (".json", ".jinja") and not (folder / path.name).exists():
            shutil.copy(path, folder)
    from unsee.models.checkpoint import weight_map

    files = weight_map(folder)
    visual = {path for name, path in files.items() if "language" not in name}
    language = sorted(set(files.values()) - visual)
    assert language
    language[0].write_bytes(b"\xff" * language[0].stat().st_size)
    job = planned(folders, model=str(folder))
    results, summary = measured(job, "target", tmp_path / "run")
    assert results.record.not_asked is not None
    assert "not there, or damaged" in results.record.not_asked
    assert str(folder) not in results.record.not_asked
    assert "asked no question" in judge(summary).sentence
