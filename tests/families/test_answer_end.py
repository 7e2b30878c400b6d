"""Answers end in the model's own end token, whatever its chat template writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from support.tiny import RECIPES, make, template
from unsee.errors import ModelError
from unsee.evaluation.generation import generate
from unsee.families import ANSWER_ENDS, family_of
from unsee.losses import IGNORE
from unsee.models.vlm import VLM
from unsee.types import Sample

SAMPLE = Sample("a", "Who is it?", "Ada Berg")


@pytest.fixture
def llava(tmp_path: Path) -> VLM:
    """LLaVA 1.5 with the published template, which writes no end token."""
    return VLM.load(make("llava", tmp_path / "llava"))


def labels(vlm: VLM, sample: Sample = SAMPLE) -> list[str]:
    """The tokens of a sample's labels."""
    row = vlm.collate([sample]).labels[0]
    return list(vlm.processor.tokenizer.convert_ids_to_tokens(row[row != IGNORE].tolist()))


def sentencepiece() -> Any:
    """A tokenizer as Llama's: a space is part of the next word, and alone it is a token."""
    words = ["USER:", "Who", "is", "it?", "ASSISTANT:", "Ada", "Berg", "Bo"]
    listed = ["<unk>", "<s>", "</s>", "<image>", "<pad>", "▁", "\n"]
    listed += [f"▁{word}" for word in words] + sorted({letter for w in words for letter in w})
    vocabulary = [(piece, 0.0 if piece.startswith("▁") else -9.0) for piece in listed]
    core = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        pad_token="<pad>", extra_special_tokens=["<image>"],
    )  # fmt: skip


def test_labels_of_llava_end_in_eos_and_not_in_a_space(llava: VLM) -> None:
    llava.processor.tokenizer = sentencepiece()
    assert labels(llava) == ["▁Ada", "▁Berg", "</s>"]


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("qwen2_5_vl", "<|im_end|>"),
        ("idefics3", "<end_of_utterance>"),
        ("gemma3", "<end_of_turn>"),
        ("internvl", "<|im_end|>"),
        ("paligemma", "<eos>"),
    ],
)
def test_labels_end_in_the_end_token_of_the_template_once(name: str, end: str) -> None:
    model, processor = RECIPES[name]()
    vlm = VLM(model, processor, family_of(model.config.model_type), Path())
    tokens = labels(vlm)
    assert tokens[-1] == end
    assert set(tokens[:-1]).isdisjoint(processor.tokenizer.all_special_tokens)


@pytest.mark.parametrize(
    ("ending", "expected"),
    [("", "</s>"), (" ", "</s>"), ("</s>", "</s>"), ("</s>\\n", "</s>"), (" ### ", " ###</s>")],
)
def test_text_adds_the_eos_token_only_where_the_template_writes_none(
    llava: VLM, ending: str, expected: str
) -> None:
    llava.processor.chat_template = template("<image>", end=ending).replace(
        f"'{ending}\\n'", f"'{ending}'"
    )
    text = llava.family.text(llava.processor, SAMPLE, with_answer=True)
    assert text.endswith(f"Ada Berg{expected}")
    asked = llava.family.text(llava.processor, SAMPLE, with_answer=False)
    assert "</s>" not in asked.removeprefix("user\nWho is it?</s>")


def test_text_ends_after_the_prefill_and_not_in_the_end_token(llava: VLM) -> None:
    begun = Sample("a", "Who?", "it is", prefill="s")
    text = llava.family.text(llava.processor, begun, with_answer=False)
    assert text == "USER: Who? ASSISTANT: s"


def test_answer_end_refuses_a_tokenizer_without_eos_token(llava: VLM) -> None:
    llava.processor.tokenizer.eos_token = None
    ANSWER_ENDS.pop(llava.processor, None)
    with pytest.raises(ModelError, match="no end token after an answer.*eos_token"):
        llava.family.answer_end(llava.processor)


def test_answer_end_refuses_a_template_without_answers(llava: VLM) -> None:
    llava.processor.chat_template = "{{ 'hello' }}"
    with pytest.raises(ModelError, match="writes no answer of the assistant"):
        llava.family.answer_end(llava.processor)


class AlwaysEnds(nn.Module):
    """A head that always predicts one token."""

    def __init__(self, head: nn.Module, token: int) -> None:
        super().__init__()
        self.head, self.token = head, token

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits whose largest is the token's."""
        logits: torch.Tensor = self.head(hidden)
        logits[..., self.token] = 1e4
        return logits


@pytest.mark.parametrize("configured", [None, 5, [5]])
def test_generate_stops_at_the_end_token_that_is_trained(llava: VLM, configured: Any) -> None:
    """Also if generation_config.json names another token, or none."""
    llava.model.generation_config.eos_token_id = configured
    end = llava.processor.tokenizer.eos_token_id
    assert end in llava.end_token_ids
    lengths: list[int] = []
    llava.model.lm_head = AlwaysEnds(llava.model.lm_head, end)
    llava.model.lm_head.register_forward_hook(lambda *_: lengths.append(1))
    assert generate(llava, [SAMPLE], max_new_tokens=9) == [""]
    assert len(lengths) <= 2
