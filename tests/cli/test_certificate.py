"""`unsee certificate` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.certificates import equivalence_tests
from support.cli import unsee
from support.report_record import make_run
from unsee.certificates.keys import VARIABLE


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "job"
    return make_run(folder, artifacts=None, equivalence=equivalence_tests())


def test_walk_from_key_to_verified_certificate(run: Path, tmp_path: Path) -> None:
    key, out = tmp_path / "key.pem", tmp_path / "out"
    made = unsee("certificate", "key", "--out", key, "--json")
    assert made["public"] == f"{key}.pub"
    options = ("--key", key, "--request-id", "2026-17", "--received", "2026-11-20")
    printed = unsee("certificate", "new", run, *options, "--out", out)
    assert [Path(line).name for line in printed.split()] == [
        *("certificate.json", "certificate.html", "certificate.pdf")
    ]
    found = unsee(
        "certificate", "verify", out, "--public-key", made["public"], "--run", run, "--json"
    )
    assert found["valid"] is True
    assert {check["outcome"] for check in found["checks"]} == {"passed"}
    assert "the key is the one given" in unsee(
        "certificate", "verify", out, "--public-key", made["fingerprint"]
    )
    shown = unsee("certificate", "show", out)
    assert "Request 2026-17" in shown and "RESIDUAL RISK" in shown
    content = json.loads((out / "certificate.json").read_text())
    assert unsee("certificate", "show", out, "--json") == content


def test_failed_check_is_exit_code_1(run: Path, tmp_path: Path) -> None:
    unsee("certificate", "new", run, "--out", tmp_path)
    assert unsee("certificate", "verify", tmp_path, code=1) == ""
    found = unsee("certificate", "verify", tmp_path, "--allow-unsigned", "--run", run, "--json")
    assert found["valid"] is True
    path = tmp_path / "certificate.json"
    path.write_text(path.read_text().replace('"bounded"', '"unknown"', 1))
    unsee("certificate", "verify", tmp_path, "--allow-unsigned", "--run", run, code=1)


def test_key_from_the_environment_signs(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key.pem"
    unsee("certificate", "key", "--out", key)
    monkeypatch.setenv(VARIABLE, str(key))
    content = unsee("certificate", "new", run, "--out", tmp_path / "out", "--json")
    assert content["signer"]["algorithm"] == "Ed25519" and content["signature"]


def test_unsigned_certificate_is_noted(run: Path, tmp_path: Path) -> None:
    note = unsee("certificate", "new", run, "--out", tmp_path / "out", stderr=True)
    assert "not signed" in note and "unsee certificate key" in note


def test_pages_are_made_again(run: Path, tmp_path: Path) -> None:
    unsee("certificate", "new", run, "--out", tmp_path / "one")
    unsee("certificate", "show", tmp_path / "one", "--out", tmp_path / "two")
    for name in ("certificate.html", "certificate.pdf"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["new", "none"], "there is no such folder"),
        (["new", "RUN", "--key", "none"], "key none: there is no such file"),
        (["new", "RUN", "--received", "yesterday"], "--received 'yesterday' is not allowed"),
        (["new", "RUN", "--request-id", "x" * 400], "--request-id"),
        (["new", "RUN", "--photos", "none"], "--photos and --salt belong together"),
        (["new", "RUN", "--out", "FILE"], "is a file"),
        (["verify", "none"], "there is no such file"),
        (["verify", "FILE"], "cannot be read"),
        (["verify", "RUN"], "unsee certificate new RUN"),
        (["show", "FILE"], "cannot be read"),
        (["key", "--out", "FILE"], "never overwritten"),
        (["key", "--out", "none/key.pem"], "cannot be written"),
    ],
)
def test_wrong_input_is_exit_code_2_and_one_sentence(
    run: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    file = tmp_path / "FILE"
    file.write_text("x")
    places = {"RUN": run, "FILE": file}
    found = unsee("certificate", *(places.get(w, w) for w in words), code=2, cwd=tmp_path)
    assert message in found and "Traceback" not in found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FILE"]
    assert not (run / "certificate.json").exists()
