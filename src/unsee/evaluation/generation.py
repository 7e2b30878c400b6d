"""Greedy answers to questions, and likelihoods of the true answers.

The LLM's keys and values up to the last picture of a question are computed once and reused for all
questions about the same picture; likewise those of the question for its true answer.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList

from unsee.losses import IGNORE, sequence_nll
from unsee.metrics import Fault
from unsee.models.loading import kv_cache_argument
from unsee.models.vlm import VLM
from unsee.types import AnswerLimit, Sample

# Shortest limit of a generated answer where none is given, in tokens.
MIN_NEW_TOKENS = 24

# The sources of a sample's pictures, and its tokens up to the last of them.
PrefixKey = tuple[tuple[str, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Answer:
    """A model's answer to one question.

    Attributes:
        text: The greedy answer; "" if none was generated.
        nll: Mean negative log-likelihood of the true answer in nats per token; NaN without a true
            answer, if it was not computed, or if the model's logits are not finite.
        fault: What is wrong with the generated answer; see `unsee.metrics.Output`.
        tokens: Number of tokens of the true answer, over which `nll` is the mean; 0 if that was not
            computed.
    """

    text: str = ""
    nll: float = math.nan
    fault: Fault | None = None
    tokens: int = 0


def answer_limit(vlm: VLM, samples: Sequence[Sample]) -> int:
    """Returns the limit of generated answers that leaves room for every true answer, in tokens.

    It is the length of the longest true answer with its end, and at least `MIN_NEW_TOKENS`.

    Args:
        vlm: The model, whose tokenizer counts.
        samples: Questions with their true answers.
    """
    # No token is shorter than a byte, so short answers need not be tokenized.
    answers = {sample.answer for sample in samples}
    long = [text for text in answers if len(text.encode("utf-8", "replace")) >= MIN_NEW_TOKENS]
    tokenizer = vlm.processor.tokenizer
    lengths = [len(tokenizer(text, add_special_tokens=False).input_ids) for text in long]
    return max([MIN_NEW_TOKENS, *(length + 1 for length in lengths)])


def generate(
    vlm: VLM,
    samples: Sequence[Sample],
    batch_size: int = 64,
    max_new_tokens: AnswerLimit | None = None,
) -> list[str]:
    """Returns greedy answers in the order of the samples.

    Args:
        vlm: The model.
        samples: The questions.
        batch_size: Number of samples that are generated at once.
        max_new_tokens: Maximum length of an answer, in tokens, or that by task; by default that of
            `answer_limit`.
    """
    return answer_and_score(
        vlm, samples, score_answers=False, batch_size=batch_size, max_new_tokens=max_new_tokens
    )[0]


def answer_nlls(vlm: VLM, samples: Sequence[Sample], batch_size: int = 64) -> list[float]:
    """Returns the mean negative log-likelihood of each true answer, in nats per token.

    Args:
        vlm: The model.
        samples: Questions with their true answers; NaN is returned for one without.
        batch_size: Number of samples that are scored at once.
    """
    return answer_and_score(vlm, samples, generate_answers=False, batch_size=batch_size)[1]


def answer_and_score(
    vlm: VLM,
    samples: Sequence[Sample],
    *,
    generate_answers: bool = True,
    score_answers: bool = True,
    batch_size: int = 64,
    max_new_tokens: AnswerLimit | None = None,
) -> tuple[list[str], list[float]]:
    """Generates greedy answers and scores the true ones, sharing what both compute.

    Args:
        vlm: The model.
        samples: Questions with their true answers.
        generate_answers: Whether to generate answers.
        score_answers: Whether to score the true answers.
        batch_size: Number of samples at once. The keys and values of as many distinct pictures are
            held in memory.
        max_new_tokens: Maximum length of a generated answer, in tokens, or that by task; by default
            that of `answer_limit`.

    Returns:
        The generated answers, "" if none were generated; and the mean negative log-likelihoods of
        the true answers in nats per token, NaN for a sample without a true answer or if none were
        scored. Both in the order of the samples.

    Example:
        >>> texts, nlls = answer_and_score(vlm, data.forget[:2], max_new_tokens=4)
        >>> len(texts), all(nll > 0 for nll in nlls)
        (2, True)
    """
    found = answers(
        vlm,
        samples,
        generate_answers=generate_answers,
        score_answers=score_answers,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
    return [answer.text for answer in found], [answer.nll for answer in found]


@torch.no_grad()
def answers(
    vlm: VLM,
    samples: Sequence[Sample],
    *,
    generate_answers: bool = True,
    score_answers: bool = True,
    batch_size: int = 64,
    max_new_tokens: AnswerLimit | None = None,
) -> list[Answer]:
    """Returns the answers of `answer_and_score`, each with what is wrong with it.

    Args:
        vlm: The model.
        samples: Questions with their true answers.
        generate_answers: Whether to generate answers.
        score_answers: Whether to score the true answers.
        batch_size: Number of samples at once.
        max_new_tokens: Maximum length of a generated answer, in tokens, or that by task; by default
            that of `answer_limit`.
    """
    found = [Answer()] * len(samples)
    if isinstance(max_new_tokens, Mapping):
        # Answers with the same limit are generated together: the others need not wait for them.
        longest = max(max_new_tokens.values())
        limits = [max_new_tokens.get(sample.task, longest) for sample in samples]
        for limit in dict.fromkeys(limits):
            rows = [row for row, other in enumerate(limits) if other == limit]
            some = answers(
                vlm,
                [samples[row] for row in rows],
                generate_answers=generate_answers,
                score_answers=score_answers,
                batch_size=batch_size,
                max_new_tokens=limit,
            )
            for row, answer in zip(rows, some, strict=True):
                found[row] = answer
        return found
    used = [i for i, sample in enumerate(samples) if generate_answers or sample.answer]
    prompts = _prompts(vlm, [samples[i] for i in used])
    if max_new_tokens is None:
        max_new_tokens = answer_limit(vlm, samples) if generate_answers else MIN_NEW_TOKENS
    task = _Task(generate_answers, score_answers, max_new_tokens)
    for prefix, batch in _batches(vlm, prompts, batch_size):
        if prefix is None:
            results = _run_whole(vlm, [prompt.sample for prompt in batch], task)
        else:
            results = _run_from_prefix(vlm, prefix, batch, task)
        for prompt, (text, fault), (nll, tokens) in zip(batch, *results, strict=True):
            if math.isnan(nll) and score_answers and prompt.sample.answer:
                fault = "non_finite"
            found[used[prompt.index]] = Answer(text, nll, fault, tokens)
    return found


# A generated answer and what is wrong with it.
_Generated = tuple[str, Fault | None]

# Mean negative log-likelihood of the true answer, and the number of its tokens.
_Likelihood = tuple[float, int]
_NOT_SCORED: _Likelihood = (math.nan, 0)


@dataclass(frozen=True)
class _Task:
    """The outputs to compute for a batch; see `answer_and_score`."""

    generate: bool
    score: bool
    max_new_tokens: int


@dataclass(frozen=True)
class _Prompt:
    """A question as tokens.

    Attributes:
        index: Position among the questions.
        sample: The question.
        key: Identifies the prefix that it shares with other questions; None without a picture.
        tail: Tokens after the last picture; all tokens without a picture; empty if the question
            must be processed whole.
        answer: Tokens of the true answer.
        merged: Number of the tail's last tokens that change if the answer follows, because the
            tokenizer merges characters across the boundary.
    """

    index: int
    sample: Sample
    key: PrefixKey | None = None
    tail: tuple[int, ...] = ()
    answer: tuple[int, ...] = ()
    merged: int = 0


@dataclass(frozen=True)
class _PrefixCache:
    """Keys and values of the tokens before the tails: one row per picture, padded left.

    Attributes:
        ids: Token ids [rows, width].
        mask: 1 for tokens, 0 for padding [rows, width].
        offsets: Position id minus token count, after the prefix [rows] or [axes, rows].
        layers: Keys and values of every decoder layer [rows, heads, width, dim].
    """

    ids: Tensor
    mask: Tensor
    offsets: Tensor
    layers: list[tuple[Tensor, Tensor]]

    def select(self, rows: Sequence[int]) -> _PrefixCache:
        """Returns a cache of these rows; a row may occur more than once."""
        index = torch.tensor(rows, device=self.ids.device)
        return _PrefixCache(
            self.ids[index],
            self.mask[index],
            self.offsets[..., index],
            [(keys[index], values[index]) for keys, values in self.layers],
        )

    def to_transformers(self) -> DynamicCache:
        """Returns the keys and values as a cache that the model can extend."""
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, number)
        return cache

    def positions(self, mask: Tensor) -> Tensor:
        """Returns position ids [rows, seq] or [axes, rows, seq] for a mask of prefix and tail."""
        return (mask.cumsum(-1) - 1).clamp(min=0) + self.offsets[..., None]


def _prompts(vlm: VLM, samples: Sequence[Sample]) -> list[_Prompt]:
    """Returns the questions as tokens; with empty tails if they must be processed whole.

    That is the case if the family's cache cannot be reused, or the prefix cannot be separated.
    """
    whole_prompts = [_Prompt(i, sample) for i, sample in enumerate(samples)]
    if (
        not vlm.family.reuses_prefix
        or vlm.model.generation_config.cache_implementation
        or not samples
    ):
        return whole_prompts
    # A placeholder replaces a missing answer; its likelihood is discarded.
    answered = [sample if sample.answer else replace(sample, answer="?") for sample in samples]
    texts = [vlm.family.text(vlm.processor, sample, with_answer=True) for sample in answered]
    image, prompts = vlm.model.config.image_token_id, []
    spelled = vlm.family.tokenize_answers(vlm.processor, answered, texts)
    for i, (sample, (prompt, whole, begin)) in enumerate(zip(samples, spelled, strict=True)):
        end = len(prompt) - prompt[::-1].index(image) if image in prompt else 0
        if bool(sample.pictures) != bool(end):
            return whole_prompts
        sources = tuple(picture.source for picture in sample.pictures)
        key = (sources, tuple(prompt[:end])) if sources else None
        tail, answer = tuple(prompt[end:]), tuple(whole[begin:])
        prompts.append(_Prompt(i, sample, key, tail, answer, len(prompt) - begin))
    # The last token of every tail is processed again, so it must not change with the answer.
    separable = min(len(p.tail) for p in prompts) > max(p.merged for p in prompts)
    return prompts if separable else whole_prompts


def _batches(
    vlm: VLM, prompts: Sequence[_Prompt], size: int
) -> Iterator[tuple[_PrefixCache | None, list[_Prompt]]]:
    """Yields batches of answers of similar length, each with the prefix to continue from.

    Questions with and without pictures are in different batches. The prefix is None if the batch
    must be processed whole.
    """
    visual = [prompt for prompt in prompts if prompt.sample.pictures]
    textual = [prompt for prompt in prompts if not prompt.sample.pictures]
    if not any(prompt.tail for prompt in prompts):
        yield from (
            (None, batch)
            for group in (visual, textual)
            for batch in _batches_by_length(group, size)
        )
        return
    keys = list(dict.fromkeys(prompt.key for prompt in visual))
    for start in range(0, len(keys), size):
        rows = {key: row for row, key in enumerate(keys[start : start + size])}
        group = [prompt for prompt in visual if prompt.key in rows]
        prefix = _compute_prefix(vlm, [_shortest(p for p in group if p.key == key) for key in rows])
        for batch in _batches_by_length(group, size):
            yield prefix and prefix.select([rows[prompt.key] for prompt in batch]), batch
    empty = torch.zeros(1, 0, dtype=torch.long, device=vlm.device)
    for batch in _batches_by_length(textual, size):
        yield _PrefixCache(empty, empty, empty.sum(-1), []).select([0] * len(batch)), batch


def _batches_by_length(prompts: Sequence[_Prompt], size: int) -> list[list[_Prompt]]:
    """Returns batches of similar answer length, since a batch takes as long as its longest one."""
    ordered = sorted(prompts, key=lambda p: (len(p.sample.answer), len(p.sample.question)))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _shortest(prompts: Iterable[_Prompt]) -> _Prompt:
    return min(prompts, key=lambda prompt: len(prompt.tail))


def _compute_prefix(vlm: VLM, prompts: Sequence[_Prompt]) -> _PrefixCache | None:
    """Computes the keys and values up to the last picture, one row per question.

    Returns None if the processor's tokens do not end with the tails, such as after truncation.
    """
    inputs = vlm.collate([prompt.sample for prompt in prompts], with_answer=False).inputs
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    ends = [ids.shape[1] - len(prompt.tail) for prompt in prompts]
    for row, (end, prompt) in enumerate(zip(ends, prompts, strict=True)):
        if tuple(ids[row, end:].tolist()) != prompt.tail:
            return None
    positions, cache = vlm.family.positions(vlm.model, inputs), DynamicCache()
    # Whole questions are processed: no token up to the last picture attends to a later one.
    cache_argument = kv_cache_argument(vlm.model, cache)
    vlm.model(**inputs, **cache_argument, position_ids=positions, use_cache=True, logits_to_keep=1)
    stops = torch.tensor(ends, device=ids.device)[:, None]
    width = int(max(stops[:, 0] - (mask == 0).sum(-1)))
    columns = stops - width + torch.arange(width, device=ids.device)
    inside, columns = columns >= 0, columns.clamp(min=0)
    index = columns[:, None, :, None]

    def select_columns(states: Tensor) -> Tensor:
        return states.gather(2, index.expand(-1, states.shape[1], -1, states.shape[3]))

    layers: list[Any] = cache.layers
    return _PrefixCache(
        ids.gather(1, columns),
        mask.gather(1, columns) * inside,
        positions[..., -1] + 1 - mask.sum(-1),
        [(select_columns(layer.keys), select_columns(layer.values)) for layer in layers],
    )


def _run_from_prefix(
    vlm: VLM, prefix: _PrefixCache, prompts: Sequence[_Prompt], task: _Task
) -> tuple[list[_Generated], list[_Likelihood]]:
    """Returns answers and likelihoods, continuing from the keys and values of the prefix."""
    cache, mask = prefix.to_transformers(), prefix.mask
    tails = [prompt.tail for prompt in prompts]
    texts: list[_Generated] = [("", None)] * len(prompts)
    if task.generate:
        tail_ids, tail_mask = _pad_left(vlm, tails)
        mask = torch.cat([mask, tail_mask], 1)
        inputs = {
            "input_ids": torch.cat([prefix.ids, tail_ids], 1),
            "attention_mask": mask,
            "position_ids": prefix.positions(mask),
            **kv_cache_argument(vlm.model, cache),
        }
        texts = _generate(vlm, inputs, task.max_new_tokens)
        # The tail's last token is processed again, since its logits predict the answer's first
        # token; so are the tokens that merge with the answer.
        repeated = 1 + max(prompt.merged for prompt in prompts)
        mask, tails = mask[:, :-repeated], [tail[-repeated:] for tail in tails]
        cache.crop(mask.shape[1] - cache.get_seq_length())
    if not task.score:
        return texts, [_NOT_SCORED] * len(prompts)
    ids, ids_mask = _pad_left(
        vlm,
        [
            tail[: len(tail) - prompt.merged] + prompt.answer
            for tail, prompt in zip(tails, prompts, strict=True)
        ],
    )
    labels = torch.full_like(ids, IGNORE)
    for row, prompt in enumerate(prompts):
        start = labels.shape[1] - len(prompt.answer)
        labels[row, start:] = ids[row, start:]
    mask = torch.cat([mask, ids_mask], 1)
    longest = 1 + max(len(prompt.answer) for prompt in prompts)
    logits = vlm.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=prefix.positions(mask)[..., -ids.shape[1] :],
        use_cache=True,
        logits_to_keep=longest,
        **kv_cache_argument(vlm.model, cache),
    ).logits
    nlls = sequence_nll(logits, labels[:, -longest:]).tolist()
    return texts, [
        (nll, len(prompt.answer)) if prompt.sample.answer else _NOT_SCORED
        for nll, prompt in zip(nlls, prompts, strict=True)
    ]


def _run_whole(
    vlm: VLM, samples: Sequence[Sample], task: _Task
) -> tuple[list[_Generated], list[_Likelihood]]:
    """Returns answers and likelihoods, processing every question whole."""
    texts: list[_Generated] = [("", None)] * len(samples)
    likelihoods = [_NOT_SCORED] * len(samples)
    if task.generate:
        inputs = vlm.family.model_inputs(vlm.model, vlm.collate(samples, with_answer=False).inputs)
        texts = _generate(vlm, inputs, task.max_new_tokens)
    answered = [row for row, sample in enumerate(samples) if sample.answer]
    if task.score and answered:
        batch = vlm.collate([samples[row] for row in answered])
        values = sequence_nll(vlm.logits(batch), batch.labels).tolist()
        counts = (batch.labels != IGNORE).sum(-1).tolist()
        for row, value, count in zip(answered, values, counts, strict=True):
            likelihoods[row] = (value, count)
    return texts, likelihoods


def _pad_left(vlm: VLM, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Returns token ids and their mask [rows, longest], padded left."""
    longest = max(map(len, rows))
    padding = vlm.processor.tokenizer.pad_token_id
    ids = [[padding] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=vlm.device), torch.tensor(mask, device=vlm.device)


class _FiniteCheck(LogitsProcessor):
    """Notes which rows have logits without a finite largest value; changes none of them."""

    def __init__(self, rows: int, width: int, ends: Tensor) -> None:
        """Keeps the number of rows, the length of their prompts, and the tokens that end them."""
        self.rows, self.width, self.ends = rows, width, ends
        self.broken = torch.zeros(rows, dtype=torch.bool, device=ends.device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Returns the scores as they are."""
        ended = torch.isin(input_ids[:, self.width :], self.ends).any(-1)
        # Single logits of minus infinity forbid a token; the largest propagates NaN.
        self.broken |= ~scores.amax(-1).isfinite() & ~ended
        return scores


def _generate(vlm: VLM, inputs: Mapping[str, Any], max_new_tokens: int) -> list[_Generated]:
    """Returns the greedy answers with their faults."""
    tokenizer = vlm.processor.tokenizer
    end_ids = vlm.end_token_ids
    # A checkpoint that names no end token is not expected to write one.
    names_ends = vlm.model.generation_config.eos_token_id is not None
    # Where an encoder reads the question, the decoder writes nothing before the answer but a start.
    width = 1 if vlm.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    ends = torch.tensor(end_ids, dtype=torch.long, device=vlm.device)
    check = _FiniteCheck(len(inputs["input_ids"]), width, ends)
    settings = copy.deepcopy(vlm.model.generation_config)
    # Some models (BLIP) hand on pad and end tokens of their own beside those that are given.
    # Options beside the settings are deprecated, with a warning to every user.
    settings.update(
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=end_ids,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
    )
    generated = vlm.model.generate(
        **inputs,
        generation_config=settings,
        logits_processor=LogitsProcessorList([check]),
    )
    new = generated[:, width:]
    ended = torch.isin(new, ends).any(-1).tolist()
    texts = [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    rows: list[_Generated] = []
    for text, broken, whole in zip(texts, check.broken.tolist(), ended, strict=True):
        fault: Fault | None = None
        if broken:
            fault = "non_finite"
        elif not text:
            fault = "empty"
        elif names_ends and not whole and new.shape[1] >= max_new_tokens:
            fault = "cut"
        rows.append((text, fault))
    return rows
