"""Meta-evaluation: pools whose models differ in one thing, and a model that is scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cli import unsee
from support.ratings import record
from unsee.attacks.membership import Membership
from unsee.attacks.quantize import Quantize
from unsee.attacks.relearn import Relearn
from unsee.benchmarks.pocket import Pocket
from unsee.errors import ConfigError, RunError
from unsee.models.vlm import VLM
from unsee.recipes.unlearn import make_recipe
from unsee.studies import meta_evaluation
from unsee.studies.meta_evaluation import (
    MetaEvaluationRequest,
    evaluate_metrics,
    judge_metrics,
)
from unsee.studies.model_pools import Member, members
from unsee.studies.ratings_page import write


def test_members_of_a_pair_differ_only_in_the_pictures(cut: Path) -> None:
    pocket = Pocket(cut)
    about = {s.picture.source for s in pocket.data().forget if s.picture is not None}
    pool = members(6, {"npo": make_recipe({"method": "npo"})}, (0, 3))
    assert len(pool) == 2 + 2 * 6 + 2
    assert pool["npo-seed3"].recipe == make_recipe({"method": "npo", "seed": 3})
    for seed in range(6):
        jobs = [pool[f"{kind}-{seed}"]._finetune_job(pocket) for kind in ("saw", "unseen")]
        saw, unseen = (next(iter(job.samples.values())) for job in jobs)
        assert jobs[0].recipe == jobs[1].recipe and jobs[0].base == jobs[1].base
        assert saw[: len(unseen)] == unseen
        shown = {s.picture.source for s in saw[len(unseen) :] if s.picture is not None}
        assert shown and shown <= about
        assert not {s.picture.source for s in unseen if s.picture is not None} & about
    starts = {(m.start, m.described()["steps"]) for m in pool.values() if m.kind == "saw"}
    assert len(starts) == 6


def test_make_and_score_measures_a_model_before_and_after_attacks(
    cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pruned model, beside the reference: every metric that applies, before and after."""
    attacks = {"quantized": Quantize(bits=4), "relearned": Relearn(steps=1, modules="all")}
    monkeypatch.setattr(meta_evaluation, "ATTACKS", attacks)
    monkeypatch.setattr(meta_evaluation, "MEMBERSHIP", Membership(most=3))
    monkeypatch.setattr(meta_evaluation, "UTILITY_QUESTIONS", 6)
    reference = evaluate_metrics(VLM.load(cut / "visual_retain"), Pocket(cut))
    # Accuracy is of letters alone.
    scored = {row["task"] for row in reference.rows if "accuracy" in row["scores"]}
    assert scored == {"classification"}
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "reference.json").write_text(
        json.dumps(record("reference", 0.0, rows=reference.rows).to_dict())
    )
    pruned = make_recipe(
        {"method": "manu", "benchmark": "pocket", "data": str(cut), "device": "cpu"}
    )
    meta_evaluation._make_and_score(
        Member("manu", "unlearned", 0, pruned), cut, tmp_path, "unsee meta"
    )
    result = json.loads((tmp_path / "scores" / "manu.json").read_text())
    names = {"accuracy", "bleu", "cloze", "probability", "truth_ratio", "ks", "js", "loss"}
    for stage in ("before", *attacks):
        assert names <= set(result[stage])
        assert all(0 <= value <= 1 for value in result[stage].values())
    assert result["before"]["ks"] > 0 and result["relearned"] != result["before"]
    assert result["kind"] == "unlearned" and result["made"]["method"] == "manu"
    assert VLM.load(tmp_path / "models" / "manu").hash() == result["provenance"]["weights_sha256"]


@pytest.mark.timeout(600)
def test_judge_metrics_skips_finished_models_and_reports_failed_ones(
    cut: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").touch()
    with pytest.raises(RunError, match="is not empty, and no meta-evaluation"):
        judge_metrics(MetaEvaluationRequest(f"pocket@{cut}", 1, ("vkd",)), out)
    (out / "notes.txt").unlink()
    broken = {"prune": 1e-9}
    asked = MetaEvaluationRequest(f"pocket@{cut}", 1, ("vkd",), set=broken)
    meta_evaluation._keep_request(asked, out)
    for name in ("reference", "target", "saw-0", "unseen-0"):
        path = out / "scores" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record(name, 0.5, 0.5).to_dict()))
    done: dict[str, str | None] = {}
    records, failed = judge_metrics(asked, out, on_done=done.__setitem__)
    assert list(done) == list(failed) == ["vkd-seed0"] and "is none" in failed["vkd-seed0"]
    assert [r.name for r in records] == ["reference", "target", "saw-0", "unseen-0"]
    page = tmp_path / "docs" / "page.md"
    write(records, failed, out, page, "unsee meta")
    text = page.read_text()
    assert "1 models that saw, 1 that never saw and 0 unlearned" in text
    made = "on X, Y, 1 thread a model (unsee 1, torch 2, transformers 3): 4 models, 4 minutes"
    assert f"Written by `unsee meta` {made}" in text
    assert "| bleu |  | 0.500 (0.500 to 0.500) |" in text and "| 0.950 |" in text
    assert "Failed: vkd-seed0:" in text
    assert {r["metric"] for r in json.loads((out / "ratings.json").read_text())} == {
        "bleu",
        "truth_ratio",
    }
    with pytest.raises(RunError, match="holds a meta-evaluation with other settings"):
        judge_metrics(MetaEvaluationRequest(f"pocket@{cut}", 1, ("vkd",)), out)


def test_meta_command_refuses_impossible_requests_before_writing(tmp_path: Path) -> None:
    def error(*arguments: str) -> str:
        out = tmp_path / "out"
        message: str = unsee("meta", "--out", out, *arguments, code=2)
        assert not out.exists() and message.count("\n") <= 2
        return message

    assert "pools are made of pocket's models alone" in error("--benchmark", "mllmu")
    assert "nowhere" in error("--benchmark", "pocket@nowhere")
    assert "Did you mean 'vkd'?" in error("--methods", "vkdd")
    assert "no number" in error("--seeds", "x")
    assert "neither the training nor any" in error("--set", "nonsense=1")
    with pytest.raises(ConfigError, match="pocket@FOLDER"):
        judge_metrics(MetaEvaluationRequest("pocket:forget"), tmp_path / "out")
