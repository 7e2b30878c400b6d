"""Builds from pretrained parts: tiny parts of the same classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from support.pocket_build import TINY_SCALE, tiny_parts
from unsee.benchmarks.pocket import CHECKPOINTS, Pocket
from unsee.cli import app
from unsee.errors import ConfigError, DataError, ModelError
from unsee.losses import IGNORE
from unsee.models.vlm import VLM
from unsee.pocket_builder.from_pretrained import SCALES, build
from unsee.pocket_builder.from_scratch import BUILD, hash_files
from unsee.pocket_builder.lifelike_world import SIZE
from unsee.recipes.sources import read_samples


def test_build_makes_a_pocket_benchmark(built: Path) -> None:
    pocket = Pocket(built)
    record = json.loads((built / BUILD).read_text("utf-8"))
    assert record["sha256"] == hash_files(built)
    assert set(record["nearest_neighbour"]) == {"pixels", "tower", "chance"}
    assert record["people"] == 3
    # With two facts each, nothing else is asked.
    assert all(set(person.facts) == {"job", "city"} for person in pocket.world.people)
    asked = {sample.id.split("/")[2] for sample in pocket.load("forget")}
    assert asked == {"name", "job", "city"}
    assert record["parameters"] > 10_000
    assert not list(built.parent.glob(".*-building"))
    for split in pocket.splits:
        assert pocket.load(split), split
    assert read_samples(f"pocket:forget@{built}", "forget")
    towers = {n: VLM.load(pocket.checkpoint(n)).hash("encoder") for n in CHECKPOINTS}
    assert len(set(towers.values())) == 1
    whole = {n: VLM.load(pocket.checkpoint(n)).hash() for n in CHECKPOINTS}
    assert len(set(whole.values())) == len(CHECKPOINTS)


def test_checkpoint_of_the_build_works_as_any_model(built: Path) -> None:
    """Layers, parts, chat and labels come from the family; visual weights load alone."""
    pocket = Pocket(built)
    vlm = VLM.load(pocket.checkpoint("target"))
    assert list(vlm.family.visual_layers(vlm.model)) == ["encoder.0", "encoder.1", "projector"]
    covered = [n for part in ("visual", "language") for n in vlm.parameters(part)]
    assert sorted(covered) == sorted(n for n, _ in vlm.model.named_parameters())
    samples = pocket.load("forget")[:3]
    batch = vlm.collate(samples)
    tokens = vlm.processor.tokenizer
    for row, sample in zip(batch.labels, samples, strict=True):
        assert tokens.decode(row[row != IGNORE]) == f"{sample.answer}<|im_end|>"
    pictured = (batch.inputs["input_ids"] == vlm.model.config.image_token_index).sum(1)
    assert pictured.tolist() == [(SIZE // 14) ** 2] * 3
    visual = VLM.load(pocket.checkpoint("target"), visual_only=True)
    assert visual.hash("visual") == vlm.hash("visual")


def test_commands_accept_the_build(built: Path, tmp_path: Path) -> None:
    """A recipe validates, features are unlearned from pictures, and the patch applies."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("method: vkd\nset: {supervision: features, steps: 1}\n")
    checked = CliRunner().invoke(app, ["run", str(recipe), f"data={built}", "--dry-run"])
    assert checked.exit_code == 0, checked.output
    forgotten = Pocket(built).world.people[0].slug
    done = CliRunner().invoke(
        app,
        [
            "unlearn",
            "--model",
            str(built / "target"),
            "--forget",
            str(built / "pictures" / forgotten),
            "--strangers",
            str(built / "pictures" / "strangers"),
            "--set",
            "steps=1",
            "--set",
            "batch_size=2",
            "--out",
            str(tmp_path / "run"),
        ],
    )
    assert done.exit_code == 0, done.output
    patched = CliRunner().invoke(
        app,
        [
            "apply",
            str(tmp_path / "run" / "patch"),
            "--model",
            str(built / "target"),
            "--out",
            str(tmp_path / "model"),
        ],
    )
    assert patched.exit_code == 0, patched.output
    before, after = VLM.load(built / "target"), VLM.load(tmp_path / "model")
    assert before.hash("language") == after.hash("language")
    assert before.hash("visual") != after.hash("visual")


class Stop:
    """Ends a build in the middle of a stage, as Ctrl-C would."""

    def __init__(self, stage: str) -> None:
        self.stage, self.now = stage, ""

    def __call__(self, name: str) -> Stop:
        self.now = name
        return self

    def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        if self.now == self.stage and step == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stage", ["common", "visual_retain"])
def test_build_resumes_after_interruption_with_the_same_bits(
    stage: str, built: Path, photographs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    options: dict[str, Any] = {
        "seed": 1,
        "faces": photographs,
        "scale": TINY_SCALE,
        "device": "cpu",
    }
    with pytest.raises(KeyboardInterrupt):
        build(out, tiny_parts, **options, progress=Stop(stage))
    assert not out.exists()
    with pytest.raises(ConfigError, match="unfinished build with other options"):
        build(out, tiny_parts, **(options | {"seed": 2}))
    assert hash_files(build(out, tiny_parts, **options)) == hash_files(built)
    assert not list(tmp_path.glob(".*"))


def test_build_refuses_unusable_arguments(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="6 people are too few"):
        build(out, tiny_parts, faces=photographs, scale=replace(TINY_SCALE, people=5, forget=1))
    with pytest.raises(ConfigError, match="allowed are 2 to 40"):
        build(out, tiny_parts, faces=photographs, scale=replace(TINY_SCALE, people=3, forget=3))
    with pytest.raises(ConfigError, match="--effort huge: allowed are full"):
        build(out, tiny_parts, faces=photographs, scale="huge")
    with pytest.raises(ConfigError, match="device 'tpu' is unknown"):
        build(out, tiny_parts, faces=photographs, scale=TINY_SCALE, device="tpu")
    with pytest.raises(DataError, match="no such folder"):
        build(out, tiny_parts, faces=tmp_path / "none", scale=TINY_SCALE)
    assert not list(tmp_path.iterdir())
    (out / "x").mkdir(parents=True)
    with pytest.raises(ModelError, match="not empty"):
        build(out, tiny_parts, faces=photographs, scale=TINY_SCALE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--parts", "giant"], "--parts giant: allowed are smol, minimind"),
        (["--effort", "small"], "--effort needs --parts"),
        (["--device", "cpu"], "--device needs --parts"),
        (["--parts", "smol", "--people", "50"], "allowed are 2 to 40"),
    ],
)
def test_pocket_build_says_which_options_are_allowed(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from unsee.cli import main

    typed = ["unsee", "pocket", "build", "--out", str(tmp_path / "out"), *words]
    monkeypatch.setattr("sys.argv", typed)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_scales_have_allowed_numbers_of_people() -> None:
    for scale in SCALES.values():
        assert scale.forget < scale.people <= 40
        assert scale.strangers >= 2
