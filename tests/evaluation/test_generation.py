"""Likelihoods and answers of batches."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers.utils.logging import warning_once

from unsee.evaluation.generation import answer_nlls, generate
from unsee.losses import nll
from unsee.models.vlm import VLM
from unsee.types import Data


def test_answer_nlls_of_a_batch_equal_those_of_single_samples(tiny: VLM, data: Data) -> None:
    samples = [*data.forget[:5], *data.retain]
    batched = answer_nlls(tiny, samples, batch_size=32)
    for sample, value in zip(samples, batched, strict=True):
        batch = tiny.collate([sample])
        with torch.no_grad():
            assert value == pytest.approx(float(nll(tiny.logits(batch), batch.labels)), rel=1e-4)


def test_generate_returns_answers_in_the_order_of_the_samples(tiny: VLM, data: Data) -> None:
    samples = [*data.forget[:4], *data.retain]
    forward = generate(tiny, samples, batch_size=3, max_new_tokens=5)
    backward = generate(tiny, samples[::-1], batch_size=3, max_new_tokens=5)
    assert forward == backward[::-1]


def test_generate_is_not_deprecated(
    tiny: VLM, data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    """The library warns, once in a process, of options that it will not take one day."""
    warning_once.cache_clear()
    logger = logging.getLogger("transformers.generation.utils")
    logger.addHandler(caplog.handler)
    try:
        generate(tiny, data.forget[:2], max_new_tokens=2)
    finally:
        logger.removeHandler(caplog.handler)
    assert "deprecated" not in caplog.text
