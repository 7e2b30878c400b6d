"""A certificate says what the record says, names nobody, and is never better than the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from support import ROOT
from support.certificates import (
    ISSUED,
    equivalence_tests,
    full_request,
    sample_certificate,
)
from support.report_record import PEOPLE, make_run, sample_summary
from unsee.certificates import Request, build_certificate, json_schema, read_certificate
from unsee.certificates.document import as_text, document
from unsee.certificates.signing import certificate_text
from unsee.errors import RunError, UnseeError


def test_same_run_gives_the_same_certificate(tmp_path: Path) -> None:
    one = sample_certificate(tmp_path / "run")
    again = build_certificate(tmp_path / "run", full_request(), issued=ISSUED)
    assert certificate_text(one) == certificate_text(again)
    path = tmp_path / "certificate.json"
    path.write_text(certificate_text(one))
    assert read_certificate(path).certificate == one


def test_certificate_has_the_records_numbers(tmp_path: Path) -> None:
    certificate = sample_certificate(tmp_path / "run")
    record = sample_summary()
    rows = {row.key: row for row in certificate.measures}
    assert rows.keys() == record["measures"].keys()
    for key, measure in record["measures"].items():
        after = rows[key].models["unlearned"]
        assert (after.value, after.low, after.high) == (
            measure["value"],
            measure["low"],
            measure["high"],
        )
    assert len(certificate.attacks.run) == len(record["attacks"]["relearn"])
    hardest = certificate.attacks.run[-1]
    assert hardest.budget["share"] == "1" and hardest.budget["steps"] == "40"
    assert certificate.changes.changed == 42 and certificate.changes.outside_visual == 0
    assert certificate.software.torch == record["provenance"]["torch"]


def test_certificate_names_nobody_and_no_path(tmp_path: Path) -> None:
    """Nothing of the record that could identify a person, a place or a machine's folders."""
    names = [name for person in PEOPLE for name in person[:1]]
    folder = tmp_path / names[0] / "run"
    run = make_run(
        folder,
        artifacts=None,
        command=f"unsee unlearn --model /models/private/base --forget photos/{names[0]} --out x",
        method={"name": "vkd", "parameters": {"faces": f"/photos/{names[0]}", "steps": 4}},
    )
    (run / "recipe.yaml").write_text("model: /models/private/base-7b\n")
    text = certificate_text(build_certificate(run, issued=ISSUED))
    for secret in (*names, "/photos", "private", str(tmp_path), ".png"):
        assert secret not in text, secret
    certificate = json.loads(text)
    assert certificate["base"]["name"] == "base-7b"
    assert certificate["run"]["parameters"] == {"faces": "FACES", "steps": "4"}
    assert sample_summary()["provenance"]["data_sha256"] not in text


def test_published_schema_is_the_models_and_fits_a_certificate(tmp_path: Path) -> None:
    shipped = ROOT / "src" / "unsee" / "certificates" / "certificate-1.schema.json"
    assert json.loads(shipped.read_text("utf-8")) == json_schema()
    certificate = sample_certificate(tmp_path / "run").to_dict()
    jsonschema.validate(certificate, json_schema())
    for key in certificate:
        assert json_schema()["properties"][key]["description"], key
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**certificate, "more": 1}, json_schema())


RANK = {"bounded": 0, "unknown": 1, "found": 2}

# Parts of the record that are worse than the sample's, with the best level they allow.
WORSE: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "bounded"),
    "no test": ({"equivalence": None}, "unknown"),
    "too few people": ({"equivalence": equivalence_tests("too_few", needed=90)}, "unknown"),
    "distinguishable": ({"equivalence": equivalence_tests("distinguishable")}, "found"),
    "distinguishable below": (
        {"equivalence": equivalence_tests("distinguishable", side="below")},
        "found",
    ),
    "no attack tested": ({"equivalence": equivalence_tests()[:1]}, "unknown"),
    "text changed": (
        {"guarantees": {**sample_summary()["guarantees"], "text_identical": False}},
        "unknown",
    ),
    "not learned": (
        {"learned": {"target": 0.1, "floor": 0.05, "headroom": 0.05, "enough": False}},
        "unknown",
    ),
    "nothing measured": (
        {"measures": None, "target": None, "reference": None, "equivalence": None},
        "unknown",
    ),
    "broken": (
        {
            "faults": {
                "unlearned": {"forget_holdout/vqa": {"answers": 60, "non_finite": 60}},
            }
        },
        "found",
    ),
    "no attack": ({"attacks": None, "equivalence": equivalence_tests()[:1]}, "unknown"),
}


@pytest.mark.parametrize("name", WORSE)
def test_residual_risk_is_never_better_than_the_record(tmp_path: Path, name: str) -> None:
    changes, best = WORSE[name]
    certificate = sample_certificate(tmp_path / "run", **changes)
    assert certificate.residual_risk.level == best
    if certificate.verdict.level == "bad":
        assert certificate.residual_risk.level == "found"
    if certificate.verdict.level != "good":
        assert certificate.residual_risk.level != "bounded"


@pytest.mark.parametrize(
    "request_",
    [
        full_request(decision="not_accepted", reasons=("kept fell by 0.04",)),
        full_request(
            re_audit=tuple(
                audit.model_copy(update={"passed": False}) for audit in full_request().re_audit
            )
        ),
    ],
)
def test_failed_request_is_a_found_risk(tmp_path: Path, request_: Request) -> None:
    certificate = sample_certificate(tmp_path / "run", request_)
    assert certificate.residual_risk.level == "found"


def test_equivalence_is_stated_with_margin_and_budget(tmp_path: Path) -> None:
    statement = sample_certificate(tmp_path / "run").equivalence
    assert statement.outcome == "indistinguishable"
    assert "within a margin of 5 percentage points before any attack (1 measure)" in (
        statement.statement
    )
    assert "under 1 attack (relearn?share=0.2)" in statement.statement


def test_failed_equivalence_says_what_failed(tmp_path: Path) -> None:
    tests = equivalence_tests("distinguishable", difference=0.2)
    statement = sample_certificate(tmp_path / "run", equivalence=tests).equivalence
    assert statement.outcome == "distinguishable"
    assert "20 points above" in statement.statement and "2 tests of 2" in statement.statement


def test_barred_record_makes_no_statement_of_equivalence(tmp_path: Path) -> None:
    changes, _ = WORSE["not learned"]
    statement = sample_certificate(tmp_path / "run", **changes).equivalence
    assert statement.outcome == "not_applicable"
    assert statement.statement.startswith("No statement of equivalence is made")


def test_attacks_that_were_not_run_are_named(tmp_path: Path) -> None:
    certificate = sample_certificate(tmp_path / "run", not_attacked=["probe", "figstep"])
    assert certificate.attacks.not_run == ("probe", "figstep")
    assert "Not run: probe, figstep." in as_text(document(certificate))
    assert any("2 registered attacks" in text for text in certificate.residual_risk.statements)


def test_certificate_says_what_an_attack_that_was_asked_for_lacked(tmp_path: Path) -> None:
    reasons = dict.fromkeys(("relearn", "perturb"), "true answers are missing. With --forget, give")
    certificate = sample_certificate(tmp_path / "run", attacks_left_out=reasons)
    expected = "Not run: relearn, perturb, as true answers are missing."
    assert expected in certificate.residual_risk.statements


def test_certificate_claims_nothing_legal(tmp_path: Path) -> None:
    text = certificate_text(sample_certificate(tmp_path / "run")).lower()
    assert "no legal advice" in text and "data subject" in text and "controller" in text
    for claim in ("compliant", "complies", "compliance", "anonymous", "guarantee"):
        assert claim not in text, claim


def test_run_that_unlearned_nothing_has_no_certificate(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", method=None, kind="audit", artifacts=None)
    with pytest.raises(RunError, match="unlearns nothing"):
        build_certificate(run)


def test_missing_patch_is_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", artifacts={"patch": "patch"})
    with pytest.raises(RunError, match="--patch DIR"):
        build_certificate(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"guarantees": {"changed_tensors": -1}},
        {"provenance": {"seed": 2**60}},
        {"provenance": {"start_weights_sha256": "no hash"}},
        {"created": "x" * 5000},
        {"method": {"name": "x" * 5000}},
    ],
)
def test_damaged_record_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = make_run(tmp_path / "run", **{"artifacts": None, **changes})
    with pytest.raises(UnseeError, match="not allowed"):
        build_certificate(run)
