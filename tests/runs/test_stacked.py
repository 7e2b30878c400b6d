"""Runs that start from a model with patches: unlearn --patch, evaluate --patch."""

from __future__ import annotations

from pathlib import Path

from support.cli import SHORT, unsee
from unsee.artifacts.manifest import patch_id, read_manifest
from unsee.models.vlm import VLM


def test_unlearning_from_patches_stacks_the_next(photos: Path, tmp_path: Path) -> None:
    """From pictures alone the result is the same as from a checkpoint with the patches applied."""
    model, first, second = "pocket:base", tmp_path / "1", tmp_path / "2"
    photo = ("--forget", photos, *SHORT)
    unsee("unlearn", "--model", model, *photo, "--out", first)
    patches = ("--patch", first / "patch")
    unsee("unlearn", "--model", model, *photo, *patches, "--seed", 1, "--out", second)
    stacked = read_manifest(second / "patch")
    assert [step.id for step in stacked.earlier] == [patch_id(read_manifest(first / "patch"))]
    one, both, again = (tmp_path / name for name in ("one", "both", "again"))
    unsee("apply", first / "patch", "--model", model, "--out", one)
    unsee("unlearn", "--model", one, *photo, "--seed", 1, "--out", again)
    assert patch_id(read_manifest(again / "patch")) == patch_id(stacked)
    unsee("apply", first / "patch", second / "patch", "--model", model, "--out", both)

    data = ("--data", "pocket:forget_holdout", "--metrics", "accuracy")
    stack = (*patches, "--patch", second / "patch")
    asked = ("evaluate", *data, "--json", "--out")
    kept = unsee(*asked, tmp_path / "a", "--model", both)
    in_memory = unsee(*asked, tmp_path / "b", "--model", model, *stack)
    assert in_memory["measures"] == kept["measures"]
    weights = ("provenance", "start_weights_sha256")
    assert (
        in_memory[weights[0]][weights[1]] == kept[weights[0]][weights[1]] == VLM.load(both).hash()
    )
    errors = unsee(*asked, tmp_path / "c", "--model", model, *stack[2:], *patches, code=2)
    assert "fits the state after" in errors
    assert not (tmp_path / "c").exists()


def test_an_adapter_cannot_be_saved_on_patches(photos: Path, tmp_path: Path) -> None:
    errors = unsee(
        *("unlearn", "--model", "pocket:base", "--forget", photos, "--patch", tmp_path / "p"),
        *("--save", "adapter", "--set", "lora=4", "--out", tmp_path / "out"),
        code=2,
    )
    assert "an adapter is put on the model without patch=" in errors
