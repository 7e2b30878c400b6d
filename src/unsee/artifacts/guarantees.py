"""Guarantees about an unlearned model: hashes and text probes, before and after training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int

from unsee.artifacts.manifest import patch_bytes
from unsee.errors import ModelError
from unsee.files import combine_digests
from unsee.models.checkpoint import hash_tensors, tensor_digest
from unsee.records.schema import Guarantees
from unsee.types import Batch, Sample

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM


PROBES = 64


LENGTH = 16


SENTENCES = (
    "What is the capital of France?",
    "Water boils at one hundred degrees.",
    "Name three animals that can fly.",
    "Who are you?",
    "The quick brown fox jumps over the lazy dog.",
    "Write a short letter to a friend about the weather.",
    "2 + 2 =",
    "Yes or no: is the sky blue?",
)


@dataclass(frozen=True)
class Snapshot:
    """Hashes of a model before training; see `guarantees`.

    Attributes:
        digests: SHA-256 of every loaded parameter.
        language_sha256: Hash of the language part; None if it was never loaded.
        text: SHA-256 of the logits of every text probe; empty if the language part was not loaded.
        next_tokens: Most probable next token at every position of the text probes, in one row.
    """

    digests: Mapping[str, str]
    language_sha256: str | None
    text: tuple[str, ...]
    next_tokens: Int[Tensor, " positions"]


def snapshot(vlm: VLM, probes: int = PROBES) -> Snapshot:
    """Returns the hashes of a model before training, for `guarantees` afterwards."""
    digests = _parameter_digests(vlm)
    if vlm.visual_only:
        return Snapshot(digests, None, (), torch.empty(0, dtype=torch.long))
    return Snapshot(digests, _language_hash(vlm, digests), *_read_probes(vlm, probes))


def guarantees(before: Snapshot, vlm: VLM, patch: Path | None = None) -> Guarantees:
    """Compares a trained model with its snapshot before training.

    Args:
        before: From `snapshot` of the same model object before training.
        vlm: The model now.
        patch: The folder of its visual patch, if one was written.
    """
    now = _parameter_digests(vlm)
    changed = [name for name in now if now[name] != before.digests.get(name)]
    visual = vlm.parameters("visual")
    size = patch_bytes(patch) if patch is not None else None
    total = sum(1 for _ in vlm.model.named_parameters())
    outside = sum(name not in visual for name in changed)
    if vlm.visual_only or before.language_sha256 is None:
        return Guarantees(
            text_identical=None,
            text_probes=0,
            language_part_sha256_unchanged=None,
            language_part_sha256=None,
            changed_tensors=len(changed),
            total_tensors=total,
            changed_outside_visual=outside,
            patch_bytes=size,
            reason="the language part was never loaded, so it could not change and was not read; "
            "`unsee verify` compares it in full once the patch is applied",
        )
    if not vlm.parameters("language"):
        return Guarantees(
            changed_tensors=len(changed),
            total_tensors=total,
            changed_outside_visual=outside,
            patch_bytes=size,
            text_probes=0,
            reason="an image encoder without a text tower reads no text",
        )
    language = _language_hash(vlm, now)
    text, next_tokens = _read_probes(vlm, len(before.text))
    same = next_tokens == before.next_tokens
    return Guarantees(
        text_identical=text == before.text if text else None,
        text_next_token_same=float(same.double().mean()) if len(same) else None,
        text_probes=len(text),
        language_part_sha256_unchanged=language == before.language_sha256,
        language_part_sha256=language,
        changed_tensors=len(changed),
        total_tensors=total,
        changed_outside_visual=outside,
        patch_bytes=size,
        reason=None if text else _without_probes(vlm),
    )


def _without_probes(vlm: VLM) -> str:
    """Why there was no text probe."""
    if vlm.family.takes_text_alone(vlm.processor):
        return "no text probe was asked for"
    return (
        "this type reads no text without a picture, so its outputs on text alone cannot be "
        "compared; the hash of its language part says whether a tensor of it changed"
    )


def text_probes(vlm: VLM, probes: int = PROBES) -> tuple[str, ...]:
    """SHA-256 of the model's logits on each of a fixed set of text-only inputs.

    The set depends on the tokenizer and `probes` alone: up to a quarter each are sentences and
    the same sentences as chat prompts; the others are seeded sequences of the vocabulary. Of an
    image encoder's text tower the embeddings of the sentences are hashed; without one there are
    none, as there are none of a type that reads no text without a picture.

    Raises:
        ModelError: If the language part was never loaded.
    """
    if vlm.visual_only:
        raise ModelError("text probes need the language part, which was not loaded.")
    return _read_probes(vlm, probes)[0]


def _read_probes(vlm: VLM, probes: int) -> tuple[tuple[str, ...], Int[Tensor, " positions"]]:
    """Returns `text_probes`, and the most probable next token at every position of them."""
    nothing = torch.empty(0, dtype=torch.long)
    if not vlm.family.answers_questions:
        embedded = vlm.embed_text(SENTENCES[:probes])
        rows = () if embedded is None else embedded
        return tuple(tensor_digest(row) for row in rows), nothing
    if not vlm.family.takes_text_alone(vlm.processor):
        return (), nothing
    digests: list[str] = []
    next_tokens: list[Tensor] = [nothing]
    training = vlm.model.training
    vlm.model.eval()
    try:
        with torch.no_grad():
            for ids in probe_inputs(vlm, probes):
                ids = ids.to(vlm.device)
                inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                logits = vlm.logits(Batch(inputs, ids))
                # The tokens belong to the probe: another tokenizer is another behaviour.
                digests += [
                    hash_tensors({"ids": row, "logits": out})
                    for row, out in zip(ids, logits, strict=True)
                ]
                next_tokens.append(logits.argmax(-1).flatten().cpu())
    finally:
        vlm.model.train(training)
    return tuple(digests), torch.cat(next_tokens)


def probe_inputs(vlm: VLM, probes: int = PROBES) -> Iterator[Tensor]:
    """The text probes as batches of token ids [rows, tokens], `probes` rows in all."""
    tokenizer = vlm.processor.tokenizer
    spoken = min(len(SENTENCES), probes // 4)
    for sentence in SENTENCES[:spoken]:
        chat = vlm.family.text(vlm.processor, Sample("probe", sentence, ""), with_answer=False)
        yield torch.tensor([tokenizer(sentence)["input_ids"] or [_vocabulary(tokenizer)[0]]])
        yield torch.tensor([tokenizer(chat)["input_ids"]])
    left = probes - 2 * spoken
    vocabulary = torch.tensor(_vocabulary(tokenizer))
    generator = torch.Generator().manual_seed(0)
    while left > 0:
        rows = min(left, 16)
        draw = torch.randint(len(vocabulary), (rows, LENGTH), generator=generator)
        yield vocabulary[draw]
        left -= rows


def _parameter_digests(vlm: VLM) -> dict[str, str]:
    return {
        name: tensor_digest(parameter)
        for name, parameter in vlm.parameters("all").items()
        if not parameter.is_meta
    }


def _language_hash(vlm: VLM, digests: Mapping[str, str]) -> str:
    """Returns `vlm.hash("language")`, computed from digests of its tensors."""
    return combine_digests({name: digests[name] for name in vlm.parameters("language")})


def _vocabulary(tokenizer: Any) -> list[int]:
    """Ids of ordinary tokens; added tokens include the placeholders of pictures."""
    added = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return [i for i in sorted(tokenizer.get_vocab().values()) if i not in added] or [0]
