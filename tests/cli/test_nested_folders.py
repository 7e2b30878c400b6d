"""Output folders in what is read, and inverses where a patch belongs: refused, nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from support.cli import SHORT, unsee
from unsee.artifacts.patch import apply_patch, write_patch
from unsee.models.vlm import VLM


@pytest.fixture(scope="module")
def place(
    tiny_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Path]]:
    """A folder with a base, a patch on it, the patched checkpoint, the inverse and photographs."""
    folder = tmp_path_factory.mktemp("nested")
    names = ("base", "patch", "after", "inverse", "photos", "retain", "ledger")
    paths = {name: folder / name for name in names}
    shutil.copytree(tiny_folder, paths["base"])
    shutil.copytree(photos, paths["photos"])
    shutil.copytree(photos, paths["retain"])
    vlm = VLM.load(paths["base"])
    with torch.no_grad():
        next(iter(vlm.parameters("visual").values())).mul_(1.25)
    write_patch(vlm, paths["base"], paths["patch"])
    apply_patch(paths["patch"], paths["base"], paths["after"], inverse=paths["inverse"])
    unsee("request", "init", "--model", paths["base"], "--ledger", paths["ledger"])
    return folder, paths


def run_refused(place: tuple[Path, dict[str, Path]], words: Sequence[str]) -> str:
    """The error of a command that must leave everything as it is; {name} stands for a path."""
    folder, paths = place
    before = sorted(folder.rglob("*"))
    said: str = unsee(*(word.format(**paths) for word in words), code=2)
    assert sorted(folder.rglob("*")) == before
    assert "Traceback" not in said
    return said


UNLEARN = ("unlearn", "--model", "{base}", "--forget", "{photos}", "--retain", "{retain}", *SHORT)
APPLY = ("apply", "{patch}", "--model", "{base}")
AUDIT = ("audit", "--model", "{base}", "--forget", "pocket:forget", "--attack", "jailbreak")
EVALUATE = ("evaluate", "--model", "{base}", "--data", "pocket:general")
FINETUNE = ("finetune", "finetune-pocket-full", "model={base}")
LEDGER = ("request", "init", "--model", "{base}", "--retain", "{retain}")

NESTED: dict[str, tuple[Sequence[str], str]] = {
    "run in the model": ((*UNLEARN, "--out", "{base}/runs/a"), "read as model"),
    "run is the model": ((*UNLEARN, "--out", "{base}"), "is the folder"),
    "run in the photographs": ((*UNLEARN, "--out", "{photos}/out"), "read as forget"),
    "run in what is kept": ((*UNLEARN, "--out", "{retain}/a/b"), "read as retain"),
    "run in a patch": ((*UNLEARN, "--patch", "{patch}", "--out", "{patch}/a"), "read as patch"),
    "run by another way": ((*UNLEARN, "--out", "{photos}/../base/a"), "read as model"),
    "evaluation in the model": ((*EVALUATE, "--out", "{base}/a"), "read as model"),
    "audit in the model": ((*AUDIT, "--out", "{base}/a"), "read as model"),
    "audit in the target": (
        ("audit", "--target", "{after}", *AUDIT[1:], "--out", "{after}/a"),
        "read as target",
    ),
    "fine-tuning in its base": ((*FINETUNE, "--out", "{base}/a"), "read as model"),
    "apply in the patch": ((*APPLY, "--out", "{patch}/a"), "--out"),
    "apply in the model": ((*APPLY, "--out", "{base}/a"), "--out"),
    "inverse in the patch": (
        (*APPLY, "--out", "{ledger}/../new", "--inverse", "{patch}/a"),
        "--inverse",
    ),
    "inverse in the model": (
        (*APPLY, "--out", "{ledger}/../new", "--inverse", "{base}/a"),
        "--inverse",
    ),
    "undo in the inverse": (
        ("undo", "{inverse}", "--model", "{after}", "--out", "{inverse}/a"),
        "read as inverse",
    ),
    "undo in the model": (
        ("undo", "{inverse}", "--model", "{after}", "--out", "{after}/a"),
        "read as model",
    ),
    "export in a patch": (
        ("export", "{base}", "--to", "onnx", "--patch", "{patch}", "--out", "{patch}/a.onnx"),
        "read as patch",
    ),
    "ledger in the model": ((*LEDGER, "--ledger", "{base}/a"), "--ledger"),
    "ledger in what is kept": ((*LEDGER, "--ledger", "{retain}/a"), "--ledger"),
    "export in the ledger": (
        ("request", "export", "--ledger", "{ledger}", "--out", "{ledger}/a"),
        "read as ledger",
    ),
}


@pytest.mark.parametrize("case", NESTED)
def test_commands_refuse_to_write_into_what_they_read(
    case: str, place: tuple[Path, dict[str, Path]]
) -> None:
    words, reason = NESTED[case]
    said = run_refused(place, words)
    assert reason in said
    assert "stays as it is. Name another with --" in said


INVERSES: dict[str, Sequence[str]] = {
    "unlearn": (
        *("unlearn", "--model", "{after}", "--patch", "{inverse}", "--forget", "{photos}"),
        *("--out", "{ledger}/../new", *SHORT),
    ),
    "unlearn after its patch": (
        *("unlearn", "--model", "{base}", "--patch", "{patch}", "--patch", "{inverse}"),
        *("--forget", "{photos}", "--out", "{ledger}/../new", *SHORT),
    ),
    "evaluate": (
        *("evaluate", "--model", "{after}", "--patch", "{inverse}"),
        *("--data", "pocket:general", "--out", "{ledger}/../new"),
    ),
    "export": (
        *("export", "{after}", "--to", "onnx", "--patch", "{inverse}"),
        *("--out", "{ledger}/../new.onnx"),
    ),
    "serve": ("serve", "{after}", "--patch", "{inverse}", "--port", "0"),
    "apply": ("apply", "{inverse}", "--model", "{after}", "--out", "{ledger}/../new"),
    "apply an inverse of an inverse": (
        *("apply", "{inverse}", "--model", "{after}", "--out", "{ledger}/../new"),
        *("--inverse", "{ledger}/../again"),
    ),
}


@pytest.mark.parametrize("case", INVERSES)
def test_commands_refuse_an_inverse_as_a_patch(
    case: str, place: tuple[Path, dict[str, Path]]
) -> None:
    said = run_refused(place, INVERSES[case])
    assert "is an inverse, which takes patches back. Type: unsee undo" in said
