"""Wrong arguments of every command: exit code 2, a message that names the mistake, no output."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from support.cli import unsee
from unsee.cli import shared


def test_commands_name_wrong_arguments(
    tiny_folder: Path, photos: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    from_images = ["unlearn", "--model", tiny_folder, "--forget", photos, "--out", out]
    with_answers = ["unlearn", "--model", tiny_folder, "--forget", tables[0], "--out", out]
    with_answers += ["--method", "grad_diff", "--retain", tables[1]]
    cases: list[tuple[list[Any], str]] = [
        (["unlern"], "Did you mean 'unlearn'"),
        (["list", "method"], "Did you mean 'methods'"),
        (["show", "vkdd"], "Did you mean 'vkd'"),
        ([*from_images, "--set", "erse=push"], "Did you mean 'erase'"),
        ([*from_images, "--set", "lr=0"], "greater than 0"),
        ([*from_images, "--method", "npo"], "needs questions and answers"),
        ([*from_images, "--supervision", "full"], "--supervision features"),
        ([*from_images, "--save", "zip"], "'patch', 'model' or 'adapter'"),
        ([*from_images, "--save", "adapter"], "none are trained"),
        ([*from_images, "--save", "model"], "--save patch, then `unsee apply`"),
        ([*with_answers, "--save", "patch"], "--save model, or --set trains=visual"),
        (["unlearn", "--model", tmp_path / "no", "--forget", photos, "--out", out], "no such fol"),
        (["unlearn", "--model", tiny_folder, "--forget", tmp_path / "no"], "does not exist"),
        (["unlearn", "--model", tiny_folder, "--forget", tmp_path], "empty|no picture"),
        (["unlearn", "--model", tiny_folder, "--forget", tables[0], "--retain", tables[0]], "both"),
        (["unlearn", "--forget", photos], "--model"),
        (["evaluate", "--model", tiny_folder, "--data", photos], "no answers to score"),
        (["apply", tmp_path, "--model", tiny_folder, "--out", out], "patch"),
        (["report", tmp_path], "unsee"),
        (["run", "none.yaml"], "no such file"),
        (["pocket", "build", "--out", out, "--people", "1"], "people=1"),
        (["pocket", "build", "--out", out, "--faces", tmp_path / "no"], "no such folder"),
    ]
    for arguments, message in cases:
        assert re.search(message, unsee(*arguments, code=2, cwd=tmp_path)), arguments
    assert not out.exists()
    assert not (tmp_path / "runs").exists()


def test_command_hides_passwords_from_pages_and_records(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://ada:PASSWORD@host/db"
    monkeypatch.setattr("sys.argv", ["unsee", "compare", "--storage", url, f"--storage={url}"])
    assert "PASSWORD" not in shared.command()
    assert shared.command().count("postgresql://ada:***@host/db") == 2
