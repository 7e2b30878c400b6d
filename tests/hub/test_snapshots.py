"""Downloads, by the client of the hub from the stand-in in `support.hub`; no real hub is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from support import ROOT
from support.cli import unsee
from support.hub import TOKEN, LocalHub
from support.published import fiubench, umu
from unsee.benchmarks import BENCHMARKS
from unsee.data.digests import content_hash
from unsee.errors import DataError, ModelError
from unsee.hub.names import Repository, parse
from unsee.hub.snapshots import commit_of, commits, snapshot
from unsee.models.checkpoint import peek_config, resolve
from unsee.models.vlm import VLM
from unsee.types import Data

REPO = Repository("lab/model")


def read(text: str, *patterns: str) -> Path:
    repository = parse(text)
    assert repository is not None
    return snapshot(repository, "model", patterns or ["*.json"], "model ", ModelError)


def test_snapshot_reads_a_branch_a_tag_and_a_commit(hub: LocalHub) -> None:
    first = hub.add("lab/model", {"config.json": b"1", "photo.png": b"x"})
    hub.repos["model", "lab/model"].refs["v1.0"] = first
    second = hub.add("lab/model", {"config.json": b"2"})
    for revision, commit, content in (
        ("", second, "2"),
        ("@v1.0", first, "1"),
        (f"@{first}", first, "1"),
    ):
        folder = read(f"lab/model{revision}")
        assert (folder.name, (folder / "config.json").read_text()) == (commit, content)
    assert not (folder / "photo.png").exists()
    assert commits(["lab/model", "hub:lab/model@v1.0", "lab/other", folder], "model") == {
        "lab/model": second,
        "lab/model@v1.0": first,
        f"lab/model@{first}": first,
    }


def test_snapshot_stays_at_its_commit_when_the_branch_moves(hub: LocalHub) -> None:
    first = hub.add("lab/model", {"config.json": b"1"})
    read("lab/model")
    hub.add("lab/model", {"config.json": b"2"})
    asked = len(hub.requests)
    assert read("lab/model").name == first == commit_of(REPO, "model")
    assert len(hub.requests) == asked


def test_snapshot_of_a_missing_repository_says_what_was_tried(hub: LocalHub) -> None:
    with pytest.raises(ModelError) as raised:
        read("lab/model")
    message = str(raised.value)
    assert message.startswith("model 'lab/model': no such folder, and no model of that name at ")
    assert f"{hub.endpoint}/lab/model" in message and "(HTTP 401)" in message
    assert "hf auth login" in message


def test_snapshot_of_a_private_repository_needs_the_token(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("lab/model", {"config.json": b"1"}, private=True)
    with pytest.raises(ModelError, match="if it is private, type `hf auth login`"):
        read("lab/model")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 30)
    with pytest.raises(ModelError, match=r"refuses the token of this account \(HTTP 401\)"):
        read("lab/model")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (read("lab/model") / "config.json").read_text() == "1"


def test_snapshot_of_a_gated_repository_says_where_to_ask(hub: LocalHub) -> None:
    hub.add("lab/model", {"config.json": b"1"}, gated=True)
    with pytest.raises(ModelError, match="for accounts that its owner has admitted") as raised:
        read("lab/model")
    assert f"Ask for access at {hub.endpoint}/lab/model" in str(raised.value)


def test_snapshot_of_a_missing_revision_names_those_there_are(hub: LocalHub) -> None:
    commit = hub.add("lab/model", {"config.json": b"1"})
    hub.repos["model", "lab/model"].refs["v1.0"] = commit
    with pytest.raises(
        ModelError, match="has no revision 'v1'. It has v1.0, main. Type lab/model@v1.0"
    ):
        read("lab/model@v1")


def test_snapshot_without_a_needed_file_names_those_there_are(hub: LocalHub) -> None:
    commit = hub.add("lab/model", {"README.md": b"", "weights.gguf": b""})
    expected = f"commit {commit[:12]} has no file \\*.json. It has 2 files: README.md, weights.gguf"
    with pytest.raises(ModelError, match=expected):
        read("lab/model")


def test_snapshot_offline_reads_what_was_downloaded_before(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add("lab/model", {"config.json": b"1"})
    hub.add("lab/other", {"config.json": b"1"})
    read("lab/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("unsee.hub.snapshots._folders", {})
    assert read("lab/model").name == commit
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE keeps the hub from being asked") as raised:
        read("lab/other@v2")
    assert "Type `hf download lab/other --revision v2` where" in str(raised.value)


def test_snapshot_of_a_hub_that_does_not_answer_names_its_address(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="did not provide it from http://127.0.0.1:9/lab/model"):
        read("lab/model")


def test_resolve_takes_a_local_folder_before_the_hub(
    hub: LocalHub, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("lab/model", tiny_folder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "model").symlink_to(tiny_folder, target_is_directory=True)
    assert resolve("lab/model") == Path("lab/model") and not hub.requests
    assert resolve("hub:lab/model").name == commit_of(REPO, "model")


def test_vlm_loads_a_model_of_the_hub(hub: LocalHub, tiny_folder: Path) -> None:
    hub.add("lab/model", tiny_folder)
    assert VLM.load("lab/model@main").hash() == VLM.load(tiny_folder).hash()


def test_resolve_of_a_repository_without_a_checkpoint_names_its_files(hub: LocalHub) -> None:
    hub.add("lab/model", {"tokenizer.json": b"{}"})
    with pytest.raises(ModelError, match="has no file config.json or adapter_config.json. It has"):
        resolve("lab/model")


@pytest.mark.parametrize(
    "write, name, split", [(fiubench, "fiubench", "forget"), (umu, "umu", "forget")]
)
def test_published_benchmark_is_read_at_a_revision(
    hub: LocalHub, tmp_path: Path, write: Callable[[Path], None], name: str, split: str
) -> None:
    (tmp_path / "files").mkdir()
    write(tmp_path / "files")
    commit = hub.add("lab/data", tmp_path / "files", kind="dataset")
    hub.repos["dataset", "lab/data"].refs["v1.0"] = commit
    hub.add("lab/data", {"README.md": b"emptied"}, kind="dataset")
    there = BENCHMARKS.get(name).open("lab/data@v1.0")
    local = BENCHMARKS.get(name).open(tmp_path / "files")
    assert content_hash(there.load(split)) == content_hash(local.load(split))
    assert there.metadata()["commit"] == commit and "commit" not in local.metadata()
    with pytest.raises(
        DataError, match=r"'lab/data': commit \w{12} has no file .*It has 1 file: README"
    ):
        BENCHMARKS.get(name).open("lab/data").load(split)


def test_data_check_reads_the_revision_of_its_option(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    fiubench(tmp_path / "files")
    commit = hub.add("gray311/FIUBench", tmp_path / "files", kind="dataset")
    hub.add("gray311/FIUBench", {"README.md": b"emptied"}, kind="dataset")
    found = unsee("data", "check", "fiubench:forget", "--hub-revision", commit, "--json")
    assert found["data"] == f"fiubench:forget?revision={commit}"
    assert found["splits"]["forget"]["samples"] > 0 and not found["problems"]
    message = unsee("data", "check", "pocket:forget", "--hub-revision", commit, code=2)
    assert "none of the data is read from the hub" in message


def test_evaluate_records_the_commits_of_model_and_patch(
    hub: LocalHub, tiny_folder: Path, patch: Path, data: Data, tmp_path: Path
) -> None:
    commit, pushed = hub.add("lab/model", tiny_folder), hub.add("lab/patch", patch)
    table, out = tmp_path / "people.jsonl", tmp_path / "scores"
    sample = next(s for s in data.forget if s.picture is not None and s.task == "generation")
    row = {"image": sample.picture.source, "question": sample.question, "answer": sample.answer}
    table.write_text(json.dumps(row) + "\n")
    given = ("--model", "lab/model@main", "--patch", "hub:lab/patch", "--data", table)
    unsee("evaluate", *given, "--out", out)
    record = json.loads((out / "summary.json").read_text())
    assert record["provenance"]["hub"] == {"lab/model@main": commit, "lab/patch": pushed}


def test_apply_and_history_take_a_patch_of_the_hub(
    hub: LocalHub, tiny_folder: Path, patch: Path, tmp_path: Path
) -> None:
    hub.add("lab/model", tiny_folder)
    hub.add("lab/patch", patch)
    unsee("apply", "hub:lab/patch", "--model", "lab/model", "--out", tmp_path / "there")
    unsee("apply", patch, "--model", tiny_folder, "--out", tmp_path / "here")
    assert VLM.load(tmp_path / "there").hash() == VLM.load(tmp_path / "here").hash()
    assert "base_model: lab/model\n" in (tmp_path / "there" / "README.md").read_text()
    shown = unsee("history", "hub:lab/patch")
    assert shown.replace("hub:lab/patch", str(patch)) == unsee("history", patch)


def test_command_in_a_process_of_its_own_asks_the_endpoint(hub: LocalHub, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unsee", "apply", "hub:lab/patch@v2", "--model", "m", "--out", "o"],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path),
            "HF_TOKEN": TOKEN,
            "PYTHONPATH": str(ROOT / "src"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(
        "unsee: patch 'lab/patch@v2': no such folder, and no model of that"
    )
    assert "(HTTP 404)" in done.stderr and "GET /api/models/lab/patch/revision/v2" in hub.requests


def test_config_alone_is_read_at_the_revision(hub: LocalHub) -> None:
    first = hub.add("lab/model", {"config.json": b'{"model_type": "clip"}', "model.bin": b"x"})
    hub.repos["model", "lab/model"].refs["v1.0"] = first
    hub.add("lab/model", {"config.json": b'{"model_type": "llava"}'})
    assert peek_config("hub:lab/model@v1.0") == {"model_type": "clip"}
    assert peek_config("lab/model") == {"model_type": "llava"}
    assert peek_config("lab/absent") == {}
