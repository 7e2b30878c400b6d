"""With --json, a command that fails prints one JSON object that says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from support.cli import refused
from support.processes import Running
from unsee.cli import app

# For every command with --json: words that it refuses, whatever is in the folder.
WRONG = {
    "demo": "--out file/demo",
    "unlearn": "--model no --forget no",
    "run": "no.yaml",
    "finetune": "no.yaml",
    "compare": "--benchmark nothing",
    "ablate": "vkdd --vary lr=1",
    "meta": "--methods nothing --out out",
    "evaluate": "--model no --data no",
    "audit": "--model no --forget no",
    "report": "no",
    "apply": "no --model no --out out",
    "undo": "no --model no --out out",
    "export": "no --to onnx --out out",
    "history": "no",
    "verify": "no no",
    "doctor": "no",
    "list": "nothing",
    "show": "nothing",
    "schema": "nothing",
    "runs": "no",
    "push": "no --repo a/b",
    "purge": "no",
    "serve": "no",
    "request init": "--model no --ledger out",
    "request new": "--photos no --ledger no",
    "request run": "--ledger no",
    "request list": "--ledger no",
    "request show": "R1 --ledger no",
    "request undo": "R1 --ledger no",
    "request export": "--out out --ledger no",
    "pocket build": "--out out --people 1",
    "data check": "no --hub-revision main",
    "certificate new": "no",
    "certificate key": "--out file",
    "certificate verify": "no",
    "certificate show": "no",
}


def commands(group: Any, *before: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *before, name)
        else:
            yield " ".join([*before, name]), command


def test_every_command_with_json_is_tried() -> None:
    found = {
        name
        for name, command in commands(typer.main.get_command(app))
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert found == set(WRONG)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("x")
    return tmp_path


@pytest.mark.parametrize("name", WRONG)
def test_error_is_json_on_standard_output(name: str, folder: Path) -> None:
    code, output, errors = refused(*name.split(), *WRONG[name].split(), "--json", cwd=folder)
    said = json.loads(output)
    assert said == {"error": said["error"], "kind": said["kind"], "exit_code": code}
    assert f"unsee: {said['error']}" in errors
    assert said["kind"].endswith("Error")
    # An option that is not there is refused by the parser.
    code, output, _ = refused(*name.split(), "--no-such-option", "--json", cwd=folder)
    assert json.loads(output)["exit_code"] == code == 2
    assert json.loads(output)["kind"] == "UsageError"


def test_results_stay_the_only_object(tiny_folder: Path, tmp_path: Path) -> None:
    words = ["serve", str(tiny_folder), "--json"]
    running = Running(words, tmp_path)
    running.until(lambda: running.out.exists() and "}" in running.out.read_text())
    running.stop(2)
    _, output, _ = running.wait()
    assert set(json.loads(output)) == {"url"}
