"""PaliGemma: a prefix with bidirectional attention, then the answer; no chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from unsee.errors import DataError
from unsee.families import FAMILIES, AnswerEnd
from unsee.families.llava import Llava
from unsee.losses import IGNORE
from unsee.types import Batch, Sample

if TYPE_CHECKING:
    from torch import Tensor


@FAMILIES.register("paligemma", source="Beyer et al., arXiv 2407.07726")
class PaliGemma(Llava):
    """PaliGemma 1 and 2 (`PaliGemmaForConditionalGeneration`): SigLIP, one linear layer, Gemma."""

    model_types: ClassVar[tuple[str, ...]] = ("paligemma",)
    uses_chat_template: ClassVar[bool] = False
    reuses_prefix: ClassVar[bool] = False

    def answer_end(self, processor: Any) -> AnswerEnd:
        """The tokenizer's eos token."""
        tokenizer = processor.tokenizer
        return AnswerEnd("", "", tokenizer.eos_token, tokenizer.eos_token_id)

    def text(self, processor: Any, sample: Sample, with_answer: bool) -> str:
        """Image tokens, start token, question, line break; then the answer and the end token."""
        tokenizer = processor.tokenizer
        images = processor.image_token * processor.image_seq_length * len(sample.pictures)
        prefix = f"{images}{tokenizer.bos_token}{sample.question}\n"
        if with_answer:
            return f"{prefix}{sample.turn}{tokenizer.eos_token}"
        return f"{prefix}{sample.prefill}"

    def collate(
        self, processor: Any, samples: Sequence[Sample], with_answer: bool, images: Sequence[Any]
    ) -> Batch:
        """See `Family.collate`; `token_type_ids` is 1 on the answer, which is tokenised alone."""
        tokenizer = processor.tokenizer

        def ids(text: str) -> list[int]:
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])

        rows: list[tuple[list[int], list[int]]] = []
        for sample in samples:
            if with_answer and not sample.answer:
                raise DataError(f"sample {sample.id}: its answer '{sample.answer}' is empty.")
            space = " " if sample.prefill else ""
            answer = ids(f"{space}{sample.answer}{tokenizer.eos_token}") if with_answer else []
            rows.append((ids(self.text(processor, sample, with_answer=False)), answer))
        length = max(len(prefix) + len(answer) for prefix, answer in rows)
        shape = (len(rows), length)
        inputs: dict[str, Tensor] = {
            "input_ids": torch.full(shape, tokenizer.pad_token_id),
            "attention_mask": torch.zeros(shape, dtype=torch.long),
            "token_type_ids": torch.zeros(shape, dtype=torch.long),
        }
        labels = torch.full(shape, IGNORE)
        for row, (prefix, answer) in enumerate(rows):
            whole = torch.tensor(prefix + answer)
            start = 0 if with_answer else length - len(whole)
            end = start + len(whole)
            inputs["input_ids"][row, start:end] = whole
            inputs["attention_mask"][row, start:end] = 1
            inputs["token_type_ids"][row, end - len(answer) : end] = 1
            labels[row, end - len(answer) : end] = whole[len(prefix) :]
        if images:
            inputs |= self.collate_pictures(processor, images)
        return Batch(
            inputs,
            labels,
            tuple(sample.id for sample in samples),
            tuple(len(sample.pictures) for sample in samples),
        )
