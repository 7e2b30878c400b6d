"""The processor is tried on the data before any training or scoring."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.tiny import RECIPES, make
from unsee.errors import DataError, ModelError
from unsee.models.dry_run import check_inputs
from unsee.models.vlm import VLM
from unsee.types import Data, Picture, Sample


def picture(folder: Path, width: int, height: int) -> Picture:
    """A picture file of that size."""
    path = folder / f"{width}x{height}.png"
    Image.new("RGB", (width, height), (9, 99, 200)).save(path)
    return Picture.from_path(path)


def samples(folder: Path) -> list[Sample]:
    """Pictures of two shapes, two in one question, and none."""
    one, two = picture(folder, 28, 28), picture(folder, 70, 40)
    return [
        Sample("a", "Who is it?", "Ada", one),
        Sample("b", "Which?", "the tall one", two, further=(one,)),
        Sample("c", "What does Ada do?", "She bakes."),
        Sample("d", "", "", two),
    ]


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "smolvlm"])
def test_check_inputs_takes_what_every_family_reads(name: str, tmp_path: Path) -> None:
    folder = make(name, tmp_path / name)
    for visual_only in (False, True):
        vlm = VLM.load(folder, visual_only=visual_only)
        check_inputs(vlm, samples(tmp_path))
        counted = vlm.family.count_features(
            vlm.model, vlm.collate_pictures([Image.new("RGB", (56, 28))])
        )
        assert (counted is None) == (name == "mllama")


def test_check_inputs_is_quick_and_changes_nothing(tiny: VLM, data: Data) -> None:
    before, start = tiny.hash(), time.process_time()
    check_inputs(tiny, [*data.forget, *data.retain] * 20, data.strangers)
    assert time.process_time() - start < 1
    assert tiny.hash() == before


def broken(source: Path, folder: Path, name: str, **changes: Any) -> VLM:
    """A copy of a checkpoint with other values in a JSON file; None removes one."""
    shutil.copytree(source, folder)
    content = json.loads((folder / name).read_text("utf-8"))
    content = {k: v for k, v in (content | changes).items() if v is not None}
    (folder / name).write_text(json.dumps(content), "utf-8")
    return VLM.load(folder)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("patch_size", r'cannot read a picture .*lacks "patch_size": 12'),
        ("vision_feature_select_strategy", r"writes 5 image tokens .* 4 features.*\"default\""),
        ("num_additional_image_tokens", r"writes 3 image tokens .* 4 features .*_tokens\": 1"),
    ],
)
def test_check_inputs_names_a_setting_that_the_processor_lacks(
    tiny_folder: Path, data: Data, tmp_path: Path, setting: str, reason: str
) -> None:
    vlm = broken(tiny_folder, tmp_path / "m", "processor_config.json", **{setting: None})
    with pytest.raises(ModelError, match=reason):
        check_inputs(vlm, data.forget)


def test_check_inputs_names_a_missing_pad_token(
    tiny_folder: Path, data: Data, tmp_path: Path
) -> None:
    vlm = broken(tiny_folder, tmp_path / "m", "tokenizer_config.json", pad_token=None)
    with pytest.raises(ModelError, match=r'no pad token.*"pad_token": "</s>"'):
        check_inputs(vlm, data.forget)


def test_check_inputs_names_a_picture_that_qwen_refuses(tmp_path: Path) -> None:
    vlm = VLM.load(make("qwen2_5_vl", tmp_path / "qwen"))
    thin = picture(tmp_path, 1, 300)
    many = [picture(tmp_path, 20 + i, 30) for i in range(100)]
    asked = [Sample(str(i), "Who?", "Ada", p) for i, p in enumerate([*many, thin])]
    with pytest.raises(DataError, match=r"1x300\.png \(1 x 300\).*aspect ratio.*Crop it"):
        check_inputs(vlm, asked)
    with pytest.raises(DataError, match=r"1x300\.png"):
        check_inputs(VLM.load(vlm.source, visual_only=True), [], [thin])


def test_check_inputs_names_a_question_longer_than_the_context(tiny: VLM, data: Data) -> None:
    long = Sample("row 7", "Who is this ? " * 200, "Ada", data.forget[0].picture)
    with pytest.raises(DataError, match=r"row 7 .*Ada-Berg-0.png.: .*at most 512 .*Shorten it"):
        check_inputs(tiny, [*data.forget, long])
    fits = Sample("row 8", "Who is this ? " * 80, "Ada", data.forget[0].picture)
    check_inputs(tiny, [fits])


@pytest.mark.parametrize("where", ["question", "answer"])
def test_check_inputs_names_a_text_with_a_placeholder(tiny: VLM, data: Data, where: str) -> None:
    texts = {"question": "Who?", "answer": "Ada"} | {where: "<image> or <image>?"}
    asked = Sample("row 3", picture=data.forget[0].picture, **texts)
    with pytest.raises(DataError, match=rf"row 3 .*Ada-Berg-0.png.: its {where} contains <image>"):
        check_inputs(tiny, [asked])
