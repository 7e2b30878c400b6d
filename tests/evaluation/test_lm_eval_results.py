"""Results of lm-evaluation-harness as measures, rows and task descriptions."""

from __future__ import annotations

import math
from typing import Any

import pytest

from unsee.evaluation.lm_eval_results import measures, rows, task_descriptions
from unsee.types import Estimate


def logged_sample(
    task: str, number: int, answer_filter: str = "none", **scores: float
) -> dict[str, Any]:
    """Returns a sample as lm-eval logs it."""
    return {
        "doc_id": number,
        "target": 1,
        "arguments": [(f"{task} {number}", " red"), (f"{task} {number}", " blue")],
        "filtered_resps": [(-2.5, False), (-0.5 - number, True)],
        "filter": answer_filter,
        "metrics": list(scores),
        **scores,
    }


@pytest.fixture
def results() -> dict[str, Any]:
    """Two tasks and their group; a filter, a perplexity without an error, an unscored sample."""
    return {
        "results": {
            "one": {
                "name": "one",
                "alias": "one",
                "sample_len": 4,
                "acc,none": 0.75,
                "acc_stderr,none": 0.25,
                "acc,first": 0.5,
                "acc_stderr,first": 0.1,
            },
            "two": {
                "name": "two",
                "alias": "- two",
                "sample_len": 2,
                "perplexity,none": 12.5,
                "perplexity_stderr,none": "N/A",
                "acc,none": math.nan,
                "acc_stderr,none": 0.0,
            },
            "both": {
                "name": "both",
                "alias": "both",
                "acc,none": 0.6,
                "acc_stderr,none": 0.05,
                "sample_count": {"acc,none": 6},
            },
        },
        "configs": {
            "one": {"output_type": "multiple_choice"},
            "two": {"output_type": "loglikelihood_rolling"},
        },
        "group_subtasks": {"both": ["one", "two"]},
        "versions": {"one": 1.0, "two": 2.0, "both": "3"},
        "n-shot": {"one": 5, "two": 0},
        "higher_is_better": {"one": {"acc": True}, "two": {"perplexity": False}, "both": {}},
        "n-samples": {
            "one": {"original": 40, "effective": 4},
            "two": {"original": 2, "effective": 2},
        },
        "samples": {
            "one": [logged_sample("one", i, acc=float(i > 0)) for i in range(4)]
            + [logged_sample("one", i, "first", acc=float(i > 1)) for i in range(4)],
            "two": [
                logged_sample("two", 0, perplexity=12.0, acc=math.nan),
                logged_sample("two", 1, perplexity=13.0),
            ],
        },
    }


def test_measures_equal_hand_computed_estimates(results: dict[str, Any]) -> None:
    estimates = measures(results, "text")
    # 1.959964 standard errors of 0.25 either way; the interval may leave 0..1.
    assert estimates["one/text/acc"] == Estimate(
        0.75, pytest.approx(0.260009), pytest.approx(1.239991), 4, 0, "higher"
    )
    assert estimates["one/text/acc,first"].low == pytest.approx(0.5 - 0.1959964)
    assert estimates["two/text/perplexity"] == Estimate(12.5, None, None, 2, 0, "lower")
    # One sample has no such score, that of the other is NaN.
    assert estimates["two/text/acc"] == Estimate(None, None, None, 0, 2, "higher")
    group = estimates["both/text/acc"]
    assert (group.value, group.n, group.n_unscored) == (0.6, 4, 2)
    assert set(estimates) == {
        "one/text/acc",
        "one/text/acc,first",
        "two/text/perplexity",
        "two/text/acc",
        "both/text/acc",
    }


@pytest.mark.parametrize(("share", "bounds"), [(0.0, (0.0, 0.602365)), (1.0, (0.397635, 1.0))])
def test_measures_of_no_and_all_samples_have_exact_bounds(
    share: float, bounds: tuple[float, float], results: dict[str, Any]
) -> None:
    results["results"]["one"] |= {"acc,none": share, "acc_stderr,none": 0.0}
    measure = measures(results, "text")["one/text/acc"]
    # Clopper-Pearson for 4 samples: 1 - (0.05 / 2) ** (1 / 4).
    assert (measure.low, measure.high) == pytest.approx(bounds, abs=1e-6)


def test_rows_hold_outputs_scores_and_prompts(results: dict[str, Any]) -> None:
    score_rows = rows(results, "vqa")
    assert [(row["split"], row["id"]) for row in score_rows] == [
        ("one", "0"),
        ("one", "1"),
        ("one", "2"),
        ("one", "3"),
        ("two", "0"),
        ("two", "1"),
    ]
    # The second choice is the likelier one until its log-likelihood falls to -2.5.
    assert [row["output"] for row in score_rows] == ["1", "1", "0", "0", None, None]
    assert score_rows[1]["scores"] == {"acc": 1.0, "acc,first": 0.0}
    assert score_rows[4]["scores"] == {"perplexity": 12.0, "acc": None}
    first = score_rows[0]
    assert first["choices"] == [" red", " blue"]
    assert (first["question"], first["truth"], first["modality"]) == ("one 0", "1", "vqa")


def test_task_descriptions_hold_versions_counts_and_prompt_digests(results: dict[str, Any]) -> None:
    descriptions = task_descriptions(results)
    assert (descriptions["one"]["version"], descriptions["one"]["shots"]) == (1.0, 5)
    assert (descriptions["one"]["samples"], descriptions["one"]["of"]) == (4, 40)
    assert (descriptions["both"]["samples"], descriptions["both"]["of"]) == (6, 42)
    assert descriptions["one"]["undirected"] == []
    assert descriptions["two"]["undirected"] == ["acc"]
    digest = descriptions["one"]["prompts_sha256"]
    results["samples"]["one"][0]["arguments"][0] = ("another prompt", " red")
    assert task_descriptions(results)["one"]["prompts_sha256"] != digest
    assert task_descriptions(results)["two"] == descriptions["two"]
