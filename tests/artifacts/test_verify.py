"""Verify and the guarantees: they see every difference, and claim only what was checked."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unsee.artifacts.guarantees import guarantees, probe_inputs, snapshot, text_probes
from unsee.artifacts.patch import apply_patch, write_patch
from unsee.artifacts.verify import Verification, verify
from unsee.errors import ModelError
from unsee.models.vlm import VLM


def add(vlm: VLM, name: str, value: float) -> None:
    """Adds a constant to one parameter."""
    with torch.no_grad():
        vlm.parameters("all")[name].add_(value)


PROJECTOR = "model.multi_modal_projector.linear_2.bias"
ENCODER = "model.vision_tower.encoder.layers.0.mlp.fc1.bias"
LANGUAGE = "model.language_model.layers.0.mlp.up_proj.weight"


def outside_visual(verification: Verification) -> tuple[str, ...]:
    """Names of differing, missing or added tensors that are not visual."""
    visual = {"encoder", "projector"}
    named = [d.name for d in verification.differing if d.part not in visual]
    return (*named, *verification.missing, *verification.added)


def test_verify_finds_no_difference_between_shardings(tiny_folder: Path, tmp_path: Path) -> None:
    vlm = VLM.load(tiny_folder)
    vlm.save(tmp_path / "single")
    vlm.model.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    vlm.processor.save_pretrained(tmp_path / "sharded")
    found = verify(tmp_path / "single", tmp_path / "sharded", probes=20)
    assert found.identical
    assert found.text_identical is True
    assert found.text_probes == 20
    assert found.language_identical
    assert found.language_sha256[0] == found.language_sha256[1] == vlm.hash("language")
    assert found.compared == len(list(vlm.model.named_parameters()))


def test_verify_names_visual_changes(tiny_folder: Path, tmp_path: Path) -> None:
    vlm = VLM.load(tiny_folder)
    add(vlm, PROJECTOR, 0.5)
    add(vlm, ENCODER, -0.25)
    vlm.save(tmp_path / "after")
    found = verify(tiny_folder, tmp_path / "after")
    assert [(d.name, d.part) for d in found.differing] == [
        (PROJECTOR, "projector"),
        (ENCODER, "encoder"),
    ]
    before = VLM.load(tiny_folder).parameters("visual")[PROJECTOR].detach()
    difference = found.differing[0]
    assert difference.shape == tuple(before.shape)
    assert difference.max_abs == pytest.approx(0.5)
    if float(before.norm()):
        wanted = 0.5 * before.numel() ** 0.5 / float(before.norm())
        assert difference.relative_norm == pytest.approx(wanted)
    else:
        assert difference.relative_norm is None
    assert outside_visual(found) == ()
    assert found.language_identical
    assert found.text_identical is True
    assert not found.identical
    json.dumps(asdict(found), allow_nan=False)


def test_verify_detects_a_language_change(tiny_folder: Path, tmp_path: Path) -> None:
    vlm = VLM.load(tiny_folder)
    add(vlm, LANGUAGE, 1e-3)
    vlm.save(tmp_path / "after")
    found = verify(tiny_folder, tmp_path / "after")
    assert outside_visual(found) == (LANGUAGE,)
    assert not found.language_identical
    assert found.text_identical is False
    assert found.text_differing > 0


def test_unmet_names_each_requirement_that_does_not_hold(tiny_folder: Path, tmp_path: Path) -> None:
    visual, language = VLM.load(tiny_folder), VLM.load(tiny_folder)
    visual.save(tmp_path / "same")
    add(visual, PROJECTOR, 0.5)
    visual.save(tmp_path / "visual")
    add(language, LANGUAGE, 0.5)
    language.save(tmp_path / "language")
    before = tmp_path / "same"
    assert verify(before, before, probes=4).unmet(["all"]) == {}
    assert verify(before, tmp_path / "visual", probes=4).unmet(["all"]) == {}
    changed = verify(before, tmp_path / "language", probes=4)
    assert changed.unmet([]) == {}
    assert set(changed.unmet(["all"])) == {"text", "language", "visual"}
    assert "of 4 texts differ" in changed.unmet(["text"])["text"]
    unread = verify(before, tmp_path / "language", probes=0)
    assert "not compared" in unread.unmet(["text"])["text"]
    (tmp_path / "visual" / "notes.json").write_text("{}")
    assert set(verify(before, tmp_path / "visual", probes=0).unmet(["files", "visual"])) == {
        "files"
    }


def test_verify_without_probes_claims_nothing_about_text(tiny_folder: Path) -> None:
    found = verify(tiny_folder, tiny_folder, probes=0)
    assert found.text_identical is None
    assert found.text_probes == 0
    assert found.identical


def test_verify_names_missing_added_and_reshaped_tensors(tiny_folder: Path, tmp_path: Path) -> None:
    after = tmp_path / "after"
    shutil.copytree(tiny_folder, after)
    tensors = load_file(after / "model.safetensors")
    gone = "multi_modal_projector.linear_1.bias"
    cut = "multi_modal_projector.linear_2.bias"
    tensors.pop(gone)
    tensors[cut] = tensors[cut].half()
    tensors["extra.weight"] = torch.zeros(2)
    save_file(tensors, after / "model.safetensors", metadata={"format": "pt"})
    found = verify(tiny_folder, after, probes=0)
    assert found.missing == (f"model.{gone}",)
    assert found.added == ("extra.weight",)
    assert [d.name for d in found.differing] == [f"model.{cut}"]
    assert found.differing[0].max_abs is None
    assert found.differing[0].detail is not None
    assert "float32" in found.differing[0].detail
    assert "became float16" in found.differing[0].detail


def test_verify_names_differing_files(tiny_folder: Path, tmp_path: Path) -> None:
    after = tmp_path / "after"
    shutil.copytree(tiny_folder, after)
    config = json.loads((after / "config.json").read_text("utf-8"))
    # Reordered and reindented is not different; another value is.
    (after / "generation_config.json").write_text(
        json.dumps(json.loads((after / "generation_config.json").read_text("utf-8")))
    )
    config["vision_feature_select_strategy"] = "full"
    config["vision_config"]["num_hidden_layers"] = 1
    config["transformers_version"] = "5.0.0"
    (after / "config.json").write_text(json.dumps(config))
    (after / "extra.txt").write_text("new")
    (after / "tokenizer_config.json").unlink()
    found = {f.name: (f.change, f.detail) for f in verify(tiny_folder, after, probes=0).files}
    assert found == {
        "config.json": (
            "changed",
            "vision_config.num_hidden_layers, vision_feature_select_strategy",
        ),
        "extra.txt": ("added", None),
        "tokenizer_config.json": ("missing", None),
    }


def test_verify_refuses_another_family(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "after")
    (tmp_path / "after" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="no family takes checkpoints of type 'bert'"):
        verify(tiny_folder, tmp_path / "after")


def test_probe_inputs_are_a_fixed_set_without_placeholders(tiny_folder: Path) -> None:
    vlm = VLM.load(tiny_folder)
    batches = [ids.tolist() for ids in probe_inputs(vlm, 40)]
    assert batches == [ids.tolist() for ids in probe_inputs(VLM.load(tiny_folder), 40)]
    rows = [row for batch in batches for row in batch]
    assert len(rows) == 40
    assert all(rows)
    image = vlm.processor.tokenizer.convert_tokens_to_ids(vlm.processor.image_token)
    assert not any(image in row for row in rows)
    seeded = {token for row in rows[16:] for token in row}
    assert not seeded & set(vlm.processor.tokenizer.all_special_ids)
    assert len(set(text_probes(vlm, 40))) > 20
    torch.manual_seed(5)
    assert text_probes(vlm, 40) == text_probes(vlm, 40)


def test_text_probes_leave_the_model_unchanged(tiny_folder: Path) -> None:
    vlm = VLM.load(tiny_folder)
    vlm.model.train()
    state = torch.get_rng_state()
    before = vlm.hash()
    text_probes(vlm, 8)
    assert vlm.model.training
    assert vlm.hash() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_guarantees_of_visual_training(tiny_folder: Path, tmp_path: Path) -> None:
    vlm = VLM.load(tiny_folder)
    before = snapshot(vlm)
    add(vlm, PROJECTOR, 0.5)
    add(vlm, ENCODER, 0.5)
    write_patch(vlm, tiny_folder, tmp_path / "patch")
    held = guarantees(before, vlm, tmp_path / "patch")
    assert held.text_identical is True
    assert held.text_next_token_same == 1
    assert held.text_probes == 64
    assert held.language_part_sha256_unchanged is True
    assert held.language_part_sha256 == vlm.hash("language")
    assert held.changed_tensors == 2
    assert held.total_tensors == len(list(vlm.model.named_parameters()))
    assert held.changed_outside_visual == 0
    assert held.patch_bytes == sum(p.stat().st_size for p in (tmp_path / "patch").iterdir())
    assert held.reason is None


def test_guarantees_of_language_training(tiny_folder: Path) -> None:
    vlm = VLM.load(tiny_folder)
    before = snapshot(vlm, probes=16)
    add(vlm, LANGUAGE, 1e-3)
    held = guarantees(before, vlm)
    assert held.text_identical is False
    # The smallest change of a weight changes logits, but not the most probable token.
    assert held.text_next_token_same == 1
    add(vlm, LANGUAGE, 10.0)
    share = guarantees(before, vlm).text_next_token_same
    assert share is not None and 0 <= share < 1
    assert held.language_part_sha256_unchanged is False
    assert (held.changed_tensors, held.changed_outside_visual) == (1, 1)
    assert held.patch_bytes is None


def test_guarantees_without_the_language_part_claim_nothing_of_it(
    tiny_folder: Path, tmp_path: Path
) -> None:
    vlm = VLM.load(tiny_folder, visual_only=True)
    before = snapshot(vlm)
    add(vlm, PROJECTOR, 0.5)
    held = guarantees(before, vlm)
    assert held.text_identical is None
    assert held.language_part_sha256_unchanged is None
    assert held.language_part_sha256 is None
    assert held.text_probes == 0
    assert held.changed_tensors == 1
    assert held.total_tensors == len(list(VLM.load(tiny_folder).model.named_parameters()))
    assert held.reason is not None
    assert "unsee verify" in held.reason
    with pytest.raises(ModelError, match="was not loaded"):
        text_probes(vlm)
    # What the reason promises: once applied, verify checks it.
    write_patch(vlm, tiny_folder, tmp_path / "patch")
    apply_patch(tmp_path / "patch", tiny_folder, tmp_path / "out")
    found = verify(tiny_folder, tmp_path / "out")
    assert found.language_identical
    assert found.text_identical is True
    assert [d.name for d in found.differing] == [PROJECTOR]
