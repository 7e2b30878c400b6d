"""The experiment on a real image encoder, with a tiny one of random weights in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers as hf
from experiments.quality import encoder

from support.faces import draw_faces
from support.tiny import vision
from unsee.attacks.relearn import attacker_settings
from unsee.families import family_of
from unsee.models.processors import EncoderProcessor
from unsee.models.vlm import VLM

SIDE = 28


def tiny_encoder() -> VLM:
    images = hf.BitImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    model = hf.Dinov2Model(vision(hf.Dinov2Config, mlp_ratio=2)).eval()
    return VLM(model, EncoderProcessor(images), family_of("dinov2"), Path("tiny"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Drawn faces of eight people; the experiment's budgets are cut down."""
    for person in range(8):
        for number in range(4):
            draw_faces(tmp_path / "faces" / f"p{person}" / f"{number}.png", first=person)
    values = {
        "SIDE": SIDE, "FORGET": 1, "KEEP": 2, "KNOWN": 2, "TRAINED": ("encoder.1", "projector"),
        "ADAPTED": attacker_settings(1, 1e-3, 4, 0), "ATTACK": attacker_settings(1, 1e-3, 4, 1),
        "UNLEARNED": {"steps": 1, "batch_size": 2}, "load_encoder": tiny_encoder,
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setattr(encoder, name, value)
    return tmp_path / "faces"


def test_row_has_every_tower_and_side(small: Path) -> None:
    row = encoder.run_seed(small, "test", 0, encoder.UNLEARNED)
    json.dumps(row)
    for name in ("base", *encoder.MODELS):
        assert set(row[name]) == set(encoder.SIDES)
        assert all(0 <= value <= 1 for value in row[name].values())
    table = encoder.section([row, {**row, "people": "development"}])
    assert "| as installed |" in table
    assert "1 seed;" in table
    assert "With `steps=1`, `batch_size=2`:" in table


def test_targets_at_strength_0_are_the_embeddings(small: Path, tmp_path: Path) -> None:
    row = encoder.measure_targets(small, "test", 0, tmp_path / "towers")
    json.dumps(row)
    tower = VLM.load(tmp_path / "towers" / "test-0" / "target")
    known, held = encoder.make_views(small, "test", 0, tmp_path / "views")
    assert row["targets"]["kept"]["0.0"] == encoder.measure(tower, known, held)
    # Another run with the same seed loads the towers.
    again = encoder.measure_targets(small, "test", 0, tmp_path / "towers")
    assert again["targets"] == row["targets"]
    table = encoder.target_section([row])
    assert "| kept | 1 |" in table
    assert "Of test people, seed 0." in table


def test_halves_and_sides_share_nobody(small: Path, tmp_path: Path) -> None:
    named = {}
    for people in ("development", "test"):
        known, held = encoder.make_views(small, people, 0, tmp_path / people)
        for side in encoder.SIDES:
            own = {s.concept for s in known[side]}
            assert own == {s.concept for s in held[side]}
            named[people, side] = own
        photographs = [
            {(s.concept, Path(s.id).name[0]) for some in views.values() for s in some}
            for views in (known, held)
        ]
        assert not photographs[0] & photographs[1]
    everyone = [name for some in named.values() for name in some]
    assert len(everyone) == len(set(everyone)) == 8
