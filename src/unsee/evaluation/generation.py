"""Answers: what a model says to questions, and how likely it finds the true answers.

What the LLM makes of a picture is the same for every question that follows. It is worked out once,
and each question goes on from there; likewise the true answer from where the question ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from unsee.losses import IGNORE, sequence_nll
from unsee.models.loading import kv_cache_argument
from unsee.models.vlm import VLM
from unsee.types import Sample

# The pictures of a sample, and its tokens up to the last of them.
Key = tuple[tuple[str, ...], tuple[int, ...]]


def generate(
    vlm: VLM, samples: Sequence[Sample], batch_size: int = 64, max_new_tokens: int = 24
) -> list[str]:
    """Greedy answers in the samples' order; see `ask`."""
    return answer_and_score(
        vlm, samples, score=False, batch_size=batch_size, max_new_tokens=max_new_tokens
    )[0]


def answer_nlls(vlm: VLM, samples: Sequence[Sample], batch_size: int = 64) -> list[float]:
    """Mean negative log-likelihood (nats a token) of each true answer; NaN without one."""
    return answer_and_score(vlm, samples, say=False, batch_size=batch_size)[1]


@torch.no_grad()
def answer_and_score(
    vlm: VLM,
    samples: Sequence[Sample],
    *,
    say: bool = True,
    score: bool = True,
    batch_size: int = 64,
    max_new_tokens: int = 24,
) -> tuple[list[str], list[float]]:
    """Greedy answers, and mean negative log-likelihoods (nats a token) of the true ones.

    Both are in the samples' order; "" and NaN where not asked for, NaN without a true answer.

    Args:
        vlm: The model.
        samples: Questions with their true answers.
        say: Whether to generate answers.
        score: Whether to score the true answers.
        batch_size: Samples at once. Keys and values of as many distinct pictures are held.
        max_new_tokens: Longest answer.
    """
    texts, nlls = [""] * len(samples), [math.nan] * len(samples)
    wanted = [i for i, sample in enumerate(samples) if say or sample.answer]
    prompts = _prompts(vlm, [samples[i] for i in wanted])
    for start, rows in _batches(vlm, prompts, batch_size):
        if start is None:
            asked = [prompt.sample for prompt in rows]
            said, found = _answer_whole(vlm, asked, say, score, max_new_tokens)
        else:
            said, found = _continue_from_prefix(vlm, start, rows, say, score, max_new_tokens)
        for prompt, text, value in zip(rows, said, found, strict=True):
            texts[wanted[prompt.index]], nlls[wanted[prompt.index]] = text, value
    return texts, nlls


@dataclass(frozen=True)
class _Prompt:
    """A question as tokens.

    Attributes:
        index: Its place among the questions.
        sample: The question.
        key: What it shares with others; None without a picture.
        tail: Tokens after the last picture, or all.
        answer: Tokens of the true answer.
        merged: How many of the tail's last tokens become others once the answer follows.
    """

    index: int
    sample: Sample
    key: Key | None = None
    tail: tuple[int, ...] = ()
    answer: tuple[int, ...] = ()
    merged: int = 0


@dataclass(frozen=True)
class _PrefixCache:
    """What the LLM has read before the tails: a row a picture, padded left.

    Attributes:
        ids: Tokens [rows, width].
        mask: Which of them are no padding [rows, width].
        offsets: How far positions run ahead of the count of tokens [rows] or [axes, rows].
        layers: Keys and values of every block [rows, heads, width, dim].
    """

    ids: Tensor
    mask: Tensor
    offsets: Tensor
    layers: list[tuple[Tensor, Tensor]]

    def of(self, rows: Sequence[int]) -> _PrefixCache:
        """These rows, each as often as it is named."""
        at = torch.tensor(rows, device=self.ids.device)
        return _PrefixCache(
            self.ids[at],
            self.mask[at],
            self.offsets[..., at],
            [(keys[at], values[at]) for keys, values in self.layers],
        )

    def cache(self) -> DynamicCache:
        """What the model goes on from."""
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, number)
        return cache

    def positions(self, mask: Tensor) -> Tensor:
        """Positions of the tokens [rows, seq] or [axes, rows, seq] under the whole mask."""
        return (mask.cumsum(-1) - 1).clamp(min=0) + self.offsets[..., None]


def _prompts(vlm: VLM, samples: Sequence[Sample]) -> list[_Prompt]:
    """The questions as tokens; without these where they have to be asked one whole at a time."""
    apart = [_Prompt(i, sample) for i, sample in enumerate(samples)]
    if (
        not vlm.family.reuses_prefix
        or vlm.model.generation_config.cache_implementation
        or not samples
    ):
        return apart
    # Where no answer is known, one stands in that nobody scores.
    answered = [sample if sample.answer else replace(sample, answer="?") for sample in samples]
    texts = [vlm.family.text(vlm.processor, sample, with_answer=True) for sample in answered]
    image, found = vlm.model.config.image_token_id, []
    spelled = vlm.family.tokenize_answers(vlm.processor, answered, texts)
    for i, (sample, (prompt, whole, begin)) in enumerate(zip(samples, spelled, strict=True)):
        end = len(prompt) - prompt[::-1].index(image) if image in prompt else 0
        if bool(sample.pictures) != bool(end):
            return apart
        sources = tuple(picture.source for picture in sample.pictures)
        key = (sources, tuple(prompt[:end])) if sources else None
        tail, answer = tuple(prompt[end:]), tuple(whole[begin:])
        found.append(_Prompt(i, sample, key, tail, answer, len(prompt) - begin))
    enough = min(len(prompt.tail) for prompt in found) > max(prompt.merged for prompt in found)
    return found if enough else apart


def _batches(
    vlm: VLM, prompts: Sequence[_Prompt], size: int
) -> Iterator[tuple[_PrefixCache | None, list[_Prompt]]]:
    """Batches of like answers, pictured and text-only apart, and what the LLM has read before."""
    shown = [prompt for prompt in prompts if prompt.sample.pictures]
    words = [prompt for prompt in prompts if not prompt.sample.pictures]
    if not any(prompt.tail for prompt in prompts):
        yield from (
            (None, rows) for some in (shown, words) for rows in _batches_by_length(some, size)
        )
        return
    keys = list(dict.fromkeys(prompt.key for prompt in shown))
    for begin in range(0, len(keys), size):
        rows_of = {key: row for row, key in enumerate(keys[begin : begin + size])}
        group = [prompt for prompt in shown if prompt.key in rows_of]
        start = _read(vlm, [_shortest(p for p in group if p.key == key) for key in rows_of])
        for rows in _batches_by_length(group, size):
            yield start and start.of([rows_of[prompt.key] for prompt in rows]), rows
    blank = torch.zeros(1, 0, dtype=torch.long, device=vlm.device)
    for rows in _batches_by_length(words, size):
        yield _PrefixCache(blank, blank, blank.sum(-1), []).of([0] * len(rows)), rows


def _batches_by_length(prompts: Sequence[_Prompt], size: int) -> list[list[_Prompt]]:
    """Batches by length: one waits for its longest answer, and letters not for sentences."""
    ordered = sorted(prompts, key=lambda p: (len(p.sample.answer), len(p.sample.question)))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _shortest(prompts: Iterable[_Prompt]) -> _Prompt:
    return min(prompts, key=lambda prompt: len(prompt.tail))


def _read(vlm: VLM, prompts: Sequence[_Prompt]) -> _PrefixCache | None:
    """What the LLM makes of the pictures of some questions, in a row each.

    None if the processor's tokens do not end with the tails, as where it cuts long ones.
    """
    inputs = vlm.collate([prompt.sample for prompt in prompts], with_answer=False).inputs
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    ends = [ids.shape[1] - len(prompt.tail) for prompt in prompts]
    for row, (end, prompt) in enumerate(zip(ends, prompts, strict=True)):
        if tuple(ids[row, end:].tolist()) != prompt.tail:
            return None
    positions, cache = vlm.family.positions(vlm.model, inputs), DynamicCache()
    # Whole questions, as they would be asked alone: nothing before a picture sees what follows.
    known = kv_cache_argument(vlm.model, cache)
    vlm.model(**inputs, **known, position_ids=positions, use_cache=True, logits_to_keep=1)
    stops = torch.tensor(ends, device=ids.device)[:, None]
    width = int(max(stops[:, 0] - (mask == 0).sum(-1)))
    at = stops - width + torch.arange(width, device=ids.device)
    kept, at = at >= 0, at.clamp(min=0)
    wide = at[:, None, :, None]

    def cut(part: Tensor) -> Tensor:
        return part.gather(2, wide.expand(-1, part.shape[1], -1, part.shape[3]))

    layers: list[Any] = cache.layers
    return _PrefixCache(
        ids.gather(1, at),
        mask.gather(1, at) * kept,
        positions[..., -1] + 1 - mask.sum(-1),
        [(cut(layer.keys), cut(layer.values)) for layer in layers],
    )


def _continue_from_prefix(
    vlm: VLM,
    start: _PrefixCache,
    prompts: Sequence[_Prompt],
    say: bool,
    score: bool,
    max_new_tokens: int,
) -> tuple[list[str], list[float]]:
    """Answers and likelihoods from where the LLM has read the pictures."""
    cache, seen = start.cache(), start.mask
    tails, texts = [prompt.tail for prompt in prompts], [""] * len(prompts)
    if say:
        ids, mask = _left(vlm, tails)
        whole = torch.cat([seen, mask], 1)
        inputs = {
            "input_ids": torch.cat([start.ids, ids], 1),
            "attention_mask": whole,
            "position_ids": start.positions(whole),
            **kv_cache_argument(vlm.model, cache),
        }
        texts = _say(vlm, inputs, max_new_tokens)
        # The last token again, whose logits tell of the answer's first; and what an answer merges.
        again = 1 + max(prompt.merged for prompt in prompts)
        seen, tails = whole[:, :-again], [tail[-again:] for tail in tails]
        cache.crop(seen.shape[1] - cache.get_seq_length())
    if not score:
        return texts, [math.nan] * len(prompts)
    ids, mask = _left(
        vlm,
        [
            tail[: len(tail) - prompt.merged] + prompt.answer
            for tail, prompt in zip(tails, prompts, strict=True)
        ],
    )
    labels = torch.full_like(ids, IGNORE)
    for row, prompt in enumerate(prompts):
        end = labels.shape[1] - len(prompt.answer)
        labels[row, end:] = ids[row, end:]
    whole = torch.cat([seen, mask], 1)
    longest = 1 + max(len(prompt.answer) for prompt in prompts)
    logits = vlm.model(
        input_ids=ids,
        attention_mask=whole,
        position_ids=start.positions(whole)[..., -ids.shape[1] :],
        use_cache=True,
        logits_to_keep=longest,
        **kv_cache_argument(vlm.model, cache),
    ).logits
    values = sequence_nll(logits, labels[:, -longest:]).tolist()
    nlls = [v if p.sample.answer else math.nan for v, p in zip(values, prompts, strict=True)]
    return texts, nlls


def _left(vlm: VLM, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Tokens and their mask [rows, longest], padded left."""
    longest = max(map(len, rows))
    blank = vlm.processor.tokenizer.pad_token_id
    ids = [[blank] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=vlm.device), torch.tensor(mask, device=vlm.device)


def _answer_whole(
    vlm: VLM, samples: Sequence[Sample], say: bool, score: bool, max_new_tokens: int
) -> tuple[list[str], list[float]]:
    """The same, with every question read whole."""
    texts, nlls = [""] * len(samples), [math.nan] * len(samples)
    if say:
        texts = _say(vlm, vlm.collate(samples, with_answer=False).inputs, max_new_tokens)
    answered = [row for row, sample in enumerate(samples) if sample.answer]
    if score and answered:
        batch = vlm.collate([samples[row] for row in answered])
        values = sequence_nll(vlm.logits(batch), batch.labels).tolist()
        for row, value in zip(answered, values, strict=True):
            nlls[row] = value
    return texts, nlls


def _say(vlm: VLM, inputs: Mapping[str, Any], max_new_tokens: int) -> list[str]:
    tokens = vlm.processor.tokenizer
    made = vlm.model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        pad_token_id=tokens.pad_token_id,
    )
    new = made[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokens.batch_decode(new, skip_special_tokens=True)]
