"""The engine: several processes, precision, checkpointing; and what is refused."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unsee.config import build_method
from unsee.engine import check
from unsee.errors import ConfigError
from unsee.methods import Trainer
from unsee.model import VLM
from unsee.train import Settings
from unsee.types import Data

SETTINGS = Settings(steps=3, batch_size=3, accumulate=2, lr=1e-3, warmup=0.0, save_every=2)


def unlearned(
    folder: Path, data: Data, name: str, settings: Settings, state: Path | None = None, **more: Any
) -> dict[str, Tensor]:
    vlm = VLM.load(folder)
    trainer = Trainer(settings, state, state / "log.jsonl" if state else None)
    build_method(name, more).unlearn(vlm, data, trainer)
    return {n: p.detach().clone() for n, p in vlm.parameters().items()}


def in_two(work: Callable[[int], None]) -> list[int | None]:
    """Exit codes of two forked processes that find each other as a launcher's do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def child(rank: int) -> None:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        torch.set_num_threads(1)
        work(rank)

    context = multiprocessing.get_context("fork")
    both = [context.Process(target=child, args=(rank,)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(200)
        process.kill()
        process.join()
    return [process.exitcode for process in both]


CASES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "vkd": ("vkd", {}),
    "relearning-aware": ("vkd", {"relearn_steps": 1, "relearn_every": 1}),
    "grad_diff": ("grad_diff", {"trains": "all"}),
}


def test_two_processes_give_what_one_gives(tiny_folder: Path, data: Data, tmp_path: Path) -> None:
    def work(rank: int) -> None:
        for case, (name, fields) in CASES.items():
            for parallel in ("ddp", "fsdp"):
                if parallel == "fsdp" and "relearn_steps" in fields:
                    continue
                settings = replace(SETTINGS, parallel=parallel)
                state = tmp_path / case / parallel
                found = unlearned(tiny_folder, data, name, settings, state, **fields)
                save_file(found, tmp_path / f"{case}-{parallel}-{rank}")

    assert in_two(work) == [0, 0]
    for case, (name, fields) in CASES.items():
        alone = unlearned(tiny_folder, data, name, SETTINGS, **fields)
        start = VLM.load(tiny_folder).parameters()
        assert any(not torch.equal(alone[n], start[n]) for n in alone)
        for parallel in ("ddp", "fsdp"):
            if (tmp_path / f"{case}-{parallel}-0").exists():
                ours, theirs = (load_file(tmp_path / f"{case}-{parallel}-{r}") for r in range(2))
                for tensor_name, value in alone.items():
                    assert torch.equal(ours[tensor_name], theirs[tensor_name])
                    assert torch.allclose(ours[tensor_name], value, atol=2e-5), (case, parallel)
