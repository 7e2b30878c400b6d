"""Meta-evaluation: ratings by hand, pools that differ in one thing, and a model that is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.cli import unsee
from unsee.attacks.membership import Membership
from unsee.attacks.quantize import Quantize
from unsee.attacks.relearn import Relearn
from unsee.benchmarks.pocket import Pocket
from unsee.errors import ConfigError, RunError
from unsee.metrics import METRICS
from unsee.models.vlm import VLM
from unsee.recipes.unlearn import Recipe
from unsee.studies import meta_evaluation as evaluation
from unsee.studies.meta_evaluation import MetaEvaluationRequest, answers, judge_metrics
from unsee.studies.model_pools import Member, members
from unsee.studies.ratings import RISING, known, quantized, rate, relearned, threshold
from unsee.studies.ratings_page import PUBLISHED, write


def record(name: str, before: float, after: float = 0.0, **changes: Any) -> dict[str, Any]:
    """A model on which one metric and its opposite were measured."""
    kind = name.split("-")[0]
    found = {
        "name": name, "kind": kind, "made": {}, "utility": 1.0, "seconds": 60.0, "rows": [],
        "before": {"bleu": before, "truth_ratio": 1 - before},
        "quantized": {"bleu": after, "truth_ratio": 1 - after},
        "relearned": {"bleu": after, "truth_ratio": 1 - after},
        "provenance": {
            "platform": "X", "cpu": "Y", "threads": 1, "unsee": "1", "torch": "2",
            "transformers": "3",
        },
    }  # fmt: skip
    return found | changes


POOLS = [
    record("reference", 0.1, 0.4),
    record("target", 0.9),
    *(record(f"saw-{i}", v) for i, v in enumerate((0.8, 0.6, 0.3))),
    *(record(f"unseen-{i}", v) for i, v in enumerate((0.1, 0.2, 0.4))),
]


def test_ratings_by_hand() -> None:
    """8 of 9 pairs are in order; the cut is at .25, the lower of two that miss one model each."""
    unlearned = [
        # R = .3 / .4, Q = .2 / .6
        record("unlearned-0", 0.2, 0.6),
        # R = Q = 1: nothing comes back
        record("unlearned-1", 0.24, 0.1),
        # Left out: the metric says that it knows; the model is broken; the metric is missing.
        record("unlearned-2", 0.7, 0.9),
        record("unlearned-3", 0.0, 0.0, utility=0.7),
        record("unlearned-4", 0.0, relearned={}),
    ]
    for rating in rate([*POOLS, *unlearned]):
        assert rating.metric in ("bleu", "truth_ratio")
        assert rating.faithfulness == pytest.approx(8 / 9)
        assert rating.low <= rating.faithfulness <= rating.high
        assert rating.models == 2
        assert rating.relearning == pytest.approx((0.75 + 1) / 2)
        assert rating.quantization == pytest.approx((1 / 3 + 1) / 2)
        robust = 2 / (1 / 0.875 + 1.5)
        assert rating.robustness == pytest.approx(robust)
        assert rating.overall == pytest.approx(2 / (9 / 8 + 1 / robust))
    assert known("bleu", {"bleu": 0.2}) == 0.2
    assert known("truth_ratio", {"truth_ratio": 0.2}) == pytest.approx(0.8)


def test_a_metric_without_unlearned_models_has_no_robustness() -> None:
    (first, *_) = rate(POOLS)
    assert first.models == 0
    assert first.relearning is first.quantization is first.robustness is first.overall is None


def test_the_corners_of_r_and_q() -> None:
    assert relearned(0.2, 0.4) == pytest.approx(0.5)
    assert relearned(0.4, 0.2) == relearned(0.2, 0.0) == relearned(0.0, -0.1) == 1
    # The reference gains nothing, or loses; the unlearned model gains.
    assert relearned(0.0, 0.1) == relearned(-0.1, 0.1) == 0
    # Both lose.
    assert relearned(-0.2, -0.1) == 1
    assert quantized(0.2, 0.8) == pytest.approx(0.25)
    assert quantized(0.2, 0.1) == quantized(0.0, 0.0) == 1
    assert quantized(0.0, 0.1) == 0


def test_the_cut_between_the_pools() -> None:
    assert threshold([0.8, 0.9], [0.1, 0.2]) == pytest.approx(0.5)
    assert threshold([0.5], [0.5]) == 0.5
    # Two cuts miss one each: the lower one, which calls fewer models unlearned.
    assert threshold([0.2, 0.8], [0.1, 0.3]) == pytest.approx(0.15)


def test_what_rises_with_forgetting_is_known() -> None:
    """A metric whose direction is not that of its `better` must be named, or be forgotten here."""
    for name in METRICS.names():
        kind = METRICS.get(name)
        compares = getattr(kind, "compares_with_reference", False)
        if kind.__module__.startswith("unsee.") and name not in ("attack_success", "truth_ratio"):
            falls = (kind.better == "lower") != compares
            assert falls == (name in RISING), name
    assert set(PUBLISHED) - set(METRICS.names()) == {
        "loss", "zlib", "min_k", "min_k_plus", "grad_norm",
    }  # fmt: skip


def test_a_pair_differs_in_the_pictures_alone(cut: Path) -> None:
    pocket = Pocket(cut)
    about = {s.picture.source for s in pocket.data().forget if s.picture is not None}
    found = members(6, {"npo": Recipe(method="npo")}, (0, 3))
    assert len(found) == 2 + 2 * 6 + 2
    assert found["npo-seed3"].recipe == Recipe(method="npo", seed=3)
    for seed in range(6):
        lessons = [found[f"{kind}-{seed}"]._lesson(pocket) for kind in ("saw", "unseen")]
        saw, unseen = (next(iter(lesson.samples.values())) for lesson in lessons)
        assert lessons[0].recipe == lessons[1].recipe and lessons[0].base == lessons[1].base
        assert saw[: len(unseen)] == unseen
        shown = {s.picture.source for s in saw[len(unseen) :] if s.picture is not None}
        assert shown and shown <= about
        assert not {s.picture.source for s in unseen if s.picture is not None} & about
    starts = {(m.start, m.described()["steps"]) for m in found.values() if m.kind == "saw"}
    assert len(starts) == 6


def test_a_model_is_judged(cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pruned model, beside the reference: every metric that applies, before and after."""
    attacks = {"quantized": Quantize(bits=4), "relearned": Relearn(steps=1, modules="all")}
    monkeypatch.setattr(evaluation, "ATTACKS", attacks)
    monkeypatch.setattr(evaluation, "MEMBERSHIP", Membership(most=3))
    monkeypatch.setattr(evaluation, "USEFUL", 6)
    reference = answers(VLM.load(cut / "visual_retain"), Pocket(cut))
    # Accuracy is of letters alone.
    scored = {row["task"] for row in reference.rows if "accuracy" in row["scores"]}
    assert scored == {"classification"}
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "reference.json").write_text(json.dumps({"rows": reference.rows}))
    pruned = Recipe(method="manu", benchmark="pocket", data=str(cut), device="cpu")
    evaluation._judge(Member("manu", "unlearned", 0, pruned), cut, tmp_path, "unsee meta")
    found = json.loads((tmp_path / "scores" / "manu.json").read_text())
    names = {"accuracy", "bleu", "cloze", "probability", "truth_ratio", "ks", "js", "loss"}
    for stage in ("before", *attacks):
        assert names <= set(found[stage])
        assert all(0 <= value <= 1 for value in found[stage].values())
    assert found["before"]["ks"] > 0 and found["relearned"] != found["before"]
    assert found["kind"] == "unlearned" and found["made"]["method"] == "manu"
    assert VLM.load(tmp_path / "models" / "manu").hash() == found["provenance"]["weights_sha256"]


@pytest.mark.timeout(600)
def test_what_is_done_is_skipped_and_what_fails_is_shown(cut: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").touch()
    with pytest.raises(RunError, match="is not empty, and no meta-evaluation"):
        judge_metrics(MetaEvaluationRequest(f"pocket@{cut}", 1, ("vkd",)), out)
    (out / "notes.txt").unlink()
    broken = {"erase": "base", "base": "no/such/folder"}
    asked = MetaEvaluationRequest(f"pocket@{cut}", 1, ("vkd",), set=broken)
    evaluation._keep(asked, out)
    for name in ("reference", "target", "saw-0", "unseen-0"):
        path = out / "scores" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record(name, 0.5, 0.5)))
    told: dict[str, str | None] = {}
    records, failed = judge_metrics(asked, out, on_done=told.__setitem__)
    assert list(told) == list(failed) == ["vkd-seed0"] and "no/such/folder" in failed["vkd-seed0"]
    assert [r["name"] for r in records] == ["reference", "target", "saw-0", "unseen-0"]
    page = tmp_path / "docs" / "page.md"
    write(records, failed, out, page, "unsee meta")
    text = page.read_text()
    assert "1 models that saw, 1 that never saw and 0 unlearned" in text
    made = "on X, Y, 1 thread a model (unsee 1, torch 2, transformers 3): 4 models, 4 minutes"
    assert f"Written by `unsee meta` {made}" in text
    assert "| bleu |  | 0.500 (0.500 to 0.500) |" in text and "| 0.950 |" in text
    assert "Failed: vkd-seed0:" in text
    assert {r["metric"] for r in json.loads((out / "ratings.json").read_text())} == {
        "bleu", "truth_ratio",
    }  # fmt: skip
    with pytest.raises(RunError, match="holds a meta-evaluation with other settings"):
        judge_metrics(MetaEvaluationRequest(f"pocket@{cut}", 1, ("vkd",)), out)


def test_what_cannot_be_judged_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        out = tmp_path / "out"
        told: str = unsee("meta", "--out", out, *arguments, code=2)
        assert not out.exists() and told.count("\n") <= 2
        return told

    assert "pools are made of pocket's models alone" in said("--benchmark", "mllmu")
    assert "nowhere" in said("--benchmark", "pocket@nowhere")
    assert "Did you mean 'vkd'?" in said("--methods", "vkdd")
    assert "no number" in said("--seeds", "x")
    assert "neither the training nor any" in said("--set", "nonsense=1")
    with pytest.raises(ConfigError, match="pocket@FOLDER"):
        judge_metrics(MetaEvaluationRequest("pocket:forget"), tmp_path / "out")
