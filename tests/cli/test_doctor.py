"""`unsee doctor` on checkpoints of several families, on a broken one, and on none."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from support.encoders import make_encoder
from support.families import unsee  # noqa: F401
from support.tiny import make
from unsee.cli import main
from unsee.models.self_check import CHECKS
from unsee.models.vlm import VLM


@pytest.mark.parametrize(
    "name, family, tokens",
    [
        ("llava", "llava", 4),
        ("qwen2_vl", "qwen2_vl", 4),
        ("mllama", "mllama", None),
        ("qwen3_vl_moe", "generic", 4),
        ("deepseek_vl", "generic", 4),
    ],
)
def test_doctor_prints_parts_and_laws(
    name: str, family: str, tokens: int | None, unsee: object, tmp_path: Path
) -> None:
    folder = make(name, tmp_path / name)
    found = unsee("doctor", folder)  # type: ignore[operator]
    vlm = VLM.load(folder)
    assert (found["family"], found["passed"]) == (family, True)
    assert [check["passed"] for check in found["checks"]] == [True] * len(CHECKS)
    for part, size in found["parts"].items():
        weights = vlm.parameters(part).values()
        assert size["tensors"] == len(weights)
        assert size["parameters"] == sum(w.numel() for w in weights)
    assert found["visual_layers"] == list(vlm.family.visual_layers(vlm.model))
    assert found["picture_tokens"]["224 x 224"] == tokens
    assert found["lora_layers"] > 0
    whole = sum(size["bytes"] for size in found["parts"].values())
    memory = {kind: wanted["memory"] for kind, wanted in found["expected"].items()}
    assert memory["evaluate"] == whole
    assert whole < memory["visual"] < memory["all"] == 4 * whole
    assert all(wanted["seconds"] > 0 for wanted in found["expected"].values())


def test_doctor_exits_with_1_and_says_which_law_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make("deepseek_vl", tmp_path / "model")
    vlm = VLM.load(folder)
    torch.nn.init.zeros_(vlm.parameters("projector")["model.aligner.linear2.weight"])
    vlm.save(tmp_path / "blind")
    monkeypatch.setattr(sys, "argv", ["unsee", "doctor", str(tmp_path / "blind")])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 1
    assert "FAILED: Another picture of the same shape changes the logits" in printed.out
    assert "passed: The parts are disjoint and cover every parameter" in printed.out
    assert "laws broken" in printed.err


def test_doctor_of_an_encoder_expects_no_run_that_trains_its_text_tower(
    tmp_path: Path, unsee: object
) -> None:
    folder = make_encoder("clip", tmp_path / "clip")
    found = unsee("doctor", folder)  # type: ignore[operator]
    assert found["passed"]
    assert set(found["expected"]) == {"evaluate", "visual"}
    message = unsee("doctor", folder / "config.json", code=2)  # type: ignore[operator]
    assert f"a checkpoint is a folder. Give the one that it is in: {folder}." in message


def test_doctor_refuses_a_type_that_transformers_does_not_know(
    tmp_path: Path, unsee: object
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    message = unsee("doctor", tmp_path, code=2)  # type: ignore[operator]
    assert "no family takes checkpoints of type 'bert'" in message
