"""Tiny checkpoints of model types, from the real classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from experiments.tiny.configs import HEADS, LAYERS, WIDTH, shrink
from experiments.tiny.make import MODEL_TYPES, make
from experiments.tiny.processors import NotBuiltError
from experiments.tiny.types import TYPES
from PIL import Image
from transformers import AutoModelForImageTextToText, Qwen3VLMoeConfig
from transformers.utils.import_utils import is_torchvision_available

from unsee.models.processors import load_processor

CHAT = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who is it?"}]}]


def test_types_in_the_table_are_types_of_transformers() -> None:
    assert set(TYPES) <= set(MODEL_TYPES)


def test_shrink_keeps_the_kinds_of_layers_and_sets_sizes() -> None:
    ids = {"pad_token_id": 0, "image_token_id": 7}
    small = shrink(Qwen3VLMoeConfig, 300, {"text_config.moe_intermediate_size": 48}, ids)
    text, vision = small.text_config, small.vision_config
    assert (text.hidden_size, text.num_attention_heads, text.vocab_size) == (WIDTH, HEADS, 300)
    assert (text.num_hidden_layers, vision.depth) == (LAYERS, LAYERS)
    assert text.moe_intermediate_size == 48
    assert small.image_token_id == 7


@pytest.mark.parametrize("model_type", ["instructblip", "llava", "qwen3_5", "qwen3_vl_moe"])
def test_make_writes_a_checkpoint_whose_logits_depend_on_the_picture(
    model_type: str, tmp_path: Path
) -> None:
    make(model_type, tmp_path)
    model, told = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    processor = load_processor(tmp_path, model_type, False)
    asked = "Who is it?"
    if processor.chat_template:
        asked = processor.apply_chat_template(CHAT, add_generation_prompt=True)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(2):
        picture = Image.fromarray(rng.integers(0, 255, (60, 50, 3), dtype=np.uint8))
        inputs = processor(text=[asked], images=[picture], return_tensors="pt")
        with torch.no_grad():
            rows.append(model(**inputs).logits[0, -1])
    assert not torch.allclose(*rows, atol=1e-4)


def test_make_says_why_a_type_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match="no processor of pictures and text"):
        make("mistral4", tmp_path)


@pytest.mark.skipif(is_torchvision_available(), reason="its processor can be saved then")
def test_make_says_that_a_processor_needs_torchvision_to_be_saved(tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match="its processor needs torchvision"):
        make("ernie4_5_vl_moe", tmp_path)
