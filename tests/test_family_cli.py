"""Every family through the command line: unlearn, evaluate, patch, apply, verify, stop, go on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText

from tiny import RECIPES, make
from unsee.cli import main
from unsee.models.vlm import VLM
from unsee.training import loop as train

SHORT = ("--set", "steps=2", "--set", "batch_size=2")


@pytest.fixture(scope="module", params=list(RECIPES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint of a family."""
    if request.param == "smolvlm":
        pytest.importorskip("num2words", reason="SmolVLM's processor needs num2words")
    return make(request.param, tmp_path_factory.mktemp("family") / request.param)


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


def test_features_only_then_apply_and_verify(
    folder: Path, photos: dict[str, Path], unsee: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    unsee(
        "unlearn", "--model", folder, "--forget", photos["forget_photos"], "--retain",
        photos["retain_photos"], "--out", out, *SHORT,
    )  # fmt: skip
    unsee("apply", out / "patch", "--model", folder, "--out", tmp_path / "new")
    found = unsee("verify", folder, tmp_path / "new")
    assert found["language_identical"]
    assert found["differing"]


def test_full_vkd_stopped_and_resumed_equals_unbroken(
    folder: Path,
    photos: dict[str, Path],
    unsee: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def command(out: Path) -> list[object]:
        return [
            "unlearn", "--model", folder, "--forget", photos["forget"], "--retain",
            photos["retain"], "--out", out, *SHORT, "--set", "save_every=1",
        ]  # fmt: skip

    whole = unsee(*command(tmp_path / "whole"))
    seed = train.seed_step

    def stop(number: int, step: int) -> None:
        if step == 1:  # counted from 0: one step is done and saved
            raise KeyboardInterrupt
        seed(number, step)

    with monkeypatch.context() as patched:
        patched.setattr(train, "seed_step", stop)
        unsee(*command(tmp_path / "run"), code=130)
    resumed = unsee(*command(tmp_path / "run"))
    key = "result_weights_sha256"
    assert resumed["provenance"][key] == whole["provenance"][key]
    assert resumed["measures"] == whole["measures"]


# peft asks transformers by an old name.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_lora_adapters_of_the_whole_model(
    folder: Path, photos: dict[str, Path], unsee: Callable[..., Any], tmp_path: Path
) -> None:
    """In both parts, and what is saved is what plain peft loads."""
    out = tmp_path / "run"
    unsee(
        "unlearn", "--method", "npo", "--model", folder, "--forget",
        photos["forget"], "--retain", photos["retain"], "--out", out, "--save",
        "adapter", *SHORT, "--set", "lora=2",
    )  # fmt: skip
    base = AutoModelForImageTextToText.from_pretrained(folder)
    loaded = PeftModel.from_pretrained(base, out / "adapter")
    outer = {n: p for n, p in loaded.named_parameters() if "lora_B" in n}
    parts = VLM.load(folder).family.parts
    language = tuple(f"base_model.model.{prefix}" for prefix in parts.language)
    spoken = [name for name in outer if name.startswith(language)]
    assert 0 < len(spoken) < len(outer)
    # B starts at nought: what is not, was trained and found its place.
    assert all(bool(outer[name].any()) for name in spoken)


def test_grad_diff_and_evaluate(
    folder: Path, photos: dict[str, Path], unsee: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    unsee(
        "unlearn", "--method", "grad_diff", "--model", folder, "--forget", photos["forget"],
        "--retain", photos["retain"], "--out", out, *SHORT,
    )  # fmt: skip
    found = unsee(
        "evaluate", "--model", out / "model", "--data", photos["retain"], "--out", tmp_path / "e"
    )
    assert found["measures"]
