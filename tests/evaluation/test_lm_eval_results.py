"""Results of lm-evaluation-harness as measures, rows and facts, against values made by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from unsee.evaluation.lm_eval_results import measures, rows, task_descriptions
from unsee.evaluation.lm_eval_tasks.scoring import f1, pope
from unsee.types import Estimate


def sample(task: str, number: int, chosen: str = "none", **scores: Any) -> dict[str, Any]:
    """A sample as lm-eval logs it."""
    return {
        "doc_id": number,
        "target": 1,
        "arguments": [(f"{task} {number}", " red"), (f"{task} {number}", " blue")],
        "filtered_resps": [(-2.5, False), (-0.5 - number, True)],
        "filter": chosen,
        "metrics": list(scores),
        **scores,
    }


@pytest.fixture
def results() -> dict[str, Any]:
    """Two tasks and their group; a filter, a perplexity without an error, an unscored sample."""
    return {
        "results": {
            "one": {
                "name": "one", "alias": "one", "sample_len": 4,
                "acc,none": 0.75, "acc_stderr,none": 0.25,
                "acc,first": 0.5, "acc_stderr,first": 0.1,
            },
            "two": {
                "name": "two", "alias": "- two", "sample_len": 2,
                "perplexity,none": 12.5, "perplexity_stderr,none": "N/A",
                "acc,none": math.nan, "acc_stderr,none": 0.0,
            },
            "both": {"name": "both", "alias": "both", "acc,none": 0.6, "acc_stderr,none": 0.05,
                     "sample_count": {"acc,none": 6}},
        },
        "configs": {"one": {"output_type": "multiple_choice"},
                    "two": {"output_type": "loglikelihood_rolling"}},
        "group_subtasks": {"both": ["one", "two"]},
        "versions": {"one": 1.0, "two": 2.0, "both": "3"},
        "n-shot": {"one": 5, "two": 0},
        "higher_is_better": {"one": {"acc": True}, "two": {"perplexity": False}, "both": {}},
        "n-samples": {
            "one": {"original": 40, "effective": 4},
            "two": {"original": 2, "effective": 2},
        },
        "samples": {
            "one": [sample("one", i, acc=float(i > 0)) for i in range(4)]
            + [sample("one", i, "first", acc=float(i > 1)) for i in range(4)],
            "two": [
                sample("two", 0, perplexity=12.0, acc=math.nan),
                sample("two", 1, perplexity=13.0),
            ],
        },
    }  # fmt: skip


def test_measures_by_hand(results: dict[str, Any]) -> None:
    found = measures(results, "text")
    # 1.959964 standard errors of 0.25 either way, beyond 1 as they may be.
    assert found["one/text/acc"] == Estimate(
        0.75, pytest.approx(0.260009), pytest.approx(1.239991), 4, 0, "higher"
    )
    assert found["one/text/acc,first"].low == pytest.approx(0.5 - 0.1959964)
    assert found["two/text/perplexity"] == Estimate(12.5, None, None, 2, 0, "lower")
    # One sample has no such score, the other is no number.
    assert found["two/text/acc"] == Estimate(None, None, None, 0, 2, "higher")
    group = found["both/text/acc"]
    assert (group.value, group.n, group.n_unscored) == (0.6, 4, 2)
    assert set(found) == {
        "one/text/acc", "one/text/acc,first", "two/text/perplexity", "two/text/acc",
        "both/text/acc",
    }  # fmt: skip


def test_rows_by_hand(results: dict[str, Any]) -> None:
    found = rows(results, "vqa")
    assert [(row["split"], row["id"]) for row in found] == [
        ("one", "0"), ("one", "1"), ("one", "2"), ("one", "3"), ("two", "0"), ("two", "1"),
    ]  # fmt: skip
    # The second choice is the likelier one until its log-likelihood falls to -2.5.
    assert [row["output"] for row in found] == ["1", "1", "0", "0", None, None]
    assert found[1]["scores"] == {"acc": 1.0, "acc,first": 0.0}
    assert found[4]["scores"] == {"perplexity": 12.0, "acc": None}
    assert found[0]["choices"] == [" red", " blue"]
    assert (found[0]["question"], found[0]["truth"], found[0]["modality"]) == ("one 0", "1", "vqa")


def test_what_was_asked(results: dict[str, Any]) -> None:
    found = task_descriptions(results)
    assert (found["one"]["version"], found["one"]["shots"]) == (1.0, 5)
    assert (found["one"]["samples"], found["one"]["of"]) == (4, 40)
    assert (found["both"]["samples"], found["both"]["of"]) == (6, 42)
    assert found["one"]["undirected"] == []
    assert found["two"]["undirected"] == ["acc"]
    before = found["one"]["prompts_sha256"]
    results["samples"]["one"][0]["arguments"][0] = ("another prompt", " red")
    assert task_descriptions(results)["one"]["prompts_sha256"] != before
    assert task_descriptions(results)["two"] == found["two"]


def test_pope_by_hand() -> None:
    said = {"Yes, there is.": "yes", "no": "no", "No.": "no", "nothing": "yes", " yes": "no"}
    found = [pope({"answer": truth}, [answer]) for answer, truth in said.items()]
    assert [row["acc"] for row in found] == [1, 1, 1, 0, 0]
    assert [row["yes_ratio"] for row in found] == [1, 0, 0, 0, 1]
    # One hit; two are true and two are said.
    assert f1([row["f1"] for row in found]) == pytest.approx(0.5)
    assert f1([(False, False)]) == 0
