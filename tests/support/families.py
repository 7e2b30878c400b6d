"""Fixtures of the tests over families: a checkpoint, photographs, a command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.tiny import RECIPES, make
from unsee.cli import main


def make_or_skip(name: str, folder: Path) -> Path:
    """Makes the tiny checkpoint of a family; skips the test if its processor cannot be made."""
    if name == "smolvlm":
        pytest.importorskip("num2words", reason="SmolVLM's processor needs num2words")
    return make(name, folder)


@pytest.fixture(scope="module", params=list(RECIPES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint of a family."""
    return make_or_skip(request.param, tmp_path_factory.mktemp("family") / request.param)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two people's pictures of different shapes, and tables of questions about them."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    found = {}
    for side, name in (("forget", "Ada"), ("retain", "Bo")):
        found[f"{side}_photos"] = root / side
        (root / side / name).mkdir(parents=True)
        rows = []
        for width, height in ((28, 28), (56, 28), (30, 60)):
            path = root / side / name / f"{width}.png"
            Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
            rows.append(
                {"image": str(path), "question": "Who is it?", "answer": name, "concept": name}
            )
        if side == "retain":
            rows.append({"question": "Where is Bo?", "answer": "At sea", "concept": name})
        found[side] = root / f"{side}.jsonl"
        found[side].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return found


@pytest.fixture
def unsee(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Runs a command in this process; gives what --json prints."""

    def run(*arguments: object, code: int = 0) -> Any:
        monkeypatch.setattr(sys, "argv", ["unsee", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code == code, printed.err
        return json.loads(printed.out) if code == 0 else printed.err

    return run
