"""Stacks of patches: applied in order, refused in any other, and taken back byte for byte."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise, permutations
from pathlib import Path

import pytest
import torch

from support import tiny
from support.cli import unsee
from unsee.artifacts.inverse import undo_patch
from unsee.artifacts.lineage import LINEAGE, read_lineage
from unsee.artifacts.manifest import patch_id, read_manifest, step_of
from unsee.artifacts.patch import apply_in_memory, apply_patch, write_patch
from unsee.errors import PatchError
from unsee.models.vlm import VLM


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def train(vlm: VLM, seed: int) -> None:
    """Changes some visual tensors, another choice for each seed, as a short training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number, parameter in enumerate(vlm.parameters("visual").values()):
            if number % 3 in (seed % 3, (seed + 1) % 3):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.01)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharded checkpoint with a card of its own."""
    folder = tmp_path_factory.mktemp("stack") / "base"
    vlm = VLM.load(tiny.make("llava", folder.parent / "single"))
    vlm.model.save_pretrained(folder, max_shard_size="60KB")
    vlm.processor.save_pretrained(folder)
    (folder / "README.md").write_text("The base's own card.")
    return folder


@pytest.fixture(scope="module")
def stack(base: Path) -> list[Path]:
    """Three patches, each made in memory from the state after the ones before it."""
    patches: list[Path] = []
    vlm = VLM.load(base)
    for seed in range(3):
        train(vlm, seed)
        patch = base.parent / f"p{seed}"
        write_patch(vlm, base, patch, {"method": "vkd"}, patches=patches)
        patches.append(patch)
    return patches


@pytest.fixture(scope="module")
def trained(base: Path) -> str:
    """The hash of the model that was trained three times."""
    vlm = VLM.load(base)
    for seed in range(3):
        train(vlm, seed)
    return vlm.hash()


def test_a_stack_gives_the_model_that_was_trained_in_turn(
    base: Path, stack: list[Path], trained: str, tmp_path: Path
) -> None:
    before = everything(base)
    applied = apply_patch(stack, base, tmp_path / "out")
    assert VLM.load(tmp_path / "out").hash() == trained
    vlm = VLM.load(base)
    assert len(apply_in_memory(stack, vlm)) == 3
    assert vlm.hash() == trained
    assert everything(base) == before
    assert [step.id for step in applied.lineage] == [patch_id(read_manifest(p)) for p in stack]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_patches_one_at_a_time_give_the_same_files_as_the_stack(
    base: Path, stack: list[Path], tmp_path: Path
) -> None:
    apply_patch(stack, base, tmp_path / "all")
    apply_patch(stack[0], base, tmp_path / "1")
    apply_patch(stack[1:2], tmp_path / "1", tmp_path / "2")
    apply_patch(stack[2], tmp_path / "2", tmp_path / "3")
    assert everything(tmp_path / "3") == everything(tmp_path / "all")
    assert (tmp_path / "3" / "README-base.md").read_text() == "The base's own card."


def test_a_stacked_manifest_lists_the_patches_below(stack: list[Path]) -> None:
    manifests = [read_manifest(patch) for patch in stack]
    steps = [step_of(manifest) for manifest in manifests]
    assert [len(manifest.earlier) for manifest in manifests] == [0, 1, 2]
    assert list(manifests[2].earlier) == steps[:2]
    for before, after in pairwise(steps):
        assert before.result_sha256 == after.base_sha256
    assert all(step.made and step.tensors == sum(step.where.values()) for step in steps)
    assert set(steps[0].where) == {"vision_tower", "multi_modal_projector"}


def test_write_patch_knows_the_lineage_of_a_written_checkpoint(
    base: Path, stack: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    apply_patch(stack[:2], base, tmp_path / "state")
    vlm = VLM.load(tmp_path / "state")
    train(vlm, 2)
    written = write_patch(vlm, tmp_path / "state", tmp_path / "third")
    assert patch_id(written) == patch_id(read_manifest(stack[2]))
    assert written.earlier == read_manifest(stack[2]).earlier
    # Weights that were changed otherwise are not what the lineage says.
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "state", other)
    vlm.model.save_pretrained(other, max_shard_size="60KB")
    train(vlm, 0)
    caplog.clear()
    assert write_patch(vlm, other, tmp_path / "fourth").earlier == ()
    assert "counts as a checkpoint without patches" in caplog.text


@pytest.mark.parametrize("order", [o for o in permutations(range(3)) if o != (0, 1, 2)])
def test_a_wrong_order_is_refused_with_the_right_one(
    base: Path, stack: list[Path], tmp_path: Path, order: tuple[int, ...]
) -> None:
    given = [stack[number] for number in order]
    with pytest.raises(PatchError, match="fits the state after") as caught:
        apply_patch(given, base, tmp_path / "out")
    right = " ".join(map(str, stack))
    assert f"Type: unsee apply {right} --model {base} --out DIR" in str(caught.value)
    vlm = VLM.load(base)
    before = vlm.hash()
    with pytest.raises(PatchError, match="fits the state after"):
        apply_in_memory(given, vlm)
    assert vlm.hash() == before
    assert not list(tmp_path.iterdir())


def test_a_missing_patch_is_named(base: Path, stack: list[Path], tmp_path: Path) -> None:
    missing = patch_id(read_manifest(stack[1]))[:12]
    with pytest.raises(PatchError, match="neither given nor on the model") as caught:
        apply_patch([stack[0], stack[2]], base, tmp_path / "out")
    text = str(caught.value)
    assert f"patch {stack[2]} fits the state after the patch {missing} (vkd" in text
    assert f"unsee apply {stack[0]} PATCH-{missing} {stack[2]} --model" in text
    with pytest.raises(PatchError, match=f"PATCH-{missing}"):
        apply_patch([stack[2], stack[0]], base, tmp_path / "out")


def test_a_patch_twice_is_refused(base: Path, stack: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(stack[0], copy)
    with pytest.raises(PatchError, match=f"given twice: {stack[0]} is the same patch") as caught:
        apply_patch([stack[0], copy], base, tmp_path / "out")
    assert f"Type: unsee apply {stack[0]} --model" in str(caught.value)
    apply_patch(stack[:2], base, tmp_path / "state")
    for patch in stack[:2]:
        with pytest.raises(PatchError, match=f"patch {patch} is on .*state already"):
            apply_patch([patch, stack[2]], tmp_path / "state", tmp_path / "out")


def test_patches_of_one_state_cannot_be_stacked(
    base: Path, stack: list[Path], tmp_path: Path
) -> None:
    vlm = VLM.load(base)
    train(vlm, 5)
    write_patch(vlm, base, tmp_path / "sibling")
    with pytest.raises(PatchError, match="of one state cannot be stacked") as caught:
        apply_patch([stack[0], tmp_path / "sibling"], base, tmp_path / "out")
    assert f"was made from {base} itself" in str(caught.value)
    with pytest.raises(PatchError, match=f"made from the state after {stack[0]}"):
        apply_patch([stack[0], stack[1], _second(base, stack, tmp_path)], base, tmp_path / "out")


def _second(base: Path, stack: list[Path], folder: Path) -> Path:
    """Another patch for the state after the first."""
    vlm = VLM.load(base)
    apply_in_memory(stack[0], vlm)
    train(vlm, 7)
    write_patch(vlm, base, folder / "second", patches=stack[:1])
    return folder / "second"


def test_a_patch_of_another_base_is_refused(base: Path, stack: list[Path], tmp_path: Path) -> None:
    other = tiny.make("llava_next", tmp_path / "other")
    vlm = VLM.load(other)
    train(vlm, 1)
    write_patch(vlm, other, tmp_path / "foreign")
    with pytest.raises(PatchError, match="is for another base than") as caught:
        apply_patch([*stack, tmp_path / "foreign"], base, tmp_path / "out")
    assert f"{base} after {stack[2]}" in str(caught.value)


@pytest.mark.parametrize("renamed", [False, True])
def test_a_stack_fits_a_base_that_was_saved_again(
    base: Path, stack: list[Path], trained: str, tmp_path: Path, renamed: bool
) -> None:
    again = tmp_path / "again"
    vlm = VLM.load(base)
    if renamed:
        vlm.model.save_pretrained(again, save_original_format=False)
    else:
        vlm.model.save_pretrained(again)
    vlm.processor.save_pretrained(again)
    apply_patch(stack, again, tmp_path / "out")
    assert VLM.load(tmp_path / "out").hash() == trained


@pytest.mark.parametrize("split", [0, 1, 2])
def test_undo_gives_the_checkpoint_before_byte_for_byte(
    base: Path, stack: list[Path], tmp_path: Path, split: int
) -> None:
    """From the base or from a state with patches, every file is as it was."""
    start = base
    if split:
        start = tmp_path / "start"
        apply_patch(stack[:split], base, start)
    before = everything(start)
    apply_patch(stack[split:], start, tmp_path / "out", inverse=tmp_path / "inverse")
    assert everything(tmp_path / "out") != before
    undo_patch(tmp_path / "inverse", tmp_path / "out", tmp_path / "undone")
    assert everything(tmp_path / "undone") == before
    # The same from the base and the shorter stack.
    if split:
        apply_patch(stack[:split], base, tmp_path / "shorter")
        assert everything(tmp_path / "shorter") == before


def test_undo_refuses_what_does_not_fit(base: Path, stack: list[Path], tmp_path: Path) -> None:
    apply_patch(stack, base, tmp_path / "out", inverse=tmp_path / "inverse")
    with pytest.raises(PatchError, match="is no inverse"):
        undo_patch(stack[0], tmp_path / "out", tmp_path / "undone")
    with pytest.raises(PatchError, match="Type: unsee undo"):
        apply_patch(tmp_path / "inverse", tmp_path / "out", tmp_path / "undone")
    with pytest.raises(PatchError, match="on .*base are none"):
        undo_patch(tmp_path / "inverse", base, tmp_path / "undone")
    (tmp_path / "inverse" / "files" / "README.md").write_text("another")
    with pytest.raises(PatchError, match="files/README.md is missing or was altered"):
        undo_patch(tmp_path / "inverse", tmp_path / "out", tmp_path / "undone")
    for inverse in (tmp_path / "new", tmp_path / "new" / "in", tmp_path):
        with pytest.raises(PatchError, match="one folder, or one in the other"):
            apply_patch(stack, base, tmp_path / "new", inverse=inverse)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inverse", "out"]


def test_history_prints_the_patches_in_order(base: Path, stack: list[Path], tmp_path: Path) -> None:
    ids = [patch_id(read_manifest(patch)) for patch in stack]
    apply_patch(stack[:2], base, tmp_path / "out")
    text = unsee("history", tmp_path / "out")
    assert [line[:15] for line in text.splitlines() if line[0].isdigit()] == [
        f"{number}. {identity[:12]}" for number, identity in enumerate(ids[:2], 1)
    ]
    assert f"base: {read_manifest(stack[0]).base_sha256}\n" in text
    assert "weights: as the patches made them" in text
    read = unsee("history", *reversed(stack), "--json")
    assert [step["id"] for step in read["steps"]] == ids
    assert read["folders"] == dict(zip(ids, map(str, stack), strict=True))
    assert [s["id"] for s in unsee("history", stack[2], "--json")["steps"]] == ids
    assert "no patch" in unsee("history", base)
    weights = next((tmp_path / "out").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"1")
    changed = [f.name for f in (tmp_path / "out").glob("*.safetensors")]
    for name in changed:
        path = tmp_path / "out" / name
        path.write_bytes(path.read_bytes()[:-1] + b"1")
    assert "weights: CHANGED since" in unsee("history", tmp_path / "out")


def test_history_refuses_patches_of_two_stacks(
    base: Path, stack: list[Path], tmp_path: Path
) -> None:
    second = _second(base, stack, tmp_path)
    for sources, words in (
        ([stack[1], second], "are no single stack"),
        ([stack[0], base], "is no visual patch"),
        ([tmp_path / "absent"], "no such folder"),
    ):
        assert words in unsee("history", *sources, code=2)


def test_the_command_line_applies_refuses_and_undoes(
    base: Path, stack: list[Path], tmp_path: Path
) -> None:
    out, inverse, undone = tmp_path / "out", tmp_path / "inverse", tmp_path / "undone"
    errors = unsee("apply", *reversed(stack), "--model", base, "--out", out, code=2)
    right = f"unsee apply {' '.join(map(str, stack))} --model {base}"
    assert right in errors.replace("\n", " ")
    assert not out.exists()
    said = unsee("apply", *stack, "--model", base, "--out", out, "--inverse", inverse)
    assert "3 patches" in said
    assert "3 patches taken back" in unsee("undo", inverse, "--model", out, "--out", undone)
    assert everything(undone) == everything(base)


def test_a_damaged_lineage_is_refused(base: Path, stack: list[Path], tmp_path: Path) -> None:
    apply_patch(stack[:1], base, tmp_path / "out")
    path = tmp_path / "out" / LINEAGE
    raw = json.loads(path.read_text())
    for damaged in ("[", "[]", {**raw, "format": 9}, {**raw, "steps": [{}]}, {**raw, "tensors": 1}):
        path.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
        with pytest.raises(PatchError, match="unsee_lineage.json is damaged"):
            read_lineage(tmp_path / "out")


def test_lineages_name_no_path_and_no_command(
    base: Path, stack: list[Path], tmp_path: Path
) -> None:
    apply_patch(stack, base, tmp_path / "out")
    text = (tmp_path / "out" / LINEAGE).read_text()
    assert str(tmp_path) not in text
    assert str(base) not in text
    assert "command" not in text
