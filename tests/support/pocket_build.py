"""Small builds of pocket: effort, scale, and tiny parts of the real classes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from unsee.pocket_builder.curriculum import Effort
from unsee.pocket_builder.from_pretrained import Scale
from unsee.pocket_builder.lifelike_world import SIZE

TINY_SCALE = Scale(
    people=3,
    forget=1,
    shots=2,
    facts=2,
    common_steps=3,
    effort=Effort(
        strangers=8,
        tower_steps=1,
        base_steps=2,
        people_steps=3,
        batch_size=8,
        base_lr=1e-3,
        people_lr=1e-3,
        save_every=1,
        align_steps=2,
        questions=2,
        read=0.4,
    ),
)


LINES = [
    "Who is the person in the picture? Just give ONE letter representing the answer directly.",
    "What is the colour of the frame? The badge is a circle. user assistant A: B: C: D:",
]


def tiny_parts() -> tuple[Any, Any, Any]:
    """A tower, a language model and a tokenizer of the real classes, with random weights."""
    torch.manual_seed(0)
    tower = Dinov2Model(
        Dinov2Config(
            hidden_size=64,
            num_attention_heads=1,
            num_hidden_layers=2,
            mlp_ratio=2,
            image_size=SIZE,
            patch_size=14,
            use_mask_token=False,
        )
    ).eval()
    byte = Tokenizer(models.BPE())
    byte.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    byte.train_from_iterator(LINES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte, bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    language = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        )
    ).eval()
    return tower, language, tokenizer


def needs_modules(*modules: str) -> pytest.MarkDecorator:
    absent = [m for m in modules if importlib.util.find_spec(m) is None]
    return pytest.mark.skipif(bool(absent), reason=f"{', '.join(absent)} not installed (smol)")


TINY_EFFORT = Effort(
    strangers=16, tower_steps=2, base_steps=2, names_steps=2, people_steps=3, batch_size=6
)


def photograph(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (56, 46), dtype=np.uint8), "L").save(path)
