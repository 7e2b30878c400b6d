"""Every family on the command line: unlearn, evaluate, apply, verify and resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from support.families import make_or_skip, photos, unsee  # noqa: F401
from support.tiny import RECIPES
from unsee.models.vlm import VLM
from unsee.training import loop as train

SHORT = ("--set", "steps=2", "--set", "batch_size=2")

# One that aligns pictures, one of any resolution, one of tiles, one of cross-attention. What sets
# the others apart is in the family laws, which all of them pass in every run.
EVERY_RUN = ("llava", "qwen2_5_vl", "idefics3", "mllama")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in EVERY_RUN else pytest.mark.slow) for name in RECIPES
    ],
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint of a family."""
    return make_or_skip(request.param, tmp_path_factory.mktemp("family") / request.param)


def test_unlearn_features_then_apply_and_verify(
    folder: Path, photos: dict[str, Path], unsee: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    unsee(
        "unlearn",
        "--model",
        folder,
        "--forget",
        photos["forget_photos"],
        "--retain",
        photos["retain_photos"],
        "--out",
        out,
        *SHORT,
    )
    unsee("apply", out / "patch", "--model", folder, "--out", tmp_path / "new")
    found = unsee("verify", folder, tmp_path / "new")
    assert found["language_identical"]
    assert found["differing"]


def test_unlearn_vkd_resumed_equals_uninterrupted(
    folder: Path,
    photos: dict[str, Path],
    unsee: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def command(out: Path) -> list[object]:
        return [
            "unlearn",
            "--model",
            folder,
            "--forget",
            photos["forget"],
            "--retain",
            photos["retain"],
            "--out",
            out,
            *SHORT,
            "--set",
            "save_every=1",
        ]

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
def test_unlearn_lora_adapters_of_the_whole_model(
    folder: Path, photos: dict[str, Path], unsee: Callable[..., Any], tmp_path: Path
) -> None:
    """Adapters are in both parts, and peft loads what is saved."""
    out = tmp_path / "run"
    unsee(
        "unlearn",
        "--method",
        "npo",
        "--model",
        folder,
        "--forget",
        photos["forget"],
        "--retain",
        photos["retain"],
        "--out",
        out,
        "--save",
        "adapter",
        *SHORT,
        "--set",
        "lora=2",
    )
    base = AutoModelForImageTextToText.from_pretrained(folder)
    loaded = PeftModel.from_pretrained(base, out / "adapter")
    outer = {n: p for n, p in loaded.named_parameters() if "lora_B" in n}
    parts = VLM.load(folder).family.parts
    language = tuple(f"base_model.model.{prefix}" for prefix in parts.language)
    spoken = [name for name in outer if name.startswith(language)]
    assert 0 < len(spoken) < len(outer)
    # B is initialized to 0, so values other than 0 were trained and loaded.
    assert all(bool(outer[name].any()) for name in spoken)


def test_unlearn_grad_diff_then_evaluate(
    folder: Path, photos: dict[str, Path], unsee: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    unsee(
        "unlearn",
        "--method",
        "grad_diff",
        "--model",
        folder,
        "--forget",
        photos["forget"],
        "--retain",
        photos["retain"],
        "--out",
        out,
        *SHORT,
    )
    found = unsee(
        "evaluate", "--model", out / "model", "--data", photos["retain"], "--out", tmp_path / "e"
    )
    assert found["measures"]
