"""`unsee apply` and `unsee verify`, with a checkpoint that ships with the package."""

from __future__ import annotations

from pathlib import Path

from support.cli import SHORT, unsee


def test_apply_and_verify_take_a_shipped_checkpoint_by_name(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    unsee("unlearn", "--model", "pocket:base", "--forget", photos, "--out", out, *SHORT)
    unsee("apply", out / "patch", "--model", "pocket:base", "--out", tmp_path / "applied")
    verification = unsee("verify", "pocket:base", tmp_path / "applied", "--probes", 0, "--json")
    assert verification["language_identical"] is True
    assert verification["text_identical"] is None
    assert verification["differing"]
    errors = unsee("verify", "pocket:other", tmp_path / "applied", code=2)
    assert "Allowed: base, retain_only, target, visual_retain" in errors
